"""Layers that learn the extent of their input from the first one that they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from treadle.base.dtype import DType
from treadle.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from treadle.nn.parameter import Parameter
from treadle.tensor import empty, no_grad


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known yet; an optimiser may hold it already."""

    def __new__(cls, requires_grad: bool = True, device: Any = None,
                dtype: DType | None = None) -> UninitializedParameter:  # fmt: skip
        """A parameter without a shape."""
        self: Any = super().__new__(cls, empty(0, dtype=dtype, device=device), requires_grad)
        return self

    def materialize(self, shape: Sequence[int]) -> None:
        """Gives the parameter a shape, and makes it a `Parameter` like any other."""
        with no_grad():
            self.data = empty(*shape, dtype=self.dtype)
        self.__class__ = Parameter  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<UninitializedParameter>"

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        out = type(self)(self.requires_grad, dtype=self.dtype)
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, None, self.dtype)


class _Lazy(Module):
    """A layer that becomes one of another class when it first sees an input."""

    becomes: ClassVar[type[Module]]

    def _open(self, names: Sequence[str], device: Any, dtype: DType | None) -> None:
        for name in names:
            if getattr(self, name) is not None:
                setattr(self, name, UninitializedParameter(device=device, dtype=dtype))

    def _learn(self, extent: int) -> None:
        """Fixes the extent, the shapes of the parameters and their initial values."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it learns its extent")

    def has_uninitialized_params(self) -> bool:
        """Whether the layer has not seen an input yet."""
        return any(isinstance(p, UninitializedParameter) for p in self._parameters.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Learns from the input, then is the layer that it became."""
        self._learn(self._extent_of(args[0]))
        self.__class__ = self.becomes  # type: ignore[assignment]
        return self(*args, **kwargs)

    def _extent_of(self, input: Any) -> int:
        return int(input.shape[1])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:  # fmt: skip
        for name, p in self._parameters.items():
            saved = state_dict.get(prefix + name)
            if isinstance(p, UninitializedParameter) and saved is not None:
                p.materialize(saved.shape)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class LazyLinear(_Lazy, Linear):
    """A `Linear` that takes `in_features` from its first input."""

    becomes = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None,
                 dtype: DType | None = None) -> None:  # fmt: skip
        super().__init__(0, 0, bias, device, dtype)
        self.out_features = out_features
        self._open(("weight", "bias"), device, dtype)

    def reset_parameters(self) -> None:
        """Draws new initial values, once the shapes are known."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def _extent_of(self, input: Any) -> int:
        return int(input.shape[-1])

    def _learn(self, extent: int) -> None:
        fresh = self.has_uninitialized_params()
        self.in_features = extent
        if fresh:
            self.weight.materialize((self.out_features, extent))
            if self.bias is not None:
                self.bias.materialize((self.out_features,))
            Linear.reset_parameters(self)


class _LazyConv(_Lazy):
    """A convolution that takes `in_channels` from its first input."""

    def _start(self, out_channels: int, bias: bool, device: Any, dtype: DType | None) -> None:
        me: Any = self
        me.out_channels = out_channels
        me.register_parameter("bias", Parameter(empty(0)) if bias else None)
        self._open(("weight", "bias"), device, dtype)

    def reset_parameters(self) -> None:
        """Draws new initial values, once the shapes are known."""

    def _extent_of(self, input: Any) -> int:
        me: Any = self
        return int(input.shape[-me.rank - 1])

    def _learn(self, extent: int) -> None:
        me: Any = self
        if extent % me.groups:
            raise ValueError("in_channels must be divisible by groups")
        fresh = self.has_uninitialized_params()
        me.in_channels = extent
        if fresh:
            pair = (extent, me.out_channels) if me.transposed else (me.out_channels, extent)
            me.weight.materialize((pair[0], pair[1] // me.groups, *me.kernel_size))
            if me.bias is not None:
                me.bias.materialize((me.out_channels,))
            me.becomes.reset_parameters(me)


def _lazy_conv(base: Any) -> Any:
    """The lazy form of a convolution."""
    transposed = "Transpose" in base.__name__

    def start(
        self: Any, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        *args: Any, bias: bool = True, device: Any = None, dtype: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        groups = kwargs.get("groups", args[1] if len(args) > 1 else 1)
        base.__init__(self, groups, groups, kernel_size, stride, padding, *args, bias=False,
                      device=device, dtype=dtype, **kwargs)  # fmt: skip
        self.in_channels = 0
        self._start(out_channels, bias, device, dtype)

    kind = "the adjoint of a convolution" if transposed else "a convolution"
    members = {
        "__init__": start, "becomes": base, "__module__": __name__,
        "__doc__": f"A `{base.__name__}`, {kind}, that takes `in_channels` from its first input.",
    }  # fmt: skip
    return type(f"Lazy{base.__name__}", (_LazyConv, base), members)


LazyConv1d, LazyConv2d, LazyConv3d = map(_lazy_conv, (Conv1d, Conv2d, Conv3d))
LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d = map(
    _lazy_conv, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
)


class _LazyNorm(_Lazy):
    """A normalisation by channel that takes `num_features` from its first input."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: DType | None = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        me: Any = super()
        me.__init__(0, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self._open(("weight", "bias"), device, dtype)

    def _learn(self, extent: int) -> None:
        me: Any = self
        if me.num_features == extent:
            return
        me.num_features = extent
        for p in (me.weight, me.bias):
            if isinstance(p, UninitializedParameter):
                p.materialize((extent,))
        if me.track_running_stats:
            with no_grad():
                me.running_mean = me.running_mean.new_zeros(extent)
                me.running_var = me.running_var.new_ones(extent)
        me.becomes.reset_parameters(me)


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A `BatchNorm1d` that takes `num_features` from its first input."""

    becomes = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A `BatchNorm2d` that takes `num_features` from its first input."""

    becomes = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A `BatchNorm3d` that takes `num_features` from its first input."""

    becomes = BatchNorm3d


class _LazyInstanceNorm(_LazyNorm):
    def _extent_of(self, input: Any) -> int:
        me: Any = self
        return int(input.shape[0 if input.dim() == min(me.ranks) else 1])


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """An `InstanceNorm1d` that takes `num_features` from its first input."""

    becomes = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """An `InstanceNorm2d` that takes `num_features` from its first input."""

    becomes = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """An `InstanceNorm3d` that takes `num_features` from its first input."""

    becomes = InstanceNorm3d
