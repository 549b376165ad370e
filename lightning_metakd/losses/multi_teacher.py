"""Several teachers: their weights, and a choice among them.

You et al. (2017), "Learning from Multiple Teacher Networks"; weights per row as in Zhang et al. (2023),
"Adaptive Multi-Teacher Knowledge Distillation with Meta-Learning" (MMKD), arXiv:2306.06634. L = sum_k w_k
loss(student, teacher k), w >= 0 and sum_k w_k = 1, for any loss of one teacher.

A weight trained on L itself would go to the teacher that is easiest to match: with sum_k w_k = 1,
sum_k w_k KL(p_k | q) = KL(p | q) + sum_k w_k KL(p_k | p), p = sum_k w_k p_k, whose last term depends on w
alone. So weights are strategy, trained by the quiz.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.losses.coefficient import Coefficient, Value, weight
from lightning_metakd.losses.layer_pairs import LayerPair, for_one_teacher
from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output


class Choice(nn.Module, ABC):
    """The teachers of the pool that have the highest scores in an episode; only they teach in it.

    Args:
        count: how many teach.
    """

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        check_integer("count", count, 1, hint="or nobody teaches")
        self.count = count

    @abstractmethod
    def scores(self, weights: Float[Tensor, "k n"], context: Context) -> Float[Tensor, " k"]:
        """The score of each teacher.

        Args:
            weights: of each teacher and row, before they are made to add up to 1.
        """

    def forward(self, weights: Float[Tensor, "k n"], context: Context) -> Bool[Tensor, " k"]:
        """True for the teachers that teach; at least one."""
        return largest(self.scores(weights, context), self.count)


class Heaviest(Choice):
    """Choose the teachers with the largest mean weight in the batch.

    Args:
        count: how many teach.

    Example:
        >>> from lightning_metakd.losses import Heaviest, example_rows
        >>> weights = Tensor([[0.2, 0.2], [0.7, 0.3], [0.1, 0.5]])  # of 3 teachers and 2 rows
        >>> Heaviest(count=2)(weights, example_rows()[2])
        tensor([False,  True,  True])
    """

    def scores(self, weights: Float[Tensor, "k n"], context: Context) -> Float[Tensor, " k"]:
        return weights.mean(1)


class MostAccurate(Choice):
    """Choose the teachers with the best held-out accuracy on the support set; one of weight 0 comes last.

    Args:
        count: how many teach.

    Example:
        >>> from lightning_metakd.losses import MostAccurate, example_rows
        >>> context = example_rows()[2]._replace(teacher_support_accuracy=Tensor([0.4, 0.9]))
        >>> MostAccurate()(Tensor([[1.0, 1.0], [1.0, 1.0]]), context)
        tensor([False,  True])
    """

    def scores(self, weights: Float[Tensor, "k n"], context: Context) -> Float[Tensor, " k"]:
        """The accuracy, -1 for a teacher of weight 0.

        Raises:
            ValueError: if there is no support set.
        """
        if isinstance(context.teacher_support_accuracy, tuple):
            raise ValueError(
                "choose=MostAccurate needs the teachers' accuracies on a support set, and there is none on a "
                "single task; take Heaviest, or leave choose out."
            )
        return context.teacher_support_accuracy.where(weights.mean(1) > 0, -1.0)


def largest(scores: Float[Tensor, " k"], count: int) -> Bool[Tensor, " k"]:
    """True at the `count` largest scores; of equal ones the first count."""
    # ranks by counting, as comparisons are the same under vmap: how many are larger, or equal and earlier
    k = torch.arange(len(scores), device=scores.device)
    larger = scores[None] > scores[:, None]
    earlier = (scores[None] == scores[:, None]) & (k[None] < k[:, None])
    return (larger | earlier).sum(1) < count


class Weights(nn.Module):
    """The weight of each teacher in each row; in every row they add up to 1.

    Args:
        weights: >= 0, one for each teacher, or a single one that is evaluated for each teacher in turn.
        choose: which teachers teach at all; all by default.

    Raises:
        ValueError: if all weights are 0.
    """

    def __init__(self, weights: list[Value], choose: Choice | None = None) -> None:
        super().__init__()
        self.of_teacher = nn.ModuleList(weight(w, f"weights.{k}") for k, w in enumerate(weights))
        self.choose = choose
        values = [list(w.configured_values().values()) for w in self.coefficients()]
        for end in (0, -1):  # of a schedule, between which the sum is positive
            if all(v and v[end] == 0 for v in values):
                raise ValueError(
                    "weights are all 0, and no teacher would teach; make one positive."
                )

    def coefficients(self) -> list[Coefficient]:
        """The coefficient of each teacher, or the one for all."""
        return [cast(Coefficient, w) for w in self.of_teacher]

    def replace(self, weights: list[Value]) -> None:
        """Use these weights from now on."""
        self.of_teacher = Weights(weights).of_teacher

    def forward(
        self, views: Sequence[tuple[Output, Batch, Context]], context: Context
    ) -> Float[Tensor, "k n"]:
        """The share of each teacher [k] in each row [n].

        Args:
            views: (student, batch, context) as a loss of each teacher reads them, from `for_one_teacher`.
            context: that of all teachers.

        Raises:
            ValueError: if there are weights for another number of teachers.
        """
        shared, n_rows = len(self.of_teacher) == 1, len(views[0][1].y)
        if not shared and len(self.of_teacher) != len(views):
            raise ValueError(
                f"weights has {len(self.of_teacher)} entries for {len(views)} teachers; give one for each in "
                "model.teachers, or a single one for all."
            )
        values = [
            self.of_teacher[0 if shared else k](batch, teacher_context).expand(n_rows)
            for k, (_, batch, teacher_context) in enumerate(views)
        ]
        raw = torch.stack(values)
        if self.choose is not None:
            raw = raw * self.choose(raw.detach(), context)[:, None]
        return raw / raw.sum(0).clamp(min=torch.finfo(raw.dtype).tiny)


class MultiTeacher(Loss):
    """The sum over the teachers of the pool of a loss times its weight; weights are made to add up to 1.

    Args:
        loss: of one teacher.
        weights: of each teacher, >= 0, as numbers or coefficients; 1 is uniform. A single `LearnedPerSample`
            is evaluated for each teacher in turn, so that it can be carried to another pool.
        choose: which teachers teach in an episode; all by default.

    Raises:
        ValueError: if a single learned weight is the same for every teacher, or all weights are 0.

    Example:
        >>> from lightning_metakd.losses import Hinton, MultiTeacher, example_rows
        >>> student, batch, context = example_rows()
        >>> MultiTeacher(Hinton(), weights=1.0)(student, batch, context)
        tensor([0.5238, 0.1841, 0.2126, 0.0056])
    """

    def __init__(
        self,
        loss: Loss,
        weights: Value | list[Value] = 1.0,
        choose: Choice | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weights = Weights(weights if isinstance(weights, list) else [weights], choose)
        one, *others = self.weights.coefficients()
        if not others and any(True for _ in one.parameters()) and not one.needs_teacher:
            raise ValueError(
                f"weights={type(one).__name__} is the same for every teacher, which cancels, as weights are "
                "made to add up to 1; give a list with one for each teacher, or LearnedPerSample."
            )

    def layer_pairs(self, teacher: int | None = 0) -> Iterator[LayerPair]:
        return self.loss.layer_pairs(None)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        views = [
            for_one_teacher(k, student, batch, context) for k in range(len(batch.teacher_outputs))
        ]
        losses = torch.stack([self.loss(*view) for view in views])
        return (self.weights(views, context) * losses).sum(0)


class OfTeacher(Loss):
    """A loss of one teacher of the pool.

    Args:
        teacher: its number in model.teachers, from 0.
        loss: any loss of a teacher.

    Example:
        >>> from lightning_metakd.losses import Hinton, OfTeacher, example_rows
        >>> student, batch, context = example_rows()
        >>> OfTeacher(0, Hinton())(student, batch, context)
        tensor([0.5238, 0.1841, 0.2126, 0.0056])
    """

    def __init__(self, teacher: int, loss: Loss) -> None:
        super().__init__()
        check_integer("teacher", teacher, 0, hint="a place in model.teachers counted from 0")
        self.teacher, self.loss = teacher, loss

    def layer_pairs(self, teacher: int | None = 0) -> Iterator[LayerPair]:
        return self.loss.layer_pairs(self.teacher)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        if self.teacher >= len(batch.teacher_outputs):
            raise ValueError(
                f"teacher={self.teacher} is not among the {len(batch.teacher_outputs)} of model.teachers; "
                "they are counted from 0."
            )
        return self.loss(*for_one_teacher(self.teacher, student, batch, context))
