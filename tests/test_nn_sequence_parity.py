"""Attention, transformers and recurrent layers against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional as F
from treadle.nn.utils import rnn

torch = pytest.importorskip("torch")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def agree(a: Any, b: Any) -> None:
    assert tuple(a.shape) == tuple(b.shape)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-7, atol=1e-9)


def flat(x: Any) -> list[Any]:
    if isinstance(x, (tuple, list)):
        return [t for part in x for t in flat(part)]
    return [] if x is None else [x]


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = getattr(nn, name)(*args, **kwargs).double()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({k: treadle.from_numpy(v.numpy().copy()) for k, v in state.items()})
    assert repr(ours) == repr(theirs)
    return ours, theirs


def compare(ours: Any, theirs: Any, arrays: dict[str, Any]) -> None:
    """Values and gradients of a call with named inputs."""

    def inputs(library: Any) -> dict[str, Any]:
        def convert(v: Any) -> Any:
            if isinstance(v, tuple):
                return tuple(convert(x) for x in v)
            if not isinstance(v, np.ndarray):
                return v
            t = library.from_numpy(v.copy())
            return t.requires_grad_() if v.dtype == np.float64 else t

        return {k: convert(v) for k, v in arrays.items()}

    mine, yours = inputs(treadle), inputs(torch)
    results = flat(ours(**mine)), flat(theirs(**yours))
    losses = []
    for library, out in zip((treadle, torch), results, strict=True):
        weights = [library.from_numpy(draw(*t.shape, seed=5 + i)) for i, t in enumerate(out)]
        losses.append(sum((t * w).sum() for t, w in zip(out, weights, strict=True)))
    for a, b in zip(*results, strict=True):
        agree(a, b)
    for loss in losses:
        loss.backward()
    for a, b in zip(flat(list(mine.values())), flat(list(yours.values())), strict=True):
        if getattr(b, "grad", None) is not None:
            agree(a.grad, b.grad)
    if isinstance(ours, nn.Module):
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), name
            if q.grad is not None:
                agree(p.grad, q.grad)


MASK = draw(4, 5, seed=8) > -0.5
ATTENTION: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"attn_mask": MASK},
    {"attn_mask": draw(2, 1, 4, 5, seed=9)},
    {"scale": 0.3},
]


@pytest.mark.parametrize("options", ATTENTION, ids=lambda o: str(sorted(o)))
def test_attention(options: dict[str, Any]) -> None:
    arrays = {"query": draw(2, 3, 4, 6), "key": draw(2, 3, 5, 6, seed=1),
              "value": draw(2, 3, 5, 7, seed=2), **options}  # fmt: skip
    compare(
        F.scaled_dot_product_attention, torch.nn.functional.scaled_dot_product_attention, arrays
    )


def test_attention_of_grouped_heads() -> None:
    arrays = {"query": draw(2, 4, 4, 6), "key": draw(2, 2, 5, 6, seed=1),
              "value": draw(2, 2, 5, 7, seed=2), "enable_gqa": True}  # fmt: skip
    compare(
        F.scaled_dot_product_attention, torch.nn.functional.scaled_dot_product_attention, arrays
    )


HEADS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"bias": False, "batch_first": True}, {}),
    ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    ({"kdim": 3, "vdim": 5}, {}),
    ({}, {"average_attn_weights": False}),
    ({}, {"need_weights": False}),
    ({}, {"attn_mask": np.triu(np.ones((4, 5), bool), 2)}),
    ({"add_zero_attn": True}, {"attn_mask": draw(2 * 3, 4, 5, seed=3),
                               "key_padding_mask": draw(3, 5, seed=4)}),
    ({}, {"key_padding_mask": np.arange(15).reshape(3, 5) % 5 == 4}),
]  # fmt: skip


@pytest.mark.parametrize("case", HEADS, ids=lambda c: f"{sorted(c[0])}{sorted(c[1])}")
def test_attention_of_several_heads(case: Any) -> None:
    options, call = case
    ours, theirs = pair("MultiheadAttention", 6, 2, **options)
    lead = (lambda n: (3, n)) if options.get("batch_first") else (lambda n: (n, 3))
    arrays = {"query": draw(*lead(4), 6), "key": draw(*lead(5), options.get("kdim", 6), seed=1),
              "value": draw(*lead(5), options.get("vdim", 6), seed=2), **call}  # fmt: skip
    compare(ours, theirs, arrays)


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"},
                                     {"batch_first": True, "bias": False}], ids=str)  # fmt: skip
def test_transformer_layers(options: dict[str, Any]) -> None:
    causal = np.triu(np.ones((4, 4), bool), 1)
    ours, theirs = pair("TransformerEncoderLayer", 6, 2, 8, 0.0, **options)
    lead = (2, 4) if options.get("batch_first") else (4, 2)
    compare(ours, theirs, {"src": draw(*lead, 6), "src_mask": causal})
    ours, theirs = pair("TransformerDecoderLayer", 6, 2, 8, 0.0, **options)
    compare(ours, theirs, {"tgt": draw(*lead, 6), "memory": draw(*lead, 6, seed=1),
                           "tgt_mask": causal})  # fmt: skip


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer() -> None:
    ours, theirs = pair("Transformer", 6, 2, 2, 1, 8, 0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    agree(mask, torch.nn.Transformer.generate_square_subsequent_mask(3))
    compare(ours, theirs, {"src": draw(4, 2, 6), "tgt": draw(3, 2, 6, seed=1),
                           "tgt_mask": mask.numpy().astype(np.float64).copy()})  # fmt: skip


RECURRENT: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 2, "num_layers": 2}),
    ("GRU", {"num_layers": 2}),
    ("GRU", {"bidirectional": True}),
]


@pytest.mark.parametrize("case", RECURRENT, ids=lambda c: f"{c[0]}{c[1]}")
def test_recurrent_layers(case: Any) -> None:
    name, options = case
    ours, theirs = pair(name, 4, 3, **options)
    lead = (2, 5) if options.get("batch_first") else (5, 2)
    compare(ours, theirs, {"input": draw(*lead, 4)})
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h = draw(count, 2, options.get("proj_size") or 3, seed=3)
    hx: Any = (h, draw(count, 2, 3, seed=4)) if name == "LSTM" else h
    compare(ours, theirs, {"input": draw(*lead, 4), "hx": hx})
    compare(ours, theirs, {"input": draw(5, 4)})


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells(name: str) -> None:
    ours, theirs = pair(name, 4, 3)
    compare(ours, theirs, {"input": draw(2, 4)})
    compare(ours, theirs, {"input": draw(4)})


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("sort", [True, False])
def test_packed_sequences(name: str, sort: bool) -> None:
    ours, theirs = pair(name, 4, 3, bidirectional=True)
    lengths = [5, 3, 3, 1] if sort else [3, 1, 5, 3]
    x = draw(5, 4, 4)
    results = []
    for library, module, tools in (
        (treadle, ours, rnn),
        (torch, theirs, torch.nn.utils.rnn),
    ):
        packed = tools.pack_padded_sequence(
            library.from_numpy(x.copy()), lengths, enforce_sorted=sort
        )
        out, last = module(packed)
        values, sizes = tools.pad_packed_sequence(out, padding_value=0.5)
        results.append([packed.data, out.data, values, sizes, *flat(last)])
    for a, b in zip(*results, strict=True):
        agree(a, b)


def test_padding_of_sequences() -> None:
    parts = [draw(3, 2), draw(1, 2, seed=1)]
    for options in ({}, {"batch_first": True, "padding_value": 2.0}, {"padding_side": "left"}):
        agree(
            rnn.pad_sequence([treadle.from_numpy(p) for p in parts], **options),
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(p) for p in parts], **options),
        )
