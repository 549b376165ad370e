"""Output caches made ahead of training: what `metakd precompute` does."""

import time
from pathlib import Path

import torch
from torch import Tensor

from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.source import Source
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.teachers.preparation import outputs_needed
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool

Needed = dict[range, Tensor]
"""Row numbers by the views in which they are needed."""


def fill_caches(teachers: TeacherPool, data: SourceData, device: torch.device) -> None:
    """Store the outputs of teachers that fit and test read, and embed an embedded source; print each.

    Raises:
        ValueError: if nothing of the experiment is kept in a cache.
    """
    keepers, embedded = (
        [t for t in teachers if t.cache],
        data.source.image_source is not data.source,
    )
    if not keepers and not embedded:
        raise ValueError(
            f"cache=false for all {len(teachers)} teachers, and nothing would be stored; set the cache of "
            "one in model.teachers to true."
            if teachers
            else "model.teachers is empty, and nothing would be stored; name a teacher with cache: true."
        )
    if device.type == "cpu":
        keep_large_blocks()
    needed = by_views(
        outputs_needed(teachers, data, "fit") + outputs_needed(teachers, data, "test")
    )
    for teacher in teachers:
        teacher.open()
        teacher.attach_source(data.source)
    if embedded:
        embed(data.source)
    for teacher in keepers:
        fill(teacher, needed, device)


def by_views(needed: list[tuple[Tensor, range]]) -> Needed:
    """Each row once for the views in which it is needed."""
    views = {of: [rows for rows, view in needed if view == of] for _, of in needed}
    return {of: torch.cat(rows).unique() for of, rows in views.items()}


def embed(source: Source) -> None:
    """Make the vectors of an embedded source."""
    began = time.monotonic()
    x = source.all_rows().x
    say(
        source.name,
        f"{len(x):,} images in {x.shape[1]} views",
        image_cache.folder(),
        x.nbytes,
        began,
    )


def fill(teacher: Teacher, needed: Needed, device: torch.device) -> None:
    """Run one teacher on the rows whose outputs are missing."""
    began = time.monotonic()
    teacher.to(device)
    for views, rows in needed.items():
        teacher.fill_cache(rows, views)
    teacher.centre(teacher.output_cache.source)  # type: ignore[union-attr]
    folder: Path = teacher.output_cache.folder  # type: ignore[union-attr, assignment]  # it keeps one, on disk
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(type(teacher.model).__name__, plan_text(needed), folder, size, began)


def plan_text(needed: Needed) -> str:
    """How many images in how many views."""
    return " and ".join(
        f"{len(rows):,} images " + ("as they are" if -1 in views else f"in {len(views)} views")
        for views, rows in needed.items()
    )


def say(what: str, images: str, place: Path, size: int, began: float) -> None:
    """Print what is stored of a network or a source, where, of what size, and how long it took."""
    seconds = time.monotonic() - began
    print(f"{what}: {images}, kept in {place} ({size / 2**20:.1f} MiB, {seconds:.1f} s)")
