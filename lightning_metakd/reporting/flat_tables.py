"""What a test has left as tables of plain rows: classes, the hardest episodes, accuracy against cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_metakd.reporting.answers import answers_of, by_class, confusion
from lightning_metakd.reporting.result_rows import (
    Result,
    Row,
    by_task,
    heading,
    read_results,
    rows_of,
)
from lightning_metakd.reporting.trade_offs import pareto, points_of
from lightning_metakd.storage.answer_table import AnswerTable, hardest_episodes

FlatRow = dict[str, Any]
"""A cell by the name of its column: a number, a text, a picture as a file's bytes, or None."""

COSTS = {
    "student_params": "parameters",
    "student_macs": "MACs",
    "latency_ms": "latency (ms)",
}
"""Name of the column of each key of a result."""


def flat_tables(results: Sequence[Result], runs: Path) -> dict[str, list[FlatRow]]:
    """The tables of a test by name, those with a row.

    Args:
        results: of the test, one for each domain.
        runs: folder of the runs that it is compared with.
    """
    others = by_task(rows_of(read_results(runs)))
    tables: dict[str, list[FlatRow]] = {}
    for result in results:
        of_domain = f".{result.row['domain']}" if result.row.get("domain") else ""
        answers = answers_of(result)
        if answers is not None:
            tables[f"classes{of_domain}"] = class_rows(answers)
            tables[f"hardest_episodes{of_domain}"] = hardest_rows(answers)
        tables[f"pareto{of_domain}"] = pareto_rows(others[heading(result.row)])
    return {name: rows for name, rows in tables.items() if rows}


def answerers(table: AnswerTable) -> dict[str, np.ndarray]:
    """What the student answered to each query row, and the teacher, where there is one."""
    answers = {
        "student": table.columns["predicted"],
        "teacher": table.columns["teacher_predicted"],
    }
    return {who: predicted for who, predicted in answers.items() if (predicted >= 0).any()}


def class_rows(table: AnswerTable) -> list[FlatRow]:
    """How often each class is answered rightly, and for which other one it is taken; the hardest first."""
    y, names = table.columns["label"], table.classes
    n, answers = np.bincount(y, minlength=len(names)), answerers(table)
    accuracy = {who: by_class(p == y, y, len(names)) for who, p in answers.items()}
    wrong = confusion(y, answers["student"], len(names))
    np.fill_diagonal(wrong, 0)
    return [
        {
            "class": names[c],
            "rows": int(n[c]),
            **{f"{who} accuracy (%)": float(values[c]) for who, values in accuracy.items()},
            "most often taken for": names[wrong[c].argmax()] if wrong[c].any() else None,
            "in (%)": float(wrong[c].max()),
        }
        for c in np.argsort(accuracy["student"], kind="stable").tolist()
        if n[c]
    ]


def hardest_rows(table: AnswerTable) -> list[FlatRow]:
    """The rows of the episodes with the most wrong answers: what was learned from, then what was asked."""
    columns, support, rows = table.columns, table.support, list[FlatRow]()
    answers = answerers(table)
    for episode, places in hardest_episodes(columns).items():
        in_episode = columns["episode"] == episode
        accuracy = {
            f"{who} accuracy (%)": float(100 * (p == columns["label"])[in_episode].mean())
            for who, p in answers.items()
        }
        begin = {"episode": episode, **accuracy}
        for i in np.flatnonzero(support["episode"] == episode).tolist():
            rows.append(begin | row_cells(table, support, i, "support") | dict.fromkeys(answers))
        for i in places.tolist():
            replies = {who: table.classes[p[i]] for who, p in answers.items()}
            rows.append(begin | row_cells(table, columns, i, "query") | replies)
    return rows


def row_cells(table: AnswerTable, columns: Mapping[str, np.ndarray], i: int, role: str) -> FlatRow:
    """A row of an episode: what it shows, and its class."""
    row = int(columns["row"][i])
    contents: dict[str, Mapping[int, Any]] = {"picture": table.pictures, "text": table.texts}
    shown = {name: content.get(row) for name, content in contents.items() if content}
    return {"role": role, "row": row, **shown, "class": table.classes[columns["label"][i]]}


def pareto_rows(rows: Sequence[Row]) -> list[FlatRow]:
    """Students and teachers of a task, the best first, and against which costs nothing cheaper is as good."""
    networks: dict[tuple[str, str], FlatRow] = {}
    for key, title in COSTS.items():
        points = points_of(rows, key)
        front = pareto(points)
        for point in points:
            cells = networks.setdefault((point.name, point.learner), {})
            cells |= {"accuracy (%)": point.accuracy, "95 % half-width": point.half_width}
            cells |= {title: point.cost, f"Pareto: {title}": any(point is p for p in front)}
    columns = [column for title in COSTS.values() for column in (title, f"Pareto: {title}")]
    flat = [
        {"name": name, "learner": learner, **dict.fromkeys(columns), **cells}
        for (name, learner), cells in networks.items()
    ]
    return sorted(flat, key=lambda row: -row["accuracy (%)"])
