"""Rows of the tables of the page: what is shown, and by what it is sorted."""

from collections.abc import Callable, Sequence
from statistics import fmean

from lightning_metakd.reporting.comparison import Comparison
from lightning_metakd.reporting.control_comparison import (
    accuracy_cell,
    accuracy_interval,
    difference_cell,
)
from lightning_metakd.reporting.cost_columns import COST_COLUMNS
from lightning_metakd.reporting.markdown import count, duration
from lightning_metakd.reporting.page_elements import Cell, shortened
from lightning_metakd.reporting.paired_comparison import Difference
from lightning_metakd.reporting.result_rows import Result, Row, latest, named_apart

LETTERS = 120
"""Of the name of a run."""

Write = Callable[[float | None], str]


def mebibytes(size: float | None) -> str:
    """A size in memory."""
    return "-" if size is None else f"{size / 2**20:.3g} MiB"


RUN: dict[str, tuple[str, Write]] = {
    "training": ("wall_s", duration),
    "steps": ("train_steps", count),
    "teacher forwards": ("teacher_forwards", count),
    "gradients": ("gradient_evaluations", count),
    "peak memory": ("peak_memory_bytes", mebibytes),
    "test episodes a second": ("episodes_per_s", count),
    "threads": ("threads", count),
    "processes": ("world_size", count),
}


def number(value: float | None, write: Write) -> Cell:
    """A cell that is sorted by its number."""
    return Cell(write(value), float("nan") if value is None else float(value))


def comparison_rows(task: Comparison) -> list[dict[str, Cell]]:
    """Accuracy, differences and costs of each row."""
    return [
        {
            "name": Cell(row.name),
            "learner": Cell(row.learner),
            "seeds": Cell(str(len(row.seeds)), len(row.seeds)),
            "accuracy (%)": accuracy(row),
            f"minus {task.baseline}": points(gain),
            "teacher (%)": mean_of(row, "teacher_accuracy", share),
            "minus teacher": mean_of(row, "paired_difference", difference),
            "episodes": mean_of(row, "episodes", count),
            **{name: mean_of(row, key, write) for name, (key, write) in COST_COLUMNS.items()},
        }
        for row, gain in zip(task.rows, task.gains, strict=True)
    ]


def accuracy(row: Row) -> Cell:
    """Mean and half-width."""
    mean, _ = accuracy_interval(row)
    return Cell(accuracy_cell(row), float("nan") if mean is None else mean)


def points(gain: Difference | None) -> Cell:
    """A paired difference."""
    return Cell(difference_cell(gain), float("nan") if gain is None else gain.mean)


def share(value: float | None) -> str:
    """An accuracy."""
    return "-" if value is None else f"{100 * value:.2f}"


def difference(value: float | None) -> str:
    """A difference of accuracies."""
    return "-" if value is None else f"{100 * value:+.2f}"


def mean_of(row: Row, key: str, write: Write) -> Cell:
    """The mean over seeds."""
    values = row.values_of(key)
    return number(fmean(values) if values else None, write)


def cost_rows(results: Sequence[Result]) -> list[dict[str, Cell]]:
    """What each run took, and where."""
    rows = named_apart([Row((result,)) for result in latest(results)], by_seed=True)
    return [
        {
            "name": Cell(shortened(row.name, LETTERS)),
            "task": Cell(task_of(row)),
            "seed": seed(row.seeds[0]),
            **{name: mean_of(row, key, write) for name, (key, write) in RUN.items()},
            "device": Cell(str(row.fields.get("device") or "-")),
        }
        for row in rows
    ]


def task_of(row: Row) -> str:
    """Source and size of the episodes."""
    fields = row.fields
    size = f" {fields['n_way']}w{fields['k_shot']}s" if fields.get("n_way") is not None else ""
    return f"{fields.get('source') or '-'}{size}"


def seed(value: int | None) -> Cell:
    """The seed of a training."""
    return Cell("-" if value is None else str(value), float("nan") if value is None else value)
