"""Batches of any source, for ordinary training."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer, check_seed, check_share
from lightning_metakd.data.batches import BatchSet, fingerprint, partition
from lightning_metakd.data.distributed_sampling import (
    Loader,
    TrainingSampler,
    evaluation_indices,
    loader_of_batches,
    rank_and_world,
)
from lightning_metakd.data.source_data import UNAUGMENTED, SourceData, check_views
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.data.training_set import TrainingSet
from lightning_metakd.storage.atomic_files import atomic_write

MOST_TIMES = 1000


class SupervisedData(SourceData):
    """Batches of a source: to pretrain a teacher, to fine-tune, to distil on a single task.

    The rows of the split are divided, class by class, into those to train on, a quiz (which trains a
    strategy), validation and test.

    Args:
        source: where the examples come from.
        split: split whose rows and classes are used.
        batch_size: rows of a batch on each rank.
        quiz_fraction: share of each class kept for the quiz; above 0, training yields (batch, quiz batch).
        val_fraction: share of each class kept for validation; 0 for no validation.
        test_fraction: share of each class kept for the test, as where the source divides its classes; with 0
            the test is on its test rows where they are others of the same classes, on validation otherwise.
        seed: of the order and the views.
        split_seed: of the division into parts; keep it, so that runs train on the same images.
        augment: shift and mirror training images.
        views: fixed augmented views per image, as stored by a cache; null draws a new view each time, 0 none.
        num_workers: worker processes of the loader; images lie in memory, so none is usually fastest.
        rows_per_class: labels of each class to train on, as where few are at hand; null is all.
        quiz_in_training: how many times the rows of the quiz, with the labels by which they judge, are among
            those to train on; above 0 they judge nothing, and stand beside a strategy that learns from them.
    """

    def __init__(
        self,
        source: Source,
        split: str = "train",
        batch_size: int = 128,
        quiz_fraction: float = 0.0,
        val_fraction: float = 0.0,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = True,
        views: int | None = None,
        num_workers: int = 0,
        rows_per_class: int | None = None,
        test_fraction: float = 0.0,
        quiz_in_training: int = 0,
    ) -> None:
        super().__init__(source, num_workers)
        hint = "or null for all"
        check_integer("data.rows_per_class", rows_per_class, 1, hint=hint, optional=True)
        check_integer("data.batch_size", batch_size, 1)
        check_integer("data.quiz_in_training", quiz_in_training, 0, MOST_TIMES)
        self.fractions = {"quiz": quiz_fraction, "val": val_fraction, "test": test_fraction}
        for part, share in self.fractions.items():
            check_share(f"data.{part}_fraction", share)
        if sum(self.fractions.values()) >= 1:
            shares = ", ".join(f"{part}_fraction={share}" for part, share in self.fractions.items())
            raise ValueError(f"{shares} leave nothing to train on; their sum must be less than 1.")
        check_seed("data.seed", seed)
        check_seed("data.split_seed", split_seed)
        check_views(views)
        source.check_split(split)
        self.split, self.batch_size, self.seed, self.split_seed = (
            split,
            batch_size,
            seed,
            split_seed,
        )
        self.views = views if augment else 0
        self.rows_per_class, self.quiz_in_training = rows_per_class, quiz_in_training

    @cached_property
    def _classes(self) -> Int[Tensor, " c"]:
        return self.classes(self.split)

    def train_classes(self) -> Int[Tensor, " c"]:
        """Dataset class of each label, ascending."""
        return self._classes

    @cached_property
    def parts(self) -> dict[str, Int[Tensor, " n"]]:
        """Rows of `train`, `quiz`, `val` and `test`."""
        rows = self.source.rows(self.split)
        y = self.source.all_rows().y[rows]
        return partition(y, rows, self.fractions, self.split_seed, self.rows_per_class)

    @property
    def has_quiz(self) -> bool:
        return self.fractions["quiz"] > 0 and not self.quiz_in_training

    def held_out_rows(self) -> Int[Tensor, " n"]:
        """Those of the quiz, or of validation where nothing is judged by a quiz."""
        return self.parts["quiz" if self.has_quiz else "val"]

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """The rows to train on in each view; nobody is taught on others."""
        views = range(self.views) if self.views else UNAUGMENTED
        return [(self._train_rows().unique(), views)] if stage == "fit" else []

    def _train_rows(self) -> Int[Tensor, " n"]:
        """Rows to train on; those of the quiz as many times as they are wanted there."""
        return torch.cat([self.parts["train"], *[self.parts["quiz"]] * self.quiz_in_training])

    def manifest(self) -> dict[str, Any]:
        """Which classes and which rows this data trains on, to be kept beside what was trained."""
        return {
            "source": self.source.name,
            "split": self.split,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "class_ids": self.train_classes().tolist(),
            "class_names": self.train_class_names(),
            "rows": {part: len(rows) for part, rows in self.parts.items()},
            "rows_sha256": {part: fingerprint(rows) for part, rows in self.parts.items()},
        }

    def train_dataloader(self) -> Loader:
        batches = self._shuffled("train", self.batch_size, self.views, self._train_rows())
        world = rank_and_world(self.trainer)[1]
        steps = len(batches) // world
        if steps == 0:
            raise ValueError(
                f"batch_size={self.batch_size} on {world} rank(s) exceeds the {len(self.parts['train'])} "
                f"rows to train on of split {self.split!r} in {self.source.name}; lower data.batch_size, "
                "or get more rows by data.split, source, rows_per_class, or smaller fractions of other parts."
            )
        trainer = self.trainer
        folder = trainer.log_dir if trainer and trainer.loggers else None  # every process must ask
        if folder and rank_and_world(trainer)[0] == 0:
            write_manifest(self.manifest(), folder)
        rows = self.parts["quiz"]
        n_quiz = min(self.batch_size, len(rows))
        quiz = self._shuffled("quiz", n_quiz, 0, rows) if self.has_quiz else None
        return loader_of_batches(
            TrainingSet(batches, quiz), TrainingSampler(self.trainer, 1, steps), self.num_workers
        )

    def val_dataloader(self) -> Any:
        return self._in_order(self.parts["val"]) if len(self.parts["val"]) else []

    def test_dataloader(self) -> Loader:
        """The rows kept for it, the source's test rows of the same classes, or those of validation."""
        return self._in_order(self._test_rows())

    def _test_rows(self) -> Int[Tensor, " n"]:
        if len(self.parts["test"]):
            return self.parts["test"]
        if "test" in self.source.splits and self.train_classes().equal(self.classes("test")):
            rows = self.source.rows("test")
            if not torch.isin(rows, self.source.rows(self.split)).any():
                return rows
        if not len(self.parts["val"]):
            raise ValueError(
                f"val_fraction=0 and test_fraction=0 leave nothing to test on: {self.source.name} has no "
                f"test rows of the classes of split {self.split!r} that this does not train on; give "
                "data.val_fraction or data.test_fraction."
            )
        return self.parts["val"]

    def predict_dataloader(self) -> Loader:
        return self.test_dataloader()

    def _shuffled(
        self, part: str, batch_size: int, views: int | None, rows: Int[Tensor, " n"]
    ) -> BatchSet:
        return BatchSet(
            self._labelled(part),
            rows,
            self.train_classes(),
            batch_size=batch_size,
            key=(part, self.seed),
            views=views,
        )

    def _labelled(self, part: str) -> Labelled:
        """All rows with the labels of a part; rows of the quiz have those by which it judges in any."""
        if part == "quiz":
            return self.judges()
        examples, quiz = self.images(), self.parts["quiz"]
        right = self.source.true_labels()[quiz]
        return examples._replace(y=examples.y.index_copy(0, quiz, right))

    def _in_order(self, rows: Int[Tensor, " n"]) -> Loader:
        batches = BatchSet(self.judges(), rows, self.train_classes(), batch_size=self.batch_size)
        return loader_of_batches(
            batches, evaluation_indices(self.trainer, len(batches)), self.num_workers
        )


def write_manifest(manifest: dict[str, Any], folder: str) -> None:
    """`manifest.json` in a run's directory."""
    with atomic_write(Path(folder) / "manifest.json") as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n")
