"""The contract of a learner: how a student adapts to a support set, and what the outer loop minimises.

Two functions make a learner. `adapt` takes the batch loss of the support rows and returns an adapted
student; `outer_loss` takes the adapted student and the batch loss of the query rows. MAML minimises the
batch loss in `adapt` by gradient descent; ProtoNet takes class means of the embeddings there, so that
teachers act in `outer_loss` alone. `uses_inner_loss` tells the two kinds apart.

A learner is a module, whose parameters (a learned rate, a learned scale) are called `learner.*` in
`meta`, beside `student.*`. Everything that may be learned is in `meta`; nothing hides in a closure.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import MOST_STEPS, check_integer, check_positive
from lightning_metakd.functional.inner_loop import loss_of_answer
from lightning_metakd.models.model import Model
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params


class Adapted(NamedTuple):
    """A student after its support set.

    Attributes:
        params: its parameters now.
        answer: (parameters, inputs [n, ...]) -> output; what else it took from the support set is inside.
        trajectory: its parameters after each inner step, the start first; of a solver start and end alone.
    """

    params: Params
    answer: Callable[[Params, Tensor], Output]
    trajectory: tuple[Params, ...] = ()

    def predict(self, x: Tensor) -> Output:
        """The adapted student's output for inputs [n, ...]."""
        return self.answer(self.params, x)


class Learner(nn.Module, ABC, Configured):
    """A way of adapting a student to a support set."""

    uses_inner_loss: bool
    """Whether `adapt` minimises the batch loss of the support rows; otherwise teachers act on query rows."""
    adapts_body: bool
    """Whether adapting changes the embedding of an image; otherwise it is computed once per test."""
    needs_head: bool
    """Whether the student's own logits are used; otherwise the student is built with n_classes=0."""
    inner_steps: int = 0
    """Gradients of the batch loss in one adaptation in training; those of a solver are not counted."""
    first_order: bool = False
    """Whether the gradient of an inner step is a constant to the steps before it, and so to the strategy: its
    gradient then leaves out what a step did to later ones, and is exact for a single step."""
    needs_teacher: bool = False
    """Whether `adapt` reads what a teacher says of the support rows, in a test too."""
    outer_loss_is_query_loss: bool = True
    """Whether the outer loss is the mean batch loss on the query rows; then it serves as a quiz too."""

    @property
    def descends(self) -> bool:
        """Whether inner steps move the whole network, so that they are most of a task."""
        return self.uses_inner_loss and self.adapts_body

    @property
    def second_order(self) -> bool:
        """Whether the outer gradient differentiates gradients of the whole network."""
        return self.descends and not self.first_order

    vmap_compatible: bool = True
    """Whether tasks can run in one `torch.func.vmap`: not with a solver or recomputed steps."""
    compilable: bool = True
    """Whether adapting is always the same operations, so that it can be compiled: not with a solver."""

    def check_flags(self) -> None:
        """Raise where the class does not say what kind of learner it is.

        Raises:
            ValueError: names what is missing.
        """
        for flag in ("uses_inner_loss", "adapts_body", "needs_head"):
            if not hasattr(self, flag):
                raise ValueError(
                    f"learner={type(self).__name__} does not say {flag}; set it to true "
                    "or false in its class."
                )

    def init_student_state(self, student: Model) -> None:
        """Make the parameters that depend on the student, such as a rate for each weight; called once."""

    def on_outer_step(self, progress: float) -> None:
        """Adjust to the part of the training, in [0, 1], that is done; called before each outer step."""

    @abstractmethod
    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        """The student after the support set.

        Args:
            forward: the student as a function of its parameters.
            meta: `student.*` and `learner.*` parameters.
            batch_loss: the loss of the support rows, as a function of the student's output.
            support: the support rows.
            n_way: number of classes, a Python int so that shapes are static.
        """

    def outer_loss(
        self, meta: Params, adapted: Adapted, batch_loss: BatchLoss, query: Batch
    ) -> Tensor:
        """The scalar whose gradient trains `meta`: by default the mean batch loss on the query rows.

        Args:
            meta: the parameters before adapting.
            adapted: the student that `adapt` made of them.
            batch_loss: the loss of the query rows, as a function of the student's output.
            query: the query rows.
        """
        return loss_of_answer(batch_loss, adapted.answer, adapted.params, query.x)


def checked_steps(inner_lr: float, inner_steps: int, test_steps: int | None) -> int:
    """Inner steps in evaluation, by default as many as in training.

    Args:
        inner_lr: rate of the inner loop.
        inner_steps: steps in training.
        test_steps: steps in evaluation, or None.

    Raises:
        ValueError: if the rate is not positive, or the student would take no step or too many.
    """
    check_positive("inner_lr", inner_lr, "for instance 0.01")
    hint = "as a student that takes no step does not adapt (ProtoNet needs none)"
    check_integer("inner_steps", inner_steps, 1, MOST_STEPS, hint)
    check_integer("test_steps", test_steps, 1, MOST_STEPS, hint, optional=True)
    return inner_steps if test_steps is None else test_steps
