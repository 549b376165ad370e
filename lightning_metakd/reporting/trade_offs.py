"""Figures of accuracy against what it costs, with the networks that nothing cheaper surpasses."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from lightning_metakd.reporting.comparison import Comparison
from lightning_metakd.reporting.control_comparison import accuracy_interval
from lightning_metakd.reporting.markdown import count, duration, milliseconds, percent
from lightning_metakd.reporting.page_elements import GREY, Figure, axis, label, shortened, style
from lightning_metakd.reporting.result_rows import Row

COSTS = {
    "student_params": ("parameters", "parameters", count),
    "student_flops": ("FLOPs", "FLOPs of one input", count),
    "latency_ms": ("latency", "latency of one input (ms)", milliseconds),
    "wall_s": ("training", "time of one training (s)", duration),
}
"""Of each key of a result: what it is, name of the axis with its unit, and how a value is written."""
OF_TEACHERS = {
    "student_params": "teacher_params",
    "student_macs": "teacher_macs",
    "student_flops": "teacher_flops",
    "latency_ms": "teacher_latency_ms",
}
WIDE_RANGE = 3.0
"""From this ratio on an axis is logarithmic."""
MOST_OTHERS, MOST_NAMED = 150, 12
"""Students that are not on the line, the most accurate ones, and names on it, the cheapest ones."""
LETTERS = 48
"""Of a name in a caption."""


class Point(NamedTuple):
    """A student or a teacher in a figure.

    Attributes:
        name: of its row.
        learner: by what it adapts.
        cost: a mean over seeds.
        accuracy: in percent.
        half_width: of its 95 % interval; None where it is unknown.
    """

    name: str
    learner: str
    cost: float
    accuracy: float
    half_width: float | None


def trade_offs(task: Comparison) -> tuple[list[Figure], list[str]]:
    """Accuracy against each cost in which networks differ, and a sentence on each in which they do not."""
    figures, same = [], []
    for key, (title, _, write) in COSTS.items():
        points = points_of(task.rows, key)
        costs = {point.cost for point in points}
        if len(costs) > 1:
            figures.append(trade_off(key, points))
        elif len(points) > 1:
            same.append(f"All have the same {title}, {write(*costs)}.")
    return figures, same


def points_of(rows: Sequence[Row], key: str) -> list[Point]:
    """The students and teachers that say accuracy and cost, the cheapest first."""
    points: dict[tuple[Any, ...], Point] = {}
    for row in rows:
        student = (row.name, row.learner, row.values_of(key), accuracy_interval(row))
        points |= point_of(*student, sign=(row.name, row.learner))
        if key in OF_TEACHERS:
            accuracies = row.values_of("teacher_accuracy")[:1]
            interval = (next(iter(accuracies), None), row.fields.get("teacher_ci95"))
            costs = row.values_of(OF_TEACHERS[key])
            teacher = (f"teacher of {row.name}", "teacher", costs, interval)
            points |= point_of(*teacher, sign=(*accuracies, *row.values_of("teacher_params")[:1]))
    return sorted(points.values(), key=lambda point: (point.cost, -point.accuracy))


def point_of(
    name: str,
    learner: str,
    costs: Sequence[int | float],
    interval: tuple[float | None, float | None],
    sign: tuple[Any, ...],
) -> dict[tuple[Any, ...], Point]:
    """A point under what tells it from others; nothing where accuracy or cost is unknown."""
    accuracy, half_width = interval
    if accuracy is None or not costs or fmean(costs) <= 0:
        return {}
    width = None if half_width is None or half_width != half_width else 100 * half_width
    return {sign: Point(name, learner, float(fmean(costs)), 100.0 * accuracy, width)}


def pareto(points: Sequence[Point]) -> list[Point]:
    """Of points, the cheapest first, those that are better than all that cost no more."""
    front: list[Point] = []
    for point in points:
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def trade_off(key: str, points: Sequence[Point]) -> Figure:
    """The networks as points, with the line of those that are worth their cost."""
    title, of_axis, write = COSTS[key]
    front = pareto(points)
    others = [point for point in points if not any(point is p for p in front)]
    teachers = [point for point in others if point.learner == "teacher"]
    students = [point for point in others if point.learner != "teacher"]
    students = sorted(students, key=lambda point: -point.accuracy)
    n_left_out, students = max(0, len(students) - MOST_OTHERS), students[:MOST_OTHERS]
    line = {"color": GREY, "dash": "dot", "width": 2, "shape": "hv"}
    xy = {"x": [p.cost for p in front], "y": [p.accuracy for p in front]}
    traces = [
        scatter(key, students, "other students", marker("circle-open", GREY, 7)),
        scatter(key, teachers, "teachers", marker("star-open", GREY, 10)),
        xy | {"mode": "lines", "line": line, "name": "Pareto line", "hoverinfo": "skip"},
        scatter(key, front[MOST_NAMED:], "more on the line", marker("circle", GREY, 8)),
        *(
            scatter(key, [p], p.name, style(i)["marker"] | {"size": 10})
            for i, p in enumerate(front[:MOST_NAMED])
        ),
    ]
    costs = [point.cost for point in points]
    layout = {
        "xaxis": axis(of_axis, **scale(min(costs), max(costs), write)),
        "yaxis": axis("accuracy (%)"),
    }
    steps = [
        f"{shortened(p.name, LETTERS)}, {p.accuracy:.2f} % with {write(p.cost)}" for p in front
    ]
    more = f"; and {len(steps) - 6} more" if len(steps) > 6 else ""
    caption = (
        f"{len(points)} networks with their 95 % intervals. On the Pareto line, as nothing that costs no "
        f"more is as accurate: {'; '.join(steps[:6])}{more}."
    )
    if n_left_out:
        caption += f" {n_left_out} less accurate students are left out."
    traces = [trace for trace in traces if trace["x"]]
    return Figure(f"Accuracy against {title}", traces, layout, caption)


def scale(low: float, high: float, write: Callable[[float], str]) -> dict[str, Any]:
    """An axis from one cost to another: logarithmic where the range is wide, with few numbers in words."""
    if high <= WIDE_RANGE * low:
        return {"nticks": 5}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 100 * low else (1,)
    ticks = [m * 10.0**e for e in powers for m in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [write(tick) for tick in ticks]}


def marker(symbol: str, colour: str, size: int) -> dict[str, Any]:
    """How a point is drawn."""
    return {"symbol": symbol, "color": colour, "size": size}


def scatter(key: str, points: Sequence[Point], name: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """Points with their intervals."""
    widths = [point.half_width or 0.0 for point in points]
    return {
        "x": [point.cost for point in points],
        "y": [point.accuracy for point in points],
        "error_y": {"array": widths, "color": GREY, "thickness": 1, "width": 3},
        "mode": "markers",
        "marker": drawn,
        "name": shortened(name, 90),
        "text": [words(key, point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }


def words(key: str, point: Point) -> str:
    """What is shown where somebody points at it."""
    title, _, write = COSTS[key]
    letters = 40
    lines = [point.name[i : i + letters] for i in range(0, len(point.name), letters)]
    width = None if point.half_width is None else point.half_width / 100
    return (
        f"<b>{'<br>'.join(map(label, lines))}</b><br>{label(point.learner)}<br>"
        f"accuracy {percent(point.accuracy / 100, width)} %<br>{title} {write(point.cost)}"
    )
