"""How tensors print: as PyTorch prints them, character by character."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.tensor.promote import get_default_dtype

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")


@dataclass(slots=True)
class PrintOptions:
    """What `set_printoptions` sets."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_OPTIONS: Final = PrintOptions()
_PROFILES: Final[dict[str, dict[str, Any]]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors print.

    Args:
        precision: digits after the point (default 4).
        threshold: elements above which a tensor is summarised (default 1000).
        edgeitems: elements shown at each end of a summarised dimension (default 3).
        linewidth: characters a line (default 80).
        profile: `"default"`, `"short"` or `"full"`: all of these at once, before the others.
        sci_mode: scientific notation always or never; `None` chooses by the elements.

    Raises:
        ValueError: there is no such profile.

    Example:
        >>> import treadle
        >>> treadle.set_printoptions(precision=2)
        >>> treadle.tensor([1.12345])
        tensor([1.12])
        >>> treadle.set_printoptions(profile="default")
    """
    if profile is not None and profile not in _PROFILES:
        raise ValueError(f"profile is one of {', '.join(_PROFILES)}, not {profile!r}")
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    chosen = {**_PROFILES[profile]} if profile is not None else {}
    chosen.update({name: value for name, value in given.items() if value is not None})
    for name, value in chosen.items():
        setattr(_OPTIONS, name, value)
    _OPTIONS.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The options in force, as arguments of `set_printoptions`."""
    return asdict(_OPTIONS)


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """`set_printoptions(**options)` for a `with` block."""
    previous = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**previous)


class _Style:
    """How the numbers of one tensor are written, chosen by all that will be shown."""

    def __init__(self, shown: Any) -> None:
        self.floating = shown.dtype.kind == "f"
        self.whole = True
        self.scientific = False
        self.width = 1
        if not self.floating:
            self.width = max((len(str(v)) for v in shown.ravel().tolist()), default=1)
            return
        values = shown[np.isfinite(shown) & (shown != 0)].astype(np.float64)
        if not values.size:
            return
        size = np.abs(values)
        low, high = float(size.min()), float(size.max())
        self.whole = bool((values == np.ceil(values)).all())
        spread = high / low > 1000.0 or high > 1.0e8 or low < 1.0e-4
        self.scientific = spread if _OPTIONS.sci_mode is None else _OPTIONS.sci_mode
        self.width = max(len(self._plain(v)) for v in values.tolist())

    def _plain(self, value: float) -> str:
        if self.scientific:
            return f"{value:.{_OPTIONS.precision}e}"
        if self.whole:
            return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
        return f"{value:.{_OPTIONS.precision}f}"

    def __call__(self, value: Any) -> str:
        text = self._plain(value) if self.floating else str(value)
        return text.rjust(self.width)


def _edges(array: Any) -> Any:
    """The elements that a summary shows."""
    for axis, extent in enumerate(array.shape):
        edge = _OPTIONS.edgeitems
        if extent > 2 * edge:
            kept = [*range(edge), *range(extent - edge, extent)]
            array = np.take(array, kept, axis)
    return array


def _row(row: Any, indent: int, summarise: bool, style: _Style) -> str:
    edge = _OPTIONS.edgeitems
    fit = max(1, (_OPTIONS.linewidth - indent) // (style.width + 2))
    if summarise and not edge:
        words = ["..."]
    elif summarise and len(row) > 2 * edge:
        head, tail = row[:edge].tolist(), row[-edge:].tolist()
        words = [*map(style, head), " ...", *map(style, tail)]
    else:
        words = [style(v) for v in row.tolist()]
    lines = [", ".join(words[i : i + fit]) for i in range(0, len(words), fit)]
    return f"[{(',' + chr(10) + ' ' * (indent + 1)).join(lines)}]"


def _block(array: Any, indent: int, summarise: bool, style: _Style) -> str:
    if array.ndim == 0:
        return style(array.item())
    if array.ndim == 1:
        return _row(array, indent, summarise, style)
    edge, extent = _OPTIONS.edgeitems, len(array)
    if summarise and extent > 2 * edge:
        parts = [_block(array[i], indent + 1, summarise, style) for i in range(edge)]
        parts.append("...")
        tail = range(extent - edge, extent)
        parts += [_block(array[i], indent + 1, summarise, style) for i in tail]
    else:
        parts = [_block(part, indent + 1, summarise, style) for part in array]
    gap = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return f"[{gap.join(parts)}]"


def _suffixes(t: Any) -> list[str]:
    out = []
    dtype = t.dtype
    usual = dtype is get_default_dtype()
    if t.numel():
        usual = usual or dtype in (dt.int64, dt.bool_)
    elif t.ndim != 1:
        out.append(f"size={tuple(t.shape)}")
    if not usual:
        out.append(f"dtype={dtype!r}")
    if t.grad_fn is not None:
        out.append(f"grad_fn={t.grad_fn!r}")
    elif t.requires_grad:
        out.append("requires_grad=True")
    return out


def _contents(array: Any, indent: int) -> str:
    if not array.size:
        return "[]"
    if array.dtype.kind == "V":
        # NumPy knows bfloat16 as an extension type; every value of it is a float32.
        array = array.astype(np.float32)
    summarise = array.size > _OPTIONS.threshold
    style = _Style(_edges(array) if summarise else array)
    return _block(array, indent, summarise, style)


def format_tensor(t: Tensor) -> str:
    """A tensor as text, with its dtype where it is not the default, and its part in autograd."""
    indent = len("tensor(")
    text = f"tensor({_contents(t._array(), indent)}"
    column = len(text) - text.rfind("\n") + 1
    for suffix in _suffixes(t):
        if column + len(suffix) + 2 > _OPTIONS.linewidth:
            text += f",\n{' ' * indent}{suffix}"
            column = indent + len(suffix)
        else:
            text += f", {suffix}"
            column += len(suffix) + 2
    return f"{text})"
