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

Quiz and pilot are the words of MetaDistil (Zhou, Xu, McAuley 2022, "BERT Learns to Teach: Knowledge
Distillation with Meta Learning", arXiv:2106.04570), whose teacher learns from `unrolled` with one step.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vjp
from torch.utils._pytree import tree_leaves, tree_map

from lightning_metakd.functional.checkpointing import Draws
from lightning_metakd.functional.inner_loop import inner_gradient, step
from lightning_metakd.functional.params import detach, detach_tree
from lightning_metakd.types import BatchLoss, Output, Params

HypergradientMethod = Literal["tangent", "unrolled", "neumann"]


class PilotProblem(NamedTuple):
    """What a pilot trains on and what judges it.

    Attributes:
        predict: the student's output for the training rows, as a function of its parameters.
        train_loss: the teaching loss of these rows; knows the strategy.
        quiz: loss of the held-out rows, as a function of the student's parameters.
        params: the student's, from which the pilot starts; held fixed.
        lr: step size.
        steps: how many (`neumann`: terms of the series).
        progress: how far in its task the student is, in [0, 1]; by default at the end.
    """

    predict: Callable[[Params], Output]
    train_loss: BatchLoss
    quiz: Callable[[Params], Tensor]
    params: Params
    lr: float
    steps: int = 1
    progress: Tensor | None = None

    def progress_at(self, params: Params) -> Tensor:
        """The progress as a tensor like the parameters."""
        return next(iter(params.values())).new_ones(()) if self.progress is None else self.progress


class Pilot(NamedTuple):
    """Pilot steps, judged.

    Attributes:
        loss: the quiz after the steps (`neumann`: before them); its gradient reaches the strategy and
            nothing else.
        gain: by how much the steps (`neumann`: one step) lowered the quiz.
    """

    loss: Tensor
    gain: Tensor


def unrolled(problem: PilotProblem) -> Pilot:
    """The pilot by differentiating through its steps."""
    predict, train_loss, quiz, params, lr, steps, _ = problem
    start = at = detach(params)
    for _ in range(steps):
        at = step(at, inner_gradient(predict, at, train_loss, problem.progress_at(at)), lr)
    loss = quiz(at)
    return Pilot(loss, (quiz(start) - loss).detach())


def tangent(problem: PilotProblem) -> Pilot:
    """The pilot of one step by one forward-mode product, without double backward."""
    predict, train_loss, quiz, params, lr, _, _ = problem
    at, draws = detach(params), Draws()
    output, pull_back = vjp(predict, at)  # type: ignore[misc]
    output = detach_tree(output)
    progress = problem.progress_at(at)
    # the graph to the strategy starts here; coefficients see the output undifferentiated
    slope = grad(lambda o: train_loss(o, output, progress).mean())(output)
    (grads,) = pull_back(detach_tree(slope))
    v, after = grad_and_value(quiz)(detach(step(at, grads, lr)))
    with draws.again():  # the same dropout
        _, moved = jvp(predict, (at,), (v,))  # type: ignore[misc]
    pairs = zip(tree_leaves(slope), tree_leaves(moved), strict=True)
    inner = torch.stack([(s * m.detach()).sum() for s, m in pairs]).sum()
    return Pilot(with_gradient_of(after, -lr * inner), (quiz(at) - after).detach())


def neumann(problem: PilotProblem) -> Pilot:
    """The implicit gradient at a minimum of the teaching loss, by `steps` terms of a Neumann series."""
    predict, train_loss, quiz, params, lr, steps, _ = problem
    at = detach(params)
    v, before = grad_and_value(quiz)(at)
    grads, transposed = vjp(
        lambda p: inner_gradient(predict, p, train_loss, problem.progress_at(p)), dict(at)
    )  # type: ignore[misc]
    total = v
    for _ in range(steps - 1):
        (curved,) = transposed(v)
        v = {name: (p - lr * curved[name]).detach() for name, p in v.items()}
        total = tree_map(torch.add, total, v)
    inner = torch.stack([(grads[name] * p.detach()).sum() for name, p in total.items()]).sum()
    after = quiz(detach(step(at, grads, lr)))
    return Pilot(with_gradient_of(before, -lr * inner), (before - after).detach())


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value with the gradient of the surrogate."""
    return value.detach() + surrogate - surrogate.detach()


class Hypergradient(NamedTuple):
    """One way to differentiate a pilot, and what it costs.

    Attributes:
        solve: the pilot of a problem.
        count_gradients: derivatives with respect to the student for a number of steps, products with one
            included.
    """

    solve: Callable[[PilotProblem], Pilot]
    count_gradients: Callable[[int], int]


HYPERGRADIENTS: dict[HypergradientMethod, Hypergradient] = {
    "tangent": Hypergradient(tangent, lambda steps: 3),
    "unrolled": Hypergradient(unrolled, lambda steps: 2 * steps + 1),
    "neumann": Hypergradient(neumann, lambda steps: steps + 2),
}
"""The ways by their names in configurations."""
