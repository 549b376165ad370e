"""d(quiz loss) / d(strategy) through pilot steps.

Let L(theta; phi) be the teaching loss on one set of rows, g = grad_theta L its gradient as a step takes it
(coefficients see the student undifferentiated), Q the quiz on rows held apart, eta the step. The strategy
phi is judged by Q where theta <- theta - eta g(theta; phi) leads, from a theta that is held fixed:

- `unrolled`: differentiate through K steps (a double backward through the network, memory of K steps).
- `tangent`: for one step. With v = grad Q(theta'), dQ/dphi = -eta d/dphi <g, v>, and
  <g, v> = <dL/dOutput, dOutput . v>. One forward-mode product gives dOutput . v; what is left is a
  derivative of the loss alone, so no double backward touches the network.
- `neumann`: implicit, for a theta near the minimum of L. With v_0 = grad Q(theta) and
  v_{j+1} = (I - eta dg/dtheta)^T v_j, dQ/dphi = -eta d/dphi <g(theta; phi), v_0 + .. + v_{K-1}>: K terms
  of the series of the inverse Hessian (Lorraine, Vicol, Duvenaud 2020, arXiv:1911.02590, eq. 3 and
  algorithm 3), memory of one step. At a minimum they are the K unrolled steps.

The student's answer is a function `answer(theta) -> Output`; the lesson, which knows phi, is asked at
`progress`, by default at the end of the task.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vjp
from torch.utils._pytree import tree_leaves, tree_map

from lightning_metakd.arguments.ranges import (
    MOST_STEPS,
    check_choice,
    check_integer,
    check_positive,
)
from lightning_metakd.functional.checkpointing import Draws
from lightning_metakd.functional.inner_loop import inner_gradient, step
from lightning_metakd.functional.params import detach, detach_tree
from lightning_metakd.types import BatchLoss, Output, Params

Answer = Callable[[Params], Output]
Quiz = Callable[[Params], Tensor]
HypergradientMethod = Literal["tangent", "unrolled", "neumann"]


class Pilot(NamedTuple):
    """Pilot steps, judged.

    Attributes:
        loss: the quiz after the steps (`neumann`: before them); its gradient reaches the strategy and
            nothing else.
        gain: by how much the steps (`neumann`: one step) lowered the quiz.
    """

    loss: Tensor
    gain: Tensor


def unrolled(
    answer: Answer,
    batch_loss: BatchLoss,
    quiz: Quiz,
    theta: Params,
    lr: float,
    steps: int = 1,
    progress: Tensor | None = None,
) -> Pilot:
    """The pilot by differentiating through its steps."""
    start = at = detach(theta)
    for _ in range(steps):
        at = step(at, inner_gradient(answer, at, batch_loss, default_progress(at, progress)), lr)
    loss = quiz(at)
    return Pilot(loss, (quiz(start) - loss).detach())


def tangent(
    answer: Answer,
    batch_loss: BatchLoss,
    quiz: Quiz,
    theta: Params,
    lr: float,
    steps: int = 1,
    progress: Tensor | None = None,
) -> Pilot:
    """The pilot of one step by one forward-mode product, without double backward."""
    at, draws = detach(theta), Draws()
    output, pull_back = vjp(answer, at)  # type: ignore[misc]
    output = detach_tree(output)
    progress_at = default_progress(at, progress)
    # the graph to the strategy starts here; coefficients see the output undifferentiated
    slope = grad(lambda o: batch_loss(o, output, progress_at).mean())(output)
    (grads,) = pull_back(detach_tree(slope))
    v, after = grad_and_value(quiz)(detach(step(at, grads, lr)))
    with draws.again():  # the same dropout
        _, moved = jvp(answer, (at,), (v,))  # type: ignore[misc]
    pairs = zip(tree_leaves(slope), tree_leaves(moved), strict=True)
    inner = torch.stack([(s * m.detach()).sum() for s, m in pairs]).sum()
    return Pilot(with_gradient_of(after, -lr * inner), (quiz(at) - after).detach())


def neumann(
    answer: Answer,
    batch_loss: BatchLoss,
    quiz: Quiz,
    theta: Params,
    lr: float,
    steps: int = 1,
    progress: Tensor | None = None,
) -> Pilot:
    """The implicit gradient at a minimum of the lesson, by `steps` terms of a Neumann series."""
    at = detach(theta)
    v, before = grad_and_value(quiz)(at)
    grads, transposed = vjp(
        lambda p: inner_gradient(answer, p, batch_loss, default_progress(at, progress)), dict(at)
    )  # type: ignore[misc]
    total = v
    for _ in range(steps - 1):
        (curved,) = transposed(v)
        v = {name: (p - lr * curved[name]).detach() for name, p in v.items()}
        total = tree_map(torch.add, total, v)
    inner = torch.stack([(grads[name] * p.detach()).sum() for name, p in total.items()]).sum()
    after = quiz(detach(step(at, grads, lr)))
    return Pilot(with_gradient_of(before, -lr * inner), (before - after).detach())


def default_progress(theta: Params, progress: Tensor | None) -> Tensor:
    """How far the student is, by default at the end of its task."""
    return next(iter(theta.values())).new_ones(()) if progress is None else progress


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value with the gradient of the surrogate."""
    return value.detach() + surrogate - surrogate.detach()


HYPERGRADIENTS: dict[str, Callable[..., Pilot]] = {
    "tangent": tangent,
    "unrolled": unrolled,
    "neumann": neumann,
}
"""The ways by their names in configurations."""

GRADIENT_COUNTS: dict[Callable[..., Pilot], Callable[[int], int]] = {
    tangent: lambda steps: 3,
    unrolled: lambda steps: 2 * steps + 1,
    neumann: lambda steps: steps + 2,
}
"""Derivatives with respect to the student that a pilot of some steps takes, products with one included."""


def check_pilot(way: HypergradientMethod, lr: float, steps: int) -> None:
    """Refuse a pilot that could not be made.

    Raises:
        ValueError: if a number is out of range, or the way is unknown or cannot take them.
    """
    check_choice("hypergradient", way, get_args(HypergradientMethod))
    check_positive("pilot_lr", lr, "and so small that a step lowers the quiz")
    check_integer("pilot_steps", steps, 1, MOST_STEPS)
    if way == "tangent" and steps > 1:
        raise ValueError(
            f"pilot_steps={steps} with hypergradient={way!r}: tangent looks one step ahead, unrolled and "
            "neumann 1 or more; change either."
        )
