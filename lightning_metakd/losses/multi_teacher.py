"""Several teachers: how much each is followed, and which of them at all.

You et al. (2017), "Learning from Multiple Teacher Networks"; weights per row as in Zhang et al. (2023),
"Adaptive Multi-Teacher Knowledge Distillation with Meta-Learning" (MMKD), arXiv:2306.06634. L = sum_k w_k
loss(student, teacher k), w >= 0 and sum_k w_k = 1, for any loss of one teacher.

A weight trained on L itself would go to the teacher that is easiest to match: with sum_k w_k = 1,
sum_k w_k KL(p_k | q) = KL(p | q) + sum_k w_k KL(p_k | p), p = sum_k w_k p_k, whose last term depends on w
alone. So weights are strategy, trained by the quiz.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_metakd.losses.coefficient import Coefficient, coefficient
from lightning_metakd.losses.layers import Read, facing
from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output


class Choice(nn.Module, ABC):
    """Which teachers of the pool teach in this episode."""

    @abstractmethod
    def forward(self, weights: Float[Tensor, "k n"], context: Context) -> Bool[Tensor, " k"]:
        """True for those that do; at least one."""


class Heaviest(Choice):
    """Those with the largest mean weight in the batch.

    Args:
        count: how many.
    """

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count} leaves no teacher; choose 1 or more.")
        self.count = count

    def forward(self, weights: Float[Tensor, "k n"], context: Context) -> Bool[Tensor, " k"]:
        return largest(weights.mean(1), self.count)


class MostAccurate(Choice):
    """Those that name most of the episode's support rows rightly, each row held out.

    Args:
        count: how many.
    """

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count} leaves no teacher; choose 1 or more.")
        self.count = count

    def forward(self, weights: Float[Tensor, "k n"], context: Context) -> Bool[Tensor, " k"]:
        if isinstance(context.trust, tuple):
            raise ValueError(
                "choose=MostAccurate asks which teacher is right on the support set, and there is none on a "
                "single task; take Heaviest, or leave choose out."
            )
        return largest(context.trust, self.count)


def largest(scores: Float[Tensor, " k"], count: int) -> Bool[Tensor, " k"]:
    """True at the largest scores, the first of equal ones."""
    # ranks by counting, as comparisons are the same under vmap: how many are larger, or equal and earlier
    k = torch.arange(len(scores), device=scores.device)
    larger = scores[None] > scores[:, None]
    earlier = (scores[None] == scores[:, None]) & (k[None] < k[:, None])
    return (larger | earlier).sum(1) < count


class MultiTeacher(Loss):
    """Sum over the teachers of the pool of a loss, times the weight of each; weights are made to add up to 1.

    Args:
        loss: of one teacher.
        weights: of each teacher, >= 0, as numbers or coefficients; 1 is uniform. A single `LearnedPerSample`
            looks at each teacher in turn, so that it can be carried to another pool.
        choose: which teachers teach in an episode; all by default.
    """

    def __init__(
        self,
        loss: Loss,
        weights: float | Coefficient | list[float | Coefficient] = 1.0,
        choose: Choice | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.choose = loss, choose
        self.shared = not isinstance(weights, list)
        listed = weights if isinstance(weights, list) else [weights]
        self.weights = nn.ModuleList(
            coefficient(w, f"weights.{k}", 1.0, low=0.0, closed=True) for k, w in enumerate(listed)
        )
        if all(getattr(w, "value", 1.0) == 0 for w in self.weights):
            raise ValueError("weights are all 0, and no teacher would teach; make one positive.")

    def reads(self, teacher: int | None = 0) -> Iterator[Read]:
        return self.loss.reads(None)

    def shares(
        self, student: Output, batch: Batch, context: Context
    ) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
        """(weights of each teacher for each row, which add up to 1; its loss).

        Raises:
            ValueError: if there are weights for another number of teachers.
        """
        n_teachers = len(batch.teachers)
        if not self.shared and len(self.weights) != n_teachers:
            raise ValueError(
                f"weights has {len(self.weights)} entries for {n_teachers} teachers; give one for each in "
                "model.teachers, or a single one for all."
            )
        raw, losses = [], []
        for k in range(n_teachers):
            own, rows, told = facing(k, student, batch, context)
            losses.append(self.loss(own, rows, told))
            weight = self.weights[0 if self.shared else k](rows, told)
            raw.append(weight.expand_as(losses[-1]))
        weights = torch.stack(raw)
        if self.choose is not None:
            weights = weights * self.choose(weights.detach(), context)[:, None]
        total = weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
        return weights / total, torch.stack(losses)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        weights, losses = self.shares(student, batch, context)
        return (weights * losses).sum(0)


class OfTeacher(Loss):
    """A loss of one teacher of the pool.

    Args:
        teacher: its number in model.teachers, from 0.
        loss: any loss of a teacher.
    """

    def __init__(self, teacher: int, loss: Loss) -> None:
        super().__init__()
        if teacher < 0:
            raise ValueError(f"teacher={teacher} must be 0 or more: a place in model.teachers.")
        self.teacher, self.loss = teacher, loss

    def reads(self, teacher: int | None = 0) -> Iterator[Read]:
        return self.loss.reads(self.teacher)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        if self.teacher >= len(batch.teachers):
            raise ValueError(
                f"teacher={self.teacher} is not among the {len(batch.teachers)} of model.teachers; they are "
                "counted from 0."
            )
        return self.loss(*facing(self.teacher, student, batch, context))
