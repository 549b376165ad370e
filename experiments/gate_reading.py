"""What a gate for each row says, beside what it should know: whether the row's label is wrong.

`python -m experiments.gate_reading --runs <folder>` asks the gates that `experiments.regimes` has left there,
keeps their rows beside earlier ones, and fills their table and picture of `docs/where-it-pays.md`.
"""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from experiments.gate_rivals import PER_ROW
from experiments.gate_runs import BASE, SEEDS, Regime, training
from experiments.plan import ROOT, Run
from experiments.regimes import PAGE, REGIMES
from lightning_metakd.cli.command import build
from lightning_metakd.reporting.markdown import between_markers, markdown
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.types import Batch, Context

FILE = ROOT / "experiments/results/gate_reading.csv"
PICTURE = PAGE.with_name("where-it-pays-gates.png")
BINS = 25
ASKED = [regime for regime in REGIMES if regime.rate]
KEYS = ("regime", "seed")


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
            "AUROC of the gate": binary_auroc(self.gate, right).item(),
            "AUROC of the teacher": binary_auroc(self.teacher, right).item(),
            "AUROC of the student": binary_auroc(self.student, right).item(),
        }


@torch.no_grad()
def read(run: Run) -> Reading:
    """Ask the gate of a training of its rows as they are, at its end."""
    words = [word for word in run.words[1:] if word != "--resume"]
    command = build([*words, "--trainer.accelerator=cpu"], run=False)
    recipe, data = command.model, command.datamodule
    data.setup("fit")
    command.trainer.datamodule = data
    recipe.trainer = command.trainer
    recipe.setup("fit")
    recipe.on_fit_start()
    checkpoint = read_checkpoint(run.mark)
    recipe.load_state_dict(
        checkpoint["state_dict"], strict=False
    )  # teachers have files of their own
    source, classes, at = data.source, data.train_classes(), data.parts["train"]
    x, y, index, _ = source.all_rows()
    view = torch.full_like(index[at], -1)
    labels = torch.searchsorted(classes, y[at])
    inputs = source.inputs(x[at], index[at], view, recipe.student.reading)
    batch = recipe.eval().with_teacher_outputs(Batch(inputs, labels, index[at], view))
    output = recipe.student(inputs)
    gate = recipe.loss.gate(batch, Context(classes[labels], torch.ones(()), output))

    def of_label(logits: Tensor) -> Tensor:
        return logits.softmax(-1).gather(-1, labels[:, None])[:, 0]

    teacher = of_label(batch.teacher_outputs[0].logits)
    return Reading(gate, teacher, of_label(output.logits), source.wrong[at])


def kept() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the file, by regime and seed."""
    if not FILE.is_file():
        return {}
    with FILE.open(newline="") as file:
        return {(row["regime"], row["seed"]): row for row in csv.DictReader(file)}


def table(rows: dict[tuple[str, str], dict[str, str]]) -> str:
    """A line for each regime of which all seeds were asked."""
    lines = []
    for regime in ASKED:
        of_seeds = [rows.get((regime.name, str(seed))) for seed in SEEDS]
        if complete := [row for row in of_seeds if row is not None]:
            if len(complete) < len(SEEDS):
                continue
            line = {"labels": regime.title}
            for name in list(complete[0])[len(KEYS) :]:
                mean, half = over_seeds([float(row[name]) for row in complete])
                line[name] = f"{mean:.2f} ± {half:.2f}"
            lines.append(line)
    return markdown(lines)


def draw(readings: Sequence[tuple[Regime, Reading]]) -> None:
    """How often the gate says what, of right and of wrong labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (2.6 * len(readings), 2.9)
    figure, axes = pyplot.subplots(
        1, len(readings), figsize=size, layout="constrained", sharey=True
    )
    bins = torch.linspace(0, 1, BINS + 1).tolist()
    for axis, (regime, reading) in zip(axes, readings, strict=True):
        for label, at in (("right", ~reading.wrong), ("wrong", reading.wrong)):
            axis.hist(reading.gate[at].tolist(), bins, alpha=0.7, label=f"label is {label}")
        axis.set_title(regime.title, fontsize=9)
        axis.set_xlabel("gate: 0 teacher, 1 label", fontsize=8)
    axes[0].set_ylabel("training rows")
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(PICTURE, dpi=110)


def main(data: str) -> None:
    """Ask, keep, fill."""
    rows, drawn = kept(), []
    for regime in ASKED:
        for seed in SEEDS:
            run = training(BASE, regime, seed, PER_ROW, data)
            if not run.complete:
                continue
            reading = read(run)
            values = {name: str(round(value, 4)) for name, value in reading.row().items()}
            rows[regime.name, str(seed)] = {"regime": regime.name, "seed": str(seed), **values}
            if seed == SEEDS[0]:
                drawn.append((regime, reading))
    with atomic_write(FILE) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(next(iter(rows.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    if len(drawn) > 1:
        draw(drawn)
    with atomic_write(PAGE) as part:
        part.write_text(between_markers(PAGE.read_text(), "reading", table(rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default="runs", help="folder of all runs, [PATH/]runs")
    parser.add_argument("--data", type=Path, default="data", help="folder of the images")
    settings = parser.parse_args()
    images = settings.data.resolve()
    os.chdir(settings.runs.parent)
    main(os.path.relpath(images))
