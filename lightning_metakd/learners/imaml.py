"""iMAML: a meta-gradient that depends on the end of the inner loop alone.

Rajeswaran, Finn, Kakade, Levine (2019), "Meta-Learning with Implicit Gradients", arXiv:1909.04630. The
student minimises the batch loss plus half the squared distance to its start times `pull`; at that minimum
the gradient of the query loss in the start is (1 + H / pull)^{-1} times that in the adapted weights, H
the Hessian of the batch loss. Memory does not grow with the inner steps, and nothing depends on their rate
or number once they have arrived. The paper solves the linear system by conjugate gradients, here it is
GMRES (see implicit.py), and the strategy gets its gradient from the same system.
"""

import torch

from lightning_metakd.arguments.ranges import MOST_STEPS, check_integer, check_positive
from lightning_metakd.functional.bind import with_support_statistics
from lightning_metakd.functional.implicit import implicit_root
from lightning_metakd.functional.inner_loop import inner_gradient, step
from lightning_metakd.functional.params import detach, subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.types import Batch, BatchLoss, Forward, Params


class IMAML(Learner):
    """Descent to the minimum of the batch loss near the start, differentiated implicitly.

    Args:
        inner_lr: step size of the inner loop, > 0, below 2 / (curvature + pull).
        inner_steps: inner steps in training, enough to come near the minimum.
        test_steps: inner steps in evaluation; None takes as many as in training.
        pull: weight of half the squared distance to the start, > 0 (the paper's lambda).
        solver_steps: products with the Hessian for one meta-gradient.

    Example:
        >>> from lightning_metakd.learners import IMAML, example_task
        >>> task = example_task(learner := IMAML(inner_lr=0.5, pull=0.1))
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = True
    vmap_compatible = compilable = False

    def __init__(
        self,
        inner_lr: float = 0.1,
        inner_steps: int = 16,
        test_steps: int | None = None,
        pull: float = 2.0,
        solver_steps: int = 5,
    ) -> None:
        super().__init__()
        check_positive("pull", pull, "for instance 2")
        check_integer("solver_steps", solver_steps, 1, MOST_STEPS, "for instance 5")
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        if inner_lr * pull >= 2:
            raise ValueError(
                f"inner_lr={inner_lr} times pull={pull} is {inner_lr * pull:.3g} and must be below 2, or no "
                "step comes nearer to a minimum; lower inner_lr."
            )
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.pull, self.solver_steps = pull, solver_steps

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student, x = subtree(meta, "student"), support.x
        end = next(iter(student.values())).new_ones(())  # one objective, hence one progress

        def slope(at: Params) -> Params:
            grads = inner_gradient(lambda params: forward(params, x), at, batch_loss, end)
            return {n: grads[n] + self.pull * (p - student[n]) for n, p in at.items()}

        at = detach(student)
        with torch.no_grad():
            for _ in range(self.inner_steps if self.training else self.test_steps):
                at = step(at, slope(at), self.inner_lr)
        adapted = implicit_root(slope, at, self.solver_steps)
        return Adapted(adapted, with_support_statistics(forward, x), (student, adapted))
