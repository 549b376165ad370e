"""Passes in which norms for episodes record their statistics, keep them, or run as one kernel."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_metakd.models.norm import EpisodicNorm, PassStatistics


@contextmanager
def recording_statistics(layers: Iterable[EpisodicNorm]) -> Iterator[list[list[PassStatistics]]]:
    """For each norm the statistics of every pass inside; without hooks, which do not compile."""
    norms = list(layers)
    recorded: list[list[PassStatistics]] = [[] for _ in norms]
    for layer, passes in zip(norms, recorded, strict=True):
        layer.recorded = passes
    try:
        yield recorded
    finally:
        for layer in norms:
            layer.recorded = None


@contextmanager
def fused_norms(module: nn.Module) -> Iterator[None]:
    """Inside, norms by the statistics of their own rows run as one kernel.

    Right in reverse mode, to any order; neither under `vmap` nor where a forward derivative is
    differentiated again. Beside weights in channels-last, a step to first order then takes about 0.6 of the
    time; one to second order holds 0.6 of the memory.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, EpisodicNorm)]
    for layer in norms:
        layer.fused = True
    try:
        yield
    finally:
        for layer in norms:
            layer.fused = False


@contextmanager
def update_running_statistics(
    module: nn.Module, mean_over_processes: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Have norms of the form `tracked` follow the mean statistics of the batches that pass inside.

    Args:
        module: the network.
        mean_over_processes: averages a tensor over processes, so that replicas stay equal.
    """
    norms = [m for m in module.modules() if isinstance(m, EpisodicNorm)]
    tracked = [m for m in norms if m.form == "tracked" and m.training]  # others are frozen
    with recording_statistics(tracked) as recorded:
        yield
    for layer, passes in zip(tracked, recorded, strict=True):
        if not passes:
            continue
        unbiased = [var.detach() * n / (n - 1) for var, _, n in passes]
        means = [mean.detach() for _, mean, _ in passes]
        var, mean = (mean_over_processes(torch.stack(f).mean(0)) for f in (unbiased, means))
        layer.follow(var, mean)
