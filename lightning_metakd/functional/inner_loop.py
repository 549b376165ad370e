"""Pure building blocks of every inner loop.

A network becomes a function of explicit parameters (`bind`), a gradient step on a batch loss a function
from parameters to parameters (`inner_gradient`, `descend`), and all that is learned travels in flat
dictionaries. Nothing here mutates a module or an argument.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.func import grad, vjp
from torch.utils._pytree import tree_leaves

from lightning_metakd.functional.checkpointing import recomputed
from lightning_metakd.functional.params import detach, detach_tree
from lightning_metakd.functional.regions import region
from lightning_metakd.types import BatchLoss, Output, Params

Rates = float | Tensor | Params


def mean_loss(batch_loss: BatchLoss, output: Output, progress: Tensor | None = None) -> Tensor:
    """The mean over rows of a batch loss; coefficients read the student's output without its graph.

    Args:
        batch_loss: of the rows.
        output: the student's, for them.
        progress: of the student in its task, in [0, 1]; None stands for its end.
    """
    end = output.logits.new_ones(()) if progress is None else progress
    return batch_loss(output, detach_tree(output), end).mean()


@region
def loss_of_answer(
    batch_loss: BatchLoss, answer: Callable[[Params, Tensor], Output], params: Params, x: Tensor
) -> Tensor:
    """The mean loss of what a student answers at its end, compiled where regions are.

    Args:
        batch_loss: of the rows.
        answer: (parameters, rows) -> output.
        params: the student's.
        x: the rows [n, ...].
    """
    return mean_loss(batch_loss, answer(params, x))


def inner_gradient(
    forward: Callable[[Params], Output],
    params: Params,
    batch_loss: BatchLoss,
    progress: Tensor,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """Gradient of the mean loss in `params`.

    g = J(params)^T d/do mean loss(o, detached, progress) at o = detached = forward(params). The slope is
    taken at the output, with the detached one beside it, so that coefficients which look at the student
    are not differentiated in the step, and the hyper-gradient through them is exact all the same.

    Args:
        first_order: a constant to `params`; its pass is then kept only for a strategy or a teacher that is
            trained, and a step without them holds half the memory.
    """
    here = detach(params) if first_order else dict(params)
    student, pull_back = vjp(forward, here)  # type: ignore[misc]
    slope = grad(lambda output: batch_loss(output, student, progress).mean())(student)
    reached = (*batch_loss.strategy.values(), *tree_leaves(slope))
    keep = not first_order or any(t.requires_grad for t in reached)
    return pull_back(slope, retain_graph=keep, create_graph=keep)[0]


def step(params: Params, grads: Params, lr: Rates) -> dict[str, Tensor]:
    """Params - lr * grads, with one rate for all parameters or one for each name."""
    if isinstance(lr, Mapping):
        return {name: p - lr[name] * grads[name] for name, p in params.items()}
    return {name: p - lr * grads[name] for name, p in params.items()}


@region
def descent_step(
    forward: Callable[[Params], Output],
    params: Params,
    batch_loss: BatchLoss,
    lr: Rates,
    progress: Tensor,
    first_order: bool,
) -> dict[str, Tensor]:
    """One step of gradient descent on a batch loss, compiled where regions are.

    Args:
        first_order: take its gradient at detached parameters.
    """
    return step(params, inner_gradient(forward, params, batch_loss, progress, first_order), lr)


def descend(
    forward: Callable[[Params], Output],
    params: Params,
    batch_loss: BatchLoss,
    rates: Sequence[Rates],
    first_order: bool = False,
    again: Params | None = None,
) -> list[dict[str, Tensor]]:
    """The trajectory of gradient descent on a batch loss, `params` first; progress is k / steps.

    Args:
        rates: one for each step.
        first_order: take each gradient at detach_tree(params); the graph from it to the strategy stays.
        again: given, a step keeps no graph and is computed again in backward: a third more time, memory of
            one step. It names the leaves on which steps depend beside `params` and the strategy.
    """
    any_param: Any = next(iter(params.values()))
    trajectory = [dict(params)]
    for k, lr in enumerate(rates):
        progress = any_param.new_full((), k / len(rates))  # a fill, which a CUDA graph can hold

        def one(at: Params, lr: Rates = lr, progress: Tensor = progress) -> dict[str, Tensor]:
            return descent_step(forward, at, batch_loss, lr, progress, first_order)

        if again is None:
            trajectory.append(one(trajectory[-1]))
        else:
            leaves = (*again.values(), *batch_loss.strategy.values())
            trajectory.append(recomputed(one, trajectory[-1], leaves))
    return trajectory
