"""Model-agnostic meta-learning.

Finn, Abbeel, Levine (2017), "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
arXiv:1703.03400. The student takes a few gradient steps on the support set; the outer loop
differentiates the query loss through these steps, so that the start becomes one from which a few
steps suffice. `first_order` leaves out the second derivatives. With `adapts="head"` it is ANIL (Raghu
2020, arXiv:1909.09157), with `adapts="body"` BOIL (Oh 2021, arXiv:2008.08882).
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from lightning_metakd.arguments.ranges import check_choice
from lightning_metakd.functional.bind import with_support_statistics
from lightning_metakd.functional.inner_loop import Rates, descend
from lightning_metakd.functional.params import detach, subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params

Adapts = Literal["all", "head", "body"]


def adapt_by_descent(
    forward: Forward,
    student: Params,
    batch_loss: BatchLoss,
    x: Tensor,
    rates: Sequence[Rates],
    first_order: bool = False,
    adapts: Adapts = "all",
    again: Params | None = None,
) -> Adapted:
    """Gradient descent on the batch loss over the part of the student that adapts.

    Where only the head adapts, the embedding is computed once. To first order, what does not adapt is
    as constant in the inner gradients as what does.

    Args:
        forward: the student as a function of its parameters.
        student: its parameters.
        batch_loss: the loss of the rows, as a function of the student's output.
        x: the rows.
        rates: one for each step, a number or one by parameter.
        first_order: leave out second derivatives.
        adapts: the part that moves.
        again: as in `descend`: steps are computed again in backward.
    """
    fixed_part = detach(student) if first_order else student
    moving = {name: p for name, p in student.items() if moves(name, adapts)}
    if adapts == "head":
        fixed = forward(fixed_part, x)

        def answer(params: Params) -> Output:
            return fixed._replace(
                logits=forward.classify({**fixed_part, **params}, fixed.embedding)
            )
    else:

        def answer(params: Params) -> Output:
            return forward({**fixed_part, **params}, x)

    trajectory = descend(answer, moving, batch_loss, rates, first_order, again)
    points = tuple({**student, **params} for params in trajectory)
    return Adapted(points[-1], with_support_statistics(forward, x), points)


def moves(name: str, adapts: Adapts) -> bool:
    """Whether a parameter of the student moves in the inner loop."""
    return adapts == "all" or (adapts == "head") == name.startswith("head.")


class MAML(Learner):
    """A few steps of gradient descent from a learned start.

    Args:
        inner_lr: step size of the inner loop, > 0.
        inner_steps: inner steps in training, >= 1.
        test_steps: inner steps in evaluation; None takes as many as in training.
        first_order: leave out second derivatives: less memory and time, nearly as good; a learned strategy's
            gradient then leaves out what an inner step did to later ones, and is right for one step alone.
        adapts: what the inner loop moves: `all`, only the `head` (ANIL), only the `body` (BOIL).
        recompute: compute inner steps again in backward: memory of one step, a third more time.

    Example:
        >>> from lightning_metakd.learners import MAML, example_task
        >>> task = example_task(learner := MAML(inner_lr=0.5, inner_steps=3))
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    needs_head = True

    def __init__(
        self,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = False,
        adapts: Adapts = "all",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_choice("adapts", adapts, get_args(Adapts))
        if recompute and adapts == "head":
            raise ValueError(
                "recompute=true saves nothing with adapts='head', whose steps are small; leave it out."
            )
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.first_order, self.adapts = first_order, adapts
        self.adapts_body = adapts != "head"
        self.recompute, self.vmap_compatible = recompute, not recompute

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        rates = [self.inner_lr] * (self.inner_steps if self.training else self.test_steps)
        return adapt_by_descent(
            forward,
            subtree(meta, "student"),
            batch_loss,
            support.x,
            rates,
            self.first_order,
            self.adapts,
            again=meta if self.recompute else None,
        )
