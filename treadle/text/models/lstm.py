"""A language model of long short-term memory, with the state_dict keys of PyTorch's example."""

from __future__ import annotations

from typing import Any

from treadle import nn
from treadle.nn import functional as F
from treadle.tensor import Tensor

State = tuple[Tensor, Tensor]


class LSTMLanguageModel(nn.Module):
    """An embedding (`encoder`), layers of LSTM (`rnn`), and a linear map to scores (`decoder`).

    Source: Zaremba et al., "Recurrent neural network regularization", 2014. Keys and
    initialisation are those of `word_language_model` among PyTorch's examples.

    Args:
        vocabulary: tokens.
        embedding: features of a token.
        hidden: features of the state.
        layers: layers of LSTM.
        dropout: the probability of a zero after the embedding and each layer, in training.
        tie_weights: let the decoder use the embedding's table; needs `embedding == hidden`.

    Raises:
        ValueError: weights are to be tied, but `embedding` and `hidden` differ.

    Example:
        >>> import treadle
        >>> model = treadle.text.models.LSTMLanguageModel(65, 16, 32, 1)
        >>> logits, state, loss = model(treadle.zeros(7, 2, dtype=treadle.long))
        >>> logits.shape
        treadle.Size([7, 2, 65])
    """

    def __init__(
        self, vocabulary: int, embedding: int = 64, hidden: int = 256, layers: int = 2,
        dropout: float = 0.0, tie_weights: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if tie_weights and embedding != hidden:
            raise ValueError(
                f"tied weights need as many features of a token as of the state, got {embedding} "
                f"and {hidden}"
            )
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(vocabulary, embedding)
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.LSTM(embedding, hidden, layers, dropout=between)
        self.decoder = nn.Linear(hidden, vocabulary)
        if tie_weights:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(
        self, tokens: Tensor, state: State | None = None, targets: Any = None
    ) -> tuple[Tensor, State, Tensor | None]:
        """The scores of each next token, the state after the last one, and the loss.

        Args:
            tokens: int64 `(length, n)`.
            state: what an earlier call returned, `None` at the start of a text; detach it between
                the steps of truncated backpropagation.
            targets: int64 `(length, n)`, the tokens that come next.

        Returns:
            Scores `(length, n, vocabulary)`, the state, and the mean cross entropy (`None` without
            targets).
        """
        out, state = self.rnn(self.drop(self.encoder(tokens)), state)
        logits = self.decoder(self.drop(out))
        loss = None
        if targets is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, state, loss
