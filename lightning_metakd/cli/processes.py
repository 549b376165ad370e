"""Processes that train together: which one it was, where one is lost."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer

T = TypeVar("T")

BROKEN = re.compile(r"gloo|nccl|connection (was )?(closed|reset)", re.IGNORECASE)
"""What backends say, as a RuntimeError, where another process is gone."""
PARENT = os.getppid()
"""Who started this process; another one takes its place where it has ended."""
PATIENCE = 2.0
"""Seconds in which a process that has closed its connections ends."""


def broke_off(error: BaseException) -> bool:
    """Whether an error is that of a connection to another process."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and BROKEN.search(str(error)) is not None


def check_others(trainer: Trainer, error: BaseException) -> None:
    """Say which process was lost where an error is that of a connection; the first one of a node says it.

    Raises:
        ConnectionError: names the process.
        SystemExit: without a word where another process says it.
    """
    if trainer.world_size == 1 or not broke_off(error):
        return
    rank, world = trainer.global_rank, trainer.world_size
    launcher: Any = trainer.strategy.launcher
    children: Sequence[subprocess.Popen[Any]] = getattr(launcher, "procs", [])
    if children:
        lost = awaited(lambda: ended_badly(children))
        which = "another process" if lost is None else f"process {rank + lost[0] + 1}"
        how = "" if lost is None else f" ({ending(lost[1])})"
    elif awaited(lambda: os.getppid() != PARENT):
        which, how = f"process {rank - trainer.local_rank}", ""
    elif rank == 0:
        which, how = "another process", ""
    else:
        raise SystemExit(1) from error
    raise ConnectionError(
        f"{which} of {world} was lost{how}, and the others ended with it; see what it wrote above, or "
        "whether the memory of its machine was enough. Start again, a training with --resume."
    ) from error


def awaited(find: Callable[[], T]) -> T:
    """What is found, once it is or when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not (value := find()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def ended_badly(children: Sequence[subprocess.Popen[Any]]) -> tuple[int, int] | None:
    """Place and exit code of the first process that has failed."""
    codes = enumerate(child.poll() for child in children)
    return next(((place, code) for place, code in codes if code), None)


def ending(code: int) -> str:
    """How a process ended, by its exit code."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
