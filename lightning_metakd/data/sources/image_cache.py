"""Decoded images on disk: one safetensors file, written whole or not at all, memory-mapped when read.

The file appears under its name by one atomic rename, so that a full disk, a killed process or a
second process at the same work never leaves an incomplete file under it. A file that has changed since
no longer agrees with its checksum and is written again.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lightning_metakd.data.sources.source import Labelled
from lightning_metakd.storage.atomic_files import DamagedFileError, remove_unfinished, replaced
from lightning_metakd.storage.limits import check_size
from lightning_metakd.storage.tensor_file import head, read_sealed, seal

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """The content of a file to write: labels and names at once, images in pieces, never all in memory."""

    y: list[int]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    pieces: Iterable[np.ndarray]


def folder() -> Path:
    """Where decoded images are kept: METAKD_CACHE, or ~/.cache/lightning_metakd."""
    place = Path(os.environ.get("METAKD_CACHE") or "~/.cache/lightning_metakd").expanduser()
    tidy(place)
    return place


@lru_cache
def tidy(place: Path) -> None:
    """Remove unfinished files of killed processes, once per process."""
    remove_unfinished(place, below=True)


def cached(key: str, plan: Callable[[], Plan]) -> Labelled:
    """The collection stored under `key`, decoded first if it is not there yet or cannot be read."""
    path = folder() / f"{key}.safetensors"
    if path.exists():
        try:
            return read(path)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s is damaged (%s) and is made again.", path, error)
    write(path, plan())
    return read(path)


@lru_cache(maxsize=8)
def read(path: Path) -> Labelled:
    """A stored collection, memory-mapped; one tensor per process however often it is read."""
    metadata, tensors = read_sealed(path)
    x, y = tensors["x"], tensors["y"]
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y):
        raise DamagedFileError(f"its images are {list(x.shape)}, its labels {list(y.shape)}")
    check_size(torch.int64.itemsize * len(y), str(path))
    return Labelled(x, y, torch.arange(len(y)), tuple(json.loads(metadata["class_names"])))


def write(path: Path, plan: Plan) -> None:
    """Store a collection atomically.

    Raises:
        OSError: if the file cannot be written; nothing is left behind.
    """
    with explained(path), replaced(path) as part:
        with part.open("wb") as file:
            file.write(header(plan))
            file.write(np.asarray(plan.y, dtype=np.int64).tobytes())
            for piece in plan.pieces:
                file.write(piece.tobytes())
        seal(part)


def header(plan: Plan) -> bytes:
    """The head of its file: `y`, then `x`, names in the metadata."""
    n = len(plan.y)
    shapes = {"y": (torch.int64, (n,)), "x": (torch.uint8, (n, *plan.shape))}
    return head(shapes, {"class_names": json.dumps(plan.class_names)})


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise the error of a failed write again with the file and the way out."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot store decoded images ({error.strerror}); free some space (60,000 images of 32 x 32 "
            "take 184 MB), or set METAKD_CACHE to a folder on another disk",
            str(path),
        ) from error
