"""Decoded images on disk: one safetensors file, written whole or not at all, memory-mapped when read.

The file appears under its name by one atomic rename, so that a full disk, a killed process or a
second process at the same work never leaves something that looks whole and is not.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lightning_metakd.data.source import Labelled
from lightning_metakd.mapped import head


class Plan(NamedTuple):
    """What is to be written: labels and names at once, images in pieces that never all lie in memory."""

    y: list[int]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    pieces: Iterable[np.ndarray]


def folder() -> Path:
    """Where decoded images are kept: METAKD_CACHE, or ~/.cache/lightning_metakd."""
    return Path(os.environ.get("METAKD_CACHE") or "~/.cache/lightning_metakd").expanduser()


def cached(key: str, plan: Callable[[], Plan]) -> Labelled:
    """The collection stored under `key`, decoded first if it is not there yet or cannot be read."""
    path = folder() / f"{key}.safetensors"
    if path.exists():
        try:
            return read(path)
        except SafetensorError:
            path.unlink(missing_ok=True)
    write(path, plan())
    return read(path)


@lru_cache(maxsize=8)
def read(path: Path) -> Labelled:
    """A stored collection, memory-mapped; one tensor per process however often it is read."""
    with safe_open(path, "pt") as file:
        names = json.loads(file.metadata()["class_names"])
        x, y = file.get_tensor("x"), file.get_tensor("y")
    return Labelled(x, y, torch.arange(len(y)), tuple(names))


def write(path: Path, plan: Plan) -> None:
    """Store a collection atomically.

    Raises:
        OSError: if the file cannot be written; nothing is left behind.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", path.stem, path.parent)
    try:
        with explained(path), os.fdopen(descriptor, "wb") as file:
            file.write(header(plan))
            file.write(np.asarray(plan.y, dtype=np.int64).tobytes())
        for piece in plan.pieces:
            with explained(path), Path(name).open("ab") as file:
                file.write(piece.tobytes())
        with explained(path):
            Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def header(plan: Plan) -> bytes:
    """The head of its file: `y`, then `x`, names in the metadata."""
    n = len(plan.y)
    shapes = {"y": (torch.int64, (n,)), "x": (torch.uint8, (n, *plan.shape))}
    return head(shapes, {"class_names": json.dumps(plan.class_names)})


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say where writing failed, and what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot store decoded images ({error.strerror}); free some space (60,000 images of 32 x 32 "
            "take 184 MB), or set METAKD_CACHE to a folder on another disk",
            str(path),
        ) from error
