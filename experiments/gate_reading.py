"""What a gate for each row says, beside what it should know: whether the row's label is wrong.

`python -m experiments.gate_reading --runs <folder>` asks the gates that `experiments.regimes` has left there,
as they are learned by default and by a quiz that is cross-entropy, keeps their rows beside earlier ones, and
fills their table and picture of `docs/where-it-pays.md`.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from experiments.gate_rivals import BY_PLAIN_QUIZ, PER_ROW
from experiments.gate_runs import BASE, SEEDS, training
from experiments.kept_answers import (
    Answers,
    answer,
    from_command_line,
    keep,
    read_answers,
)
from experiments.opened_runs import opened
from experiments.plan import ROOT, Run
from experiments.regimes import PAGE, REGIMES
from lightning_metakd.data.source_data import UNAUGMENTED
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.types import Batch, Context

FILE = ROOT / "experiments/results/gate_reading.csv"
PICTURE = PAGE.with_name("where-it-pays-gates.png")
BINS = 25
ASKED = [regime for regime in REGIMES if regime.rate]
AUROC_OF_GATE = "AUROC of the gate"
KEYS = ("regime", "seed", "row")
GATES = {PER_ROW: "the gate", BY_PLAIN_QUIZ: "one by cross-entropy"}
"""What is asked, and what table and picture call it."""


class Reading(NamedTuple):
    """What is said of each training row.

    Args:
        gate: by the gate, 1 for the label alone.
        teacher: probability of the label, by the teacher.
        student: the same by the student.
        wrong: whether the label is.
    """

    gate: Tensor
    teacher: Tensor
    student: Tensor
    wrong: Tensor

    def row(self) -> dict[str, float]:
        """Mean gates, and the chance that a right label is ranked above a wrong one."""
        right = (~self.wrong).int()
        return {
            "gate, right labels": self.gate[~self.wrong].mean().item(),
            "gate, wrong labels": self.gate[self.wrong].mean().item(),
            AUROC_OF_GATE: binary_auroc(self.gate, right).item(),
            "AUROC of the teacher": binary_auroc(self.teacher, right).item(),
            "AUROC of the student": binary_auroc(self.student, right).item(),
        }


@torch.no_grad()
def read(run: Run) -> Reading:
    """Ask the gate of a training of its rows as they are, at its end."""
    recipe, data = opened(run)
    checkpoint = read_checkpoint(run.mark)
    recipe.load_state_dict(
        checkpoint["state_dict"], strict=False
    )  # teachers have files of their own
    source, classes, at = data.source, data.train_classes(), data.parts["train"]
    x, y, index, _ = source.all_rows()
    view = torch.full_like(index[at], -1)
    labels = torch.searchsorted(classes, y[at])
    inputs = source.inputs(x[at], index[at], view, recipe.student.reading)
    for helper in recipe.teachers:
        helper.fill_cache(at, UNAUGMENTED)
    batch = recipe.eval().with_teacher_outputs(Batch(inputs, labels, index[at], view))
    output = recipe.student(inputs)
    gate = recipe.loss.gate(batch, Context(classes[labels], torch.ones(()), output))

    def of_label(logits: Tensor) -> Tensor:
        return logits.softmax(-1).gather(-1, labels[:, None])[:, 0]

    teacher = of_label(batch.teacher_outputs[0].logits)
    return Reading(gate, teacher, of_label(output.logits), source.wrong[at])


def table(rows: Answers) -> str:
    """A line for each regime of which all gates were asked."""
    lines = []
    for regime in ASKED:
        keys = {name: [(regime.name, str(seed), name) for seed in SEEDS] for name in GATES}
        if not all(key in rows for of_seeds in keys.values() for key in of_seeds):
            continue

        def over(name: str, column: str, keys: dict[str, list[Any]] = keys) -> str:
            mean, half = over_seeds([float(rows[key][column]) for key in keys[name]])
            return f"{mean:.2f} ± {half:.2f}"

        line = {"labels": regime.title}
        for column in ("gate, right labels", "gate, wrong labels"):
            line[column] = over(PER_ROW, column)
        line |= {f"AUROC of {title}": over(name, AUROC_OF_GATE) for name, title in GATES.items()}
        for who in ("teacher", "student"):
            line[f"AUROC of the {who}"] = over(PER_ROW, f"AUROC of the {who}")
        lines.append(line)
    return markdown(lines) if lines else ""


def draw(readings: Mapping[str, Mapping[str, Reading]]) -> None:
    """How often each gate says what, of right and of wrong labels, by regime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (2.4 * len(readings), 2.2 * len(GATES) + 0.5)
    figure, axes = pyplot.subplots(
        len(GATES), len(readings), figsize=size, layout="constrained", sharex=True, sharey=True
    )
    bins = torch.linspace(0, 1, BINS + 1).tolist()
    for column, (regime, of_regime) in zip(axes.T, readings.items(), strict=True):
        for axis, (name, reading) in zip(column, of_regime.items(), strict=True):
            for label, at in (("right", ~reading.wrong), ("wrong", reading.wrong)):
                axis.hist(reading.gate[at].tolist(), bins, alpha=0.7, label=f"label is {label}")
            axis.set_xlabel("gate: 0 teacher, 1 label" if name == BY_PLAIN_QUIZ else "", fontsize=8)
        column[0].set_title(regime, fontsize=9)
    for axis, title in zip(axes[:, 0], GATES.values(), strict=True):
        axis.set_ylabel(f"{title}: rows", fontsize=8)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(PICTURE, dpi=110)


def main(data: str) -> None:
    """Ask, keep, fill."""
    rows = read_answers(FILE, KEYS)
    drawn: dict[str, dict[str, Reading]] = {}
    for regime, seed, name in itertools.product(ASKED, SEEDS, GATES):
        run = training(BASE, regime, seed, name, data)
        if not run.complete:
            continue
        reading = read(run)
        key = (regime.name, str(seed), name)
        rows[key] = answer(KEYS, key, reading.row())
        if seed == SEEDS[0]:
            drawn.setdefault(regime.title, {})[name] = reading
    if not rows:
        return
    whole = {title: of for title, of in drawn.items() if len(of) == len(GATES)}
    if len(whole) > 1:
        draw(whole)
    keep(FILE, rows, PAGE, "reading", table(rows))


if __name__ == "__main__":
    from_command_line(__doc__, main)
