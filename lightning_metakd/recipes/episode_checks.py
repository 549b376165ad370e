"""Which students, learners, losses and teachers go together in episodes."""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch
from lightning import Trainer
from torch import nn

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import Model, head_width, listed
from lightning_metakd.models.norm import NormForm, untrained_statistics
from lightning_metakd.recipes.strategy_training import StrategyTraining, of_batch
from lightning_metakd.teachers.teacher_pool import TeacherPool
from lightning_metakd.types import Episode, Output

log = logging.getLogger(__name__)


def drop_unused_head(learner: Learner, students: Sequence[Model]) -> None:
    """Take away the classifier of a wrapped network where the learner brings its own."""
    student = students[0]
    if learner.needs_head or not (head_width(student) and student.head_fits_task):
        return
    for network in students:
        network.resize_head(0)
    log.warning(f"{type(learner).__name__} brings its own classifier: the student's is left out.")


def check_learner(
    learner: Learner,
    student: Model,
    loss: Loss,
    norm: NormForm,
    teacher_at_test: bool,
    has_teachers: bool,
) -> None:
    """Raise where a learner does not go with student, loss or norm.

    Raises:
        ValueError: says what to change.
    """
    name = type(learner).__name__
    if teacher_at_test and not (learner.uses_inner_loss and loss.needs_teacher):
        raise ValueError(
            f"teacher_at_test=true changes nothing with learner={name} and loss={type(loss).__name__}; take "
            "a learner that adapts by a loss, ProtoMAML for instance, and a loss that follows a teacher, or "
            "leave teacher_at_test out."
        )
    if learner.needs_teacher and not has_teachers:
        raise ValueError(
            f"support_weight of learner={name} reads what a teacher says of the support rows, in a test too, "
            "and teachers is empty; name one in model.teachers, or take MetaWeightNet, which reads none."
        )
    if norm == "tracked" and learner.adapts_body:
        raise ValueError(
            f"norm='tracked' does not go with learner={name}, whose body adapts and must remember nothing of "
            "it; take support, running or batch."
        )
    if learner.uses_inner_loss and not learner.adapts_body and any(loss.layer_pairs()):
        raise ValueError(
            f"loss={type(loss).__name__} compares layers, and learner={name} adapts the head alone, which "
            "changes none; take a learner whose body adapts, one that is taught on the query rows "
            "(ProtoNet), or a loss of logits."
        )
    has_head = head_width(student) > 0
    if has_head != learner.needs_head and not student.head_fits_task:
        way_out = "set its n_classes to data.n_way" if learner.needs_head else "set n_classes to 0"
        raise ValueError(
            f"learner={name} {'needs' if learner.needs_head else 'does not use'} the student's logits head, "
            f"and the student has {'one' if has_head else 'none'}; {way_out}."
        )


def check_support_views(data: EpisodicData, learner: Learner) -> None:
    """Raise where support rows have further views, and each is weighed by what is said of it without itself.

    Raises:
        ValueError: says what to leave out; or if the source cannot make so many views.
    """
    if not data.support_views:
        return
    data.source.check_views(data.support_views, "data.support_views")
    if getattr(learner, "support_weight", None) is not None:
        raise ValueError(
            f"data.support_views={data.support_views} shows each support row several times, and "
            f"support_weight of learner={type(learner).__name__} judges a row by the others, its own views "
            "among them; set data.support_views to null, or leave support_weight out."
        )


def check_no_weights_of_batch(*modules: nn.Module) -> None:
    """Raise where a coefficient is learned anew for each batch, and there are episodes.

    Raises:
        ValueError: names what lasts.
    """
    for name in {type(c).__name__ for module in modules for c in of_batch(module)}:
        raise ValueError(
            f"{name} is learned anew for each batch of SingleTask, and MetaKD has episodes; take "
            "MetaWeightNet or LearnedPerSample, or model=SingleTask."
        )


def check_teachers_can_learn(teacher_lr: float, learner: Learner) -> None:
    """Raise where teachers would learn through what cannot be differentiated twice.

    Raises:
        ValueError: names the learner.
    """
    if teacher_lr > 0 and not learner.vmap_compatible:
        raise ValueError(
            f"teacher_lr={teacher_lr} cannot be differentiated through {type(learner).__name__} with a "
            "solver or recomputed steps; take another learner, or leave recompute out."
        )


def n_logits(learner: Learner, data: EpisodicData) -> int | None:
    """Logits of a student's head in these episodes; None where the learner brings its own.

    Raises:
        ValueError: if training and evaluation have episodes of different numbers of classes.
    """
    if not learner.needs_head:
        return None
    if data.train_n_way != data.n_way:
        raise ValueError(
            f"train_n_way={data.train_n_way} and n_way={data.n_way} want heads of two sizes, and "
            f"{type(learner).__name__} adapts one; set both alike, or take a learner that brings its own "
            "head, such as ProtoNet."
        )
    return data.n_way


def check_quiz_classes(teachers: TeacherPool, quiz_classes: Sequence[str]) -> None:
    """Raise where a teacher was trained on classes of the quiz; warn where that is not on record.

    Raises:
        ValueError: names the classes.
    """
    for i, teacher in enumerate(teachers):
        if not teacher.all_classes:
            log.warning(
                f"teachers[{i}] has no record of the classes it was trained on, and cannot be kept from "
                "answering for classes it has seen where the strategy is judged; name them in its "
                "classes."
            )
        if overlap := [name for name in quiz_classes if name in teacher.all_classes]:
            raise ValueError(
                f"teachers[{i}] was trained on {len(overlap)} of the {len(quiz_classes)} classes on which "
                f"the strategy would be judged ({listed(overlap, 5)}), and a gate learned there trusts it "
                "too much; set data.strategy_split to classes it has not seen, or "
                "model.strategy_training.allow_seen_classes to true."
            )


def warn_of_untrained_statistics(student: Model) -> None:
    """Say which norms would normalise by statistics that no training has set."""
    if untrained := untrained_statistics(student):
        log.warning(
            f"norm=running normalises by mean 0 and variance 1 in {listed(untrained, 3)}, whose "
            "statistics no training has set; name a trained start in model.initialisation.checkpoint, or "
            "take norm=support."
        )


def check_adapted(
    output: Output, student: Model, episode: Episode, learner: Learner, trainer: Trainer
) -> None:
    """Raise where adapting to an episode has led from numbers to none.

    Raises:
        FloatingPointError: names the episode and the rate.
    """
    if output.logits.isfinite().all():
        return
    with torch.no_grad():
        began = student(episode.query.x).embedding
    if began.isfinite().all():
        settings = {**vars(learner), "inner_steps": learner.inner_steps}
        named = [f"{n}={settings[n]}" for n in ("inner_lr", "inner_steps") if settings.get(n)]
        command = getattr(trainer.state.fn, "value", None)
        way_out = " or ".join(named) or f"the rate of {type(learner).__name__}"
        raise FloatingPointError(
            f"adapting to episode {int(episode.id)} of {command} led to logits that are not finite; "
            f"lower model.learner.{way_out}."
        )


def check_quiz(data: EpisodicData, learner: Learner, strategy: StrategyTraining) -> None:
    """Raise where learner or data have no place for a quiz; reads settings alone.

    Raises:
        ValueError: if a learner that adapts by a loss is to have a quiz of other classes, or the data have
            none, or no query rows beside those of the pilot.
    """
    quiz_classes = strategy.classes_of_quiz(learner, data)
    name = "n_query" if data.strategy_split else "train_n_query"
    if learner.uses_inner_loss:
        if quiz_classes == "other":
            raise ValueError(
                f"quiz_classes=other asks of other classes after a pilot step, and {type(learner).__name__} "
                "makes none: its teaching loss acts on the support set, and the query rows of the same "
                "episode are the quiz; set model.strategy_training.quiz_classes to same, or take a learner "
                "such as ProtoNet."
            )
    elif quiz_classes == "other":
        if data.strategy_split in (None, data.train_split):
            raise ValueError(
                f"quiz_classes=other asks of other classes than data.train_split={data.train_split!r} "
                f"teaches, and data.strategy_split={data.strategy_split!r} names none; name a split that "
                "neither teachers nor the student are trained on."
            )
    elif getattr(data, name) < 2:
        raise ValueError(
            f"{name}={getattr(data, name)} leaves no rows to judge the strategy on: for "
            f"{type(learner).__name__} half of the query rows of a class teach, and the other half is the "
            "quiz; set data.n_query to 2 or more, or lr and teacher_lr of model.strategy_training to 0."
        )


def warn_if_first_order(learner: Learner) -> None:
    """Tell where the gradient of the strategy is not that of the quiz."""
    if learner.uses_inner_loss and learner.first_order and learner.inner_steps > 1:
        log.warning(
            f"{type(learner).__name__} is first-order: the gradient of the strategy leaves out what each "
            f"of its {learner.inner_steps} inner steps did to later ones, and may point elsewhere than "
            "that of the quiz; second order or a single inner step has all of it."
        )


def warn_of_trained_classes(data: EpisodicData, trained_on: AbstractSet[str]) -> None:
    """Tell of a quiz of other classes with some that the student knows.

    Args:
        trained_on: names of the classes that the student is trained on, here and before.
    """
    quiz = data.names(data.classes(str(data.strategy_split)))
    if overlap := [name for name in quiz if name in trained_on]:
        log.warning(
            f"The student is trained on {len(overlap)} of the {len(quiz)} classes of "
            f"data.strategy_split={data.strategy_split!r} by which its strategy is judged "
            f"({listed(overlap, 5)}); a data.train_split, and an init, without them judge how it generalises."
        )
