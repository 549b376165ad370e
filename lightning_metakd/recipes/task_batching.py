"""The mean of a loss over the tasks of a meta-batch, one by one or several at once.

Every part is differentiated as soon as it is computed and its graph dropped, so that memory does not grow
with the meta-batch, only with the tasks that run at once. What comes back is still one scalar, whose
gradient is known already: it is scaled, averaged over processes and clipped like any other.

There are three ways to the same gradient. One by one is as fast as any other on a CPU, whose caches several
tasks overflow, and keeps the graph of one. `torch.func.vmap` runs several in the same kernels, which is
meant for a GPU. Compiled, the operations between convolutions become a few fused loops, and what is cheap is
computed again rather than kept; where most of a task is inner steps and tasks run one by one, these are
compiled (functional/regions.py), else all that runs at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.func import vmap
from torch.utils._pytree import tree_map

from lightning_metakd.functional.regions import compiled as compile_whole
from lightning_metakd.types import Episode, Params, QuizEpisodes

TaskLoss = Callable[[Params, Params, Any], tuple[Tensor, ...]]
"""(theta, strategy, task) -> scalars: the loss first, then what is only reported."""


class Known(torch.autograd.Function):
    """A value whose gradients in some leaves are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: Sequence[Tensor | None], *leaves: Tensor) -> Tensor:
        ctx.grads = grads
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if g is None else slope * g for g in ctx.grads)


def mean_over_tasks(
    loss: TaskLoss,
    theta: Params,
    strategy: Params,
    tasks: Sequence[Episode | QuizEpisodes],
    tasks_per_call: int = 1,
    compiled: bool = False,
) -> tuple[Tensor, ...]:
    """Mean loss, differentiable once in the leaves among theta and strategy, and the other means.

    Args:
        tasks_per_call: tasks in one call of `vmap`; 1 is a plain loop.
        compiled: compile all that runs at once; once for each shape of episode.
    """
    leaves = [p for p in (*theta.values(), *strategy.values()) if p.requires_grad]
    grads: list[Tensor | None] = [None] * len(leaves)
    means: list[Tensor] = []
    for first in range(0, len(tasks), tasks_per_call):
        group = tasks[first : first + tasks_per_call]
        values = (compile_whole(run) if compiled else run)(loss, theta, strategy, group)
        share = len(group) / len(tasks)
        if values[0].requires_grad:  # a strategy that teaches nothing leaves no trace in the quiz
            slopes = torch.autograd.grad(share * values[0], leaves, allow_unused=True)
            grads = [added(g, slope) for g, slope in zip(grads, slopes, strict=True)]
        parts = [share * value.detach() for value in values]
        means = [m + v for m, v in zip(means, parts, strict=True)] if means else parts
    return Known.apply(means[0], grads, *leaves), *means[1:]


def unstack(episodes: Episode) -> list[Episode]:
    """The episodes of a meta-batch, one by one."""
    return [tree_map(lambda leaf, k=k: leaf[k], episodes) for k in range(len(episodes.id))]


def run(
    loss: TaskLoss, theta: Params, strategy: Params, tasks: Sequence[Episode | QuizEpisodes]
) -> tuple[Tensor, ...]:
    """Means over a few tasks."""
    if len(tasks) == 1:
        return loss(theta, strategy, tasks[0])
    together = tree_map(lambda *leaves: torch.stack(leaves), *tasks)
    batched = vmap(loss, in_dims=(None, None, 0), randomness="different")
    values = batched(theta, strategy, together)
    return tuple(value.mean() for value in values)


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two gradients, one of which may be missing."""
    return b if a is None else a if b is None else a + b
