"""A weight for each pair of layers that a loss compares."""

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.losses.coefficient import Value, weight
from lightning_metakd.losses.layer_pairs import with_teacher_layer
from lightning_metakd.models.model import as_key
from lightning_metakd.types import Batch, Context

Pairs = Sequence[tuple[str, str]]
"""(layer of the student, layer of the teacher)."""
Weights = Value | dict[str, Value]
"""One for all pairs, or one for each layer of the teacher."""
T = TypeVar("T")


class LayerWeights(nn.ModuleDict):
    """The weighted sum of the losses of pairs of layers.

    Args:
        pairs: (layer of the student, layer of the teacher).
        weights: >= 0, one for all pairs or by the teacher's layer; each pair has its own copy.

    Raises:
        ValueError: if there are no pairs, or a weight names a layer that is in none.
    """

    def __init__(self, pairs: Pairs, weights: Weights) -> None:
        default: Value = 1.0
        by_pair = of_each_pair(pairs, weights, default, "weights")
        super().__init__(
            {name: weight(value, f"weights.{name}") for name, value in by_pair.items()}
        )
        self.pairs = list(pairs)

    def forward(
        self, losses: Sequence[Float[Tensor, " n"]], batch: Batch, context: Context
    ) -> Float[Tensor, " n"]:
        weights = [
            weight(with_teacher_layer(batch, layer), context)
            for weight, (_, layer) in zip(self.values(), self.pairs, strict=True)
        ]
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum(0)


def of_each_pair(pairs: Pairs, values: T | dict[str, T], default: T, argument: str) -> dict[str, T]:
    """A copy of its value for each pair, by a name that a module may have.

    Args:
        values: one for all pairs, or some by the teacher's layer.
        default: for layers without a value.
        argument: the name of the values in the configuration, for messages.

    Raises:
        ValueError: if there are no pairs, or a value names a layer that is in none.
    """
    if not pairs:
        raise ValueError(
            "layers names no layers to compare; give the student's and the teacher's, for instance "
            "{block3: block3}, or {embedding: embedding}."
        )
    teacher_layers = {layer for _, layer in pairs}
    by_layer = values if isinstance(values, dict) else dict.fromkeys(teacher_layers, values)
    if unknown := sorted(set(by_layer) - teacher_layers):
        raise ValueError(
            f"{argument} names {', '.join(unknown)}, but the teacher's layers are "
            f"{', '.join(sorted(teacher_layers))}; rename or drop them."
        )
    return {as_key(f"{s}>{t}"): deepcopy(by_layer.get(t, default)) for s, t in pairs}
