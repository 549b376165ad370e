"""What every data module over a source has, and promises to recipes and teachers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from jaxtyping import Int
from lightning import LightningDataModule
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.data.episodes import UNLIMITED_VIEWS
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.models.model import Model
from lightning_metakd.types import Batch

UNAUGMENTED = range(-1, 0)
"""The one view that is the image itself."""
MOST_WORKERS = 1_000


class SourceData(LightningDataModule, ABC, Configured):
    """What every data module over a source has: its images, its classes, and how rows reach a network.

    Attributes:
        views: fixed augmented views per image in training; None draws a new one each time, 0 is none.
        seed: of the training's order and views.
    """

    views: int | None
    seed: int

    def __init__(self, source: Source, num_workers: int) -> None:
        super().__init__()
        check_integer("data.num_workers", num_workers, 0, MOST_WORKERS)
        self.source, self.num_workers = source, num_workers

    @property
    def reader(self) -> Model | None:
        """The network that reads the batches of the run at hand: the student, if a recipe runs."""
        module = None if self.trainer is None else self.trainer.lightning_module
        student = getattr(module, "student", None)
        return student if isinstance(student, Model) else None

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: checkpoints hold nothing of the data, and Lightning would build what the file says."""
        raise TypeError(
            f"checkpoints hold nothing of the data; build {cls.__name__} by its arguments."
        )

    def prepare_data(self) -> None:
        self.source.check_rows()

    @abstractmethod
    def train_classes(self) -> Int[Tensor, " c"]:
        """Dataset classes on which a student is trained, ascending."""

    @abstractmethod
    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """Rows, and their views, of which teachers' caches need outputs in a stage of the Trainer."""

    @property
    @abstractmethod
    def has_quiz(self) -> bool:
        """Whether the settings keep rows or episodes apart that judge a strategy."""

    def held_out_rows(self) -> Int[Tensor, " n"]:
        """Rows on which nobody trains, by which teachers are calibrated; none where a teacher may have."""
        return torch.empty(0, dtype=torch.long)

    def groups(self) -> Mapping[str, Int[Tensor, " _"]]:
        """Groups of classes on which a student is judged one by one; none but for a stream."""
        return {}

    def train_class_names(self) -> list[str]:
        """Names of the classes on which a student is trained."""
        return self.names(self.train_classes())

    def result_fields(self) -> dict[str, Any]:
        """What a result row says of the data."""
        names = ("n_way", "k_shot", "n_query", "wrong_support", "support_views", "eval_seed")
        own_fields = {name: getattr(self, name) for name in names if name in vars(self)}
        return {"source": self.source.name, **own_fields}

    def classes(self, split: str) -> Int[Tensor, " c"]:
        """Dataset classes of a split, ascending."""
        return torch.unique(self.source.all_rows().y[self.source.rows(split)])

    def names(self, classes: Int[Tensor, " c"]) -> list[str]:
        """Names of dataset classes: their identity beyond this source, whose numbers are its own."""
        names = self.source.all_rows().class_names
        return [str(names[c]) for c in classes.tolist()]

    def images(self, split: str = "all") -> Labelled:
        """Examples by row number; `all` is every row of the source, and not a copy."""
        return self.source.load(split)

    def judges(self) -> Labelled:
        """All examples with the labels by which training is judged."""
        return self.images()._replace(y=self.source.true_labels())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What networks read, in the precision of their weights: the Trainer meets whole pixels alone."""
        reading = None if self.reader is None else self.reader.reading
        module = None if self.trainer is None else self.trainer.lightning_module
        weights = (p for p in (module.parameters() if module else ()) if p.is_floating_point())
        dtype = next(weights, torch.empty(0)).dtype

        def finish(part: Any) -> Any:
            if not isinstance(part, Batch):
                return part
            flat = part.x.flatten(0, part.index.dim() - 1)
            index, view = part.index.flatten(), part.view.flatten()
            x = self.source.inputs(flat, index, view, reading)
            x = x.to(dtype) if x.is_floating_point() else x
            return part._replace(x=x.unflatten(0, part.index.shape))

        return tree_map(finish, batch, is_leaf=lambda part: isinstance(part, Batch))


def check_views(views: int | None) -> None:
    """Raise where a number of views is no whole number; None stands for as many as are drawn."""
    if views is not None:
        check_integer("data.views", views, 0, UNLIMITED_VIEWS)
