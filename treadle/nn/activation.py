"""Activations as layers."""

from __future__ import annotations

from typing import Any

from treadle.base.dtype import DType
from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor import full


def _inplace_suffix(inplace: bool) -> str:
    return ", inplace=True" if inplace else ""


class _MaybeInPlace(Module):
    """An activation without other arguments that may write to its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return "inplace=True" if self.inplace else ""


class _Softmax(Module):
    """A softmax along an axis."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"dim={self.dim}"


class _Shrink(Module):
    """A shrinkage by `lambd`."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return str(self.lambd)


class _Smooth(Module):
    """An exponential unit with a parameter `alpha`."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"alpha={self.alpha}{_inplace_suffix(self.inplace)}"


class ReLU(_MaybeInPlace):
    """`max(input, 0)`; the gradient at 0 is 0."""

    def forward(self, input: Any) -> Any:
        """The rectified input."""
        return F.relu(input, self.inplace)


class SELU(_MaybeInPlace):
    """`scale * elu(input, alpha)` with the constants that keep mean 0 and variance 1."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.selu(input, self.inplace)


class SiLU(_MaybeInPlace):
    """`input * sigmoid(input)`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.silu(input, self.inplace)


class Mish(_MaybeInPlace):
    """`input * tanh(log(1 + exp(input)))`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.mish(input, self.inplace)


class Hardswish(_MaybeInPlace):
    """`input * min(max(input + 3, 0), 6) / 6`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        """Nothing: PyTorch prints no arguments here."""
        return ""


class Hardsigmoid(Hardswish):
    """`min(max(input + 3, 0), 6) / 6`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.hardsigmoid(input, self.inplace)


class ELU(_Smooth):
    """`input` where it is positive, else `alpha * (exp(input) - 1)`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.elu(input, self.alpha, self.inplace)


class CELU(_Smooth):
    """`input` where it is positive, else `alpha * (exp(input / alpha) - 1)`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.celu(input, self.alpha, self.inplace)


class LeakyReLU(Module):
    """`input` where it is positive, else `negative_slope * input`."""

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"negative_slope={self.negative_slope}{_inplace_suffix(self.inplace)}"


class RReLU(Module):
    """Leaky ReLU with a random slope in training, and its mean in evaluation."""

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
    ) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"lower={self.lower}, upper={self.upper}{_inplace_suffix(self.inplace)}"


class PReLU(Module):
    """`input` where it is positive, else `weight * input` with a slope that is learnt.

    Args:
        num_parameters: 1, or the number of channels.
        init: the slope to start with.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None,
                 dtype: DType | None = None) -> None:  # fmt: skip
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype, device=device))

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"num_parameters={self.num_parameters}"


class Hardtanh(Module):
    """The input limited to `[min_val, max_val]`."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if max_val <= min_val:
            raise AssertionError(
                f"max_val must be larger than min_val, got {max_val} and {min_val}"
            )
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, input: Any) -> Any:
        """The limited input."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"min_val={self.min_val}, max_val={self.max_val}{_inplace_suffix(self.inplace)}"


class ReLU6(Hardtanh):
    """`min(max(input, 0), 6)`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return "inplace=True" if self.inplace else ""


class Threshold(Module):
    """The input where it is above a threshold, else a value."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"threshold={self.threshold}, value={self.value}{_inplace_suffix(self.inplace)}"


class GELU(Module):
    """`input * Phi(input)` with the normal distribution function.

    Args:
        approximate: `"none"`, or `"tanh"` for an approximation.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """`log(1 + exp(beta * input)) / beta`; the input where `beta * input > threshold`."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Sigmoid(Module):
    """`1 / (1 + exp(-input))`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.sigmoid(input)


class LogSigmoid(Module):
    """`log(sigmoid(input))`, without overflow."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.logsigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.tanh(input)


class Tanhshrink(Module):
    """`input - tanh(input)`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.tanhshrink(input)


class Softsign(Module):
    """`input / (1 + |input|)`."""

    def forward(self, input: Any) -> Any:
        """The activated input."""
        return F.softsign(input)


class Softshrink(_Shrink):
    """The input moved towards 0 by `lambd`, and 0 within `[-lambd, lambd]`."""

    def forward(self, input: Any) -> Any:
        """The shrunk input."""
        return F.softshrink(input, self.lambd)


class Hardshrink(_Shrink):
    """The input, and 0 within `[-lambd, lambd]`."""

    def forward(self, input: Any) -> Any:
        """The shrunk input."""
        return F.hardshrink(input, self.lambd)


class GLU(Module):
    """`a * sigmoid(b)` with the halves a and b of the input along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """The gated half of the input."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"dim={self.dim}"


class Softmax(_Softmax):
    """`exp(input) / sum(exp(input))` along `dim`."""

    def forward(self, input: Any) -> Any:
        """The probabilities."""
        return F.softmax(input, self.dim)


class Softmin(_Softmax):
    """`softmax(-input)` along `dim`."""

    def forward(self, input: Any) -> Any:
        """The probabilities."""
        return F.softmin(input, self.dim)


class LogSoftmax(_Softmax):
    """The logarithm of the softmax along `dim`, exact where that underflows."""

    def forward(self, input: Any) -> Any:
        """The log-probabilities."""
        return F.log_softmax(input, self.dim)


class Softmax2d(Module):
    """The softmax over the channels of images `(n, c, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The probabilities."""
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)
