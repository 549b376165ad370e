"""What students and teachers answered in tests: by class, which class for which, and with what confidence."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_metakd.reporting.page_elements import (
    GREY,
    PALETTE,
    Figure,
    axis,
    label,
    shortened,
)
from lightning_metakd.reporting.result_rows import Result, Row, read_episodes
from lightning_metakd.storage.answer_table import AnswerTable, answers_file, read_answers
from lightning_metakd.storage.atomic_files import DamagedFileError

MOST_CLASSES, BINS = 30, 10
"""Classes of a figure, and bars of a calibration curve."""
LETTERS = 24
"""Of the name of a class on an axis."""
STUDENT, TEACHER = (
    {"color": PALETTE[0], "symbol": "circle", "size": 8},
    {"color": PALETTE[1], "symbol": "diamond-open", "size": 8},
)


class Answered(NamedTuple):
    """A row of a table of results, and what one of its trainings answered."""

    row: Row
    result: Result
    table: AnswerTable

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher was tested on the same rows."""
        return bool((self.table.columns["teacher_predicted"] >= 0).any())


def answered(rows: Iterable[Row]) -> Answered | None:
    """The first row one of whose tests has left its answers."""
    for row in rows:
        for result in row.results:
            if (table := answers_of(result)) is not None:
                return Answered(row, result, table)
    return None


def answered_by_row(rows: Iterable[Row]) -> Answered | None:
    """The first row that learned a strategy and said in a test what a coefficient is for single rows."""
    for row in rows:
        if row.fields.get("strategy") is not None:
            answers = answered([row])
            if answers is not None and answers.table.coefficients:
                return answers
    return None


def answers_of(result: Result) -> AnswerTable | None:
    """The answers of a result; None where there are none, or a later test has overwritten them."""
    names = (answers_file(result.row), answers_file({**result.row, "domain": None}))
    path = next((result.folder / n for n in names if (result.folder / n).is_file()), None)
    if path is None or (result.row.get("episodes") is not None and read_episodes(result) is None):
        return None
    try:
        table = read_answers(path)
    except DamagedFileError as error:
        warnings.warn(f"{path} {error}; it is not shown.", stacklevel=2)
        return None
    return table if len(table.columns["row"]) else None


def by_class(right: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of right answers of each class in percent, nan for a class without rows, [c]."""
    n = np.bincount(y, minlength=n_classes)
    hits = np.bincount(y, weights=right, minlength=n_classes)
    return np.where(n > 0, 100 * hits / np.maximum(n, 1), np.nan)


def confusion(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each predicted class among the rows of a class in percent, [c, c]."""
    counts = np.bincount(y * n_classes + predicted, minlength=n_classes**2)
    counts = counts.reshape(n_classes, n_classes)
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def calibration(right: np.ndarray, probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean confidence, share of right answers, and rows of each bin that has any, [b, 3]."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=v, minlength=bins) for v in (probability, right)]
    return np.stack([*(s[n > 0] / n[n > 0] for s in sums), n[n > 0]], axis=1)


def calibration_error(curve: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over rows (ECE)."""
    confidence, accuracy, n = curve.T
    return float((n * np.abs(confidence - accuracy)).sum() / n.sum())


def answer_figures(answers: Answered) -> list[Figure]:
    """Calibration, accuracy by class, and which class is taken for which."""
    y, n_classes = answers.table.columns["label"], len(answers.table.classes)
    figures = [calibration_figure(answers)]
    if n_classes > 1 and len(np.unique(y)) > 1:
        figures += [class_figure(answers), confusion_figure(answers)]
    return figures


def ends(order: np.ndarray) -> np.ndarray:
    """As many classes as a figure has: of more, the first and the last."""
    half = MOST_CLASSES // 2
    return order if len(order) <= MOST_CLASSES else np.concatenate([order[:half], order[-half:]])


def class_figure(answers: Answered) -> Figure:
    """Accuracy of each class, student and teacher."""
    columns, names = answers.table.columns, answers.table.classes
    y = columns["label"]
    student = by_class(columns["predicted"] == y, y, len(names))
    order = np.argsort(student)[: int((~np.isnan(student)).sum())]
    shown = ends(order)
    ticks = [label(names[c], LETTERS) for c in shown]

    def dots(values: np.ndarray, name: str, marker: dict[str, Any]) -> dict[str, Any]:
        kind = {"mode": "markers", "marker": marker, "name": name}
        return {
            "x": values[shown].tolist(),
            "y": list(range(len(shown))),
            "text": ticks,
            **kind,
        } | {"hovertemplate": "%{text}: %{x:.1f} %<extra>" + name + "</extra>"}

    traces = [dots(student, "student", STUDENT)]
    if answers.has_teacher:
        teacher = by_class(columns["teacher_predicted"] == y, y, len(names))
        traces.append(dots(teacher, "teacher", TEACHER))
    places = {"tickvals": list(range(len(shown))), "ticktext": ticks, "zeroline": False}
    layout = {"xaxis": axis("accuracy (%)"), "yaxis": {"automargin": True, **places}}
    lowest, highest = order[0], order[-1]
    caption = (
        f"{len(y)} answers to {len(order)} classes. Hardest for the student is {names[lowest]} "
        f"({student[lowest]:.1f} %), easiest {names[highest]} ({student[highest]:.1f} %)."
    )
    if len(shown) < len(order):
        caption += f" Shown are the {len(shown)} at the ends."
    return Figure("Accuracy of each class", traces, layout, caption, 110 + 22 * len(shown))


def confusion_figure(answers: Answered) -> Figure:
    """Which class the student takes for which."""
    columns, names = answers.table.columns, answers.table.classes
    shares = confusion(columns["label"], columns["predicted"], len(names))
    wrong = shares - np.diag(np.diag(shares))
    worst = np.sort(np.argsort(wrong.max(0) + wrong.max(1))[::-1][:MOST_CLASSES])
    part, ticks = shares[np.ix_(worst, worst)], [label(names[c], LETTERS) for c in worst]
    places = {"tickvals": list(range(len(worst))), "ticktext": ticks}
    trace = {
        "type": "heatmap",
        "z": part.tolist(),
        "zmin": 0,
        "zmax": float(max(np.quantile(part, 0.99), 1.0)),
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "%"}, "thickness": 12},
        "x": list(range(len(worst))),
        "y": list(range(len(worst))),
        "text": [[f"{a} is taken for {b}" for b in ticks] for a in ticks],
        "hovertemplate": "%{text}: %{z:.1f} %<extra></extra>",
    }
    layout = {
        "xaxis": axis("answer of the student", tickangle=-60, **places),
        "yaxis": axis("class", autorange="reversed", **places),
    }
    at = np.unravel_index(np.argsort(wrong, axis=None)[::-1][:3], wrong.shape)
    pairs = "; ".join(
        f"{names[a]} for {names[b]} ({wrong[a, b]:.1f} %)" for a, b in zip(*at, strict=True)
    )
    episodes = "Classes meet only in episodes that have both. " if is_episodic(answers) else ""
    caption = (
        f"Share of the rows of a class that get an answer. {episodes}Most often wrong: {pairs}."
    )
    if len(worst) < len(names):
        caption += f" Shown are the {len(worst)} classes that are confused most, of {len(names)}."
    height = 220 + 18 * len(worst)
    return Figure("Which class is taken for which", [trace], layout, caption, height)


def is_episodic(answers: Answered) -> bool:
    """Whether rows were answered in episodes."""
    return bool((answers.table.columns["episode"] >= 0).all())


def calibration_figure(answers: Answered) -> Figure:
    """How often answers of a confidence are right."""
    columns = answers.table.columns
    y = columns["label"]
    line = {"mode": "lines", "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"}
    traces: list[dict[str, Any]] = [
        {"x": [0, 100], "y": [0, 100], "name": "as sure as right", **line}
    ]
    errors = []
    for who, prefix, marker in (("student", "", STUDENT), ("teacher", "teacher_", TEACHER)):
        probability = columns[f"{prefix}probability"].astype(float)
        there = ~np.isnan(probability)
        if not there.any():
            continue
        right = (columns[f"{prefix}predicted"] == y)[there].astype(float)
        curve = calibration(right, probability[there])
        errors.append(f"{who} {100 * calibration_error(curve):.1f} points")
        x, accuracy, n = curve.T
        words = [f"{int(rows)} answers" for rows in n]
        points = {"x": (100 * x).tolist(), "y": (100 * accuracy).tolist(), "text": words}
        kind = {"mode": "lines+markers", "marker": marker, "line": {"color": marker["color"]}}
        template = "sure by %{x:.0f} %, right in %{y:.1f} %<br>%{text}<extra>" + who + "</extra>"
        traces.append(points | kind | {"name": who, "hovertemplate": template})
    layout = {
        "xaxis": axis("probability of the answer (%)", range=[0, 102]),
        "yaxis": axis("right answers (%)", range=[0, 102]),
    }
    caption = (
        f"Above the dotted line answers are right more often than they are sure. Mean distance from it (ECE, "
        f"{BINS} bins): {', '.join(errors)}."
    )
    return Figure("Calibration", traces, layout, caption)


def title_of(answers: Answered) -> str:
    """Whose answers they are."""
    seeds: Sequence[int | None] = answers.row.seeds
    seed = answers.result.row.get("train_seed")
    of_seed = f", training seed {seed}" if len(seeds) > 1 else ""
    return f"{shortened(answers.row.name, 90)} ({answers.row.learner}){of_seed}"
