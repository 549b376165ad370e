"""A small task on which a learner can be tried."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_metakd.functional.bind import bind
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.learner import Learner
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.prototypes import one_hot
from lightning_metakd.types import Batch, BatchLoss, Context, Forward, Output, Params


class ExampleTask(NamedTuple):
    """The arguments of `Learner.adapt`, in order.

    Attributes:
        forward: a perceptron from 3 to 4 numbers, as a function of its parameters.
        meta: its parameters, and the learner's.
        batch_loss: cross-entropy with the labels of the support rows.
        support: the rows, [n_way * k_shot, 3].
        n_way: classes.
    """

    forward: Forward
    meta: Params
    batch_loss: BatchLoss
    support: Batch
    n_way: int


def example_task(learner: Learner, n_way: int = 2, k_shot: int = 2, seed: int = 0) -> ExampleTask:
    """A student and a support set of vectors, drawn at random, that suit a learner.

    Args:
        learner: the learner that is to be tried; it makes its rates for this student.
        n_way: classes, 3 at most.
        k_shot: rows of each class.
        seed: of the student and the rows.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        student = MLP(3, (4,), n_classes=n_way if learner.needs_head else 0)
        y = torch.arange(n_way * k_shot) % n_way
        x = 3 * one_hot(y, 3) + torch.randn(len(y), 3)
    learner.init_student_state(student)
    meta = {
        **with_prefix("student", dict(student.named_parameters())),
        **with_prefix("learner", dict(learner.named_parameters())),
    }
    support = Batch(x, y, torch.arange(len(y)), torch.full_like(y, -1))
    return ExampleTask(bind(student), meta, BatchLoss(label_loss, {}, support, y), support, n_way)


def label_loss(
    strategy: Params, student: Output, batch: Batch, context: Context
) -> Float[Tensor, " n"]:
    """Cross-entropy of each row, as a loss without coefficients."""
    return cross_entropy(student.logits, batch.y, reduction="none")
