"""What was compared and who won, and what each run took: the tables of the page."""

from collections.abc import Sequence
from html import escape
from statistics import fmean

from lightning_metakd.reporting.comparison import Comparison
from lightning_metakd.reporting.control_comparison import control_cells, control_sentences
from lightning_metakd.reporting.markdown import duration
from lightning_metakd.reporting.page_elements import (
    ROWS_AT_FIRST,
    Cell,
    items,
    paragraphs,
    table_html,
)
from lightning_metakd.reporting.page_tables import comparison_rows, cost_rows
from lightning_metakd.reporting.result_rows import Result
from lightning_metakd.reporting.verdict import verdict

MOST_ROWS = 300
"""Rows of a table."""
FEW_TASKS, ROWS_OF_MANY_TASKS = 4, 10
"""From which number on tasks are listed, and rows of their tables that are shown at first."""


def title_of_task(task: Comparison) -> str:
    """What its rows have in common."""
    return task.title.removeprefix("### ")


def heading(task: Comparison) -> str:
    """Title of a task as a heading."""
    return f"<h3>{escape(title_of_task(task))}</h3>"


def counted(n: int, what: str) -> str:
    """So many of something."""
    return f"{n} {what}{'s' * (n != 1)}"


def comparison_html(results: Sequence[Result], tasks: Sequence[Comparison]) -> str:
    """What was compared, who won, and the tables."""
    experiments = list(dict.fromkeys(row.experiment for task in tasks for row in task.rows))
    n_rows = sum(len(task.rows) for task in tasks)
    names = ", ".join(experiments[:12]) + (" and others" if len(experiments) > 12 else "")
    parts = [
        paragraphs(
            f"{counted(len(results), 'result')}, {counted(n_rows, 'row')} in {counted(len(tasks), 'task')}: "
            f"{names}. Press the name of a column to sort by it."
        )
    ]
    if len(tasks) > FEW_TASKS:
        links = [f'<a href="#task-{i}">{escape(title_of_task(t))}</a>' for i, t in enumerate(tasks)]
        parts.append(f'<nav aria-label="Tasks">{"".join(links)}</nav>')
    most = ROWS_AT_FIRST if len(tasks) <= FEW_TASKS else ROWS_OF_MANY_TASKS
    for i, task in enumerate(tasks):
        rows = comparison_rows(task)[:MOST_ROWS]
        table = table_html(title_of_task(task), rows, titled=True, most=most)
        parts.append(f'<a id="task-{i}"></a>')
        parts += [heading(task), f'<p class="verdict">{escape(verdict(task))}</p>', table]
        parts += [omitted(len(task.rows), "less accurate rows"), items(task.left_out)]
        parts.append(controls_html(task))
    return "".join(parts)


def controls_html(task: Comparison) -> str:
    """Rows that learned a strategy, beside their controls."""
    if not task.controlled:
        return ""
    rows = [
        {name: Cell(text) for name, text in line.items()}
        for one in task.controlled
        for line in control_cells(one)
    ]
    sentences = control_sentences(task.controlled, task.experiment_of_baseline)
    return table_html("Controls (difference: name minus control)", rows) + items(sentences)


def costs_html(results: Sequence[Result]) -> str:
    """What each run took."""
    rows = sorted(cost_rows(results), key=lambda row: -(row["training"].value or 0))
    seconds = [r.row["wall_s"] for r in results if r.row.get("wall_s") is not None]
    mean = f"A training took {duration(fmean(seconds))} on average." if seconds else ""
    table = table_html("Cost of each run", rows[:MOST_ROWS], titled=True)
    return paragraphs(mean) + table + omitted(len(rows), "shorter runs")


def omitted(n_rows: int, what: str) -> str:
    """How many rows a table leaves out."""
    n = n_rows - MOST_ROWS
    return paragraphs(f"{n} {what} are left out; metakd report prints all.") if n > 0 else ""
