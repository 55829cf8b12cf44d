"""Sequences of different lengths: padded to one, or packed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, stack
from treadle.tensor import primitive as pr
from treadle.tensor.creation import from_numpy

np = LazyModule("numpy")


class PackedSequence(NamedTuple):
    """The steps of several sequences, longest first, without padding.

    `data` has the first step of all sequences, then the second of those that have one, and so on;
    `batch_sizes` tells how many these are.
    """

    data: Any
    batch_sizes: Any
    sorted_indices: Any = None
    unsorted_indices: Any = None


def _batch_sizes(lengths: Any) -> Any:
    return (lengths[None, :] > np.arange(lengths.max())[:, None]).sum(1)


def _host(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)


def lengths_of(packed: PackedSequence) -> Any:
    """The lengths of packed sequences, in their order there."""
    sizes = _host(packed.batch_sizes)
    return from_numpy((sizes[:, None] > np.arange(sizes[0])[None, :]).sum(0).astype(np.int64))


def _places(sizes: Any) -> tuple[Any, Any]:
    """For each packed element its step and its sequence."""
    step = np.repeat(np.arange(len(sizes)), sizes)
    start = np.cumsum(sizes) - sizes
    return step, np.arange(int(sizes.sum())) - start[step]


def padded(packed: PackedSequence, value: float = 0.0, length: int | None = None) -> Any:
    """Packed sequences as `(length, n, *)`, padded with a value, in their order there."""
    sizes = _host(packed.batch_sizes)
    total = len(sizes) if length is None else length
    if total < len(sizes):
        raise ValueError(
            f"Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={length} and max sequence length being {len(sizes)}"
        )
    n = int(sizes[0])
    step, column = _places(sizes)
    index = np.zeros((total, n), np.int64)
    index[step, column] = np.arange(len(step))
    inside = np.zeros((total, n), bool)
    inside[step, column] = True
    out = pr.taken(packed.data, from_numpy(index), 0)
    shape = (total, n, *(1,) * (packed.data.ndim - 1))
    mask = from_numpy(inside).reshape(shape)
    return pr.select(mask, out, pr.constant(value, packed.data.dtype))


def packed_like(packed: PackedSequence, values: Any) -> PackedSequence:
    """Values `(length, n, *)` packed as other sequences are."""
    sizes = _host(packed.batch_sizes)
    step, column = _places(sizes)
    n = int(sizes[0])
    flat = values.reshape(values.shape[0] * n, *values.shape[2:])
    data = pr.taken(flat, from_numpy((step * n + column).astype(np.int64)), 0)
    return packed._replace(data=data)


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs sequences that are padded to one length.

    Args:
        input: `(length, n, *)`, or `(n, length, *)` if `batch_first`.
        lengths: the lengths of the n sequences.
        batch_first: see `input`.
        enforce_sorted: the sequences are sorted already, longest first.
    """
    sizes = np.asarray(_host(lengths), np.int64)
    x = input.transpose(0, 1) if batch_first else input
    if sizes.shape != (x.shape[1],):
        raise ShapeError(f"Expected `len(lengths)` to be equal to batch_size {x.shape[1]}, but got "
                         f"{len(sizes)}")  # fmt: skip
    if (sizes <= 0).any():
        raise RuntimeError("Length of all samples has to be greater than 0")
    order = inverse = None
    if enforce_sorted:
        if (np.diff(sizes) > 0).any():
            raise RuntimeError(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. "
                "You can pass `enforce_sorted=False` to pack unsorted sequences."
            )
    else:
        order = np.argsort(-sizes, kind="stable")
        inverse = from_numpy(np.argsort(order, kind="stable"))
        sizes = sizes[order]
        order = from_numpy(order)
        x = x[:, order]
    batch_sizes = from_numpy(_batch_sizes(sizes).astype(np.int64))
    shell = PackedSequence(None, batch_sizes, order, inverse)
    return packed_like(shell, x)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Packed sequences as `(length, n, *)` with padding, and their lengths."""
    out = padded(sequence, padding_value, total_length)
    lengths = lengths_of(sequence)
    if sequence.unsorted_indices is not None:
        out = out[:, sequence.unsorted_indices]
        lengths = lengths[sequence.unsorted_indices]
    return (out.transpose(0, 1) if batch_first else out), lengths


def pad_sequence(
    sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Any:  # fmt: skip
    """Sequences `(length, *)` as one tensor `(longest, n, *)` with padding."""
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side should be 'left' or 'right', got {padding_side!r}")
    longest = max(x.shape[0] for x in sequences)
    parts = []
    for x in sequences:
        missing = longest - x.shape[0]
        ends = (missing, 0) if padding_side == "left" else (0, missing)
        parts.append(pr.padded(x, (ends, *((0, 0),) * (x.ndim - 1)), padding_value))
    return stack(parts, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Any]:
    """The sequences of a padded tensor without their padding."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[i, : int(n)] for i, n in enumerate(_host(lengths))]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences `(length, *)`."""
    lengths = [x.shape[0] for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)
