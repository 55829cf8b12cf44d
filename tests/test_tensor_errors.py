"""Mistakes are told on the line that makes them: with both shapes, and what to do."""

from __future__ import annotations

import pytest

import treadle

t = treadle
A, B, V = t.zeros(2, 3), t.zeros(4, 5), t.zeros(3)
MISTAKES = [
    ("A + B", ValueError, r"\(2, 3\).*\(4, 5\)"),
    ("A @ B", RuntimeError, r"\(2, 3\) and \(4, 5\)"),
    ("A @ A.double().t()", RuntimeError, "float32 and float64"),
    ("A.reshape(4, 2)", RuntimeError, r"\[4, 2\].*size 6"),
    ("A.view(-1, -1)", RuntimeError, "one dimension can be inferred"),
    ("A.view(-1, 4)", RuntimeError, "invalid for input of size 6"),
    ("A.sum(2)", IndexError, r"\[-2, 1\], but got 2"),
    ("A.sum((0, 0))", RuntimeError, "twice"),
    ("A.permute(0, 0)", RuntimeError, "permute"),
    ("A.expand(5, 3)", RuntimeError, r"\(2, 3\).*\(5, 3\)"),
    ("t.cat([A, B])", RuntimeError, r"\[2, 3\] and \[4, 5\]"),
    ("t.cat([])", RuntimeError, "non-empty"),
    ("t.stack([A, B])", RuntimeError, "equal size"),
    ("A[2]", IndexError, "index 2 is out of bounds for dimension 0 with size 2"),
    ("A[0, 0, 0]", IndexError, "too many indices"),
    ("A[0.5]", TypeError, "float"),
    ("A[..., ...]", IndexError, "one ellipsis"),
    ("A.mean(dtype=t.int64)", TypeError, "floating point"),
    ("t.tensor([1, 2]).mean()", TypeError, "hint"),
    ("t.tensor([True]) - t.tensor([True])", TypeError, "hint"),
    ("-t.tensor([True])", TypeError, "hint: ~"),
    ("~A", TypeError, "bitwise_not"),
    ("A & A", TypeError, "bitwise_and"),
    ("t.tensor([2]) ** -1", RuntimeError, "negative integer powers"),
    ("t.tensor([[1], [1, 2]])", ValueError, "rectangular"),
    ("t.tensor('x')", TypeError, "no numbers"),
    ("A.item()", RuntimeError, "6 elements"),
    ("bool(A)", RuntimeError, "ambiguous"),
    ("len(t.tensor(1))", TypeError, "0-d"),
    ("float(A)", RuntimeError, "6 elements"),
    ("A.amax(1)[:0].max()", RuntimeError, "no value"),
    ("t.arange(0, 1, 0)", ValueError, "nonzero"),
    ("t.arange(3, 1)", ValueError, "inconsistent"),
    ("A.split([1, 2])", RuntimeError, "extent 2"),
    ("A.narrow(0, 1, 5)", IndexError, "exceeds"),
    ("A.topk(9)", RuntimeError, "k = 9"),
    ("A.gather(1, t.zeros(2, 3))", TypeError, "integer index"),
    ("A.gather(1, t.zeros(3, dtype=t.int64))", RuntimeError, "rank"),
    ("A.scatter(1, t.zeros(9, 9, dtype=t.int64), A)", RuntimeError, "larger"),
    ("t.where(A, A, A)", TypeError, "condition must be bool"),
    ("A.unfold(0, 5, 1)", RuntimeError, "windows of 5"),
    ("t.pad(A, (5, 0), mode='reflect')", RuntimeError, r"at most 2.*\(5, 0\)"),
    ("t.pad(A, (1,))", RuntimeError, "1 counts"),
    ("t.einsum('ij,jk', A, B)", RuntimeError, "stands for 3"),
    ("t.tensordot(A, B, 1)", RuntimeError, "size 3 in dim 1 and second has size 4"),
    ("t.linalg.inv(A)", RuntimeError, "square"),
    ("t.set_default_dtype(t.int32)", TypeError, "floating-point"),
    ("A.to('tpu')", ValueError, "unknown device"),
    ("t.ones(2, requires_grad=True).numpy()", RuntimeError, "detach"),
    ("t.from_numpy([1])", TypeError, "NumPy array"),
    ("A.clamp()", ValueError, "at least one"),
    ("t.bincount(t.tensor([-1]))", ValueError, "non-negative"),
    ("t.one_hot(A)", TypeError, "integer index"),
    ("t.roll(A, (1, 2), (0,))", RuntimeError, "pair up"),
]


@pytest.mark.parametrize(("mistake", "kind", "message"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes(mistake: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        eval(mistake)


def test_the_line_is_named() -> None:
    with pytest.raises(RuntimeError) as caught:
        treadle.zeros(2, 3) + treadle.zeros(4, 5)
    assert any("test_tensor_errors.py" in note for note in caught.value.__notes__)
