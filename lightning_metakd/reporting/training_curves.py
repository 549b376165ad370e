"""Figures of what trainings logged: learning curves, and what the coefficients of a loss became."""

import re
from collections.abc import Sequence
from typing import Any

from lightning_metakd.reporting.page_elements import DASHES, Figure, axis, shortened, style
from lightning_metakd.reporting.training_logs import Series, Training

MOST_TRAININGS, MOST_POINTS = 12, 150
"""Curves of a figure, and points of a curve."""
CURVES = {
    "val/student_accuracy": ("Accuracy on validation", "accuracy (%)", 100.0),
    "train/student_accuracy": ("Accuracy on training batches", "accuracy (%)", 100.0),
    "train/outer_loss": ("Loss of training", "loss (nats)", 1.0),
    "train/quiz_loss": ("Loss of the quiz that judges the strategy", "loss", 1.0),
}
"""Of each logged column: title, axis with its unit, and factor."""
STRATEGY, MEAN = "strategy/", "_mean"


def thinned(series: Series) -> tuple[list[int], list[float]]:
    """Steps and values, as many as can be told apart, the last among them."""
    steps = list(series)
    every = -(-len(steps) // MOST_POINTS)
    kept = steps[::-1][::every][::-1] if every else []
    return kept, [series[step] for step in kept]


def chosen(group: Sequence[Training], column: str) -> list[Training]:
    """The trainings that log a number, those of the best validation first, as many as a figure has."""

    def last_accuracy(training: Training) -> float:
        return max(training.columns.get("val/student_accuracy", {}).values(), default=-1.0)

    logging = [training for training in group if len(training.columns.get(column, {})) > 1]
    return sorted(logging, key=lambda t: (-last_accuracy(t), t.name))[:MOST_TRAININGS]


def left_out(group: Sequence[Training], column: str, n_shown: int) -> str:
    """How many trainings a figure leaves out."""
    n = sum(len(t.columns.get(column, {})) > 1 for t in group) - n_shown
    return f" {n} more trainings are left out." if n > 0 else ""


def learning_curves(group: Sequence[Training]) -> list[Figure]:
    """A figure for each number that trainings log."""
    figures = []
    for column, (title, unit, factor) in CURVES.items():
        shown = chosen(group, column)
        if not shown:
            continue
        traces = [curve(training, column, factor, i) for i, training in enumerate(shown)]
        layout = {"xaxis": axis("training step"), "yaxis": axis(unit)}
        ends = "; ".join(f"{t['name']} {t['y'][-1]:.3g}" for t in traces[:6])
        caption = f"Mean over seeds where there are several. At the end: {ends}."
        figures.append(Figure(title, traces, layout, caption + left_out(group, column, len(shown))))
    return figures


def curve(training: Training, column: str, factor: float, i: int) -> dict[str, Any]:
    """A logged number over the steps of a training, the i-th of a figure."""
    steps, values = thinned(training.columns[column])
    line = {"mode": "lines", "line": style(i)["line"], "name": title_of(training)}
    return {"x": steps, "y": [factor * value for value in values], **line}


def title_of(training: Training) -> str:
    """Name of a training and of how many seeds it is the mean."""
    seeds = f" ({training.seeds} seeds)" if training.seeds > 1 else ""
    return shortened(training.name, 60) + seeds


def meaning(family: str) -> str:
    """What a coefficient is, with its unit."""
    last = family.rpartition(".")[2]
    if last == "gate":
        return "gate (0: teacher, 1: alone)"
    if last == "weights":
        return "share of each teacher"
    return f"{last} (no unit)"


def families(group: Sequence[Training]) -> dict[str, list[str]]:
    """Coefficients that a training changed, by what they are: the weights of all teachers are of one kind."""
    names = {
        column.removeprefix(STRATEGY).removesuffix(MEAN)
        for training in group
        for column, series in training.columns.items()
        if column.startswith(STRATEGY) and column.endswith(MEAN) and changes(series)
    }
    result: dict[str, list[str]] = {}
    for name in sorted(names):
        result.setdefault(re.sub(r"\.\d+$", "", name), []).append(name)
    return result


def coefficient_curves(group: Sequence[Training]) -> list[Figure]:
    """A figure for each coefficient that a training changed, with its range where rows differ."""
    figures = []
    for family, names in families(group).items():
        column = f"{STRATEGY}{names[0]}{MEAN}"
        shown = chosen(group, column)[: max(1, MOST_TRAININGS // len(names))]
        traces = [
            trace
            for i, training in enumerate(shown)
            for k, name in enumerate(names)
            for trace in with_range(training, name, i, k if len(names) > 1 else None)
        ]
        layout = {"xaxis": axis("training step"), "yaxis": axis(meaning(family))}
        ends = [f"{t['name']} {t['y'][-1]:.3g}" for t in traces if "name" in t][:8]
        caption = (
            "A line is the mean over the rows of a batch, a band their range where rows differ. At the end: "
            f"{'; '.join(ends)}." + left_out(group, column, len(shown))
        )
        figures.append(Figure(f"{family} over training", traces, layout, caption))
    return figures


def with_range(training: Training, name: str, i: int, teacher: int | None) -> list[dict[str, Any]]:
    """The curve of a coefficient and, where rows differ, a band behind it.

    Args:
        i: place of the training in the figure.
        teacher: whose weight it is; None where it is no weight of several.
    """
    mean, low, high = (
        training.columns.get(f"{STRATEGY}{name}_{part}", {}) for part in ("mean", "min", "max")
    )
    steps, values = thinned(mean)
    line = style(i)["line"]
    if teacher is not None:
        line |= {"dash": DASHES[teacher % len(DASHES)]}
    common = {"x": steps, "mode": "lines", "legendgroup": f"{i}.{teacher}"}
    title = title_of(training) + ("" if teacher is None else f", teacher {teacher}")
    curve = common | {"y": values, "line": line, "name": title}
    if not all(step in low and step in high for step in steps):
        return [curve]
    edge = common | {"line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    lowest, highest = ([column[step] for step in steps] for column in (low, high))
    return [edge | {"y": lowest}, edge | {"y": highest} | fill(line["color"]), curve]


def changes(series: Series) -> bool:
    """Whether a number is not the same at all steps."""
    return len(set(series.values())) > 1


def fill(colour: str) -> dict[str, str]:
    """The area down to the curve before, in a pale colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.18)"}
