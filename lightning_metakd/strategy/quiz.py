"""Exams: rows that are taught, and rows by which that lesson, and so the strategy, is judged.

A learner that adapts by a loss is taught on the support set and asked on the query rows of one episode. Any
other learner is taught in a pilot step and asked after it, in one of two ways. Half of the query rows of an
episode are taught and the other half are asked: what says most of a class at once does best then, and that
is its labels. Or an episode of the training is taught and one of other classes is asked (as
meta-learning for domain generalisation asks of another domain: Li et al. 2018, arXiv:1710.03463): what
does best is what generalises from class to class, as a student has to.
"""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.functional.params import select_rows
from lightning_metakd.learners.learner import Learner
from lightning_metakd.models.model import listed
from lightning_metakd.strategy.controls import shuffled_quiz
from lightning_metakd.types import Episode, QuizEpisodes

log = logging.getLogger(__name__)

QuizClasses = Literal["same", "other"]


def quiz_episodes(
    train: Sequence[Episode],
    quiz: Sequence[Episode],
    learner: Learner,
    quiz_classes: QuizClasses,
    seed: int | None,
) -> Sequence[Episode] | Sequence[QuizEpisodes]:
    """The tasks that judge the strategy: whole episodes where the learner adapts by a loss, or exams.

    Args:
        taught: the episodes that the student is trained on.
        judges: those of the strategy, as many.
        seed: permutes the labels of what is asked; None leaves them.
    """
    if learner.uses_inner_loss:
        return [with_shuffled_quiz(episode, seed) for episode in quiz]
    if quiz_classes == "same":
        tasks = [split_query(episode) for episode in quiz]
    else:
        tasks = [QuizEpisodes(*pair) for pair in zip(train, quiz, strict=True)]
    return [exam._replace(quiz=with_shuffled_quiz(exam.quiz, seed)) for exam in tasks]


def with_shuffled_quiz(episode: Episode, seed: int | None) -> Episode:
    """The episode, its labels permuted where a seed is given."""
    return episode if seed is None else shuffled_quiz(episode, seed)


def split_query(episode: Episode) -> QuizEpisodes:
    """An exam within one episode: half of the query rows of each class are taught, the others asked."""
    n_way, n = len(episode.classes), len(episode.query.y)
    cut = n // n_way // 2 * n_way
    first, second = (select_rows(episode.query, part) for part in (slice(0, cut), slice(cut, None)))
    return QuizEpisodes(episode._replace(query=first), episode._replace(query=second))


def check_quiz(data: EpisodicData, learner: Learner, quiz_classes: QuizClasses) -> None:
    """Refuse a quiz for which learner or data have no place; reads settings alone.

    Raises:
        ValueError: if the word is unknown, a learner that adapts by a loss is to be asked of other classes,
            or the data have none, or no query rows beside those that are taught.
    """
    name = "n_query" if data.strategy_split else "train_n_query"
    if learner.uses_inner_loss:
        if quiz_classes == "other":
            raise ValueError(
                f"quiz_classes=other asks of other classes after a pilot step, and {type(learner).__name__} "
                "makes none: its lesson acts on the support set, and the query rows of the same episode are "
                "the quiz; set model.strategy_training.quiz_classes to same, or take a learner such as "
                "ProtoNet."
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
