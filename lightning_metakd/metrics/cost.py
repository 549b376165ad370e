"""The cost of a network: parameters, bytes, multiply-adds, milliseconds.

Multiply-adds are those of convolutions, matrix products and attention; norms, activations and pooling
are not counted. One multiply-add is 2 FLOPs.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_metakd.arguments.ranges import check_integer

WARM_UP = 10
FEWEST = 30
"""Fewest repeats for a 95th percentile."""


class Cost(NamedTuple):
    """The cost of one network for one input.

    Attributes:
        params: numbers in the parameters, trainable or frozen.
        bytes: parameters and buffers, as they lie in memory.
        macs: multiply-adds of one forward pass.
        flops: 2 * macs.
        latency_ms: median time of one forward pass.
        latency_p95_ms: its 95th percentile.
    """

    params: int
    bytes: int
    macs: int
    flops: int
    latency_ms: float
    latency_p95_ms: float


class Untracked:
    """A tracker of the total alone: torch's own, by module, sets hooks that fail in nested gradients."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass


class Shape(NamedTuple):
    """Shape, type and device of an input, kept in place of a tensor that must not leave `torch.func`."""

    size: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def count_parameters(module: nn.Module) -> int:
    """Numbers in the parameters, trainable or frozen, shared ones once; buffers are not parameters."""
    return sum(p.numel() for p in module.parameters())


def count_bytes(module: nn.Module) -> int:
    """Size of parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of whatever `run` does, gradients and inner loops included.

    Under `vmap` over several tasks torch overcounts gradients of convolutions: count one task.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()  # type: ignore[assignment]
    with counter:
        run()
    return int(counter.get_total_flops())


def count_macs(forward: Callable[[Tensor], object], x: Tensor) -> int:
    """Multiply-adds of one forward pass over all rows of `x`."""
    with torch.no_grad():
        return count_flops(lambda: forward(x)) // 2


def milliseconds(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Time of each of several runs, after some to warm up; a GPU is waited for."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    times = []
    for k in range(-min(WARM_UP, repeats), repeats):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        if k >= 0:
            times.append(1e3 * (time.perf_counter() - began))
    return times


def latency(
    forward: Callable[[Tensor], object], x: Tensor, repeats: int = 30
) -> tuple[float, float]:
    """Median and 95th percentile of the time of one forward pass, in milliseconds.

    Args:
        forward: the network in evaluation mode.
        x: input on the device that is measured; its rows are the batch size.
        repeats: measured runs, at least 30, after 10 to warm up.

    Raises:
        ValueError: if repeats < 30.
    """
    check_integer("repeats", repeats, FEWEST, hint="as fewer have no 95th percentile")
    with torch.inference_mode():
        times = milliseconds(lambda: forward(x), repeats, x.device)
    return statistics.median(times), sorted(times)[-(-95 * repeats // 100) - 1]


def measure(module: nn.Module, x: Tensor, repeats: int = 30) -> Cost:
    """The cost of a network for `x`, measured in evaluation mode; modes are restored."""
    with evaluating(module), torch.random.fork_rng(devices=[]):
        macs = count_macs(module, x)
        median, p95 = latency(module, x, repeats)
    return Cost(count_parameters(module), count_bytes(module), macs, 2 * macs, median, p95)


def peak_memory(device: torch.device) -> int:
    """Largest memory held so far, in bytes: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set every part to evaluation mode, and restore the mode of each at the end."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def input_shapes(modules: list[nn.Module], shapes: dict[nn.Module, Shape]) -> Iterator[None]:
    """Record the shape of the first input of each module; under `vmap` that of one task."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and module not in shapes:
            shapes[module] = shape_of(args[0])

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def shape_of(x: Tensor) -> Shape:
    """Shape, type and device of an input."""
    return Shape(tuple(x.shape), x.dtype, x.device)


def one_like(shape: Shape) -> Tensor:
    """One input of the shape, type and device: noise, or ones where the type has no noise."""
    size = (1, *shape.size[1:])
    if not shape.dtype.is_floating_point:  # the number of a token that is there, where zero is none
        return torch.ones(size, dtype=shape.dtype, device=shape.device)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator).to(shape.device, shape.dtype)
