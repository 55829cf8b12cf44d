"""The vision transformer, with torchvision's state_dict keys."""

from __future__ import annotations

import math
from typing import Any

from treadle import nn
from treadle.base.errors import ShapeError
from treadle.tensor import Tensor, cat, empty, zeros


class MLPBlock(nn.Sequential):
    """A linear map, GELU, a linear map, with dropout after both.

    Args:
        hidden: features of input and result.
        inner: features between the maps.
        dropout: the probability of a zero in training.
    """

    def __init__(self, hidden: int, inner: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(hidden, inner), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(inner, hidden), nn.Dropout(dropout),
        )  # fmt: skip
        for linear in (self[0], self[3]):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # torchvision's first weights name the maps, later ones number them.
        for number, name in (("0", "linear_1"), ("3", "linear_2")):
            for kind in ("weight", "bias"):
                old = f"{prefix}{name}.{kind}"
                if old in state:
                    state[f"{prefix}{number}.{kind}"] = state.pop(old)
        super()._load_from_state_dict(state, prefix, *rest)


class EncoderBlock(nn.Module):
    """`y = x + attention(norm(x))`, then `y + mlp(norm(y))`.

    Args:
        heads: heads of the attention.
        hidden: features.
        inner: features inside the perceptron.
        dropout: after attention and maps.
        attention_dropout: of the attention's weights.
    """

    def __init__(
        self, heads: int, hidden: int, inner: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(hidden, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(
            hidden, heads, dropout=attention_dropout, batch_first=True
        )
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(hidden, eps=1e-6)
        self.mlp = MLPBlock(hidden, inner, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, length, hidden)` to the same shape."""
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        y = x + self.dropout(y)
        return y + self.mlp(self.ln_2(y))


class Encoder(nn.Module):
    """Adds the embedding of places, and goes through the blocks and a last normalisation."""

    def __init__(
        self, length: int, layers: int, heads: int, hidden: int, inner: int,
        dropout: float, attention_dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pos_embedding = nn.Parameter(empty(1, length, hidden))
        nn.init.normal_(self.pos_embedding, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential()
        for i in range(layers):
            block = EncoderBlock(heads, hidden, inner, dropout, attention_dropout)
            self.layers.add_module(f"encoder_layer_{i}", block)
        self.ln = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, length, hidden)` to the same shape."""
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))


class VisionTransformer(nn.Module):
    """A transformer over the patches of an image; the class token's last state gives the scores.

    Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; initialised as in
    torchvision, so that its published weights load with `load_state_dict`.

    Args:
        image_size: pixels of a side of the (square) images.
        patch_size: pixels of a side of a patch; divides `image_size`.
        num_layers: blocks.
        num_heads: heads of each attention.
        hidden_dim: features of a patch.
        mlp_dim: features inside the perceptrons.
        dropout: the probability of a zero after attention and maps, in training.
        attention_dropout: the probability of a zero among the attention's weights, in training.
        num_classes: classes.

    Raises:
        ValueError: `patch_size` does not divide `image_size`.

    Example:
        >>> import treadle
        >>> model = treadle.vision.models.vit_tiny(image_size=32, patch_size=8, num_classes=10)
        >>> model(treadle.zeros(2, 3, 32, 32)).shape
        treadle.Size([2, 10])
    """

    def __init__(
        self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int,
        mlp_dim: int, dropout: float = 0.0, attention_dropout: float = 0.0,
        num_classes: int = 1000,
    ) -> None:  # fmt: skip
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"patches of {patch_size} do not tile an image of {image_size}")
        self.image_size, self.patch_size, self.hidden_dim = image_size, patch_size, hidden_dim
        self.conv_proj = nn.Conv2d(3, hidden_dim, patch_size, stride=patch_size)
        self.class_token: Any = nn.Parameter(zeros(1, 1, hidden_dim))
        length = (image_size // patch_size) ** 2 + 1
        self.encoder = Encoder(
            length, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout
        )
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(hidden_dim, num_classes))
        fan_in = 3 * patch_size**2
        nn.init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / fan_in))
        for zero in (self.conv_proj.bias, self.heads.head.weight, self.heads.head.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(n, 3, image_size, image_size)` to scores `(n, num_classes)`."""
        if tuple(x.shape[1:]) != (3, self.image_size, self.image_size):
            raise ShapeError(
                f"expected images of shape (n, 3, {self.image_size}, {self.image_size}), "
                f"got {tuple(x.shape)}"
            )
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        token = self.class_token.expand(x.shape[0], -1, -1)
        return self.heads(self.encoder(cat([token, patches], 1))[:, 0])


def vit_b_16(image_size: int = 224, **options: Any) -> VisionTransformer:
    """ViT-B/16: 86,567,656 parameters for 1000 classes. Options are those of the class."""
    return VisionTransformer(image_size, 16, 12, 12, 768, 3072, **options)


def vit_tiny(image_size: int = 32, patch_size: int = 4, **options: Any) -> VisionTransformer:
    """A small one for small images: 6 blocks, 3 heads, 192 features. Options as for the class."""
    return VisionTransformer(image_size, patch_size, 6, 3, 192, 768, **options)
