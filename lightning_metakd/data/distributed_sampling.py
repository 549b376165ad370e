"""How training and evaluation walk over their items, whatever the number of processes and workers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import DataLoader, Dataset, Sampler


@runtime_checkable
class TrainerState(Protocol):
    """Where a process stands: what is asked of a Trainer."""

    @property
    def global_rank(self) -> int:
        """Number of this process."""

    @property
    def world_size(self) -> int:
        """Number of processes."""

    @property
    def global_step(self) -> int:
        """Steps taken so far."""


class TrainingSampler(Sampler[int]):
    """Training items of one rank: step t, rank r, slot k takes item t*W*K + r*K + k of W ranks with K slots.

    It starts at the step where the trainer stands, so that a run resumes exactly, inside an epoch too,
    without any state of the loader. With the Trainer's `overfit_batches` the steps of the first epoch come
    again and again.
    """

    def __init__(self, trainer: TrainerState | None, slots: int, steps: int) -> None:
        self.trainer, self.slots, self.steps = trainer, slots, steps

    def __len__(self) -> int:
        return self.steps * self.slots

    def __iter__(self) -> Iterator[int]:
        rank, world = rank_and_world(self.trainer)
        first = self.trainer.global_step if self.trainer else 0
        steps: Iterable[int] = range(first, first + self.steps)
        limit = getattr(
            self.trainer, "overfit_batches", 0
        )  # Lightning sets it and declares it nowhere
        if limit:
            epoch = int(self.steps * limit) if isinstance(limit, float) else min(self.steps, limit)
            steps = (step % epoch for step in steps)
        return ((step * world + rank) * self.slots + k for step in steps for k in range(self.slots))


def rank_and_world(trainer: TrainerState | None) -> tuple[int, int]:
    """(rank, number of ranks) of this process."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def evaluation_indices(trainer: TrainerState | None, n: int) -> range:
    """Evaluation items of one rank: every W-th of n, none twice, none added.

    Raises:
        ValueError: if a rank would have none.
    """
    rank, world = rank_and_world(trainer)
    if n < world:
        raise ValueError(
            f"{n} episodes or batches of an evaluation cannot be shared by {world} processes; "
            "raise data.n_episodes, lower data.batch_size or use fewer devices."
        )
    return range(rank, n, world)


class Loader:
    """A `DataLoader` that Lightning leaves as it is.

    Lightning would give a bare one a distributed sampler, which repeats items until they divide evenly and
    so changes the result of an evaluation. The position is the trainer's step: there is no state to save.
    """

    def __init__(self, dataset: Dataset, **settings: Any) -> None:
        self.loader = DataLoader(dataset, **settings)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def loader_of_batches(batches: Dataset, sampler: Sampler[int] | range, num_workers: int) -> Loader:
    """A loader of a set whose items are whole batches."""
    return Loader(
        batches,
        batch_size=None,
        sampler=sampler,
        collate_fn=identity_collate,
        num_workers=num_workers,
    )


def identity_collate(item: Any) -> Any:
    """For datasets whose items are whole batches."""
    return item
