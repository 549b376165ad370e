"""Quiz episodes: rows on which a student trains, and rows by which the strategy is then judged.

For a learner that adapts by a loss, one episode is enough: the teaching loss acts on its support rows, and
its query rows are the quiz. Any other learner takes a pilot step and then the quiz, in one of two ways.
Half of the query rows of an episode are for the pilot and the other half are the quiz: what says most of a
class at once does best then, and that is its labels. Or the pilot is on an episode of the training, and the
quiz has other classes (as meta-learning for domain generalisation has another domain: Li et al. 2018,
arXiv:1710.03463): what does best is what generalises from class to class, as a student has to.

Quiz and pilot are the words of MetaDistil (Zhou, Xu, McAuley 2022, arXiv:2106.04570).
"""

from collections.abc import Sequence
from typing import Literal

from lightning_metakd.functional.params import select_rows
from lightning_metakd.strategy.controls import shuffled_quiz
from lightning_metakd.types import Episode, QuizEpisodes

QuizClasses = Literal["same", "other"]


def quiz_episodes(
    train: Sequence[Episode],
    quiz: Sequence[Episode],
    takes_pilot: bool,
    quiz_classes: QuizClasses,
    seed: int | None,
) -> Sequence[Episode] | Sequence[QuizEpisodes]:
    """The tasks that judge the strategy.

    Args:
        train: the episodes that the student is trained on.
        quiz: those of the strategy, as many.
        takes_pilot: whether a pilot step comes before the quiz; without one whole episodes come back.
        quiz_classes: whether the quiz has the classes of its pilot.
        seed: permutes the labels of the quiz; None leaves them.
    """
    if not takes_pilot:
        return [with_shuffled_quiz(episode, seed) for episode in quiz]
    if quiz_classes == "same":
        tasks = [split_query(episode) for episode in quiz]
    else:
        tasks = [QuizEpisodes(*pair) for pair in zip(train, quiz, strict=True)]
    return [task._replace(quiz=with_shuffled_quiz(task.quiz, seed)) for task in tasks]


def with_shuffled_quiz(episode: Episode, seed: int | None) -> Episode:
    """The episode, its labels permuted where a seed is given."""
    return episode if seed is None else shuffled_quiz(episode, seed)


def split_query(episode: Episode) -> QuizEpisodes:
    """One episode as two: half of the query rows of each class for the pilot, the others for the quiz."""
    n_way, n = len(episode.classes), len(episode.query.y)
    cut = n // n_way // 2 * n_way
    first, second = (select_rows(episode.query, part) for part in (slice(0, cut), slice(cut, None)))
    return QuizEpisodes(episode._replace(query=first), episode._replace(query=second))
