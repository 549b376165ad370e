"""Logistic regression as the last layer.

Tian, Wang, Krishnan, Tenenbaum, Isola (2020), "Rethinking Few-Shot Image Classification: a Good
Embedding Is All You Need?", arXiv:2003.11539: train a classifier on all base classes, then classify an
episode by logistic regression on the embeddings of its support set, scaled to length one. As scikit-learn
writes it, the weights minimise the sum of the rows' losses plus half their squares times `penalty`
(= 1 / C); the intercept is free.

Here the minimum is differentiated implicitly, so that the head may also be meta-trained (Bertinetto
2019, arXiv:1805.08136, LR-D2), and the rows' losses are the batch loss, so that a teacher can
help it.
"""

import torch
from torch import Tensor
from torch.func import grad_and_value

from lightning_metakd.arguments.ranges import MOST_STEPS, check_integer, check_positive
from lightning_metakd.functional.implicit import (
    Residual,
    flatten,
    implicit_root,
    newton_krylov,
    unflatten,
)
from lightning_metakd.functional.inner_loop import inner_gradient, mean_loss
from lightning_metakd.functional.params import detach_tree, subtree
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.models.prototypes import unit
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params

MEMORY = 20
"""Steps from which L-BFGS guesses the curvature."""
NEWTON_STEPS, PRODUCTS = 5, 30
"""Most steps that mend what L-BFGS left, and products with the Jacobian in each."""


def linear(params: Params, embedding: Tensor) -> Tensor:
    """Logits [n, c] of weight [c, d] and bias [c]."""
    return embedding @ params["weight"].T + params["bias"]


def fit(
    batch_loss: BatchLoss, support: Output, slope: Residual, penalty: float, n_way: int, steps: int
) -> Params:
    """Weight [c, d] and bias [c] at the minimum, without graph.

    L-BFGS goes most of the way. It takes a loss and its gradient, and where a coefficient reads the student's
    output the slope is no gradient of the loss: Newton's method on the slope goes the rest.

    Args:
        batch_loss: the loss of the support rows.
        support: the student's output for them.
        slope: what is zero at the minimum, as a function of the weights.
        penalty: weight of half the squared weights beside the sum of the rows' losses.
        n_way: classes.
        steps: most steps of L-BFGS.
    """
    support = detach_tree(support)
    rows, end = len(support.embedding), support.embedding.new_ones(())
    start = {
        "weight": support.embedding.new_zeros(n_way, support.embedding.shape[1]),
        "bias": support.embedding.new_zeros(n_way),
    }

    def loss(row: Tensor) -> Tensor:
        params = unflatten(row, start)
        answer = support._replace(logits=linear(params, support.embedding))
        teaching_loss = mean_loss(batch_loss, answer, end)
        return teaching_loss + penalty / (2 * rows) * params["weight"].square().sum()

    at = flatten(start)
    tolerance = 100 * torch.finfo(at.dtype).eps
    optimiser = torch.optim.LBFGS(
        [at],
        max_iter=steps,
        history_size=MEMORY,
        tolerance_grad=tolerance,
        tolerance_change=0.0,  # until the line search sees rounding alone
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        with torch.no_grad():  # a graph to the strategy is not wanted here
            at.grad, value = grad_and_value(loss)(at)
        return float(value)

    optimiser.step(closure)
    near = unflatten(at.detach(), start)
    return newton_krylov(slope, near, NEWTON_STEPS, PRODUCTS, 10 * tolerance)


class Logistic(Learner):
    """Logistic regression on embeddings of length one.

    Args:
        penalty: weight of half the squared weights beside the sum of the rows' losses, > 0; scikit-learn's
            1 / C.
        max_steps: most steps of L-BFGS.
        solver_steps: products with the Hessian for one meta-gradient.

    Example:
        >>> from lightning_metakd.learners import Logistic, example_task
        >>> task = example_task(learner := Logistic())
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = False
    needs_head = False
    vmap_compatible = compilable = False

    def __init__(self, penalty: float = 1.0, max_steps: int = 100, solver_steps: int = 20) -> None:
        super().__init__()
        check_positive("penalty", penalty, "as without it the weights grow for ever")
        check_integer("max_steps", max_steps, 1, MOST_STEPS, "for instance 100")
        check_integer("solver_steps", solver_steps, 1, MOST_STEPS, "for instance 20")
        self.penalty, self.max_steps, self.solver_steps = penalty, max_steps, solver_steps

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student = subtree(meta, "student")
        student_support, statistics = forward.observe(student, support.x)
        student_support = student_support._replace(
            embedding=unit(at_least_single(student_support.embedding))
        )
        end, rows = student_support.embedding.new_ones(()), len(support.y)

        def slope(head: Params) -> Params:
            def answer(params: Params) -> Output:
                return student_support._replace(logits=linear(params, student_support.embedding))

            grads = inner_gradient(answer, head, batch_loss, end)
            pull = self.penalty / rows * head["weight"]
            return {"weight": grads["weight"] + pull, "bias": grads["bias"]}

        with torch.autocast(support.x.device.type, enabled=False):
            root = fit(batch_loss, student_support, slope, self.penalty, n_way, self.max_steps)
            head = implicit_root(slope, root, self.solver_steps)

        def answer(params: Params, x: Tensor) -> Output:
            output = forward({**params, **statistics}, x)
            return output._replace(logits=linear(head, unit(at_least_single(output.embedding))))

        return Adapted(student, answer, (student,))
