"""Reptile: the start moves towards where adapting leads.

Nichol, Achiam, Schulman (2018), "On First-Order Meta-Learning Algorithms", arXiv:1803.02999. The
student descends on the support set, and the outer loop takes a part of the way to where it went: the
gradient of half the squared distance. No query row is used in training. The outer optimiser of the
paper is SGD without momentum, whose rate is that part (1 falling to 0).

The inner optimiser is SGD, or Adam with beta1 = 0, which the paper prefers. Its average of squared
gradients starts anew in each episode (the authors' code carries it over), so that an episode's result
depends on the episode alone. All support rows serve each step; the paper draws batches of them.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_metakd.arguments.ranges import check_choice
from lightning_metakd.functional.bind import with_support_statistics
from lightning_metakd.functional.inner_loop import descend, inner_gradient
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params

InnerOptimiser = Literal["sgd", "adam"]
BETA2, EPS = 0.999, 1e-8


def descend_by_adam(
    forward: Forward, params: Params, batch_loss: BatchLoss, x: Tensor, lr: float, steps: int
) -> list[dict[str, Tensor]]:
    """The trajectory of Adam with beta1 = 0 (Kingma 2015, arXiv:1412.6980), to first order.

    The root of the average squared gradient is a constant to the graph: a strategy's gradient passes through
    the direction of the steps, not through their scale.
    """

    def answer(at: Params) -> Output:
        return forward(at, x)

    trajectory = [dict(params)]
    average = {name: torch.zeros_like(p) for name, p in params.items()}
    any_param = next(iter(params.values()))
    for k in range(steps):
        progress = any_param.new_full((), k / steps)
        grads = inner_gradient(answer, trajectory[-1], batch_loss, progress, first_order=True)
        average = {n: v.lerp(grads[n].detach().square(), 1 - BETA2) for n, v in average.items()}
        unbiased = 1 - BETA2 ** (k + 1)
        trajectory.append(
            {
                n: p - lr * grads[n] / ((average[n] / unbiased).sqrt() + EPS)
                for n, p in trajectory[-1].items()
            }
        )
    return trajectory


class Reptile(Learner):
    """Descent on the support set; the outer loop moves the start towards its end.

    A learned strategy's gradient leaves out what an inner step did to later ones, as with `first_order`.

    Args:
        inner_lr: step size of the inner loop, > 0.
        inner_steps: inner steps in training, >= 1; more than one, or it is joint training.
        test_steps: inner steps in evaluation; None takes as many as in training.
        inner_optimiser: `sgd`, or `adam` with beta1 = 0.

    Example:
        >>> from lightning_metakd.learners import Reptile, example_task
        >>> task = example_task(learner := Reptile(inner_lr=0.5))
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = True
    outer_loss_is_query_loss = False
    first_order = True

    def __init__(
        self,
        inner_lr: float = 0.01,
        inner_steps: int = 8,
        test_steps: int | None = None,
        inner_optimiser: InnerOptimiser = "sgd",
    ) -> None:
        super().__init__()
        check_choice("inner_optimiser", inner_optimiser, get_args(InnerOptimiser))
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.inner_optimiser = inner_optimiser

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student, x = subtree(meta, "student"), support.x
        steps = self.inner_steps if self.training else self.test_steps
        if self.inner_optimiser == "adam":
            trajectory = descend_by_adam(forward, student, batch_loss, x, self.inner_lr, steps)
        else:
            trajectory = descend(
                lambda at: forward(at, x),
                student,
                batch_loss,
                [self.inner_lr] * steps,
                first_order=True,
            )
        return Adapted(trajectory[-1], with_support_statistics(forward, x), tuple(trajectory))

    def outer_loss(
        self, meta: Params, adapted: Adapted, batch_loss: BatchLoss, query: Batch
    ) -> Tensor:
        student = subtree(meta, "student")
        away = [(p - adapted.params[n].detach()).square().sum() for n, p in student.items()]
        return torch.stack(away).sum() / 2
