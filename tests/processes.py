"""Functions on several processes joined by gloo, and tests in a process of their own."""

import multiprocessing
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["lightning_metakd.cli"])


def run_on(world: int, folder: Path, function: Callable, *args: Any) -> list[Any]:
    """What `function(rank, world, *args)` returns on each rank; an exception comes back as its text."""
    answers: Any = SERVER.Queue()
    meeting = folder / f"meeting-{function.__name__}-{world}"
    ranks = [
        SERVER.Process(target=enter, args=(answers, rank, world, meeting, function, args))
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    actual = dict(answers.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    return [actual[rank] for rank in range(world)]


def enter(
    answers: Any, rank: int, world: int, meeting: Path, function: Callable, args: tuple
) -> None:
    """Join the group, call the function, report."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    try:
        answers.put((rank, function(rank, world, *args)))
    except Exception:
        answers.put((rank, traceback.format_exc()))
    torch.distributed.destroy_process_group()


def pytest_apart(*words: str, **environment: str) -> None:
    """Run tests in a process of their own, without the run-time check of types; fail where they do."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-o", "timeout=0", *words]
    process = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout[-5000:] + process.stderr[-2000:]
    assert " passed" in process.stdout
