"""A softmax over very many classes, the frequent ones first.

Source: Grave, Joulin, Cissé, Grangier and Jégou, "Efficient softmax approximation for GPUs" (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from treadle.nn import functional as F
from treadle.nn.containers import ModuleList, Sequential
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.tensor import cat, full_like, where, zeros_like


class LogProbability(NamedTuple):
    """The log-probability of each target, and the mean of their negatives."""

    output: Any
    loss: Any


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log-probabilities of targets, frequent classes by a small softmax, others by clusters.

    Args:
        in_features: elements of an input.
        n_classes: classes, in the order of their frequency.
        cutoffs: ascending classes at which a new cluster begins.
        div_value: by what the width of each cluster's projection is smaller than the last's.
        head_bias: whether the first softmax has a bias.

    Raises:
        ValueError: the cutoffs are not ascending classes.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        marks = list(cutoffs)
        if not marks or marks != sorted(set(marks)) or not 0 < marks[0] <= marks[-1] < n_classes:
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing "
                "order, where each value is between 1 and n_classes-1"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = [*marks, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size = marks[0]
        self.n_clusters = len(marks)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            width = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, width, False, device, dtype),
                    Linear(width, high - low, False, device, dtype),
                )
            )

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.head.reset_parameters()
        for projection in self.tail:
            for layer in projection:
                layer.reset_parameters()

    def forward(self, input_: Any, target_: Any) -> LogProbability:
        """The log-probabilities of targets `(n,)` given inputs `(n, in_features)`, and the loss.

        The targets are read: a cluster sees the inputs of its own classes only.

        Raises:
            RuntimeError: the shapes do not fit, or a target is no class.
        """
        if target_.dim() > 1 or input_.dim() != target_.dim() + 1:
            raise RuntimeError(
                f"0D or 1D target tensor expected with one more dimension of the input, got "
                f"{tuple(target_.shape)} and {tuple(input_.shape)}"
            )
        batched = target_.dim() == 1
        x, target = (input_, target_) if batched else (input_.unsqueeze(0), target_.unsqueeze(0))
        if x.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if bool(((target < 0) | (target >= self.n_classes)).any()):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{target.min().item()}, {target.max().item()}] were found."
            )
        place = where(target < self.shortlist_size, target, zeros_like(target))
        local = zeros_like(x[:, 0])
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            inside = (target >= low) & (target < high)
            rows = inside.nonzero().reshape(-1)
            if not rows.numel():
                continue
            place = where(inside, full_like(place, self.shortlist_size + i), place)
            scores = F.log_softmax(self.tail[i](x.index_select(0, rows)), 1)
            own = (target.index_select(0, rows) - low).unsqueeze(1)
            local = local.index_add(0, rows, scores.gather(1, own).squeeze(1))
        head = F.log_softmax(self.head(x), 1)
        out = local + head.gather(1, place.unsqueeze(1)).squeeze(1)
        return LogProbability(out if batched else out.squeeze(0), (-out).mean())

    def log_prob(self, input: Any) -> Any:
        """The log-probabilities `(n, n_classes)` of all classes."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i in range(self.n_clusters):
            share = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(F.log_softmax(self.tail[i](input), 1) + share)
        return cat(parts, 1)

    def predict(self, input: Any) -> Any:
        """The most probable class of each input."""
        return self.log_prob(input).argmax(1)
