"""What teachers need before they are asked: layers to show, stored answers, and a scale of their logits."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from lightning import Trainer
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from lightning_metakd.data.batches import BatchSet
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import UNAUGMENTED, SourceData
from lightning_metakd.data.sources.source import Source
from lightning_metakd.losses.adapters import tap_layers
from lightning_metakd.losses.layer_pairs import LayerPair
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool
from lightning_metakd.types import Episode, Reading

log = logging.getLogger(__name__)

CALIBRATION_EPISODES = 50
CALIBRATION_BATCH = 256


def tap_teachers(teachers: TeacherPool, reads: Iterable[LayerPair]) -> None:
    """Have each teacher answer with the layers that a loss reads of it."""
    for k, teacher in enumerate(teachers):
        tap_layers(teacher.model, (read.teacher_layer for read in reads if read.teacher == k))
        if teacher.cache and not teacher.uses_cache:
            log.warning(
                f"teachers[{k}] keeps a cache, which has no layers but the embedding, and the loss reads "
                f"{', '.join(teacher.model.taps)}: this teacher is asked live."
            )


def two_inputs(source: Source, reading: Reading | None) -> Tensor:
    """Two rows as a network reads them."""
    labelled = source.all_rows()
    index = labelled.index[:2]
    return source.inputs(labelled.x[:2], index, torch.full_like(index, -1), reading)


def cache_outputs(teachers: TeacherPool, data: SourceData, trainer: Trainer) -> None:
    """Fill the caches of those teachers that keep one, and have heads know what they centre by."""
    for teacher in teachers:
        teacher.attach_source(data.source, data.reader)
    needed = outputs_needed(teachers, data, trainer.state.fn)
    with first_process_first(trainer):
        for teacher in teachers:
            for rows, views in needed:
                teacher.fill_cache(rows, views)
            teacher.centre(data.source)


def outputs_needed(
    teachers: TeacherPool, data: SourceData, stage: str | None
) -> list[tuple[Int[Tensor, " n"], range]]:
    """The rows and views that caches are to store for a stage; none where no teacher keeps one."""
    if not any(t.uses_cache for t in teachers):
        return []
    if stage == "fit":
        check_views(teachers, data)
    needed, rows = data.cache_views(stage), data.held_out_rows()
    if stage == "fit" and any(not t.head.calibrated for t in teachers if t.uses_cache):
        needed += [(rows, UNAUGMENTED)] if len(rows) else []
    return needed


def check_views(teachers: TeacherPool, data: SourceData) -> None:
    """Refuse an output cache of views without number."""
    if data.views is None and any(t.uses_cache for t in teachers):
        raise ValueError(
            "data.views=null draws a new view each time, and a teacher's cache keeps a fixed number; "
            "set data.views, for instance to 4, or the teacher's cache to false."
        )


@contextmanager
def first_process_first(trainer: Trainer) -> Iterator[None]:
    """The first process does it alone; the others then find it done."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()


def prepare_for_rows(
    teachers: TeacherPool, data: SourceData, trainer: Trainer, device: torch.device
) -> None:
    """Fill the caches of teachers of plain batches, and set each logit scale that is left to calibration.

    Raises:
        ValueError: if a scale is, and the data keep no rows from training.
    """
    uncalibrated = [teacher for teacher in teachers if not teacher.head.calibrated]
    if uncalibrated and not len(data.held_out_rows()):
        raise ValueError(
            "head.scale=null has a teacher's logits calibrated on rows that are kept from training, and "
            f"{type(data).__name__} keeps none; give the head a scale, for instance 1, or set "
            "data.quiz_fraction or data.val_fraction of SupervisedData, for instance to 0.1."
        )
    cache_outputs(teachers, data, trainer)
    for teacher in uncalibrated:
        calibrate_on_rows(teacher, data, device)


@torch.no_grad()
def calibrate_on_rows(teacher: Teacher, data: SourceData, device: torch.device) -> None:
    """Set a teacher's logit scale by the likelihood of the right labels, among the classes that it knows.

    What it says of other classes is no matter of scale: a specialist is sure of them as well. Where it is
    right of every row, the likeliest scale is infinite, and its logits are left as they are.

    Raises:
        ValueError: if it knows none of the classes that the rows have.
    """
    teacher.head.scale.fill_(1.0)
    classes = data.train_classes().to(device)
    is_known = teacher.head.is_known(classes)
    rows = data.held_out_rows()
    batches = BatchSet(data.judges(), rows, classes.cpu(), batch_size=CALIBRATION_BATCH)
    logits, labels = [], []
    for i in range(len(batches)):
        batch = data.on_after_batch_transfer(move_data_to_device(batches[i], device), 0)
        at = is_known[batch.y]
        logits.append(teacher.predict_batch(batch, classes).logits[at][:, is_known])
        labels.append((is_known.cumsum(0) - 1)[batch.y[at]])
    of_all, y = torch.cat(logits), torch.cat(labels)
    if not len(y):
        raise ValueError(
            f"head.scale=null calibrates a teacher on rows of its classes, and the {len(rows)} rows that are "
            "kept from training have none; give the head a scale, for instance 1, or keep more rows."
        )
    if (of_all.argmax(-1) == y).all():
        log.warning(
            f"a teacher of {type(teacher.model).__name__} is right of all {len(y)} held-out rows of its "
            "classes, which says nothing of its scale: its logits are left as they are."
        )
        return
    teacher.head.calibrate(of_all, y)


def calibrate(teachers: TeacherPool, data: EpisodicData, device: torch.device) -> None:
    """Set each teacher's logit scale by leave-one-out likelihood on episodes of the val split."""
    for teacher in teachers:
        if teacher.head.calibrated:
            continue
        teacher.head.scale.fill_(1.0)
        domains = range(len(data.source.domains("val")))
        numbers = range(CALIBRATION_EPISODES // len(domains))
        episodes = [
            val_episode(data, data.n_episodes * k + i, device) for k in domains for i in numbers
        ]
        answers = [
            teacher.predict_episode(e.support, e.query, e.classes)[0].logits for e in episodes
        ]
        teacher.head.calibrate(torch.cat(answers), torch.cat([e.support.y for e in episodes]))


def val_episode(data: EpisodicData, i: int, device: torch.device) -> Episode:
    """Episode i of the val split, as the networks see it."""
    episode = move_data_to_device(data.evaluation_episodes("val")[i], device)
    return data.on_after_batch_transfer(episode, 0)
