"""An update rule that is learned: a recurrent network turns gradients into steps.

Andrychowicz et al. (2016), "Learning to learn by gradient descent by gradient descent", arXiv:1606.04474. An
LSTM of two layers reads the gradient of each coordinate (appendix A: its logarithm and sign) and writes that
coordinate's step; all coordinates share its weights, and each has a state of its own. As in the paper, the
gradients that it reads are constants unless second derivatives are asked for. Here the outer loss is the
query loss after the last step, and the start is learned too.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_metakd.arguments.ranges import MOST_STEPS, check_integer, check_positive
from lightning_metakd.functional.bind import with_support_statistics
from lightning_metakd.functional.checkpointing import recomputed
from lightning_metakd.functional.inner_loop import inner_gradient
from lightning_metakd.functional.params import subtree, with_prefix
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params

MOST_UNITS = 1024


def readable(gradient: Tensor, p: float = 10.0) -> Tensor:
    """What the network reads of a gradient [n]: [n, 2], each in the order of 1.

    (log|g| / p, sign g) where |g| >= exp(-p), else (-1, exp(p) g): appendix A, with its p = 10.
    """
    size = gradient.abs().clamp(min=math.exp(-p)).log() / p
    return torch.stack([size, (math.exp(p) * gradient).clamp(-1, 1)], dim=-1)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, weights: Params) -> tuple[Tensor, Tensor]:
    """One step of `torch.nn.LSTMCell` as a pure function that has second derivatives on every device.

    Args:
        x: inputs [n, i].
        h: outputs before [n, d].
        c: memory before [n, d].
        weights: of the cell, by its own names.

    Returns:
        Outputs and memory after the step.
    """
    gates = linear(x, weights["weight_ih"], weights["bias_ih"])
    gates = gates + linear(h, weights["weight_hh"], weights["bias_hh"])
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class LSTMOptimizer(Learner):
    """Steps on the support set that an LSTM makes of its gradients.

    Learnable: start, and the weights of the LSTM, which no student's size changes.

    Args:
        inner_steps: inner steps in training, >= 1.
        test_steps: inner steps in evaluation; None takes as many as in training.
        units: of each of the two layers.
        scale: of a step beside what the network writes, > 0.
        unroll: through how many steps the state is differentiated; None is all.
        first_order: leave out second derivatives, as the paper does.
        recompute: compute steps again in backward: the memory of one, a third more time.

    Example:
        >>> from lightning_metakd.learners import LSTMOptimizer, example_task
        >>> task = example_task(learner := LSTMOptimizer(inner_steps=3))
        >>> learner.adapt(*task).predict(task.support.x).logits.shape
        torch.Size([4, 2])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = True

    def __init__(
        self,
        inner_steps: int = 5,
        test_steps: int | None = None,
        units: int = 20,
        scale: float = 0.1,
        unroll: int | None = None,
        first_order: bool = True,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        check_positive("scale", scale, "for instance 0.1")
        check_integer("units", units, 1, MOST_UNITS)
        check_integer("unroll", unroll, 1, MOST_STEPS, "or null for all", optional=True)
        self.test_steps = checked_steps(scale, inner_steps, test_steps)
        self.inner_steps, self.units, self.scale, self.unroll = inner_steps, units, scale, unroll
        self.first_order, self.recompute = first_order, recompute
        self.vmap_compatible = not recompute
        self.cells = nn.ModuleList([nn.LSTMCell(2, units), nn.LSTMCell(units, units)])
        self.write = nn.Linear(units, 1)

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student, steps = subtree(meta, "student"), self.inner_steps
        steps = steps if self.training else self.test_steps
        leaves = (*meta.values(), *batch_loss.strategy.values())
        any_param = next(iter(student.values()))
        state = self.rest(sum(p.numel() for p in student.values()), any_param)
        points = [dict(student)]
        for k in range(steps):
            progress = any_param.new_full((), k / steps)
            if self.unroll is not None and k % self.unroll == 0:
                state = {name: s.detach() for name, s in state.items()}

            def step(at: Params, progress: Tensor = progress) -> dict[str, Tensor]:
                return self.step(forward, meta, at, batch_loss, support.x, progress)

            at = with_prefix("student", points[-1]) | with_prefix("state", state)
            there = recomputed(step, at, leaves) if self.recompute else step(at)
            points.append(subtree(there, "student"))
            state = subtree(there, "state")
        return Adapted(points[-1], with_support_statistics(forward, support.x), tuple(points))

    def rest(self, n: int, like: Tensor) -> dict[str, Tensor]:
        """The state of n coordinates before the first step: outputs and memory [n, units] of both layers."""
        return {name: like.new_zeros(n, self.units) for name in ("h0", "c0", "h1", "c1")}

    def step(
        self,
        forward: Forward,
        meta: Params,
        at: Params,
        batch_loss: BatchLoss,
        x: Tensor,
        progress: Tensor,
    ) -> dict[str, Tensor]:
        """Student and state after a step, by their names in `at`."""
        student, state, rule = (
            subtree(at, "student"),
            subtree(at, "state"),
            subtree(meta, "learner"),
        )

        def answer(params: Params) -> Output:
            return forward(params, x)

        grads = inner_gradient(answer, student, batch_loss, progress, self.first_order)
        moves, state = self.moves(rule, grads, state)
        moved = {name: p + moves[name] for name, p in student.items()}
        return with_prefix("student", moved) | with_prefix("state", state)

    def moves(
        self, rule: Params, grads: Params, state: Params
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The step of each parameter, and the state after it.

        Args:
            rule: weights of the LSTM.
            grads: gradient of each parameter.
            state: of all coordinates in their order, from `rest` or the step before.
        """
        flat = torch.cat([g.reshape(-1) for g in grads.values()])
        h0, c0 = lstm_cell(readable(flat), state["h0"], state["c0"], subtree(rule, "cells.0"))
        h1, c1 = lstm_cell(h0, state["h1"], state["c1"], subtree(rule, "cells.1"))
        written = self.scale * linear(h1, rule["write.weight"], rule["write.bias"])[:, 0]
        parts = written.split([g.numel() for g in grads.values()])
        moves = {name: part.view_as(grads[name]) for name, part in zip(grads, parts, strict=True)}
        return moves, {"h0": h0, "c0": c0, "h1": h1, "c1": c1}
