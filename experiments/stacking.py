"""Stacking: weights of teachers, fitted once on the rows that judge, by what the teachers say of them.

The weights w of a linear opinion pool, p = sum_k w_k p_k with w >= 0 and sum_k w_k = 1 (Stone 1961), of the
largest likelihood; it is concave in w, and expectation maximisation climbs it (Dempster, Laird, Rubin 1977).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.opened_runs import held_out, opened
from experiments.plan import Run
from lightning_metakd.storage.atomic_files import atomic_write

ROUNDS = 1000


def pool_weights(of_label: Float[Tensor, "k n"]) -> Float[Tensor, " k"]:
    """The likeliest weights of k teachers.

    Args:
        of_label: probability that each teacher gives the right label of each row.
    """
    w = torch.full((len(of_label),), 1 / len(of_label), dtype=torch.float64)
    for _ in range(ROUNDS):
        joint = w[:, None] * of_label.double()
        w = (joint / joint.sum(0).clamp(min=torch.finfo(joint.dtype).tiny)).mean(1)
        w = w / w.sum()
    return w


@torch.no_grad()
def fitted(training: Run) -> list[float]:
    """Weights of the teachers of a training, by the rows of its quiz."""
    recipe, data = opened(training)
    batch = recipe.with_teacher_outputs(held_out(recipe, data, "quiz"))
    probs = [
        output.logits.softmax(-1).gather(1, batch.y[:, None])[:, 0]
        for output in batch.teacher_outputs
    ]
    return [round(w, 4) for w in pool_weights(torch.stack(probs)).tolist()]


@dataclass(frozen=True, kw_only=True)
class Stacked(Run):
    """A training by weights that are fitted once its teachers are there.

    Attributes:
        uniform: the same training by teachers of one weight.
        loss: by their weights, as a configuration has it.
    """

    uniform: Run
    loss: Callable[[list[float]], dict[str, Any]]

    @property
    def file(self) -> Path:
        """Where the loss is written before the training begins."""
        return Path("runs", f"{self.folder}.loss.yaml")

    @property
    def words(self) -> list[str]:
        return [*super().words, f"--model.loss={self.file}"]

    def prepare(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.file) as part:
            part.write_text(json.dumps(self.loss(fitted(self.uniform))) + "\n")
