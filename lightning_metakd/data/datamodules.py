"""Lightning shells over any source: episodes for meta-learning, batches for ordinary training."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Int
from lightning import LightningDataModule
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import check_integer, check_seed, check_share
from lightning_metakd.data.batches import BatchSet, Paired, fingerprint, partition
from lightning_metakd.data.distributed_sampling import (
    Loader,
    TrainingSampler,
    evaluation_indices,
    identity_collate,
    rank_and_world,
)
from lightning_metakd.data.episodes import UNLIMITED_VIEWS, EpisodeSet, Together, check_episode
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.models.model import Model
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.types import Batch

UNAUGMENTED = range(-1, 0)
"""The one view that is the image itself."""
MOST_WORKERS, LARGEST_META_BATCH = 1_000, 10_000


class SourceData(LightningDataModule, Configured):
    """What every data module over a source has: its images, its classes, and how rows reach a network."""

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
        self.source.all_rows()

    def classes_of(self, split: str) -> Int[Tensor, " c"]:
        """Dataset classes of a split, ascending."""
        return torch.unique(self.source.all_rows().y[self.source.rows(split)])

    def names(self, classes: Int[Tensor, " c"]) -> list[str]:
        """Names of dataset classes: their identity beyond this source, whose numbers are its own."""
        names = self.source.all_rows().class_names
        return [str(names[c]) for c in classes.tolist()]

    def images(self, split: str = "all") -> Labelled:
        """Examples by row number; `all` is every row of the source, and not a copy."""
        return self.source.load(split)

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """Rows, and their views, about which teachers are asked in a stage of the Trainer."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say what a cache must store; write its `shown`."
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What networks read, in the precision of their weights: the Trainer meets whole pixels alone."""
        normalisation = None if self.reader is None else self.reader.normalisation
        module = None if self.trainer is None else self.trainer.lightning_module
        weights = (p for p in (module.parameters() if module else ()) if p.is_floating_point())
        dtype = next(weights, torch.empty(0)).dtype

        def finish(part: Any) -> Any:
            if not isinstance(part, Batch):
                return part
            flat = part.x.flatten(0, part.index.dim() - 1)
            index, view = part.index.flatten(), part.view.flatten()
            x = self.source.inputs(flat, index, view, normalisation).to(dtype)
            return part._replace(x=x.unflatten(0, part.index.shape))

        return tree_map(finish, batch, is_leaf=lambda part: isinstance(part, Batch))


class EpisodicData(SourceData):
    """Episodes of any source. Training draws from base classes, evaluation is a fixed set of novel episodes.

    Args:
        source: where the examples come from.
        n_way: classes of an episode.
        k_shot: support images per class; a range such as [1, 5] draws one number for each meta-step.
        n_query: query images per class.
        meta_batch_size: episodes per rank and meta-step.
        steps_per_epoch: meta-steps of an epoch.
        n_episodes: episodes of an evaluation, over all ranks.
        train_split: split whose classes the student learns from.
        strategy_split: split for the episodes that train the strategy; with it each training batch is a pair.
        train_n_way: classes of a training episode, if other than n_way.
        train_n_query: query images per class of a training episode, if other than n_query.
        seed: of training episodes.
        eval_seed: of evaluation episodes; keep it, so that runs can be compared episode by episode.
        views: fixed augmented views per image, as stored by a cache; null draws a new view each time, 0 none.
        augment: shift and mirror training images.
        num_workers: worker processes of the loader; images lie in memory, so none is usually fastest.
    """

    def __init__(
        self,
        source: Source,
        n_way: int = 5,
        k_shot: int | tuple[int, int] = 5,
        n_query: int = 15,
        meta_batch_size: int = 4,
        steps_per_epoch: int = 100,
        n_episodes: int = 600,
        train_split: str = "train",
        strategy_split: str | None = None,
        train_n_way: int | None = None,
        train_n_query: int | None = None,
        seed: int = 0,
        eval_seed: int = 1234,
        views: int | None = None,
        augment: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__(source, num_workers)
        self.n_way, self.k_shot, self.n_query = n_way, k_shot, n_query
        self.train_n_way = n_way if train_n_way is None else train_n_way
        self.train_n_query = n_query if train_n_query is None else train_n_query
        check_episode(n_way, k_shot, n_query)
        check_episode(self.train_n_way, k_shot, self.train_n_query, "train_")
        check_integer("data.meta_batch_size", meta_batch_size, 1, LARGEST_META_BATCH)
        check_integer("data.steps_per_epoch", steps_per_epoch, 1)
        check_integer("data.n_episodes", n_episodes, 1)
        check_seed("data.seed", seed)
        check_seed("data.eval_seed", eval_seed)
        check_views(views)
        source.check_split(train_split, "train_split")
        if strategy_split is not None:
            source.check_split(strategy_split, "strategy_split")
        self.meta_batch_size, self.steps_per_epoch = meta_batch_size, steps_per_epoch
        self.n_episodes, self.seed, self.eval_seed = n_episodes, seed, eval_seed
        self.train_split, self.strategy_split = train_split, strategy_split
        self.views = views if augment else 0

    def classes(self, split: str) -> Int[Tensor, " c"]:
        """Dataset classes of a split, ascending."""
        return self.classes_of(split)

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """Images of evaluation as they are, those of training in each view."""
        needed = [("val", UNAUGMENTED)]
        if stage in ("test", "predict"):
            needed.append(("test", UNAUGMENTED))
        if stage == "fit":
            views = range(self.views) if self.views else UNAUGMENTED
            splits = {self.train_split, self.strategy_split or self.train_split}
            needed += [(split, views) for split in sorted(splits)]
        return [(self.source.rows(split), views) for split, views in needed]

    def training_episodes(self, split: str, n_way: int, n_query: int) -> EpisodeSet:
        """Augmented episodes under the training seed."""
        return EpisodeSet(
            self.source,
            split,
            n_way=n_way,
            k_shot=self.k_shot,
            n_query=n_query,
            seed=self.seed,
            views=self.views,
            episodes_per_step=self.meta_batch_size * rank_and_world(self.trainer)[1],
        )

    def evaluation_episodes(self, split: str) -> EpisodeSet:
        """Episodes of images as they are, under the evaluation seed."""
        return EpisodeSet(
            self.source,
            split,
            n_way=self.n_way,
            k_shot=self.k_shot,
            n_query=self.n_query,
            seed=self.eval_seed,
        )

    def train_dataloader(self) -> Loader:
        episodes: Any = self.training_episodes(
            self.train_split, self.train_n_way, self.train_n_query
        )
        if self.strategy_split is not None:
            quiz = self.training_episodes(self.strategy_split, self.n_way, self.n_query)
            episodes = Together(episodes, quiz)
        return Loader(
            episodes,
            batch_size=self.meta_batch_size,
            sampler=TrainingSampler(self.trainer, self.meta_batch_size, self.steps_per_epoch),
            collate_fn=identity_collate,
            num_workers=self.num_workers,
        )

    def evaluation(self, split: str) -> Loader:
        """The fixed evaluation episodes of a split, one at a time."""
        return Loader(
            self.evaluation_episodes(split),
            batch_size=None,
            sampler=evaluation_indices(self.trainer, self.n_episodes),
            collate_fn=identity_collate,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> Loader:
        return self.evaluation("val")

    def test_dataloader(self) -> Loader:
        return self.evaluation("test")

    def predict_dataloader(self) -> Loader:
        return self.evaluation("test")


class SupervisedData(SourceData):
    """Batches of a source: to pretrain a teacher, to fine-tune, to distil on a single task.

    The rows of the split are divided, class by class, into those to train on, a quiz (which trains a
    strategy) and validation.

    Args:
        source: where the examples come from.
        split: split whose rows and classes are used.
        batch_size: rows of a batch on each rank.
        quiz_fraction: share of each class kept for the quiz; above 0, training yields (batch, quiz batch).
        val_fraction: share of each class kept for validation; 0 for no validation.
        seed: of the order and the views.
        split_seed: of the division into train, quiz and val; keep it, so that runs train on the same images.
        augment: shift and mirror training images.
        views: fixed augmented views per image, as stored by a cache; null draws a new view each time, 0 none.
        num_workers: worker processes of the loader; images lie in memory, so none is usually fastest.
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
    ) -> None:
        super().__init__(source, num_workers)
        check_integer("data.batch_size", batch_size, 1)
        check_share("data.quiz_fraction", quiz_fraction)
        check_share("data.val_fraction", val_fraction)
        if quiz_fraction + val_fraction >= 1:
            raise ValueError(
                f"quiz_fraction={quiz_fraction} and val_fraction={val_fraction} leave nothing to train on; "
                "their sum must be less than 1."
            )
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
        self.fractions = {"quiz": quiz_fraction, "val": val_fraction}
        self.views = views if augment else 0

    @cached_property
    def classes(self) -> Int[Tensor, " c"]:
        """Dataset class of each label."""
        return self.classes_of(self.split)

    @cached_property
    def parts(self) -> dict[str, Int[Tensor, " n"]]:
        """Rows of `train`, `quiz` and `val`."""
        rows = self.source.rows(self.split)
        return partition(self.source.all_rows().y[rows], rows, self.fractions, self.split_seed)

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """The rows to train on in each view; nobody is taught on others."""
        views = range(self.views) if self.views else UNAUGMENTED
        return [(self.parts["train"], views)] if stage == "fit" else []

    def manifest(self) -> dict[str, Any]:
        """Which classes and which rows this data trains on, to be kept beside what was trained."""
        return {
            "source": self.source.name,
            "split": self.split,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "class_ids": self.classes.tolist(),
            "class_names": self.names(self.classes),
            "rows": {part: len(rows) for part, rows in self.parts.items()},
            "rows_sha256": {part: fingerprint(rows) for part, rows in self.parts.items()},
        }

    def train_dataloader(self) -> Loader:
        batches: Any = self._shuffled("train", self.batch_size, self.views)
        world = rank_and_world(self.trainer)[1]
        steps = len(batches) // world
        if steps == 0:
            raise ValueError(
                f"batch_size={self.batch_size} on {world} rank(s) exceeds the {len(self.parts['train'])} "
                f"rows to train on of split {self.split!r} in {self.source.name}; lower data.batch_size, "
                "or get more rows by data.split, source, val_fraction or quiz_fraction."
            )
        trainer = self.trainer
        folder = trainer.log_dir if trainer and trainer.loggers else None  # every process must ask
        if folder and rank_and_world(trainer)[0] == 0:
            write_manifest(self.manifest(), folder)
        if len(quiz := self.parts["quiz"]):
            batches = Paired(batches, self._shuffled("quiz", min(self.batch_size, len(quiz)), 0))
        return self._loader(batches, TrainingSampler(self.trainer, 1, steps))

    def val_dataloader(self) -> Any:
        return self._in_order(self.parts["val"]) if len(self.parts["val"]) else []

    def test_dataloader(self) -> Loader:
        """The source's test rows where they are of the same classes, the validation rows otherwise."""
        if "test" in self.source.splits and self.classes.equal(self.classes_of("test")):
            return self._in_order(self.source.rows("test"))
        if not len(self.parts["val"]):
            raise ValueError(
                f"val_fraction=0 leaves nothing to test on: the test classes of {self.source.name} are "
                f"not those of split {self.split!r}; give data.val_fraction."
            )
        return self._in_order(self.parts["val"])

    def predict_dataloader(self) -> Loader:
        return self.test_dataloader()

    def _shuffled(self, part: str, batch_size: int, views: int | None) -> BatchSet:
        return BatchSet(
            self.images(),
            self.parts[part],
            self.classes,
            batch_size=batch_size,
            key=(part, self.seed),
            views=views,
        )

    def _in_order(self, rows: Int[Tensor, " n"]) -> Loader:
        batches = BatchSet(self.images(), rows, self.classes, batch_size=self.batch_size)
        return self._loader(batches, evaluation_indices(self.trainer, len(batches)))

    def _loader(self, batches: Any, sampler: Any) -> Loader:
        return Loader(
            batches,
            batch_size=None,
            sampler=sampler,
            collate_fn=identity_collate,
            num_workers=self.num_workers,
        )


def check_views(views: int | None) -> None:
    """Raise where a number of views is no whole number; None stands for as many as are drawn."""
    if views is not None:
        check_integer("data.views", views, 0, UNLIMITED_VIEWS)


def write_manifest(manifest: dict[str, Any], folder: str) -> None:
    """`manifest.json` in a run's directory."""
    with atomic_write(Path(folder) / "manifest.json") as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n")
