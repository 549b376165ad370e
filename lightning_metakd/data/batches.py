"""Ordinary training batches: pure functions of (seed, number), and the division of rows behind them."""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lightning_metakd.data.episodes import UNLIMITED_VIEWS, members
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.data.sources.source import Labelled
from lightning_metakd.types import Batch


def partition(
    y: Int[Tensor, " n"],
    rows: Int[Tensor, " n"],
    fractions: dict[str, float],
    seed: int,
    most: int | None = None,
) -> dict[str, Int[Tensor, " m"]]:
    """Rows divided class by class: each part its fraction of every class, and `train` what is left.

    Args:
        fractions: part -> share of each class, in [0, 1); a share above 0 is one row of each class at least.
        most: rows of a class in `train`; None is all, and a larger number has those of a smaller one.

    Raises:
        ValueError: if nothing is left to train on.
    """
    parts: dict[str, list[Tensor]] = {part: [] for part in (*fractions, "train")}
    classes, positions = members(y)
    for name, at in zip(classes.tolist(), positions, strict=True):
        order = rows[at[torch.randperm(len(at), generator=generator("partition", seed, name))]]
        for part, fraction in fractions.items():
            size = max(1, round(fraction * len(at))) if fraction else 0
            parts[part].append(order[:size])
            order = order[size:]
        if not len(order):
            shares = ", ".join(f"{part}_fraction={share}" for part, share in fractions.items())
            raise ValueError(
                f"{shares} of the {len(at)} images of class {name} leave none to train on; lower them."
            )
        parts["train"].append(order[:most])
    return {part: torch.cat(chosen).sort().values for part, chosen in parts.items()}


def fingerprint(rows: Int[Tensor, " n"]) -> str:
    """SHA-256 of a set of row numbers."""
    return hashlib.sha256(rows.sort().values.to(torch.int64).numpy().tobytes()).hexdigest()


class BatchSet(Dataset[Batch]):
    """Batch b of some rows, for every b: epochs follow one another, each a permutation of all rows.

    Args:
        examples: all rows of a source.
        rows: those that are used.
        classes: dataset class of each label, ascending.
        batch_size: rows of a batch; what does not fill one is left out of the epoch.
        key: seed of the order and of the views; None keeps the rows in order and their last batch small.
        views: views per image; None draws a new one each time, 0 keeps the image as it is.
    """

    def __init__(
        self,
        examples: Labelled,
        rows: Int[Tensor, " n"],
        classes: Int[Tensor, " c"],
        *,
        batch_size: int,
        key: tuple[object, ...] | None = None,
        views: int | None = 0,
    ) -> None:
        self.x, self.rows, self.key, self.views = examples.x, rows, key, views
        self.y = torch.searchsorted(classes, examples.y[rows])
        self.batch_size = min(batch_size, len(rows)) if key is None else batch_size
        self.epoch, self.order = -1, rows[:0]

    def __len__(self) -> int:
        """Batches of one pass over the rows."""
        if self.key is None:
            return -(-len(self.rows) // self.batch_size)
        return len(self.rows) // self.batch_size

    def _order(self, epoch: int) -> Int[Tensor, " n"]:
        n = len(self.rows)
        if self.key is None:
            return torch.arange(n)
        if epoch != self.epoch:  # remembered: it serves a whole epoch
            draw = generator("order", *self.key, epoch)
            self.epoch, self.order = epoch, torch.randperm(n, generator=draw)
        return self.order

    def __getitem__(self, b: int) -> Batch:
        epoch, place = divmod(b, len(self))
        at = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        index = self.rows[at]
        return Batch(self.x.index_select(0, index), self.y[at], index, self._views(b, len(at)))

    def _views(self, b: int, n: int) -> Int[Tensor, " n"]:
        if self.views == 0 or self.key is None:
            return torch.full((n,), -1)
        return torch.randint(
            self.views or UNLIMITED_VIEWS, (n,), generator=generator("views", *self.key, b)
        )


class StreamBatches(Dataset[Batch]):
    """Batch b of new rows, and behind it batch b of remembered ones, where there are any."""

    def __init__(self, new: BatchSet, *remembered: BatchSet) -> None:
        self.new, self.remembered = new, remembered

    def __len__(self) -> int:
        return len(self.new)

    def __getitem__(self, b: int) -> Batch:
        parts = [self.new[b], *(batches[b] for batches in self.remembered)]
        x, y, index, view = (torch.cat(column) for column in list(zip(*parts, strict=True))[:4])
        return Batch(x, y, index, view)
