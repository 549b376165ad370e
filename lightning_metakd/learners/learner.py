"""How a student turns a support set into a predictor, and what the outer loop minimises.

Two functions carry the whole family. `adapt` is given a lesson (what to learn from the support
rows) and returns a predictor; `outer_loss` is given the predictor and a lesson on the query rows.
MAML descends the lesson and then asks the adapted student; ProtoNet takes class means of the
embeddings, so no lesson acts in `adapt`, and teaching acts in `outer_loss` instead: that is what
`adapts_by_loss` says.

A learner is a module, whose parameters (a learned rate, a learned scale) are called `learner.*` in
`meta`, beside `student.*`. Everything that may be learned is in `meta`; nothing hides in a closure.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lightning_metakd.types import Batch, Forward, Lesson, Output, Params


class Adapted(NamedTuple):
    """A student after its support set.

    Attributes:
        params: its parameters now.
        predict: its answer for inputs [n, ...].
        trajectory: its parameters after each inner step, the start first.
    """

    params: Params
    predict: Callable[[Tensor], Output]
    trajectory: tuple[Params, ...] = ()


class Learner(nn.Module, ABC):
    """A way of adapting."""

    adapts_by_loss: bool
    """Whether the lesson acts on the support set, inside `adapt`; otherwise it acts on the query rows."""
    needs_head: bool
    """Whether the student's own logits are used; otherwise the student is built with n_classes=0."""

    @abstractmethod
    def adapt(
        self, forward: Forward, meta: Params, lesson: Lesson, support: Batch, n_way: int
    ) -> Adapted:
        """The student after the support set.

        Args:
            meta: `student.*` and `learner.*` parameters.
            lesson: what the support rows teach.
            n_way: number of classes, a Python int so that shapes are static.
        """

    @abstractmethod
    def outer_loss(self, meta: Params, adapted: Adapted, lesson: Lesson, query: Batch) -> Tensor:
        """The scalar that trains `meta`, of an adapted student and a lesson on the query rows."""
