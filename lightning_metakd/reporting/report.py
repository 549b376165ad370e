"""Tables from the results that runs left on disk. Nothing is trained, built or downloaded for it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from lightning_metakd.reporting.comparison import Comparison, comparisons
from lightning_metakd.reporting.control_comparison import (
    accuracy_cell,
    control_section,
    difference_cell,
)
from lightning_metakd.reporting.cost_columns import COST_COLUMNS
from lightning_metakd.reporting.html_page import plotting_script, write_page
from lightning_metakd.reporting.markdown import (
    count,
    fill_section,
    markdown,
    nonempty_columns,
    percent,
)
from lightning_metakd.reporting.paired_comparison import Difference
from lightning_metakd.reporting.result_rows import (
    Result,
    Row,
    latest,
    read_results,
    rows_of,
)
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.reporting.terminal import fitted, paragraph

ONE_SEED = (
    "Accuracy in percent with its 95 % half-width over episodes; one training run each, so that training "
    "noise is not in it."
)
SEVERAL = (
    "Accuracy in percent, mean and 95 % half-width: over training seeds (Student's t) in rows of several "
    "`seeds`; in rows of one, and of a teacher that all seeds share, over episodes, so that training noise "
    "is not in it. Differences are paired by seed and episode; with several pairs their half-width is over "
    "seeds, with one over episodes. A/A is what a difference looks like where only the seeds differ."
)
COSTS = (
    "One multiply-add (MAC) is 2 FLOPs; convolutions, matrix products and attention "
    "are counted, for one input. Latency is the median of one input on the machine of that row."
)


def teacher_cell(row: Row) -> str:
    """As that of the student; but a teacher that all seeds share is one network, so over episodes."""
    values = row.values_of("teacher_accuracy")
    if len(set(values)) > 1:
        return percent(*over_seeds(values))
    return percent(values[0], row.fields.get("teacher_ci95")) if values else "-"


def accuracy_cells(row: Row, gain: Difference | None, baseline: str | None) -> dict[str, str]:
    """How well a row does."""
    return {
        "seeds": str(len(row.seeds)),
        "accuracy": accuracy_cell(row),
        "teacher": teacher_cell(row),
        f"minus {baseline}": difference_cell(gain),
        "episodes": count(row.fields.get("episodes")),
    }


def cost_cells(row: Row) -> dict[str, str]:
    """What a row costs."""
    values = {name: row.values_of(key) for name, (key, _) in COST_COLUMNS.items()}
    return {
        name: write(fmean(values[name]) if values[name] else None)
        for name, (_, write) in COST_COLUMNS.items()
    }


def provenance(results: Sequence[Result]) -> str:
    """Machines, seeds and code of the results, each combination once."""
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row in (result.row for result in results):
        machine = {"device": row.get("device"), "threads": row.get("threads")}
        code = {
            "torch": (row.get("versions") or {}).get("torch"),
            "commit": (row.get("git") or "")[:10] or None,
        }
        before, after = (
            "".join(f"{name} {value}, " for name, value in field.items() if value is not None)
            for field in (machine, code)
        )
        seeds = rows_of.setdefault((before, after), [])
        seeds += [row["train_seed"]] if row.get("train_seed") is not None else []
    parts = []
    for (before, after), numbers in rows_of.items():
        seeds = sorted(set(numbers))
        word = f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}, " if seeds else ""
        parts.append(f"{before}{word}{after}".removesuffix(", "))
    return "Made with " + "; ".join(parts) + "."


def cells(task: Comparison) -> list[list[dict[str, str]]]:
    """Rows of the table of accuracies, and of that of costs where something is known of them."""
    heads = [{"name": row.name, "learner": row.learner} for row in task.rows]
    accuracies = [
        head | accuracy_cells(row, gain, task.baseline)
        for head, row, gain in zip(heads, task.rows, task.gains, strict=True)
    ]
    costs = [cost_cells(row) for row in task.rows]
    has_costs = any(cell != "-" for line in costs for cell in line.values())
    with_heads = [head | line for head, line in zip(heads, costs, strict=True)]
    return [nonempty_columns(rows) for rows in (accuracies, *([with_heads] if has_costs else []))]


def few_cells(task: Comparison) -> list[dict[str, str]]:
    """Rows of the table that fits a terminal."""
    return [
        {
            "name": row.name,
            "learner": row.learner,
            "accuracy": accuracy_cell(row),
            "difference": minus_teacher(row) if task.baseline is None else difference_cell(gain),
            **{name: cost_cells(row)[name] for name in ("parameters", "latency")},
        }
        for row, gain in zip(task.rows, task.gains, strict=True)
    ]


def minus_teacher(row: Row) -> str:
    """Student minus teacher on the same episodes."""
    values = row.values_of("paired_difference")
    if len(values) > 1:
        return percent(*over_seeds(values), sign="+")
    return percent(values[0], row.fields.get("paired_ci95"), sign="+") if values else "-"


def footnote(results: Sequence[Result]) -> str:
    """How the numbers are to be read, and what they were made with."""
    several = any(len(row.seeds) > 1 for row in rows_of(results))
    return f"{SEVERAL if several else ONE_SEED} {COSTS} {provenance(latest(results))}"


def tables(
    results: Sequence[Result],
    baseline: str | None = None,
    controls: Sequence[str] = (),
    by_seed: bool = False,
) -> str:
    """Markdown: for each task the accuracies, the best first, the costs, and the controls."""
    tasks = comparisons(results, baseline, controls, by_seed)
    parts = parts_of_tasks(tasks, controls, cells, markdown)
    return "\n\n".join([*parts, footnote(results)])


def narrow_tables(
    results: Sequence[Result],
    baseline: str | None = None,
    controls: Sequence[str] = (),
    by_seed: bool = False,
) -> str:
    """As `tables`, on lines of 100 letters: accuracy, difference, parameters and latency."""
    tasks = comparisons(results, baseline, controls, by_seed)
    parts = parts_of_tasks(tasks, controls, lambda task: [few_cells(task)], fitted)
    other = "the row's teacher" if baseline is None else baseline
    notes = [f"More columns: --wide. Difference: name minus {other}, on the same episodes or rows."]
    parts.append(" ".join([*notes, footnote(results)]))
    return "\n\n".join(part if part.startswith("|") else paragraph(part) for part in parts)


def parts_of_tasks(
    tasks: Sequence[Comparison],
    controls: Sequence[str],
    rows_of_tables: Callable[[Comparison], list[list[dict[str, str]]]],
    write: Callable[[list[dict[str, str]]], str],
) -> list[str]:
    """For each task its title, its tables, which seeds are not compared, and its controls."""
    parts = []
    for task in tasks:
        first, *others = map(write, rows_of_tables(task))
        left_out = ["\n".join(f"- {line}" for line in task.left_out)] if task.left_out else []
        parts += [task.title, first, *left_out, *others]
        parts += control_section(task.controlled, controls, task.experiment_of_baseline, write)
    return parts


def report(
    folder: Path = Path("runs"),
    baseline: str | None = None,
    controls: str | None = None,
    by_seed: bool = False,
    output: Path | None = None,
    section: str = "results",
    html: Path | None = None,
    wide: bool = False,
) -> None:
    """Print tables of all results under a folder.

    Results that differ in the training seed alone are one row. Rows of one experiment are named by the
    settings in which they differ, and may be named so as baseline: "EXPERIMENT, lr 0.001".

    Args:
        folder: where to search for results.jsonl.
        baseline: experiment that the others are compared with, by training seed and episode by episode.
        controls: experiments, parted by commas, that learned strategies are compared with, beside
            the results of their own experiment with another `control`.
        by_seed: show a row for each training seed.
        output: Markdown file to put the table into as well, between the lines
            `<!-- results:begin SECTION -->` and `<!-- results:end -->`, with all columns.
        section: SECTION of these lines.
        html: file of a page to look at, with figures and examples: one file, which needs no network.
        wide: print all columns; by default those that fit 100 letters.
    """
    script = None if html is None else plotting_script(html)
    others = [] if controls is None else [name.strip() for name in controls.split(",")]
    arguments = (read_results(folder), baseline, others, by_seed)
    print(tables(*arguments) if wide else narrow_tables(*arguments))
    if output is not None:
        fill_section(output, section, tables(*arguments))
    if html is not None and script is not None:
        print(write_page(html, folder, script, arguments[0], comparisons(*arguments)))
