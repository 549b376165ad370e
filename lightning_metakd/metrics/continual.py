"""What a learner of tasks in turn keeps: numbers of the matrix of accuracies.

Entry (i, j) of the matrix is the accuracy on task j after learning task i.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def average_accuracy(after: Float[Tensor, "t t"]) -> float:
    """Mean accuracy over all tasks after the last: the last row's."""
    return float(after[-1].double().mean())


def forgetting(after: Float[Tensor, "t t"]) -> float:
    """Mean over tasks but the last of (best accuracy before the last task - accuracy at the end), in [-1, 1].

    Chaudhry et al. (2018), "Riemannian Walk for Incremental Learning", arXiv:1801.10112, section 3.

    Raises:
        ValueError: if there is only one task.

    Example:
        >>> round(forgetting(torch.tensor([[0.9, 0.2], [0.6, 0.8]])), 3)
        0.3
    """
    check_several(after)
    past = after[:-1, :-1].double()
    best = past.masked_fill(torch.ones_like(past).triu(1).bool(), -math.inf).max(0).values
    return float((best - after[-1, :-1].double()).mean())


def backward_transfer(after: Float[Tensor, "t t"]) -> float:
    """Mean over tasks but the last of (accuracy at the end - accuracy just after learning it), in [-1, 1].

    Lopez-Paz, Ranzato (2017), "Gradient Episodic Memory", arXiv:1706.08840, eq. 3.

    Raises:
        ValueError: if there is only one task.

    Example:
        >>> round(backward_transfer(torch.tensor([[0.9, 0.2], [0.6, 0.8]])), 3)
        -0.3
    """
    check_several(after)
    at_first = after.double().diagonal()
    return float((after[-1].double() - at_first)[:-1].mean())


def forward_transfer(after: Float[Tensor, "t t"], alone: Float[Tensor, " t"]) -> float:
    """Mean over tasks but the first of (accuracy just after learning it - that of who learned it alone).

    A head that grows has no answer for classes that are still to come, which eq. 4 of Lopez-Paz, Ranzato
    asks for; what earlier tasks are worth to a new one is seen in how well it is learned.

    Args:
        after: the matrix, of accuracies among the classes of a task.
        alone: accuracy on each task of a network that has learned it alone.

    Raises:
        ValueError: if there is only one task.
    """
    check_several(after)
    return float((after.double().diagonal() - alone.double())[1:].mean())


def check_several(after: Tensor) -> None:
    """Raise where there is nothing to keep or to transfer."""
    if len(after) < 2:
        raise ValueError(f"forgetting over {len(after)} tasks does not exist; use at least 2.")
