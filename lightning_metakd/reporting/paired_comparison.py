"""Differences on the same episodes, or rows of one task: over seeds, or over these where there is one."""

from collections.abc import Sequence
from typing import NamedTuple

from lightning_metakd.metrics.intervals import paired_difference
from lightning_metakd.reporting.result_rows import (
    SAME_DATA,
    SAME_EPISODES,
    Result,
    Row,
    accuracies_of,
)
from lightning_metakd.reporting.seed_intervals import over_seeds


class Difference(NamedTuple):
    """Accuracy of one row minus that of another on the same episodes, or rows of one task.

    Args:
        mean: over pairs of trainings; nan where no pair has the same episodes.
        half_width: of its 95 % interval: over pairs where there are several, otherwise over episodes.
        pairs: how many pairs of trainings were compared.
        left_out: which training seeds have no partner, a sentence or nothing.
    """

    mean: float
    half_width: float
    pairs: int
    left_out: str

    @property
    def is_positive(self) -> bool:
        """Whether the interval lies above 0."""
        return self.mean - self.half_width > 0


def comparable(a: Row, b: Row) -> bool:
    """Whether two rows are about the same episodes, or about one task."""
    of_rows = {row.fields.get("episodes") is None for row in (a, b)}
    keys = SAME_DATA if of_rows == {True} else SAME_EPISODES
    return all(
        a.fields.get(key) is not None and a.fields.get(key) == b.fields.get(key) for key in keys
    )


def by_episode(a: Result, b: Result) -> tuple[float, float] | None:
    """Difference of two trainings and its half-width over episodes; None where those are not the same."""
    mine, other = accuracies_of(a), accuracies_of(b)
    if mine is None or other is None or sorted(mine[0]) != sorted(other[0]):
        return None
    return paired_difference(mine[1], other[1], ids=(mine[0], other[0]))


def same_seed(a: Row, b: Row) -> list[tuple[Result, Result]]:
    """Trainings of two rows with the same seed; single ones are a pair whatever their seeds."""
    if len(a.results) == len(b.results) == 1:
        return [(a.results[0], b.results[0])]
    others = dict(zip(b.seeds, b.results, strict=True))
    return [(r, others[seed]) for seed, r in zip(a.seeds, a.results, strict=True) if seed in others]


def difference(a: Row, b: Row) -> Difference:
    """The first minus the second, paired by training seed and within a pair by episode."""
    pairs = [
        (x, y, interval) for x, y in same_seed(a, b) if (interval := by_episode(x, y)) is not None
    ]
    title = f"{a.name} minus {b.name}"
    if not pairs:
        nothing = f"{title}: no two trainings share their seed and their episodes."
        return Difference(float("nan"), float("nan"), 0, nothing)
    alone = [unpaired(a, [x for x, _, _ in pairs]), unpaired(b, [y for _, y, _ in pairs])]
    parts = " and ".join(part for part in alone if part)
    left_out = f"{title} leaves out {parts}: no partner on the same episodes." if parts else ""
    interval = pairs[0][2] if len(pairs) == 1 else over_seeds([mean for _, _, (mean, _) in pairs])
    return Difference(*interval, len(pairs), left_out)


def unpaired(row: Row, paired: list[Result]) -> str:
    """The seeds of a row that are not among the paired results."""
    seeds = [str(r.row.get("train_seed")) for r in row.results if not any(r is p for p in paired)]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} of {row.name}" if seeds else ""


def gain_over(row: Row, baselines: Sequence[Row]) -> Difference | None:
    """A row minus the baseline; None for the baseline itself, and where none has the same episodes.

    Args:
        baselines: rows of one experiment. Where several will do: the one that adapted in the same way,
            and shares a seed.

    Raises:
        ValueError: if they differ in settings, so that any of them might be meant.
    """
    if any(row is b for b in baselines):
        return None

    def distance(b: Row) -> tuple[bool, ...]:
        return (
            b.fields.get("episodes") != row.fields.get("episodes"),
            b.learner != row.learner,
            not set(b.seeds) & set(row.seeds),
        )

    nearest = sorted((b for b in baselines if comparable(row, b)), key=distance)
    nearest = [b for b in nearest if distance(b) == distance(nearest[0])]
    if len({b.fields.get("settings_sha256") for b in nearest}) > 1:
        names = "; ".join(b.name for b in nearest)
        raise ValueError(
            f"baseline={nearest[0].experiment!r} has rows of other settings; name one of them: {names}."
        )
    return difference(row, nearest[0]) if nearest else None


def named(rows: Sequence[Row], argument: str, experiment: str) -> list[Row]:
    """The rows of an experiment itself, or of one name, without those of its controls.

    Raises:
        ValueError: if there is none.
    """
    chosen = [row for row in rows if experiment in (row.experiment, row.name) and not row.control]
    if not chosen:
        names = ", ".join(sorted({row.experiment for row in rows if row.control is None}))
        raise ValueError(f"{argument}={experiment!r} has no result; choose one of {names}.")
    return chosen
