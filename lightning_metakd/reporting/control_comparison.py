"""Whether a gain is that of what was learned: rows beside their controls, and beside themselves (A/A).

A control trains as its row does, but for the one thing that is claimed to help. It is a result of the
same experiment with another `control`, or an experiment that is named as one. A gain that the controls
show too is not a gain of what was learned.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lightning_metakd.reporting.markdown import markdown, percent
from lightning_metakd.reporting.paired_comparison import (
    Difference,
    comparable,
    difference,
    gain_over,
)
from lightning_metakd.reporting.result_rows import Row
from lightning_metakd.reporting.seed_intervals import SEEDS_OF_A_CLAIM, between_seeds, over_seeds

SAME_TEST = ("stage", "learner", "teacher_at_test", "episodes")
"""A control is tested as its row is."""

CONTROLLED = (
    "train.model.strategy_training.control",
    "train.model.initialisation.strategy_file.origin",
)
"""Settings that a control has of its own."""


class ControlledRow(NamedTuple):
    """A row that learned a strategy, beside its controls.

    Args:
        gain: over the baseline.
        controls: by what they are called.
        against: the row minus each of them.
    """

    row: Row
    gain: Difference | None
    controls: Mapping[str, Row]
    against: Mapping[str, Difference]


def accuracy_interval(row: Row) -> tuple[float | None, float | None]:
    """Mean and half-width: over seeds where there are several, otherwise over episodes."""
    values = row.values_of("accuracy")
    if len(values) > 1:
        return over_seeds(values)
    return (values[0], row.fields.get("ci95")) if values else (None, None)


def accuracy_cell(row: Row) -> str:
    """Mean and half-width in percent."""
    return percent(*accuracy_interval(row))


def difference_cell(difference: Difference | None) -> str:
    """A difference in points."""
    return (
        percent(difference.mean, difference.half_width, sign="+")
        if difference is not None and difference.pairs
        else "-"
    )


def is_control_of(control: Row, row: Row) -> bool:
    """Whether a row took something away from another of its experiment, and has its settings otherwise."""
    settings = [
        None if r.settings is None else {k: v for k, v in r.settings.items() if k not in CONTROLLED}
        for r in (control, row)
    ]
    return (
        control.experiment == row.experiment
        and control.control is not None
        and row.control is None
        and settings[0] == settings[1]
    )


def controls_of(row: Row, rows: Sequence[Row], others: Sequence[str]) -> dict[str, Row]:
    """The controls of a row by name; none where it is a control itself, or learned no strategy.

    Args:
        others: experiments that serve as controls.
    """
    controls = [r for r in rows if is_control_of(r, row)]
    learns = bool(controls) or row.fields.get("strategy") is not None
    if row.control is not None or row.experiment in others or not learns:
        return {}
    named = [r for r in rows if r.experiment in others and r.control is None]
    return {
        r.control or ", ".join(filter(None, (r.experiment, r.apart))): r
        for r in [*sorted(controls, key=lambda r: str(r.control)), *named]
        if comparable(row, r) and all(row.fields.get(k) == r.fields.get(k) for k in SAME_TEST)
    }


def control_cells(controlled: ControlledRow) -> list[dict[str, str]]:
    """Lines of the table: one per control, and the row against itself where it has several seeds."""
    row = controlled.row
    lines = [
        {
            "control": name,
            "accuracy": accuracy_cell(control),
            "difference": difference_cell(controlled.against[name]),
            "seeds": str(len(control.seeds)),
        }
        for name, control in controlled.controls.items()
    ]
    accuracies = row.values_of("accuracy")
    if len(accuracies) > 1:
        half_width = between_seeds(accuracies)[1]
        lines.append(
            {
                "control": "itself, other seeds (A/A)",
                "accuracy": accuracy_cell(row),
                "difference": f"0 ± {100 * half_width:.2f}",
                "seeds": str(len(accuracies)),
            }
        )
    return [{"name": row.name, "learner": row.learner, **line} for line in lines]


def claim_sentence(controlled: ControlledRow, baseline: str | None) -> str:
    """What may be said of a row, for people; without a baseline nothing of a gain."""
    accuracies = controlled.row.values_of("accuracy")
    parts = ["one seed, so that there is no A/A row"]
    if len(accuracies) > 1:
        apart = between_seeds(accuracies)[0]
        parts = [f"two of its seeds differ by {100 * apart:.2f} points on average"]
    pairs = {name: d.pairs for name, d in controlled.against.items()}
    if baseline is not None and controlled.gain is not None and controlled.gain.pairs:
        pairs = {baseline: controlled.gain.pairs} | pairs
        parts += gain_statement(controlled.gain, baseline, controlled.against)
    if few := [f"{name} {n}" for name, n in pairs.items() if n < SEEDS_OF_A_CLAIM]:
        parts.append(
            f"a claim needs {SEEDS_OF_A_CLAIM} training seeds in common (with {', '.join(few)})"
        )
    return f"- {controlled.row.name} ({controlled.row.learner}): {'; '.join(parts)}."


def gain_statement(gain: Difference, baseline: str, against: Mapping[str, Difference]) -> list[str]:
    """Whether a row is above its baseline, and above its controls too."""
    if not gain.is_positive:
        return [f"no gain over {baseline} is shown"]
    if names := [name for name, d in against.items() if d.pairs and not d.is_positive]:
        return [f"more than {baseline}, but its controls show it too ({', '.join(names)})"]
    if all(d.pairs >= SEEDS_OF_A_CLAIM for d in (gain, *against.values())):
        return [f"a gain over {baseline} that none of its controls shows"]
    return []


def controlled_rows(
    rows: Sequence[Row], others: Sequence[str], baselines: Sequence[Row]
) -> list[ControlledRow]:
    """The rows that have controls, beside these.

    Args:
        others: experiments that serve as controls.
    """
    return [
        ControlledRow(
            row,
            gain_over(row, baselines),
            controls,
            {name: difference(row, control) for name, control in controls.items()},
        )
        for row in rows
        if (controls := controls_of(row, rows, others))
    ]


def control_sentences(controlled: Sequence[ControlledRow], baseline: str | None) -> list[str]:
    """What may be said of each row beside its controls, and which seeds were not compared."""
    sentences = [claim_sentence(one, baseline) for one in controlled]
    return sentences + [
        f"- {d.left_out}" for one in controlled for d in one.against.values() if d.left_out
    ]


def control_section(
    controlled: Sequence[ControlledRow],
    others: Sequence[str],
    baseline: str | None,
    write: Callable[[list[dict[str, str]]], str] = markdown,
) -> list[str]:
    """Table of the rows beside their controls, and what may be said of each; nothing where no row has any.

    Args:
        others: experiments that serve as controls.
        baseline: experiment of the baseline in this task.
        write: makes a table of rows.
    """
    if not controlled:
        nothing = (
            f"No row says that it learned a strategy, which {', '.join(others)} would control."
        )
        return [nothing] if others else []
    lines = [line for one in controlled for line in control_cells(one)]
    sentences = control_sentences(controlled, baseline)
    return ["Controls (difference: name minus control):", write(lines), "\n".join(sentences)]
