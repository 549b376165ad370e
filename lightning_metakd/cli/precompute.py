"""Banks made ahead of training: what `metakd bank` does."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.source import Source
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.teachers.preparation import answers_needed
from lightning_metakd.teachers.teacher import Pool, Teacher

Needed = dict[range, Tensor]
"""Row numbers by the views in which they are needed."""


def make_banks(teachers: Pool, data: Any, device: torch.device) -> None:
    """Store what fit and test would ask the teachers, and embed an embedded source; say what there is.

    Raises:
        ValueError: if nothing of the experiment is kept in a bank.
    """
    keepers, embedded = (
        [t for t in teachers if t.keeps_bank],
        data.source.pictures is not data.source,
    )
    if not keepers and not embedded:
        raise ValueError(
            f"bank=false for all {len(teachers)} teachers, and nothing would be stored; set the bank of one "
            "in model.teachers to true."
            if teachers
            else "model.teachers is empty, and nothing would be stored; name a teacher with bank: true."
        )
    if device.type == "cpu":
        keep_large_blocks()
    needed = by_views(
        answers_needed(teachers, data, "fit") + answers_needed(teachers, data, "test")
    )
    for teacher in teachers:
        teacher.open()
        teacher.meet(data.source)
    if embedded:
        embed(data.source)
    for teacher in keepers:
        fill(teacher, needed, device)


def by_views(needed: list[tuple[Tensor, range]]) -> Needed:
    """Each row once for the views in which it is needed."""
    views = {of: [rows for rows, seen in needed if seen == of] for _, of in needed}
    return {of: torch.cat(rows).unique() for of, rows in views.items()}


def embed(source: Source) -> None:
    """Make the vectors of an embedded source."""
    began = time.monotonic()
    x = source.everything().x
    say(
        source.name,
        f"{len(x):,} images in {x.shape[1]} views",
        image_cache.folder(),
        x.nbytes,
        began,
    )


def fill(teacher: Teacher, needed: Needed, device: torch.device) -> None:
    """Ask one teacher."""
    began = time.monotonic()
    teacher.to(device)
    for views, rows in needed.items():
        teacher.store(rows, views)
    teacher.centre(teacher.bank.source)  # type: ignore[union-attr]
    folder: Path = teacher.bank.folder  # type: ignore[union-attr, assignment]  # it keeps one, on disk
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(type(teacher.model).__name__, told(needed), folder, size, began)


def told(needed: Needed) -> str:
    """How many images in how many views."""
    return " and ".join(
        f"{len(rows):,} images " + ("as they are" if -1 in views else f"in {len(views)} views")
        for views, rows in needed.items()
    )


def say(what: str, images: str, place: Path, size: int, began: float) -> None:
    """One sentence."""
    seconds = time.monotonic() - began
    print(f"{what}: {images}, kept in {place} ({size / 2**20:.1f} MiB, {seconds:.1f} s)")
