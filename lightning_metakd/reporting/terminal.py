"""Tables that fit a terminal: texts stand on several lines where the table would be too wide."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lightning_metakd.reporting.markdown import (
    count,
    markdown,
    milliseconds,
    nonempty_columns,
    percent,
)

WIDTH = 100
"""Letters of a line."""
TEXTS = ("name", "control")
"""Columns that may stand on several lines."""
NARROWEST = 16


def fitted(rows: list[dict[str, str]], width: int = WIDTH) -> str:
    """A table as Markdown has it, in which long names stand on several lines."""
    rows = nonempty_columns(rows)
    widths = {column: longest(rows, column) for column in rows[0]}
    texts = [column for column in TEXTS if column in widths]
    room = width - 1 - sum(3 + n for column, n in widths.items() if column not in texts)
    for column in sorted(texts, key=lambda column: widths[column]):  # what is short leaves room
        share = room // len(texts) - 3
        widths[column] = max(NARROWEST, min(widths[column], share))
        room, texts = room - widths[column] - 3, texts[1:]
    return markdown([line for row in rows for line in lines_of(row, widths)])


def longest(rows: Sequence[dict[str, str]], column: str) -> int:
    """Letters of the longest cell of a column, or of its name."""
    return max(len(column), *(len(row[column]) for row in rows))


def lines_of(row: dict[str, str], widths: dict[str, int]) -> list[dict[str, str]]:
    """A row on as many lines as its texts need."""
    parts = {
        column: broken(text, widths[column]) if column in TEXTS else [text]
        for column, text in row.items()
    }
    lines = zip_longest(*parts.values(), fillvalue="")
    return [dict(zip(parts, line, strict=True)) for line in lines]


def broken(text: str, width: int) -> list[str]:
    """A name on lines of a width, broken at spaces and underscores where that is possible."""
    lines = [""]
    for word in re.findall(r"[^ _]*[ _]?", text):
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines if line.strip()] or [""]


def paragraph(text: str, width: int = WIDTH) -> str:
    """A text on lines of a width; those of a list are indented."""
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )


def result_table(results: Sequence[Mapping[str, Any]]) -> str:
    """What tests have measured; the difference is that of student and teacher on the same episodes."""
    rows = [
        {
            "name": ", ".join(
                str(r[key]) for key in ("experiment", "domain") if r[key] is not None
            ),
            "accuracy": percent(r["accuracy"], r["ci95"]),
            "teacher": percent(r["teacher_accuracy"], r["teacher_ci95"]),
            "difference": percent(r["paired_difference"], r["paired_ci95"], sign="+"),
            "parameters": count(r["student_params"]),
            "latency": milliseconds(r["latency_ms"]),
        }
        for r in results
    ]
    return fitted(rows)
