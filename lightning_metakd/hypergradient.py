"""d(quiz loss) / d(strategy) through one pilot step.

Let L(theta; phi) be the teaching loss on one set of rows, Q the quiz on rows held apart, eta the step.
The strategy phi is judged by Q(theta') with theta' = theta - eta grad_theta L(theta; phi), theta held
fixed. Two ways to the same gradient:

- `unrolled`: differentiate through the step (a double backward through the network).
- `tangent`: with v = grad Q(theta'), dQ/dphi = -eta d/dphi <grad_theta L, v>, and
  <grad_theta L, v> = <dL/dOutput, dOutput . v>. One forward-mode product gives dOutput . v; what is left
  is a derivative of the loss alone, so no double backward touches the network.

The student's answer is a function `answer(theta) -> Output`; the lesson, which knows phi, is asked at
`progress`, by default at the end of the task.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vjp
from torch.utils._pytree import tree_leaves

from lightning_metakd.functional import detach, step, stop
from lightning_metakd.recompute import Draws
from lightning_metakd.types import Lesson, Output, Params

Answer = Callable[[Params], Output]
Quiz = Callable[[Params], Tensor]


class Pilot(NamedTuple):
    """A pilot step, judged.

    Attributes:
        loss: the quiz after the step; its gradient reaches the strategy and nothing else.
        gain: by how much the step lowered the quiz.
    """

    loss: Tensor
    gain: Tensor


def slope_of(lesson: Lesson, output: Output, progress: Tensor | None) -> Output:
    """Gradient of the mean lesson at the output; coefficients see the output undifferentiated."""
    at = output.logits.new_ones(()) if progress is None else progress
    return grad(lambda o: lesson(o, output, at).mean())(output)


def unrolled(
    answer: Answer,
    lesson: Lesson,
    quiz: Quiz,
    theta: Params,
    lr: float,
    progress: Tensor | None = None,
) -> Pilot:
    """The pilot by differentiating through the step."""
    at = detach(theta)
    output, pull_back = vjp(answer, at)  # type: ignore[misc]
    (grads,) = pull_back(slope_of(lesson, output, progress))
    loss = quiz(step(at, grads, lr))
    return Pilot(loss, (quiz(at) - loss).detach())


def tangent(
    answer: Answer,
    lesson: Lesson,
    quiz: Quiz,
    theta: Params,
    lr: float,
    progress: Tensor | None = None,
) -> Pilot:
    """The pilot by one forward-mode product, without double backward."""
    at, draws = detach(theta), Draws()
    output, pull_back = vjp(answer, at)  # type: ignore[misc]
    output = stop(output)
    slope = slope_of(lesson, output, progress)  # the graph to the strategy starts here
    (grads,) = pull_back(stop(slope))
    v, after = grad_and_value(quiz)(detach(step(at, grads, lr)))
    with draws.again():  # the same dropout
        _, moved = jvp(answer, (at,), (v,))  # type: ignore[misc]
    pairs = zip(tree_leaves(slope), tree_leaves(moved), strict=True)
    inner = torch.stack([(s * m.detach()).sum() for s, m in pairs]).sum()
    surrogate = -lr * inner
    return Pilot(after + surrogate - surrogate.detach(), (quiz(at) - after).detach())


PILOTS = {"tangent": tangent, "unrolled": unrolled}
"""The ways by their names in configurations."""
