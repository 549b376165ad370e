"""A page to look at: everything that results and trainings left, as one file that needs no network."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from lightning_metakd.reporting.answers import (
    Answered,
    answer_figures,
    answered,
    answered_by_row,
    title_of,
)
from lightning_metakd.reporting.comparison import Comparison
from lightning_metakd.reporting.examples import episodes_html, extremes_html
from lightning_metakd.reporting.page_comparison import comparison_html, costs_html, heading
from lightning_metakd.reporting.page_elements import (
    Figure,
    figure_html,
    items,
    paragraphs,
    section,
)
from lightning_metakd.reporting.result_rows import Result
from lightning_metakd.reporting.trade_offs import trade_offs
from lightning_metakd.reporting.training_curves import coefficient_curves, learning_curves
from lightning_metakd.reporting.training_logs import Training, trainings
from lightning_metakd.storage.atomic_files import atomic_write

MOST_BYTES = 6_000_000
"""Of a page; examples are left out where it would be larger."""
TASKS_WITH_FIGURES, TASKS_WITH_ANSWERS, TASKS_WITH_EXAMPLES = 6, 4, 3
"""Tasks, those of most rows first, whose figures are drawn."""


class Part(NamedTuple):
    """A section of the page.

    Attributes:
        key: its name in the page.
        title: its heading.
        content: as HTML; empty where there is nothing to show.
        missing: why there is nothing, and how to have it.
    """

    key: str
    title: str
    content: str
    missing: str = ""


def plotting_script(html: Path) -> str:
    """The program that draws the figures.

    Args:
        html: file of the page, for a message.

    Raises:
        ImportError: if the plotting library is not installed.
        ValueError: if the page is a folder.
    """
    if html.is_dir():
        raise ValueError(
            f"html={str(html)!r} is a folder; name a file, such as {html}/report.html."
        )
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "html draws figures by the package plotly; pip install 'lightning_metakd[report]'."
        ) from error
    return str(get_plotlyjs())


def write_page(
    path: Path, folder: Path, script: str, results: Sequence[Result], tasks: Sequence[Comparison]
) -> str:
    """Write the page and return a sentence that says so.

    Args:
        folder: where trainings are searched for.
        script: that draws figures.
    """
    content = page(folder, script, results, tasks).encode()
    with atomic_write(path) as part:
        part.write_bytes(content)
    return f"page written to {path} ({len(content) / 1e6:.1f} MB); open it in a browser"


def page(folder: Path, script: str, results: Sequence[Result], tasks: Sequence[Comparison]) -> str:
    """The page as text, with examples as long as there is room."""
    runs = trainings(folder, {result.folder for result in results})
    ordered = sorted(tasks, key=lambda task: -len(task.rows))
    answers = [a for task in ordered if (a := answered(task.rows)) is not None]
    parts = [
        Part("comparison", "What was compared", comparison_html(results, tasks)),
        Part(
            "trade-offs",
            "Accuracy and cost",
            trade_offs_html(ordered),
            "no two networks of a task say what they cost.",
        ),
        curves_part(runs),
        strategy_part(runs),
        answers_part(answers[:TASKS_WITH_ANSWERS]),
        Part("costs", "Cost of each run", costs_html(results)),
    ]
    whole = assembled(folder, script, parts)
    by_row = [a for task in ordered if (a := answered_by_row(task.rows)) is not None]
    for kind, examples in ((extremes_part, by_row), (examples_part, answers)):
        for n in range(TASKS_WITH_EXAMPLES, -1, -1):
            longer = [*parts, kind(examples[:n], len(answers))]
            text = assembled(folder, script, longer)
            if len(text.encode()) <= MOST_BYTES or n == 0:
                parts, whole = longer, text
                break
    return whole


def resource(name: str) -> str:
    """A file beside this one."""
    return files("lightning_metakd.reporting").joinpath(name).read_text(encoding="utf-8")


def assembled(folder: Path, script: str, parts: Sequence[Part]) -> str:
    """The parts in their frame."""
    order = (
        "comparison",
        "trade-offs",
        "curves",
        "strategy",
        "answers",
        "rows",
        "examples",
        "costs",
    )
    parts = sorted(parts, key=lambda part: order.index(part.key))
    shown = [part for part in parts if part.content]
    links = "".join(f'<a href="#{p.key}">{escape(p.title)}</a>' for p in shown)
    missing = [f"{p.title}: {p.missing}" for p in parts if not p.content and p.missing]
    absent = (
        f'<section id="missing"><h2>Not shown</h2>{items(missing)}</section>' if missing else ""
    )
    return Template(resource("page.html")).substitute(
        title=escape(f"Results in {folder}"),
        style=resource("page.css"),
        plotting=script,
        behaviour=resource("page.js"),
        links=links,
        content="".join(section(p.key, p.title, p.content) for p in shown) + absent,
        version=escape(version("lightning_metakd")),
    )


def figures_html(figures: Iterable[Figure], key: str, kind: str = "grid") -> str:
    """Figures beside one another.

    Args:
        kind: `grid` of figures of one height, or `columns` of some that are taller.
    """
    drawn = "".join(figure_html(figure, f"{key}-{i}") for i, figure in enumerate(figures))
    return f'<div class="{kind}">{drawn}</div>' if drawn else ""


def trade_offs_html(tasks: Sequence[Comparison]) -> str:
    """Accuracy against cost, task by task."""
    drawn = [(task, *trade_offs(task)) for task in tasks]
    drawn = [(task, figures, same) for task, figures, same in drawn if figures]
    parts = [
        heading(task) + figures_html(figures, f"trade-off-{i}") + paragraphs(" ".join(same))
        for i, (task, figures, same) in enumerate(drawn[:TASKS_WITH_FIGURES])
    ]
    return "".join(parts) + left_out_tasks(len(drawn), TASKS_WITH_FIGURES)


def left_out_tasks(n_tasks: int, n_shown: int) -> str:
    """How many tasks are not drawn."""
    n = n_tasks - n_shown
    return paragraphs(f"{n} more tasks, of fewer rows, are in the tables alone.") if n > 0 else ""


def curves_part(runs: Sequence[Training]) -> Part:
    """Learning curves."""
    missing = "no training, which leaves metrics.csv and config.fit.yaml, is in this folder."
    return Part("curves", "Learning curves", figures_html(learning_curves(runs), "curve"), missing)


def strategy_part(runs: Sequence[Training]) -> Part:
    """Gates, temperatures and weights of teachers over training."""
    content = figures_html(coefficient_curves(runs), "coefficient")
    missing = "no training in this folder changed a gate, a temperature or weights of teachers."
    return Part("strategy", "What was learned about teaching", content, missing)


NO_ANSWERS = "no test has left its answers (answers.test.npz); test again to have them."


def answers_part(answers: Sequence[Answered]) -> Part:
    """Classes, confusions and calibration."""
    content = "".join(
        f"<h3>{escape(title_of(a))}</h3>{figures_html(answer_figures(a), f'answers-{i}', 'columns')}"
        for i, a in enumerate(answers)
    )
    return Part("answers", "What was answered", content, NO_ANSWERS)


def extremes_part(answers: Sequence[Answered], n_answers: int) -> Part:
    """Rows that a coefficient tells apart most."""
    content = "".join(extremes_html(a) for a in answers)
    missing = (
        "no test says what a coefficient was for single rows, as no loss learned one for each."
    )
    return Part("rows", "Which rows the teacher is trusted with", content, missing)


def examples_part(answers: Sequence[Answered], n_answers: int) -> Part:
    """Episodes with their pictures or texts."""
    content = "".join(episodes_html(a) for a in answers)
    missing = (
        NO_ANSWERS if n_answers == 0 else "no pictures or texts were kept, or there was no room."
    )
    return Part("examples", "Example episodes", content, missing)
