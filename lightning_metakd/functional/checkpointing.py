"""Gradient checkpointing under `torch.func`: backward computes a function, and its graph, once more.

Chen, Xu, Zhang, Guestrin (2016), "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
`torch.utils.checkpoint` cannot look into `torch.func` and finds no gradient for the tensors in a
function's closure; here their leaves are named.
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
    """The state of all random generators, from which the same dropout is drawn again."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw inside the context as from that state; the draws after it stay as they would have been."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield


class Recomputed(torch.autograd.Function):
    """The values of `run`; backward makes their graph."""

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
    """run(at), without keeping its graph.

    Args:
        run: from parameters to parameters of the same names.
        at: where it is evaluated.
        leaves: leaf tensors in the closure of `run` that need a gradient.
    """
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    values = Recomputed.apply(run, tuple(at), wanted, *at.values(), *wanted)
    return dict(zip(at, values, strict=True))
