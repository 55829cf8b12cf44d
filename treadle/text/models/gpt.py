"""GPT in nanoGPT's shape: its options, its state_dict keys, and GPT-2's published weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treadle import nn
from treadle.base.errors import ShapeError
from treadle.nn import functional as F
from treadle.tensor import Tensor, arange, cat, flush, multinomial, no_grad, topk

Cache = list[tuple[Tensor, Tensor]]
"""The keys and values `(n, heads, length, size)` of each layer."""

# Published GPT-2 weights keep these maps as (inputs, outputs).
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@dataclass
class GPTConfig:
    """The sizes of a GPT; the defaults are those of nanoGPT's GPT-2 (124 M).

    Args:
        block_size: the longest sequence.
        vocab_size: tokens (GPT-2 has 50257; nanoGPT rounds up to a multiple of 64).
        n_layer: blocks.
        n_head: heads of each attention.
        n_embd: features of a token; divisible by `n_head`.
        dropout: the probability of a zero in training.
        bias: whether linear maps and normalisations have biases.
    """

    block_size: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True


class CausalSelfAttention(nn.Module):
    """Attention of each token to itself and those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError(f"{config.n_head} heads cannot share {config.n_embd} features equally")
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head, self.n_embd, self.dropout = config.n_head, config.n_embd, config.dropout

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The attended values, and the keys and values seen so far.

        Args:
            x: `(n, length, n_embd)`.
            past: keys and values `(n, heads, earlier, size)` of earlier tokens; then `length` is 1.
        """
        n, length, features = x.shape
        q, k, v = (
            part.view(n, length, self.n_head, features // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(self.n_embd, dim=2)
        )
        if past is not None:
            k, v = cat([past[0], k], 2), cat([past[1], v], 2)
        y = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=past is None
        )
        y = y.transpose(1, 2).reshape(n, length, features)
        return self.resid_dropout(self.c_proj(y)), (k, v)


class MLP(nn.Module):
    """A linear map to four times the features, GELU, and a linear map back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, length, n_embd)` to the same shape."""
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    """`y = x + attention(norm(x))`, then `y + mlp(norm(y))`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The new features, and the attention's keys and values; see `CausalSelfAttention`."""
        y, seen = self.attn(self.ln_1(x), past)
        x = x + y
        return x + self.mlp(self.ln_2(x)), seen


class GPT(nn.Module):
    """A transformer that predicts the next token.

    Source: Radford et al., "Language models are unsupervised multitask learners", 2019; the shape,
    the initialisation and the state_dict keys are those of nanoGPT. The last map uses the table of
    the token embedding.

    Args:
        config: the sizes.

    Raises:
        ValueError: the features cannot be shared equally by the heads.

    Example:
        >>> import treadle
        >>> from treadle.text.models import GPT, GPTConfig
        >>> model = GPT(GPTConfig(block_size=8, vocab_size=65, n_layer=1, n_head=2, n_embd=16))
        >>> tokens = treadle.zeros(2, 8, dtype=treadle.long)
        >>> logits, loss = model(tokens, tokens)
        >>> logits.shape
        treadle.Size([2, 8, 65])
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, config.n_embd),
            "wpe": nn.Embedding(config.block_size, config.n_embd),
            "drop": nn.Dropout(config.dropout),
            "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            "ln_f": nn.LayerNorm(config.n_embd, bias=config.bias),
        })  # fmt: skip
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        self._initialise()

    def _initialise(self) -> None:
        # What each block adds to the residual path is scaled, so that their sum keeps its size.
        scaled = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.ndim > 1:
                nn.init.normal_(weight, std=scaled if name.endswith("c_proj.weight") else 0.02)

    def get_num_params(self, non_embedding: bool = True) -> int:
        """The number of parameters, without those of the position embedding unless asked for."""
        total = sum(p.numel() for p in self.parameters())
        return total - self.transformer.wpe.weight.numel() * non_embedding

    def forward(self, idx: Tensor, targets: Any = None) -> tuple[Tensor, Tensor | None]:
        """The scores of each next token, and the loss.

        Args:
            idx: int64 `(n, length)`, tokens.
            targets: int64 `(n, length)`, the tokens that come next; -1 counts for nothing.

        Returns:
            With targets, scores `(n, length, vocab_size)` and the mean cross entropy; without, the
            scores `(n, 1, vocab_size)` after the last token, and `None`.

        Raises:
            ShapeError: the sequence is longer than `block_size`.
        """
        x, _ = self._features(idx)
        if targets is None:
            return self.lm_head(x[:, -1:]), None
        logits = self.lm_head(x)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return logits, loss

    def _features(self, idx: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The last features of tokens that follow those in a cache, and the longer cache."""
        past = cache[0][0].shape[2] if cache else 0
        end = past + idx.shape[1]
        if end > self.config.block_size:
            raise ShapeError(
                f"a sequence of {end} tokens is longer than block_size={self.config.block_size}"
            )
        parts = self.transformer
        x = parts.drop(parts.wte(idx) + parts.wpe(arange(past, end)))
        seen: Cache = []
        for i, block in enumerate(parts.h):
            x, pair = block(x, cache[i] if cache else None)
            seen.append(pair)
        return parts.ln_f(x), seen

    @no_grad()
    def generate(
        self, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None
    ) -> Tensor:
        """Draws tokens one by one, each given those before it (at most `block_size` of them).

        Keys and values of earlier tokens are kept, until the text outgrows `block_size`. Call
        `eval()` first.

        Args:
            idx: int64 `(n, length)`, the beginning.
            max_new_tokens: tokens to add.
            temperature: what the scores are divided by.
            top_k: draw from that many of the likeliest tokens only.

        Returns:
            int64 `(n, length + max_new_tokens)`.
        """
        cache: Cache | None = None
        limit = self.config.block_size
        for _ in range(max_new_tokens):
            if cache is None or cache[0][0].shape[2] == limit:
                cache = None
                x, cache = self._features(idx[:, -limit:])
            else:
                x, cache = self._features(idx[:, -1:], cache)
            logits = self.lm_head(x[:, -1]) / temperature
            if top_k is not None:
                least = topk(logits, min(top_k, logits.shape[-1])).values[:, -1:]
                logits = logits.masked_fill(logits < least, -math.inf)
            idx = cat([idx, multinomial(F.softmax(logits, dim=-1), 1)], 1)
            # A plan for each token: those for longer caches are filled in from the ones before.
            flush()
        return idx

    def load_gpt2(self, state: Mapping[str, Any]) -> None:
        """Copies GPT-2's published weights (a file `model.safetensors` of the hub).

        They name the parts as nanoGPT does, with or without `transformer.` in front, hold linear
        maps as `(inputs, outputs)`, and repeat the causal mask, which this model does not keep.

        Args:
            state: tensors by name, for example from `treadle.io.load_safetensors`.

        Raises:
            RuntimeError: names or shapes do not fit; the message lists all of them.
        """
        own = {}
        for key, value in state.items():
            name = key if key.startswith(("transformer.", "lm_head.")) else f"transformer.{key}"
            if name.endswith((".attn.bias", ".attn.masked_bias")):
                continue
            own[name] = value.t() if name.endswith(_TRANSPOSED) else value
        own.setdefault("lm_head.weight", own.get("transformer.wte.weight"))
        self.load_state_dict(own)
