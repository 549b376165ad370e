"""Episodes of any source, for meta-learning."""

from collections.abc import Mapping

from jaxtyping import Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer, check_seed, check_share
from lightning_metakd.data.distributed_sampling import (
    Loader,
    TrainingSampler,
    evaluation_indices,
    identity_collate,
    loader_of_batches,
    rank_and_world,
)
from lightning_metakd.data.episodes import EpisodeSet, check_episode, check_wrong_support
from lightning_metakd.data.source_data import UNAUGMENTED, SourceData, check_views
from lightning_metakd.data.sources.label_noise import LabelNoise
from lightning_metakd.data.sources.source import Domain, Source
from lightning_metakd.data.training_set import MetaBatches

LARGEST_META_BATCH = 10_000
MOST_SUPPORT_VIEWS = 1_000


class EpisodicData(SourceData):
    """Episodes of any source. Training draws from base classes, evaluation is a fixed set of novel episodes.

    Args:
        source: where the examples come from.
        n_way: classes of an episode.
        k_shot: support images per class; a range such as [1, 5] draws one number for each meta-step.
        n_query: query images per class.
        meta_batch_size: episodes per rank and meta-step.
        steps_per_epoch: meta-steps of an epoch.
        n_episodes: episodes of an evaluation, over all ranks; of each domain, where there are several.
        train_split: split whose classes the student learns from.
        strategy_split: split for the episodes that train the strategy; with it each training batch is a pair.
        train_n_way: classes of a training episode, if other than n_way.
        train_n_query: query images per class of a training episode, if other than n_query.
        seed: of training episodes.
        eval_seed: of evaluation episodes; keep it, so that runs can be compared episode by episode.
        views: fixed augmented views per image, as stored by a cache; null draws a new view each time, 0 none.
        augment: shift and mirror training images.
        num_workers: worker processes of the loader; images lie in memory, so none is usually fastest.
        wrong_support: part of the support rows of each class whose label is that of another class of the
            episode, in [0, 1), rounded to rows, not to none; a class keeps one right row. Query rows are
            right.
        support_views: augmented views of each support row in an evaluation, beside the row as it is; Tian et
            al. (2020, arXiv:2003.11539) have 5. The result says so; null and 0 have none.

    Raises:
        ValueError: if no data could yield such episodes, or `LabelNoise` made labels wrong that judge.
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
        wrong_support: float = 0.0,
        support_views: int | None = None,
    ) -> None:
        super().__init__(source, num_workers)
        check_share("data.wrong_support", wrong_support)
        check_integer(
            "data.support_views", support_views, 0, MOST_SUPPORT_VIEWS, "or null", optional=True
        )
        self.wrong_support, self.support_views = wrong_support, support_views
        self.n_way, self.k_shot, self.n_query = n_way, k_shot, n_query
        self.train_n_way = n_way if train_n_way is None else train_n_way
        self.train_n_query = n_query if train_n_query is None else train_n_query
        check_episode(n_way, k_shot, n_query)
        check_episode(self.train_n_way, k_shot, self.train_n_query, "train_")
        check_wrong_support(wrong_support, k_shot)
        check_judges(source, train_split)
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

    def train_classes(self) -> Int[Tensor, " c"]:
        return self.classes(self.train_split)

    @property
    def has_quiz(self) -> bool:
        return self.strategy_split is not None

    @property
    def evaluation_views(self) -> range:
        """The views of which an evaluation has rows."""
        return range(UNAUGMENTED.start, self.support_views or 0)

    def cache_views(self, stage: str | None) -> list[tuple[Int[Tensor, " n"], range]]:
        """Images of evaluation as they are, those of training in each view."""
        needed = [("val", self.evaluation_views)]
        if stage in ("test", "predict"):
            needed.append(("test", self.evaluation_views))
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
            wrong_support=self.wrong_support,
            episodes_per_step=self.meta_batch_size * rank_and_world(self.trainer)[1],
        )

    def evaluation_episodes(self, split: str) -> EpisodeSet:
        """Episodes of images as they are, and of views of the support rows, under the evaluation seed."""
        return EpisodeSet(
            self.source,
            split,
            n_way=self.n_way,
            k_shot=self.k_shot,
            n_query=self.n_query,
            seed=self.eval_seed,
            wrong_support=self.wrong_support,
            support_views=self.support_views or 0,
            per_domain=self.n_episodes,
        )

    def by_domain(
        self, split: str, rows: Mapping[str, Tensor]
    ) -> list[tuple[Domain, Mapping[str, Tensor]]]:
        """The rows of an evaluation, domain by domain; nothing where there is one domain."""
        tables: list[tuple[Domain, Mapping[str, Tensor]]] = []
        domains = self.source.domains(split)
        for k, domain in enumerate(domains if len(domains) > 1 else []):
            at = rows["id"] // self.n_episodes == k
            table = {name: column[at] for name, column in rows.items()}
            if len(table["id"]):
                tables.append((domain, table | {"id": table["id"] - k * self.n_episodes}))
        return tables

    def train_dataloader(self) -> Loader:
        split, quiz = self.strategy_split, None
        if split is not None:
            quiz = self.training_episodes(split, self.n_way, self.n_query)
        train = self.training_episodes(self.train_split, self.train_n_way, self.train_n_query)
        return Loader(
            MetaBatches(train, quiz),
            batch_size=self.meta_batch_size,
            sampler=TrainingSampler(self.trainer, self.meta_batch_size, self.steps_per_epoch),
            collate_fn=identity_collate,
            num_workers=self.num_workers,
        )

    def evaluation(self, split: str) -> Loader:
        """The fixed evaluation episodes of a split, one at a time."""
        n = len(self.source.domains(split)) * self.n_episodes
        indices = evaluation_indices(self.trainer, n)
        return loader_of_batches(self.evaluation_episodes(split), indices, self.num_workers)

    def val_dataloader(self) -> Loader:
        return self.evaluation("val")

    def test_dataloader(self) -> Loader:
        return self.evaluation("test")

    def predict_dataloader(self) -> Loader:
        return self.evaluation("test")


def check_judges(source: Source, train_split: str) -> None:
    """Raise where labels would be wrong by which episodes are judged."""
    if not isinstance(source, LabelNoise) or not source.trusted:
        return
    if source.split not in ("train", "teacher", train_split):
        raise ValueError(
            f"data.source.split={source.split} makes labels wrong by which episodes are judged; give "
            f"{train_split}, data.wrong_support for wrong labels among support rows alone, or "
            "data.source.trusted=false where that is meant."
        )
