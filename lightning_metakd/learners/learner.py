"""How a student turns a support set into a predictor, and what the outer loop minimises.

Two functions carry the whole family. `adapt` is given a lesson (what to learn from the support
rows) and returns a predictor; `outer_loss` is given the predictor and a lesson on the query rows.
MAML descends the lesson and then asks the adapted student; ProtoNet takes class means of the
embeddings, so no lesson acts in `adapt`, and teaching acts in `outer_loss` instead: that is what
`uses_inner_loss` says.

A learner is a module, whose parameters (a learned rate, a learned scale) are called `learner.*` in
`meta`, beside `student.*`. Everything that may be learned is in `meta`; nothing hides in a closure.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import MOST_STEPS, check_integer, check_positive
from lightning_metakd.functional.inner_loop import mean_loss
from lightning_metakd.models.model import Model
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params


class Adapted(NamedTuple):
    """A student after its support set.

    Attributes:
        params: its parameters now.
        answer: (parameters, inputs [n, ...]) -> answer, with what else it took from the support set.
        trajectory: its parameters after each inner step, the start first; of a solver start and end alone.
    """

    params: Params
    answer: Callable[[Params, Tensor], Output]
    trajectory: tuple[Params, ...] = ()

    def predict(self, x: Tensor) -> Output:
        """The adapted student's answer for inputs [n, ...]."""
        return self.answer(self.params, x)


class Learner(nn.Module, ABC, Configured):
    """A way of adapting."""

    uses_inner_loss: bool
    """Whether the lesson acts on the support set, inside `adapt`; otherwise it acts on the query rows."""
    adapts_body: bool
    """Whether adapting changes the embedding of an image; otherwise it is computed once per test."""
    needs_head: bool
    """Whether the student's own logits are used; otherwise the student is built with n_classes=0."""
    inner_steps: int = 0
    """Gradients of the lesson in one adaptation, as training makes it; those of a solver are not counted."""
    first_order: bool = False
    """Whether a step is constant in those before it, for the strategy too: what it did to later steps is then
    left out of its gradient, which for a single step is exact."""
    outer_loss_is_query_loss: bool = True
    """Whether the outer loss is the lesson on the query rows, so that it can judge a strategy too."""

    vmap_compatible: bool = True
    """Whether adapting is always the same operations, so that tasks can run in one `torch.func.vmap` and a
    step can be compiled: not with a solver or recomputed steps."""

    def compile_steps(self) -> bool:
        """Told, where the graph of a task is not fixed, to compile what is; False if nothing is."""
        return False

    def init_student_state(self, student: Model) -> None:
        """Told once whom it adapts; a learner with rates makes them here, none for what is frozen."""

    def on_outer_step(self, progress: float) -> None:
        """Told before an outer step which part of the training, in [0, 1], is done; most do not ask."""

    @abstractmethod
    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        """The student after the support set.

        Args:
            meta: `student.*` and `learner.*` parameters.
            lesson: what the support rows teach.
            n_way: number of classes, a Python int so that shapes are static.
        """

    def outer_loss(
        self, meta: Params, adapted: Adapted, batch_loss: BatchLoss, query: Batch
    ) -> Tensor:
        """The scalar whose gradient trains `meta`: by default the mean batch loss on the query rows."""
        return mean_loss(batch_loss, adapted.predict(query.x))


def checked_steps(inner_lr: float, inner_steps: int, test_steps: int | None) -> int:
    """Inner steps in evaluation, by default as many as in training.

    Raises:
        ValueError: if the rate is not positive, or the student would take no step or too many.
    """
    check_positive("inner_lr", inner_lr, "for instance 0.01")
    hint = "as a student that takes no step does not adapt (ProtoNet needs none)"
    check_integer("inner_steps", inner_steps, 1, MOST_STEPS, hint)
    check_integer("test_steps", test_steps, 1, MOST_STEPS, hint, optional=True)
    return inner_steps if test_steps is None else test_steps
