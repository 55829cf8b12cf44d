"""GPT and the LSTM language model: published sizes and names, learning, and agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import optim
from treadle.base.errors import ShapeError
from treadle.nn import functional as F
from treadle.text.models import GPT, GPTConfig, LSTMLanguageModel


def small_gpt(**options: Any) -> GPT:
    sizes = {"block_size": 8, "vocab_size": 13, "n_layer": 2, "n_head": 2, "n_embd": 16}
    return GPT(GPTConfig(**(sizes | options)))


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 13, shape)


def test_gpt2_size_and_keys() -> None:
    model = GPT(GPTConfig(vocab_size=50257))
    assert model.get_num_params(non_embedding=False) == 124_439_808
    assert model.get_num_params() == 124_439_808 - 1024 * 768
    state = model.state_dict()
    assert len(state) == 149
    assert state["transformer.h.11.attn.c_attn.weight"].shape == (2304, 768)
    assert state["transformer.wpe.weight"].shape == (1024, 768)
    assert {"transformer.wte.weight", "transformer.ln_f.bias", "lm_head.weight"} < set(state)


def test_gpt_ties_its_tables_and_may_have_no_biases() -> None:
    model = small_gpt(bias=False)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())
    logits, loss = model(treadle.from_numpy(tokens(2, 5)))
    assert logits.shape == (2, 1, 13)
    assert loss is None


def test_gpt_initialisation() -> None:
    treadle.manual_seed(0)
    model = small_gpt(n_embd=64)
    block = model.transformer.h[0]
    assert abs(block.mlp.c_fc.weight.detach().numpy().std() - 0.02) < 1e-3
    assert abs(block.mlp.c_proj.weight.detach().numpy().std() - 0.01) < 5e-4
    assert not block.attn.c_attn.bias.detach().numpy().any()
    assert (block.ln_1.weight.detach().numpy() == 1).all()


def test_gpt_loads_gpt2() -> None:
    source, model = small_gpt(), small_gpt()
    published = {"h.0.attn.bias": treadle.ones(1, 1, 8, 8)}
    for key, value in source.state_dict().items():
        if key != "lm_head.weight":
            linear = ".c_" in key and value.ndim == 2
            published[key.removeprefix("transformer.")] = value.t() if linear else value
    model.load_gpt2(published)
    x = treadle.from_numpy(tokens(1, 8))
    np.testing.assert_array_equal(model(x)[0].detach().numpy(), source(x)[0].detach().numpy())


def test_gpt_generates_with_its_cache_what_it_would_without() -> None:
    treadle.manual_seed(2)
    model = small_gpt(n_embd=32).eval()
    start = treadle.from_numpy(tokens(2, 3))
    out = model.generate(start, 8, top_k=1).numpy()
    text = start.numpy()
    for _ in range(5):  # up to block_size
        logits, _ = model(treadle.from_numpy(text))
        text = np.concatenate([text, logits.detach().numpy()[:, -1].argmax(-1)[:, None]], 1)
    np.testing.assert_array_equal(out[:, :8], text)
    assert out.shape == (2, 11)


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads cannot share"):
        small_gpt(n_head=3)
    with pytest.raises(ShapeError, match="longer than block_size"):
        small_gpt()(treadle.from_numpy(tokens(1, 9)))
    with pytest.raises(ValueError, match="tied weights"):
        LSTMLanguageModel(13, 8, 16, tie_weights=True)


def test_lstm_keys_and_initialisation() -> None:
    treadle.manual_seed(0)
    model = LSTMLanguageModel(13, 16, 16, 2, tie_weights=True)
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert list(model.state_dict()) == [
        "encoder.weight", *(f"rnn.{kind}_l{i}" for i in range(2) for kind in kinds),
        "decoder.weight", "decoder.bias",
    ]  # fmt: skip
    assert model.decoder.weight is model.encoder.weight
    weight = model.encoder.weight.detach().numpy()
    assert 0.09 < abs(weight).max() <= 0.1
    assert not model.decoder.bias.detach().numpy().any()


def test_lstm_state_goes_on() -> None:
    model = LSTMLanguageModel(13, 8, 16, 2).eval()
    x = treadle.from_numpy(tokens(6, 3))
    whole, _, loss = model(x)
    first, state, _ = model(x[:4])
    second, _, _ = model(x[4:], state)
    assert loss is None
    parts = np.concatenate([first.detach().numpy(), second.detach().numpy()])
    np.testing.assert_allclose(parts, whole.detach().numpy(), atol=1e-6)


def train(model: Any, loss_of: Any) -> list[float]:
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_lowers_the_loss() -> None:
    treadle.manual_seed(0)
    text = treadle.from_numpy(tokens(4, 9))
    x, y = text[:, :-1], text[:, 1:]
    losses = train(small_gpt(dropout=0.1), lambda m: m(x, y)[1])
    assert losses[-1] < 0.8 * losses[0]
    losses = train(LSTMLanguageModel(13, 8, 16, 1), lambda m: m(x.t(), None, y.t())[2])
    assert losses[-1] < 0.95 * losses[0]


# --- agreement with PyTorch ----------------------------------------------------------------------


def torch_gpt(torch: Any, x: Any, s: Any) -> Any:
    f = torch.nn.functional

    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, (16,), s[f"{name}.weight"], s[f"{name}.bias"])

    def linear(x: Any, name: str) -> Any:
        return f.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])

    x = s["transformer.wte.weight"][x] + s["transformer.wpe.weight"][: x.shape[1]]
    for i in range(2):
        name = f"transformer.h.{i}"
        y = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn")
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in y.chunk(3, -1))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(y, f"{name}.attn.c_proj")
        y = f.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"))
        x = x + linear(y, f"{name}.mlp.c_proj")
    return f.linear(norm(x, "transformer.ln_f"), s["transformer.wte.weight"])


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


def gradients_agree(model: Any, ours: Any, theirs: Any, state: Any, targets: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    agree(ours, theirs)
    wanted = torch.from_numpy(targets).flatten()
    torch.nn.functional.cross_entropy(theirs.flatten(0, 1), wanted).backward()
    F.cross_entropy(ours.flatten(0, 1), treadle.from_numpy(targets).flatten()).backward()
    for name, parameter in model.named_parameters():
        agree(parameter.grad, state[name].grad)


def torch_state(torch: Any, model: Any) -> dict[str, Any]:
    return {
        name: torch.from_numpy(p.detach().numpy().copy()).requires_grad_()
        for name, p in model.named_parameters()
    }


def test_gpt_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    treadle.manual_seed(1)
    model = small_gpt()
    state, x, y = torch_state(torch, model), tokens(3, 8), tokens(3, 8, seed=1)
    ours, loss = model(treadle.from_numpy(x), treadle.from_numpy(y))
    gradients_agree(model, ours, torch_gpt(torch, torch.from_numpy(x), state), state, y)
    wanted = F.cross_entropy(ours.flatten(0, 1), treadle.from_numpy(y).flatten())
    assert loss.item() == pytest.approx(wanted.item())


def test_lstm_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    treadle.manual_seed(1)
    model = LSTMLanguageModel(13, 8, 16, 2)
    state, x, y = torch_state(torch, model), tokens(7, 3), tokens(7, 3, seed=1)
    rnn = torch.nn.LSTM(8, 16, 2)
    inner = {k.removeprefix("rnn."): v for k, v in state.items() if k.startswith("rnn.")}
    out, _ = torch.func.functional_call(rnn, inner, (state["encoder.weight"][torch.from_numpy(x)],))
    theirs = torch.nn.functional.linear(out, state["decoder.weight"], state["decoder.bias"])
    gradients_agree(model, model(treadle.from_numpy(x))[0], theirs, state, y)
