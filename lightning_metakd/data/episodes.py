"""Episodes from labelled examples: pure functions of (split, seed, index).

Nothing here keeps a random state: episode i is the same whoever asks for it, in whatever order, in
whatever process. That is what makes a run resumable from its step number alone, and its evaluation
the same on one device and on seven.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from lightning_metakd.arguments.ranges import check_integer, check_integers, refuse
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.data.sources.source import Source
from lightning_metakd.types import Batch, Episode

UNLIMITED_VIEWS = 2**62
"""Views are drawn below this number where they are not limited."""

Shots = int | tuple[int, int]


def members(y: Int[Tensor, " n"]) -> tuple[Int[Tensor, " c"], list[Int[Tensor, " _"]]]:
    """(classes that occur, positions of each of them)."""
    classes, counts = torch.unique(y, return_counts=True)
    return classes, list(torch.split(torch.argsort(y, stable=True), counts.tolist()))


def draw_shots(k_shot: Shots, split: str, seed: int, step: int) -> int:
    """Shots of a meta-step: fixed, or uniform over a range whose both ends belong to it."""
    if isinstance(k_shot, int):
        return k_shot
    low, high = k_shot
    return int(torch.randint(low, high + 1, (), generator=generator("shots", split, seed, step)))


def draw_episode(
    positions: Sequence[Int[Tensor, " _"]],
    n_way: int,
    n_rows: int,
    split: str,
    seed: int,
    index: int,
    views: int | None = 0,
) -> tuple[Int[Tensor, " c"], Int[Tensor, "k c"], Int[Tensor, "k c"]]:
    """(which classes, which of their rows, which views) make up episode `index`.

    Args:
        positions: row numbers of each class of the split.
        n_rows: rows of each class, support and query together.
        views: how many views of an image there are; None for unlimited, 0 for none but the image as it is.

    Returns:
        Classes as places in `positions`; rows and views with the class changing fastest, so that flattening
        them interleaves the classes and any multiple of `n_way` rows is balanced.
    """
    draw = generator(split, seed, index)
    classes = torch.randperm(len(positions), generator=draw)[:n_way]
    chosen = [positions[c] for c in classes.tolist()]
    rows = torch.stack(
        [of.index_select(0, torch.randperm(len(of), generator=draw)[:n_rows]) for of in chosen], 1
    )
    if views == 0:
        return classes, rows, torch.full_like(rows, -1)
    return classes, rows, torch.randint(views or UNLIMITED_VIEWS, rows.shape, generator=draw)


def check_episode(n_way: int, k_shot: Shots, n_query: int, prefix: str = "") -> None:
    """Raise where no data could yield such an episode.

    Args:
        prefix: stands before the names of n_way and n_query.
    """
    check_integer(f"data.{prefix}n_way", n_way, 1)
    if n_way == 1:
        raise ValueError(f"{prefix}n_way=1 leaves nothing to tell apart; choose 2 or more.")
    if not isinstance(k_shot, tuple | list):
        check_integer("data.k_shot", k_shot, 1, hint="or a range such as [1, 5]")
    else:
        check_integers("data.k_shot", k_shot, 2, 1, 10**9)
        if k_shot[0] > k_shot[1]:
            refuse("data.k_shot", k_shot, "a range such as [1, 5], the lower number first")
    check_integer(f"data.{prefix}n_query", n_query, 1)


def wrong_rows(share: float, k_shot: int) -> int:
    """How many support rows of a class get a wrong label; one stays right."""
    return min(round(share * k_shot), k_shot - 1)


def check_wrong_support(share: float, k_shot: Shots) -> None:
    """Raise where a share of wrong support labels is none of so many rows."""
    most = max(k_shot) if isinstance(k_shot, tuple | list) else k_shot
    if share and not wrong_rows(share, most):
        raise ValueError(
            f"data.wrong_support={share} makes none of the {most} support rows of a class wrong, as it is "
            "rounded and one stays right; give a larger share, more of data.k_shot, or 0."
        )


class EpisodeSet(Dataset[Episode]):
    """Episode i of a split, for every i.

    Args:
        source: the examples.
        split: the split of the source whose classes and rows are drawn.
        n_way: classes of an episode.
        k_shot: support rows per class, or the range they are drawn from.
        n_query: query rows per class.
        seed: a number of its own for training and for evaluation.
        views: views per image; None draws a new one each time, 0 keeps the image as it is.
        episodes_per_step: consecutive episodes that share the shots drawn from a range.
        per_domain: episodes of each domain of the source before those of the next, numbered in each from 0;
            None draws a domain for each episode by their weights.
        wrong_support: part of the support rows of each class whose label is that of another class.
        support_views: further views of each support row, behind the row as it is.

    Raises:
        ValueError: if the split has too few classes, or a class too few rows.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        *,
        n_way: int,
        k_shot: Shots,
        n_query: int,
        seed: int,
        views: int | None = 0,
        episodes_per_step: int = 1,
        per_domain: int | None = None,
        wrong_support: float = 0.0,
        support_views: int = 0,
    ) -> None:
        check_episode(n_way, k_shot, n_query)
        self.wrong_support, self.support_views = wrong_support, support_views
        self.split, self.seed, self.views = split, seed, views
        self.n_way, self.k_shot, self.n_query = n_way, k_shot, n_query
        self.episodes_per_step, self.per_domain = episodes_per_step, per_domain
        source.check_split(split)
        labelled, domains = source.all_rows(), source.domains(split)
        self.x, self.weights = labelled.x, torch.tensor([domain.weight for domain in domains])
        self.domains: list[tuple[Tensor, list[Tensor]]] = []
        for domain in domains:
            classes, positions = members(labelled.y[domain.rows])
            self.domains.append((classes, [domain.rows[at] for at in positions]))
            names = [labelled.class_names[c] for c in classes.tolist()]
            self._check_rows(
                source, domain.source, dict(zip(names, map(len, positions), strict=True))
            )

    def domain_of(self, i: int) -> tuple[int, int]:
        """(domain, number within it) of episode i."""
        if len(self.domains) == 1:
            return 0, i
        if self.per_domain is not None:
            turn, place = divmod(i, self.per_domain)
            before, domain = divmod(turn, len(self.domains))
            return domain, before * self.per_domain + place
        draw = generator("domain", "train", self.seed, i)  # a quiz is of the domain of its step
        return int(torch.multinomial(self.weights, 1, generator=draw)), i

    def _check_rows(self, source: Source, name: str, counts: dict[str, int]) -> None:
        where = f"of split {self.split!r} in {name}"
        if self.n_way > len(counts):
            raise ValueError(
                f"n_way={self.n_way} exceeds the {len(counts)} classes {where}; {source.more_classes}."
            )
        shots = self.k_shot if isinstance(self.k_shot, int) else self.k_shot[1]
        smallest = min(counts, key=lambda name: counts[name])
        if (needed := shots + self.n_query) > counts[smallest]:
            raise ValueError(
                f"k_shot + n_query = {needed} exceeds the {counts[smallest]} images of class {smallest!r} "
                f"{where}; lower data.k_shot or data.n_query, or add images to data.source."
            )

    def __getitem__(self, i: int) -> Episode:
        return tree_map(lambda leaf: leaf[0], self.__getitems__([i]))

    def __getitems__(self, indices: Sequence[int]) -> Episode:
        """Some episodes of one step at once, as `DataLoader` asks for them; every tensor leads with `t`."""
        k_shot = draw_shots(
            self.k_shot, self.split, self.seed, indices[0] // self.episodes_per_step
        )
        n_rows, key = k_shot + self.n_query, (self.split, self.seed)
        drawn, at = [], [self.domain_of(i) for i in indices]
        for domain, i in at:
            classes, positions = self.domains[domain]
            places, *parts = draw_episode(positions, self.n_way, n_rows, *key, i, self.views)
            drawn.append((classes[places], *parts))
        classes, rows, views = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        support = self._batch(rows[:, :k_shot], views[:, :k_shot])
        support = self._with_views(self._with_wrong_labels(support, [i for _, i in at]))
        query = self._batch(rows[:, k_shot:], views[:, k_shot:])
        return Episode(support, query, classes, torch.tensor(indices))

    def _batch(self, rows: Int[Tensor, "t k c"], views: Int[Tensor, "t k c"]) -> Batch:
        index = rows.flatten(1)
        x = self.x.index_select(0, index.flatten()).unflatten(0, index.shape)
        y = torch.arange(self.n_way).repeat(len(rows), rows.shape[1])
        return Batch(x, y, index, views.flatten(1))

    def _with_wrong_labels(self, support: Batch, indices: Sequence[int]) -> Batch:
        """The rows of episodes, by their numbers in their domains, with some labels changed.

        A class keeps one right row at least.
        """
        k_shot = support.y.shape[1] // self.n_way
        n_wrong = wrong_rows(self.wrong_support, k_shot)
        if n_wrong < 1:
            return support
        labels = []
        for i in indices:
            draw = generator("wrong support", self.split, self.seed, i)
            hit = torch.rand(k_shot, self.n_way, generator=draw).argsort(0).argsort(0) < n_wrong
            shift = torch.randint(1, self.n_way, (k_shot, self.n_way), generator=draw)
            labels.append((torch.arange(self.n_way) + hit * shift) % self.n_way)
        return support._replace(y=torch.stack(labels).flatten(1))

    def _with_views(self, support: Batch) -> Batch:
        """The rows, behind them all of them in view 0, and so on."""
        if not self.support_views:
            return support
        n, times = support.y.shape[1], 1 + self.support_views
        index, y = support.index.repeat(1, times), support.y.repeat(1, times)
        x = support.x.repeat(1, times, *(1 for _ in support.x.shape[2:]))
        further = torch.arange(self.support_views).repeat_interleave(n).expand(len(y), -1)
        return Batch(x, y, index, torch.cat([support.view, further], 1))
