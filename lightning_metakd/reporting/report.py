"""Tables from the results that runs left on disk. Nothing is trained, built or downloaded for it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from lightning_metakd.reporting.control_comparison import (
    accuracy_cell,
    control_section,
    difference_cell,
    is_control_of,
)
from lightning_metakd.reporting.markdown import (
    between_markers,
    count,
    duration,
    markdown,
    milliseconds,
    nonempty_columns,
    percent,
)
from lightning_metakd.reporting.paired_comparison import Difference, gain_over, named
from lightning_metakd.reporting.result_rows import (
    Result,
    Row,
    by_task,
    latest,
    read_results,
    rows_of,
)
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.atomic_files import atomic_write

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

COST_COLUMNS = {
    "parameters": ("student_params", count),
    "MACs": ("student_macs", count),
    "FLOPs": ("student_flops", count),
    "latency": ("latency_ms", milliseconds),
    "adapting": ("adapt_ms", milliseconds),
    "training": ("wall_s", duration),
    "teacher forwards": ("teacher_forwards", count),
    "gradients": ("gradient_evaluations", count),
}
"""Key and way of writing of each column of costs, which are means over seeds."""


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


def task_tables(rows: Sequence[Row], baseline: str | None, baselines: Sequence[Row]) -> list[str]:
    """Accuracies, which seeds are not compared, and costs; controls have a table of their own."""
    rows = [row for row in rows if not any(is_control_of(row, other) for other in rows)]
    gains = [gain_over(row, baselines) for row in rows]
    heads = [{"name": row.name, "learner": row.learner} for row in rows]
    accuracies = [accuracy_cells(row, d, baseline) for row, d in zip(rows, gains, strict=True)]
    costs = [cost_cells(row) for row in rows]
    has_costs = any(cell != "-" for cells in costs for cell in cells.values())
    parts = [
        markdown(nonempty_columns([head | row for head, row in zip(heads, cells, strict=True)]))
        for cells in (accuracies, *([costs] if has_costs else []))
    ]
    if left_out := [f"- {d.left_out}" for d in gains if d is not None and d.left_out]:
        parts.insert(1, "\n".join(left_out))
    return parts


def tables(
    results: Sequence[Result],
    baseline: str | None = None,
    controls: Sequence[str] = (),
    by_seed: bool = False,
) -> str:
    """Markdown: for each task the accuracies, the best first, the costs, and the controls."""
    rows, selected = rows_of(results), rows_of(results, by_seed)
    for control in controls:
        named(rows, "controls", control)

    def of_baseline(matches: list[Row]) -> list[Row]:
        return [] if baseline is None else named(matches, "baseline", baseline)

    parts, of_task = [], by_task(rows)
    for title, group in by_task(selected).items():
        parts += [title, *task_tables(group, baseline, of_baseline(selected))]
        parts += control_section(of_task[title], controls, of_baseline(rows))
    note = SEVERAL if any(len(row.seeds) > 1 for row in rows) else ONE_SEED
    return "\n\n".join([*parts, f"{note} {COSTS} {provenance(latest(results))}"])


def read_page(path: Path) -> str:
    """The text of a Markdown file.

    Raises:
        ValueError: if it is none.
    """
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"output={str(path)!r} is no text; name a Markdown file.") from error


def report(
    folder: Path = Path("runs"),
    baseline: str | None = None,
    controls: str | None = None,
    by_seed: bool = False,
    output: Path | None = None,
    section: str = "results",
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
            `<!-- results:begin SECTION -->` and `<!-- results:end -->`.
        section: SECTION of these lines.
    """
    others = [] if controls is None else [name.strip() for name in controls.split(",")]
    table = tables(read_results(folder), baseline, others, by_seed)
    print(table)
    if output is not None:
        changed = between_markers(read_page(output), section, table)
        with atomic_write(output) as part:
            part.write_text(changed)
