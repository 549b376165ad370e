"""Run a function on several processes joined by gloo, without importing torch once per process."""

import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

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
    found = dict(answers.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    return [found[rank] for rank in range(world)]


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
