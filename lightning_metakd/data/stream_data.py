"""A stream of tasks: classes that arrive one group after another, and a bounded memory of earlier ones.

One training is one task of the stream, begun from the checkpoint of the task before. What it trains on is a
pure function of (seed, number of the task): so the stream can be stopped and resumed at any step of any task.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer, check_seed, check_share
from lightning_metakd.data.batches import BatchSet, StreamBatches, partition
from lightning_metakd.data.class_groups import Tasks, class_groups
from lightning_metakd.data.distributed_sampling import (
    Loader,
    TrainingSampler,
    evaluation_indices,
    loader_of_batches,
    rank_and_world,
)
from lightning_metakd.data.memory import read_memory, reservoir
from lightning_metakd.data.source_data import UNAUGMENTED, SourceData, check_views
from lightning_metakd.data.sources.seeding import hash64
from lightning_metakd.data.sources.source import Source
from lightning_metakd.data.training_set import TrainingSet

MOST_TASKS = 10_000


class StreamData(SourceData):
    """One task of a stream: rows of its new classes, and rows of earlier ones that a memory keeps.

    Args:
        source: where the examples come from.
        tasks: number of tasks, into which the classes are divided in their order; or the names of the classes
            of each; or `domains`, one after the other, of a Mixture.
        task: which of them is trained on, from 0.
        split: split whose classes and rows are used; test rows are the source's `test` rows where they are of
            the same classes.
        class_seed: of an order of the classes; null keeps that of the source.
        memory_size: rows of earlier tasks, at most: a sample of them all, as a reservoir keeps it. 0 keeps
            none, null all of them, as joint training has them.
        memory_file: rows that a run before has chosen, in place of the sample (see the callback Herding).
        batch_size: rows of the task in a batch.
        memory_batch_size: rows of the memory beside them.
        quiz_fraction: share of the memory kept for the quiz; above 0, training yields (batch, quiz batch).
        test_fraction: share of each class kept for the test, where the source has no test rows of these
            classes.
        alone: forget all earlier tasks, their classes too: to see what a task is worth without them.
        seed: of the order and the views.
        split_seed: of the sample of the memory and the division into train and test.
        augment: shift and mirror training images.
        views: fixed augmented views per image, as stored by a cache; null draws a new view each time, 0 none.
        num_workers: worker processes of the loader; images lie in memory, so none is usually fastest.
    """

    def __init__(
        self,
        source: Source,
        tasks: Tasks = 10,
        task: int = 0,
        split: str = "train",
        class_seed: int | None = None,
        memory_size: int | None = 2000,
        memory_file: str | None = None,
        batch_size: int = 64,
        memory_batch_size: int = 64,
        quiz_fraction: float = 0.0,
        test_fraction: float = 0.0,
        alone: bool = False,
        *,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = True,
        views: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(source, num_workers)
        if not isinstance(tasks, list) and tasks != "domains":
            check_integer("data.tasks", tasks, 1, MOST_TASKS, "or a list of names, or domains")
        check_integer("data.task", task, 0, MOST_TASKS)
        if class_seed is not None:
            check_seed("data.class_seed", class_seed)
        hint = "0 for no memory, or null for all rows"
        check_integer("data.memory_size", memory_size, 0, hint=hint, optional=True)
        check_integer("data.batch_size", batch_size, 1)
        check_integer("data.memory_batch_size", memory_batch_size, 1)
        check_share("data.quiz_fraction", quiz_fraction)
        check_share("data.test_fraction", test_fraction)
        check_seed("data.seed", seed)
        check_seed("data.split_seed", split_seed)
        check_views(views)
        source.check_split(split)
        self.tasks, self.task, self.split, self.class_seed = tasks, task, split, class_seed
        self.memory_size, self.memory_file, self.alone = memory_size, memory_file, alone
        self.batch_size, self.memory_batch_size = batch_size, memory_batch_size
        self.quiz_fraction, self.test_fraction = quiz_fraction, test_fraction
        self.seed, self.split_seed, self.views = seed, split_seed, views if augment else 0

    # --- which classes and rows ----------------------------------------------------------------

    @cached_property
    def stream(self) -> list[Int[Tensor, " _"]]:
        """Dataset classes of each task, ascending.

        Raises:
            ValueError: if there is no such task.
        """
        groups = class_groups(self.source, self.split, self.tasks, self.class_seed)
        if self.task >= len(groups):
            raise ValueError(
                f"task={self.task} is not in a stream of {len(groups)} tasks, which are numbered from 0; "
                "lower data.task, or raise data.tasks."
            )
        return groups

    @property
    def first(self) -> int:
        """The first task whose classes the student tells apart."""
        return self.task if self.alone else 0

    def train_classes(self) -> Int[Tensor, " c"]:
        """Dataset classes of all tasks so far, ascending."""
        return torch.cat(self.stream[self.first : self.task + 1]).sort().values

    def groups(self) -> Mapping[str, Int[Tensor, " _"]]:
        return {f"task {k}": self.stream[k] for k in range(self.first, self.task + 1)}

    @property
    def has_quiz(self) -> bool:
        return self.quiz_fraction > 0 and self.task > self.first

    @cached_property
    def divisions(self) -> list[dict[str, Int[Tensor, " _"]]]:
        """Rows of `train` and `test` of each task so far.

        Raises:
            ValueError: if a task has no test rows.
        """
        rows, y = self.source.rows(self.split), self.source.all_rows().y
        has_test = "test" in self.source.splits and self.split != "test"
        test = self.source.rows("test") if has_test else rows[:0]
        result = []
        for k in range(self.task + 1):
            of_task = rows[torch.isin(y[rows], self.stream[k])]
            kept = test[torch.isin(y[test], self.stream[k])]
            division = {"test": kept, "train": of_task}
            if len(y[kept].unique()) < len(self.stream[k]):
                fractions = {"test": self.test_fraction}
                division = partition(y[of_task], of_task, fractions, self.split_seed)
            if not len(division["test"]):
                raise ValueError(
                    f"task {k} of {self.source.name} has no test rows: its classes are not in split 'test'; "
                    "set data.test_fraction, for instance to 0.2."
                )
            result.append(division)
        return result

    @cached_property
    def parts(self) -> dict[str, Int[Tensor, " _"]]:
        """Rows of the task to `train` on, of the `memory` and its `quiz`, and to `test` on."""
        past = self.divisions[self.first : self.task]
        memory = self.memory(torch.cat([d["train"] for d in past])) if past else torch.tensor([])
        memory = memory.long()
        n_quiz = round(self.quiz_fraction * len(memory))
        order = memory[hash64(memory + hash64(torch.full_like(memory, -1))).argsort()]
        tests = [d["test"] for d in self.divisions[self.first :]]
        return {
            "train": self.divisions[self.task]["train"],
            "memory": order[n_quiz:].sort().values,
            "quiz": order[:n_quiz].sort().values,
            "test": torch.cat(tests).sort().values,
        }

    def memory(self, past: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """The rows of earlier tasks that are remembered.

        Raises:
            ValueError: if there is no room for a row of each class, or a file is no memory.
        """
        n_classes = sum(map(len, self.stream[self.first : self.task]))
        if self.memory_size is not None and 0 < self.memory_size < n_classes:
            raise ValueError(
                f"memory_size={self.memory_size} has no room for a row of each of the {n_classes} classes of "
                f"earlier tasks; raise data.memory_size, or set it to 0 for none."
            )
        if self.memory_file is not None and self.memory_size != 0:
            return read_memory(Path(self.memory_file), past, self.memory_size)
        return reservoir(past, self.memory_size, self.split_seed)

    # --- loaders -------------------------------------------------------------------------------

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """The rows to train on in each view; nobody is taught on others."""
        views = range(self.views) if self.views else UNAUGMENTED
        rows = torch.cat([self.parts["train"], self.parts["memory"]]).sort().values
        return [(rows, views)] if stage == "fit" else []

    def train_dataloader(self) -> Loader:
        batches = StreamBatches(
            *(
                self.shuffled(part, size)
                for part, size in (("train", self.batch_size), ("memory", self.memory_batch_size))
                if len(self.parts[part])
            )
        )
        world = rank_and_world(self.trainer)[1]
        if (steps := len(batches) // world) == 0:
            raise ValueError(
                f"batch_size={self.batch_size} on {world} rank(s) exceeds the {len(self.parts['train'])} "
                f"rows of task {self.task} of {self.source.name}; lower data.batch_size."
            )
        n_quiz = len(self.parts["quiz"])
        quiz = self.shuffled("quiz", self.batch_size) if n_quiz else None
        return loader_of_batches(
            TrainingSet(batches, quiz), TrainingSampler(self.trainer, 1, steps), self.num_workers
        )

    def shuffled(self, part: str, size: int) -> BatchSet:
        """Batches of a part, epoch after epoch."""
        rows = self.parts[part]
        is_quiz = part == "quiz"
        examples, views = (self.judges(), 0) if is_quiz else (self.images(), self.views)
        key, size = (part, self.task, self.seed), min(size, len(rows))
        return BatchSet(examples, rows, self.train_classes(), batch_size=size, key=key, views=views)

    def val_dataloader(self) -> Any:
        return []

    def test_dataloader(self) -> Loader:
        """Test rows of all tasks so far."""
        rows, size = self.parts["test"], max(self.batch_size, 256)
        batches = BatchSet(self.judges(), rows, self.train_classes(), batch_size=size)
        return loader_of_batches(
            batches, evaluation_indices(self.trainer, len(batches)), self.num_workers
        )

    def predict_dataloader(self) -> Loader:
        return self.test_dataloader()
