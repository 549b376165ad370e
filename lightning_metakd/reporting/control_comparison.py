"""Whether a gain is that of what was learned: rows beside their controls, and beside themselves (A/A).

A control trains as its row does, but for the one thing that is claimed to help. It is a result of the
same experiment with another `control`, or an experiment that is named as one. A gain that the controls
show too is not a gain of what was learned.
"""

from collections.abc import Mapping, Sequence
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

CONTROLLED = ("train.model.control", "train.model.strategy.origin")
"""Settings that a control has of its own."""


class Controlled(NamedTuple):
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


def accuracy_cell(row: Row) -> str:
    """Mean and half-width: over seeds where there are several, otherwise over episodes."""
    values = row.known("accuracy")
    if len(values) > 1:
        return percent(*over_seeds(values))
    return percent(values[0], row.told.get("ci95")) if values else "-"


def difference_cell(told: Difference | None) -> str:
    """A difference in points."""
    return percent(told.mean, told.half_width, sign="+") if told is not None and told.pairs else "-"


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
    own = [r for r in rows if is_control_of(r, row)]
    learned = bool(own) or row.told.get("strategy") is not None
    if row.control is not None or row.experiment in others or not learned:
        return {}
    named = [r for r in rows if r.experiment in others and r.control is None]
    return {
        r.control or ", ".join(filter(None, (r.experiment, r.apart))): r
        for r in [*sorted(own, key=lambda r: str(r.control)), *named]
        if comparable(row, r) and all(row.told.get(k) == r.told.get(k) for k in SAME_TEST)
    }


def control_cells(told: Controlled) -> list[dict[str, str]]:
    """Lines of the table: one per control, and the row against itself where it has several seeds."""
    row = told.row
    lines = [
        {
            "control": name,
            "accuracy": accuracy_cell(control),
            "difference": difference_cell(told.against[name]),
            "seeds": str(len(control.seeds)),
        }
        for name, control in told.controls.items()
    ]
    accuracies = row.known("accuracy")
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


def verdict(told: Controlled, baseline: str | None) -> str:
    """What may be said of a row, for people; without a baseline nothing of a gain."""
    accuracies = told.row.known("accuracy")
    parts = ["one seed, so that there is no A/A row"]
    if len(accuracies) > 1:
        apart = between_seeds(accuracies)[0]
        parts = [f"two of its seeds differ by {100 * apart:.2f} points on average"]
    pairs = {name: d.pairs for name, d in told.against.items()}
    if baseline is not None and told.gain is not None and told.gain.pairs:
        pairs = {baseline: told.gain.pairs} | pairs
        parts += gain_said(told.gain, baseline, told.against)
    if few := [f"{name} {n}" for name, n in pairs.items() if n < SEEDS_OF_A_CLAIM]:
        parts.append(
            f"a claim needs {SEEDS_OF_A_CLAIM} training seeds in common (with {', '.join(few)})"
        )
    return f"- {told.row.name} ({told.row.learner}): {'; '.join(parts)}."


def gain_said(gain: Difference, baseline: str, against: Mapping[str, Difference]) -> list[str]:
    """Whether a row is above its baseline, and above its controls too."""
    if not gain.is_positive:
        return [f"no gain over {baseline} is shown"]
    if shown := [name for name, d in against.items() if d.pairs and not d.is_positive]:
        return [f"more than {baseline}, but its controls show it too ({', '.join(shown)})"]
    if all(d.pairs >= SEEDS_OF_A_CLAIM for d in (gain, *against.values())):
        return [f"a gain over {baseline} that none of its controls shows"]
    return []


def control_section(
    rows: Sequence[Row], others: Sequence[str], baselines: Sequence[Row]
) -> list[str]:
    """Table of the rows beside their controls, and what may be said of each; nothing where no row has any."""
    told = [
        Controlled(
            row,
            gain_over(row, baselines),
            controls,
            {name: difference(row, control) for name, control in controls.items()},
        )
        for row in rows
        if (controls := controls_of(row, rows, others))
    ]
    if not told:
        nothing = (
            f"No row says that it learned a strategy, which {', '.join(others)} would control."
        )
        return [nothing] if others else []
    lines = [line for one in told for line in control_cells(one)]
    baseline = baselines[0].experiment if baselines else None
    said = [verdict(one, baseline) for one in told]
    said += [f"- {d.left_out}" for one in told for d in one.against.values() if d.left_out]
    return ["Controls (difference: name minus control):", markdown(lines), "\n".join(said)]
