"""Time for memory: a function whose graph is not kept but made again in backward.

Chen, Xu, Zhang, Guestrin (2016), "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
`torch.utils.checkpoint` cannot look into `torch.func` and finds no gradient for what a function is
closed over; here the leaves of these are named.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_metakd.types import Params

Step = Callable[[Params], Params]


class Draws:
    """The state of all random generators, so that dropout can be drawn the same once more."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draws inside are those that followed; those after it are not touched."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield


class Recomputed(torch.autograd.Function):
    """The values of `run`, whose graph is made when it is needed."""

    @staticmethod
    def forward(
        ctx: Any, run: Step, names: Sequence[str], leaves: Sequence[Tensor], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.run, ctx.names, ctx.leaves, ctx.draws = run, names, leaves, Draws()
        ctx.save_for_backward(*inputs[: len(names)])
        at = [tensor.detach() for tensor in inputs[: len(names)]]
        return tuple(run(dict(zip(names, at, strict=True))).values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        at = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad(), ctx.draws.again():
            values = ctx.run(dict(zip(ctx.names, at, strict=True))).values()
        wanted = [*at, *ctx.leaves]
        grads = torch.autograd.grad(tuple(values), wanted, slopes, allow_unused=True)
        return None, None, None, *grads


def recomputed(run: Step, at: Params, leaves: Sequence[Tensor]) -> dict[str, Tensor]:
    """run(at), of the same names.

    Args:
        leaves: leaf tensors which `run` is closed over and which want a gradient.
    """
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    values = Recomputed.apply(run, tuple(at), wanted, *at.values(), *wanted)
    return dict(zip(at, values, strict=True))
