"""How much each support row counts, where some of their labels may be wrong.

A coefficient looks at what the teachers and the student say of each row, held out of what it would be judged
by: a teacher by its head, the student by its nearest class mean without the row. It is a part of the learner,
trained by the loss of the query rows over many tasks, as those rows are right.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lightning_metakd.functional.params import subtree
from lightning_metakd.losses.coefficient import Coefficient, LearnedPerClass, Value, weight
from lightning_metakd.models.prototypes import leave_one_out_means, metric_logits, one_hot
from lightning_metakd.types import Batch, Context, Output, Params

NAME = "support_weight"
SHARPNESS = 10.0
"""Factor on the student's cosines, as is usual for class means."""


def support_coefficient(value: Value | None) -> Coefficient | None:
    """The coefficient of an argument `support_weight`.

    Raises:
        ValueError: if it tells classes of the data apart, which are others in each task.
    """
    if isinstance(value, LearnedPerClass):
        raise ValueError(
            f"{NAME}=LearnedPerClass has a number for each class of the data, and the classes of a task are "
            "others each time; take LearnedPerSample."
        )
    return None if value is None else weight(value, NAME)


def reads_teacher(coefficient: nn.Module | None) -> bool:
    """Whether a coefficient wants a teacher's answers for the support rows."""
    return isinstance(coefficient, Coefficient) and coefficient.needs_teacher


def support_weights(
    coefficient: nn.Module | None,
    learner: Params,
    support: Batch,
    embedding: Float[Tensor, "s d"],
    n_way: int,
) -> Float[Tensor, " s"] | None:
    """The weight of each support row, 1 for the heaviest of a class; None where all count alike.

    Args:
        coefficient: of the rows.
        learner: parameters of the learner, the coefficient's among them.
        support: the rows, with the teachers' answers.
        embedding: by the student.
        n_way: number of classes.
    """
    if coefficient is None:
        return None
    rows = embedding.detach()
    means = leave_one_out_means(rows, support.y, n_way)
    logits = SHARPNESS * metric_logits(rows, means, "cosine")
    context = Context(support.y, rows.new_ones(()), Output(logits, rows))
    params: Mapping[str, Tensor] = subtree(learner, NAME)
    values = functional_call(coefficient, dict(params), (support, context)).expand(len(support.y))
    return by_class(values, support, n_way)


def by_class(values: Float[Tensor, " s"], support: Batch, n_way: int) -> Float[Tensor, " s"]:
    """Weights over the largest of their class, so that equal ones are 1; all 1 where a class has none."""
    member = one_hot(support.y, n_way)
    largest = torch.where(member, values[:, None], 0.0).amax(0)[support.y]
    return torch.where(largest > 0, values / largest.where(largest > 0, 1.0), 1.0)
