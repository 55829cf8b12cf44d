"""Recurrent layers and cells."""

from __future__ import annotations

import math
from typing import Any

from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.functional.recurrent import GATES, layer, one_step
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.utils.rnn import PackedSequence, lengths_of, packed_like, padded
from treadle.tensor import block, cat, empty, stack, zeros


class RNNBase(Module):
    """What recurrent layers share: their arguments, parameters and the way through the layers.

    Args:
        mode: `"RNN_TANH"`, `"RNN_RELU"`, `"LSTM"` or `"GRU"`.
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers one after another.
        bias: whether there are biases.
        batch_first: inputs are `(n, length, features)`, not `(length, n, features)`.
        dropout: the probability of a zero between layers in training.
        bidirectional: go through the sequence from its end as well.
        proj_size: features that an LSTM's output is mapped to; 0 for none.
        device, dtype: of the parameters.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, proj_size: int = 0, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError("hidden_size and num_layers must be greater than zero")
        if not 0 <= dropout <= 1:
            raise ValueError("dropout should be a number in range [0, 1]")
        if proj_size and mode != "LSTM":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if proj_size < 0 or proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size and not negative")
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.proj_size = float(dropout), bidirectional, proj_size
        self._names: list[list[str]] = []
        rows, width = GATES[mode] * hidden_size, proj_size or hidden_size
        for i in range(num_layers):
            features = input_size if i == 0 else width * (2 if bidirectional else 1)
            for suffix in ("", "_reverse")[: 2 if bidirectional else 1]:
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, features),
                    "weight_hh": (rows, width),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = {f"{name}_l{i}{suffix}": shape for name, shape in shapes.items()}
                for name, shape in names.items():
                    table = empty(*shape, device=device, dtype=dtype)
                    self.register_parameter(name, Parameter(table))
                self._names.append(list(names))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values: uniform within `1 / sqrt(hidden_size)`."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def flatten_parameters(self) -> None:
        """Nothing to be done: how parameters lie in memory is the compiler's affair."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """The outputs of all steps, and the last state of each layer and direction.

        Args:
            input: `(length, n, input_size)`, `(length, input_size)`, or a `PackedSequence`.
            hx: the first state `(layers * directions, n, hidden)`, for an LSTM two of them.
        """
        packed = isinstance(input, PackedSequence)
        lengths = lengths_of(input) if packed else None
        x = padded(input) if packed else input
        batched = packed or x.ndim == 3
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
        if self.batch_first and not packed:
            x = x.transpose(0, 1)
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._get_name()}: Expected 2D or 3D input with {self.input_size} features in "
                f"the last dimension, got {tuple(x.shape)}"
            )
        states = self._first_state(x, hx, batched, input if packed else None)
        out, last = self._through_layers(x, states, lengths)
        return self._finished(input, out, last, batched, packed)

    def _first_state(self, x: Any, hx: Any, batched: bool, packed: Any) -> list[Any]:
        n = x.shape[1]
        count = len(self._names)
        widths = [self.proj_size or self.hidden_size]
        if self.mode == "LSTM":
            widths.append(self.hidden_size)
        if hx is None:
            return [zeros(count, n, width, dtype=x.dtype) for width in widths]
        states = list(hx) if self.mode == "LSTM" else [hx]
        if not batched:
            states = [s.unsqueeze(1) for s in states]
        for s, width in zip(states, widths, strict=True):
            if tuple(s.shape) != (count, n, width):
                raise ShapeError(f"Expected hidden size {(count, n, width)}, got {list(s.shape)}")
        if packed is not None and packed.sorted_indices is not None:
            states = [s[:, packed.sorted_indices] for s in states]
        return states

    def _through_layers(self, x: Any, states: list[Any], lengths: Any) -> tuple[Any, list[Any]]:
        directions = 2 if self.bidirectional else 1
        last: list[list[Any]] = [[] for _ in states]
        flags = (self.bias, self.proj_size > 0, lengths is not None)
        for i in range(self.num_layers):
            outputs = []
            for d in range(directions):
                place = i * directions + d
                weights = [getattr(self, name) for name in self._names[place]]
                inputs = [x, *(s[place] for s in states), *weights]
                if lengths is not None:
                    inputs.append(lengths)
                out, *state = block(layer, inputs, (self.mode, flags, d == 1))
                outputs.append(out)
                for kept, s in zip(last, state, strict=True):
                    kept.append(s)
            x = outputs[0] if directions == 1 else cat(outputs, 2)
            if self.dropout and i < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, [stack(kept) for kept in last]

    def _finished(
        self, input: Any, out: Any, last: list[Any], batched: bool, packed: bool
    ) -> tuple[Any, Any]:
        if packed:
            out = packed_like(input, out)
            if input.unsorted_indices is not None:
                last = [s[:, input.unsorted_indices] for s in last]
        else:
            out = out.transpose(0, 1) if self.batch_first else out
            if not batched:
                out = out.squeeze(0 if self.batch_first else 1)
                last = [s.squeeze(1) for s in last]
        return out, (tuple(last) if self.mode == "LSTM" else last[0])

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        out = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            out += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            out += f", num_layers={self.num_layers}"
        if self.bias is not True:
            out += f", bias={self.bias}"
        if self.batch_first is not False:
            out += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            out += f", dropout={self.dropout}"
        return out + (f", bidirectional={self.bidirectional}" * bool(self.bidirectional))


class RNN(RNNBase):
    """`h = tanh(W x + b + U h + d)` along a sequence, or with a rectifier.

    Args:
        input_size, hidden_size, num_layers: see `RNNBase`.
        nonlinearity: `"tanh"` or `"relu"`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        self.__dict__["nonlinearity"] = nonlinearity
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias,
                         batch_first, dropout, bidirectional, 0, device, dtype)  # fmt: skip


class LSTM(RNNBase):
    """Long short-term memory along a sequence.

    Source: Hochreiter and Schmidhuber, Neural Computation 9, 1997, with forget gates. The arguments
    are those of `RNNBase` without the mode.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, device, dtype)  # fmt: skip


class GRU(RNNBase):
    """Gated recurrent units along a sequence.

    Source: Cho et al., EMNLP 2014. The arguments are those of `RNNBase` without the mode.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)  # fmt: skip


# --- cells -------------------------------------------------------------------------------------


class _Cell(Module):
    """One step of a recurrent layer."""

    mode: str

    def __init__(self, input_size: int, hidden_size: int, bias: bool, mode: str, device: Any,
                 dtype: DType | None) -> None:  # fmt: skip
        super().__init__()
        self.input_size, self.hidden_size, self.bias, self.mode = (
            input_size, hidden_size, bias, mode,
        )  # fmt: skip
        rows = GATES[mode] * hidden_size
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size),
                  "bias_ih": (rows,), "bias_hh": (rows,)}  # fmt: skip
        for name, shape in shapes.items():
            table = empty(*shape, device=device, dtype=dtype)
            is_there = bias or name.startswith("weight")
            self.register_parameter(name, Parameter(table) if is_there else None)
        bound = 1.0 / math.sqrt(hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, x: Any, state: tuple[Any, ...]) -> Any:
        batched = x.ndim == 2
        if not batched:
            x, state = x.unsqueeze(0), tuple(s.unsqueeze(0) for s in state)
        biases = (self.bias_ih, self.bias_hh) if self.bias else ()
        inputs = (x, *state, self.weight_ih, self.weight_hh, *biases)
        out = block(one_step, inputs, (self.mode, bool(self.bias)))
        if batched:
            return out
        return tuple(s.squeeze(0) for s in out) if isinstance(out, tuple) else out.squeeze(0)

    def _zeros(self, x: Any) -> Any:
        return zeros(*x.shape[:-1], self.hidden_size, dtype=x.dtype)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        out = f"{self.input_size}, {self.hidden_size}"
        return out if self.bias else f"{out}, bias={self.bias}"


class RNNCell(_Cell):
    """`tanh(W x + b + U h + d)`, or with a rectifier."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None,
                 dtype: DType | None = None) -> None:  # fmt: skip
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(input_size, hidden_size, bias, mode, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The new state `(n, hidden_size)`."""
        return self._step(input, (self._zeros(input) if hx is None else hx,))

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        out = super().extra_repr()
        return out if self.nonlinearity == "tanh" else f"{out}, nonlinearity={self.nonlinearity}"


class LSTMCell(_Cell):
    """One step of long short-term memory."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: DType | None = None) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, "LSTM", device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The new output and the new memory, `(n, hidden_size)` each."""
        state = (self._zeros(input), self._zeros(input)) if hx is None else tuple(hx)
        return self._step(input, state)


class GRUCell(_Cell):
    """One step of gated recurrent units."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: DType | None = None) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, "GRU", device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The new state `(n, hidden_size)`."""
        return self._step(input, (self._zeros(input) if hx is None else hx,))
