"""Pure building blocks of every inner loop.

A network becomes a function of explicit parameters (`bind`), one gradient step of a lesson becomes
a function from parameters to parameters (`lesson_gradient`, `descend`), and everything that is
learned travels in flat dictionaries. Nothing here mutates a module or an argument.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from lightning_metakd.functional.checkpointing import recomputed
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import EpisodicNorm, listening
from lightning_metakd.types import NOTHING, Batch, Forward, Lesson, Output, Params

Rates = float | Tensor | Params
T = TypeVar("T")


class Bound:
    """A network as a pure function of its parameters: the `Forward` of a module.

    Args:
        module: the network.
        fixed: parameters and buffers that are the same whatever it is called with.
    """

    def __init__(self, module: Model, fixed: Params = NOTHING) -> None:
        refuse_mutation(module)
        self.module, self.fixed = module, fixed
        self.norms = [
            (name, layer)
            for name, layer in module.named_modules()
            if isinstance(layer, EpisodicNorm) and layer.form == "support"
        ]

    def __call__(self, params: Params, x: Tensor) -> Output:
        """The network's answer for `x` with these parameters.

        Attention is computed by its mathematical form: fused kernels have no second derivative.
        """
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.module, {**self.fixed, **params}, (x,))

    def statistics(self, params: Params, x: Tensor) -> Params:
        """The statistics of `x` alone; nothing is computed where no norm wants them."""
        return self.observe(params, x)[1] if self.norms else {}

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        """The logits of the network's own head for an embedding."""
        head = part({**self.fixed, **params}, "head")
        return functional_call(self.module.head, head, (embedding,))

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        """The answer for `x` and the statistics of `x` at every norm of the form `support`."""
        with listening(layer for _, layer in self.norms) as heard:
            output = self(params, x)
        found: dict[str, Tensor] = {}
        for (name, _), passes in zip(self.norms, heard, strict=True):
            found[f"{name}.var"], found[f"{name}.mean"], _ = passes[-1]
        return output, found


def bind(module: Model, fixed: Params = NOTHING) -> Forward:
    """The module as a pure function of its parameters.

    Args:
        module: the network.
        fixed: parameters and buffers that are the same whatever it is called with.

    Raises:
        ValueError: if a batch norm of the module would write its running statistics.
    """
    return Bound(module, fixed)


def bind_loss(module: nn.Module) -> Callable[..., Tensor]:
    """(params, *args) -> module(*args) with these parameters."""
    return lambda params, *args: functional_call(module, dict(params), args)


def refuse_mutation(module: nn.Module) -> None:
    """Raise where a forward pass would mutate a buffer."""
    for name, layer in module.named_modules():
        if (
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and layer.training
            and layer.track_running_stats
        ):
            raise ValueError(
                f"{name!r} is a batch norm in training mode and would write its running statistics inside an "
                "inner loop; convert the network with models.norm.make_episodic, or call .eval() on it."
            )


def after(forward: Forward, support: Tensor) -> Callable[[Params, Tensor], Output]:
    """The network where it has seen a support set: the statistics of that serve other rows too."""
    return lambda params, x: forward({**params, **forward.statistics(params, support)}, x)


def detach(params: Params) -> dict[str, Tensor]:
    """The same values without their graph."""
    return {name: p.detach() for name, p in params.items()}


def stop(tree: T) -> T:
    """The same values without their graph, for any nested tuple of tensors."""
    return tree_map(lambda leaf: leaf.detach(), tree)


def part(params: Params, prefix: str) -> dict[str, Tensor]:
    """The parameters under one prefix of a flat dictionary, named without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): p for name, p in params.items() if name.startswith(start)}


def under(prefix: str, params: Params) -> dict[str, Tensor]:
    """The inverse of `part`."""
    return {f"{prefix}.{name}": p for name, p in params.items()}


def as_key(name: str) -> str:
    """A name with dots as modules allow it for one of their own."""
    return name.replace(".", "/")


def rows(batch: Batch, part: slice | Tensor) -> Batch:
    """Some rows of a batch, their teachers' answers included."""
    return tree_map(lambda leaf: leaf[part], batch)


def lesson_mean(lesson: Lesson, output: Output, progress: Tensor | None = None) -> Tensor:
    """The mean lesson; coefficients see the student undifferentiated.

    Args:
        progress: how far the student is, by default at the end of its task.
    """
    end = output.logits.new_ones(()) if progress is None else progress
    return lesson(output, stop(output), end).mean()


def lesson_gradient(
    forward: Callable[[Params], Output], params: Params, lesson: Lesson, progress: Tensor
) -> dict[str, Tensor]:
    """Gradient of the mean lesson in `params`.

    g = J(params)^T d/do mean lesson(o, seen, progress) at o = seen = forward(params). The slope is taken
    at the output, with `seen` beside it, so that coefficients which look at the student are not
    differentiated in the step, and the hyper-gradient through them is exact all the same.
    """
    seen, pull_back = vjp(forward, dict(params))  # type: ignore[misc]
    slope = grad(lambda output: lesson(output, seen, progress).mean())(seen)
    return pull_back(slope)[0]


def step(params: Params, grads: Params, lr: Rates) -> dict[str, Tensor]:
    """Params - lr * grads, with one rate for all or one per name."""
    if isinstance(lr, Mapping):
        return {name: p - lr[name] * grads[name] for name, p in params.items()}
    return {name: p - lr * grads[name] for name, p in params.items()}


def descent_step(
    forward: Callable[[Params], Output],
    params: Params,
    lesson: Lesson,
    lr: Rates,
    progress: Tensor,
    first_order: bool,
) -> dict[str, Tensor]:
    """One step of gradient descent on a lesson; to first order, its gradient is taken at stop(params)."""
    here = detach(params) if first_order else params
    return step(params, lesson_gradient(forward, here, lesson, progress), lr)


@cache
def compiled_descent_step() -> Callable[..., dict[str, Tensor]]:
    """`descent_step` as one graph; compiled when it first sees a network, a lesson or a shape."""
    return torch.compile(descent_step, fullgraph=True, dynamic=False)


def descend(
    forward: Callable[[Params], Output],
    params: Params,
    lesson: Lesson,
    rates: Sequence[Rates],
    first_order: bool = False,
    again: Params | None = None,
    compiled: bool = False,
) -> list[dict[str, Tensor]]:
    """The trajectory of gradient descent on a lesson, `params` first; progress is k / steps.

    Args:
        rates: one for each step.
        first_order: take each gradient at stop(params); the graph from it to the strategy stays.
        again: given, a step keeps no graph and is computed again in backward: a third more time, memory of
            one step. It names the leaves on which steps depend beside `params` and the strategy.
        compiled: compile the step; once, whatever their number.
    """
    some: Any = next(iter(params.values()))
    take = compiled_descent_step() if compiled else descent_step
    trajectory = [dict(params)]
    for k, lr in enumerate(rates):
        progress = some.new_full((), k / len(rates))  # a fill, which a CUDA graph can hold

        def one(at: Params, lr: Rates = lr, progress: Tensor = progress) -> dict[str, Tensor]:
            return take(forward, at, lesson, lr, progress, first_order)

        if again is None:
            trajectory.append(one(trajectory[-1]))
        else:
            leaves = (*again.values(), *lesson.strategy.values())
            trajectory.append(recomputed(one, trajectory[-1], leaves))
    return trajectory
