"""What training steps get, item by item: from one set, or from one and the quiz beside it."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from lightning_metakd.data.batches import BatchSet, StreamBatches
from lightning_metakd.data.episodes import EpisodeSet
from lightning_metakd.types import TrainBatch


class TrainingSet(Dataset[TrainBatch]):
    """Item i of a set, and item i of the quiz where there is one.

    Args:
        train: what the student is trained on.
        quiz: what judges a strategy, a set of the same kind; None for none.
    """

    def __init__(
        self,
        train: EpisodeSet | BatchSet | StreamBatches,
        quiz: EpisodeSet | BatchSet | None = None,
    ) -> None:
        self.train, self.quiz = train, quiz

    def __getitem__(self, i: int) -> TrainBatch:
        return TrainBatch(self.train[i], None if self.quiz is None else self.quiz[i])


class MetaBatches(TrainingSet):
    """Several items at once: a meta-batch of the episodes of a training step.

    Args:
        train: episodes that the student is trained on.
        quiz: episodes that judge a strategy; None for none.
    """

    train: EpisodeSet
    quiz: EpisodeSet | None

    def __getitems__(self, indices: Sequence[int]) -> TrainBatch:
        """The episodes of a step, joined as their sets do it."""
        quiz = None if self.quiz is None else self.quiz.__getitems__(indices)
        return TrainBatch(self.train.__getitems__(indices), quiz)
