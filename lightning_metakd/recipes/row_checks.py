"""Which teachers and coefficients go with plain batches."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_metakd.data.source_data import SourceData
from lightning_metakd.models.model import Model, listed
from lightning_metakd.recipes.mixing import Mixing
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.strategy_training import StrategyTraining, of_batch
from lightning_metakd.recipes.teaching_setup import TeachingSetup
from lightning_metakd.storage.read_checkpoint import class_names
from lightning_metakd.teachers.teacher import Teacher


def check_head(teacher: Teacher) -> None:
    """Raise where the head of a teacher needs episodes.

    Raises:
        ValueError: says which head does not.
    """
    if teacher.head.needs_support:
        raise ValueError(
            f"head={type(teacher.head).__name__} is fitted on the support set of an episode, and "
            "SingleTask has none; give the teacher a SlicedHead."
        )


def check_of_batch(loss: nn.Module, optimisation: Optimisation, training: StrategyTraining) -> None:
    """Raise where a coefficient that is learned anew for each batch would not be.

    Raises:
        ValueError: says what to change.
    """
    for name in {type(coefficient).__name__ for coefficient in of_batch(loss)}:
        every = training.steps_apart
        if not training.lr or every != 1 or training.warmup > 0:
            raise ValueError(
                f"{name} is learned anew for each batch, before the step on it, and strategy_training has "
                f"lr={training.lr}, every={every}, warmup={training.warmup}; take lr=1, every=1 and warmup=0."
            )
        if training.control not in ("none", "shuffled"):
            raise ValueError(
                f"control={training.control} compares with a strategy that lasts, and {name} is learned anew "
                "for each batch; take shuffled, or no control."
            )
        if optimisation.strategy_optimiser != "sgd":
            raise ValueError(
                f"{name} is the gradient of the quiz, and optimisation.strategy_optimiser="
                f"{optimisation.strategy_optimiser} keeps little of it but its sign; take sgd."
            )


def check_shared_head(teaching: TeachingSetup, student: Model, classes: Sequence[str]) -> None:
    """Raise where a head that is a teacher's does not tell the classes of the data apart, in order.

    Raises:
        ValueError: names the classes of both.
    """
    for pair, teacher in itertools.product(teaching.sharing.pairs, teaching.teachers):
        of_head = pair.student_module is student.head and pair.teacher_module is teacher.model.head
        if of_head and teacher.trained_on not in ((), tuple(classes)):
            raise ValueError(
                f"share names {pair.name}, which tells {listed(teacher.trained_on, 3)} apart, and the "
                f"classes of the data are {listed(classes, 3)}; leave the head out of share."
            )


def check_trained_classes(checkpoint: Mapping[str, Any], data: SourceData) -> None:
    """Raise where the head of a checkpoint does not tell the classes of the data apart.

    Raises:
        ValueError: names the classes of both.
    """
    trained, classes = class_names(checkpoint), tuple(data.train_class_names())
    if trained and trained != classes:
        raise ValueError(
            f"the student of this checkpoint tells {listed(trained, 3)} apart, and the classes of "
            f"{data.source.name} are {listed(classes, 3)}, in this order; name data of its classes, "
            "or give the file as model.initialisation.checkpoint, which goes by the names of classes."
        )


def check_mixing(mixing: Mixing | None, teachers: Iterable[Teacher], learns: bool) -> None:
    """Raise where mixed rows have no stored answers, or no single label for a strategy to be judged by.

    Raises:
        ValueError: says what to leave out.
    """
    if mixing is None:
        return
    if any(teacher.uses_cache for teacher in teachers):
        raise ValueError(
            f"mixing={mixing.kind} makes rows that no teacher has answered before; set the teacher's cache "
            "to false, or leave mixing out."
        )
    if learns:
        raise ValueError(
            f"mixing={mixing.kind} gives a row two labels, and a strategy learns by rows of one; leave "
            "mixing out, or set lr and teacher_lr of model.strategy_training to 0."
        )


def without_quiz(config: StrategyTraining) -> str:
    """The message about a strategy that nothing would judge."""
    return (
        f"strategy_training.lr={config.lr} and teacher_lr={config.teacher_lr} need rows to judge what "
        "is learned on, and the data keep none; set data.quiz_fraction, for instance to 0.1, or both "
        "rates to 0."
    )
