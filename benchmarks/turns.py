"""Contestants in processes of their own that take turns, so that none runs beside another.

Each keeps the memory allocator that its users have (this package's runs ask it to keep large blocks, see
lightning_metakd/recipes/host_allocator.py), compiles for itself, and its memory can be told apart. Between
them a machine that becomes slower becomes slower for all.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.contestants import Setting, episodes, ours
from benchmarks.peers import PEERS
from lightning_metakd.callbacks.results import code_version
from lightning_metakd.recipes.host_allocator import keep_large_blocks

OURS: dict[str, dict[str, Any]] = {
    "lightning_metakd": {},
    "lightning_metakd, compiled": {"compiled": True},
    "lightning_metakd, recomputed": {"recompute": True},
    "lightning_metakd, recomputed, compiled": {"recompute": True, "compiled": True},
}
KEEPING = ", blocks kept"
"""Added to the name of a peer: with this package's setting of the allocator, which it does not have."""


class Asked(NamedTuple):
    """What a process is told: `time`, `memory` or `tensors` of a step over some tasks."""

    what: str
    tasks: int


def serve(pipe: Any, name: str, setting: Setting, threads: int, cache: str) -> None:
    """Build a contestant, and answer until there is nothing more to do."""
    warnings.simplefilter("ignore")  # of libraries that are no longer maintained
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    torch.set_num_threads(threads)
    if name in OURS or name.endswith(KEEPING):
        keep_large_blocks()
    if name in OURS:
        contestant = ours(setting, **OURS[name])
    else:
        contestant = PEERS[setting.algorithm][name.removesuffix(KEEPING)](setting)
    measures = {"time": seconds, "memory": peak, "tensors": held}
    while (requested := pipe.recv()) is not None:
        tasks = episodes(setting, requested.tasks)
        pipe.send(measures[requested.what](lambda tasks=tasks: contestant.step(tasks)))


def seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def peak(step: Callable[[], None]) -> float:
    """MiB that a step holds at most, beside what the process holds before it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def held(step: Callable[[], None]) -> float:
    """MiB of tensors that a step holds at most, without what an allocator keeps around them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        recorded.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_bytes())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    sums = accumulate(event["args"]["Bytes"] for event in changes)
    return max(sums, default=0) / 2**20


def status(name: str) -> float:
    """A field of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


@dataclass
class Turn:
    """A contestant's process, and how long its steps took in each round."""

    name: str
    setting: Setting
    threads: int
    times: dict[int, list[float]] = field(default_factory=dict)  # tasks -> seconds
    first: float = 0.0

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.cache = tempfile.TemporaryDirectory()  # so that compiling starts from nothing
        result = (theirs, self.name, self.setting, self.threads, self.cache.name)
        self.process = context.Process(target=serve, args=result, daemon=True)
        self.process.start()

    def ask(self, what: str, tasks: int) -> float:
        self.pipe.send(Asked(what, tasks))
        return self.pipe.recv()

    def warm(self, tasks: int) -> None:
        """The first step, which compiles, and one more."""
        self.first = self.ask("time", tasks)
        self.ask("time", tasks)

    def take(self, tasks: int) -> None:
        self.times.setdefault(tasks, []).append(self.ask("time", tasks))

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join(timeout=60)
        self.cache.cleanup()


def compete(
    names: Sequence[str], setting: Setting, meta_batches: Sequence[int], rounds: int, threads: int
) -> list[dict[str, Any]]:
    """A row for each contestant and size of the meta-batch; the first has all rounds, the others three."""
    turns = [Turn(name, setting, threads) for name in names]
    for turn in turns:
        turn.warm(meta_batches[0])
        print(f"{setting.algorithm}, width {setting.width}: {turn.name} is ready", flush=True)
    for tasks in meta_batches:
        for _ in range(rounds if tasks == meta_batches[0] else min(3, rounds)):
            for turn in turns:
                turn.take(tasks)
    recorded = []
    for turn in turns:
        memory = {
            "peak_mib": turn.ask("memory", meta_batches[0]),
            "tensors_mib": turn.ask("tensors", meta_batches[0]),
        }
        for tasks, times in turn.times.items():
            row = {"algorithm": setting.algorithm, "name": turn.name, "width": setting.width}
            row |= {"inner_steps": setting.inner_steps, "tasks": tasks}
            row |= {"median_s": statistics.median(times), "min_s": min(times), "max_s": max(times)}
            row |= {"rounds": len(times), "first_s": turn.first, "git": code_version()}
            row |= memory if tasks == meta_batches[0] else dict.fromkeys(memory)
            recorded.append(row)
        turn.end()
    return recorded
