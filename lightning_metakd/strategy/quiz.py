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
from typing import Literal

from lightning_metakd.functional.params import select_rows
from lightning_metakd.learners.learner import Learner
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
