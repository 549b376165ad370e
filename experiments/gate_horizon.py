"""What raising a gate does at once, as a quiz sees it, and what it does to a training that goes on.

`python -m experiments.gate_horizon --runs <folder>` trains students halfway by a gate of 0.5, beside the
teachers that `experiments.regimes` has left there, raises the gate from 0.3 to 0.7 on the rows with right or
with wrong labels, and fills its table of `docs/where-it-pays.md`. The training is a plain one: its rate does
not fall, its momentum is not Nesterov's, and biases decay too.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.gate_rivals import DEFAULT
from experiments.gate_runs import BASE, SEEDS, STEPS, Regime, teacher, training
from experiments.kept_answers import (
    Answers,
    answer,
    from_command_line,
    keep,
    read_answers,
)
from experiments.opened_runs import held_out, opened
from experiments.plan import ROOT
from experiments.regimes import PAGE, REGIMES
from lightning_metakd.functional.params import detach_tree
from lightning_metakd.losses import (
    CalibratedCrossEntropy,
    CrossEntropy,
    GeneralisedCrossEntropy,
    Hinton,
    Loss,
)
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.types import Batch, Context, Output

FILE = ROOT / "experiments/results/gate_horizon.csv"
ASKED = [r for r in REGIMES if r.name in ("rate40", "rate60", "superclass40", "rate40_robust")]
KEYS = ("regime", "seed", "rows")
ROWS = ("right", "wrong")
LR, MOMENTUM, WEIGHT_DECAY, FOLLOW = 0.05, 0.9, 5e-4, Hinton(temperature=4.0)
"""As the training begins."""
QUIZZES = CrossEntropy(), CalibratedCrossEntropy(), GeneralisedCrossEntropy(q=0.7)
LOW, MIDDLE, HIGH = 0.3, 0.5, 0.7
PILOTS, AGAIN, LONG = 40, 5, 200
"""Pilots that are averaged, steps of a longer one on its batch, and of the training that goes on."""


class Rows(NamedTuple):
    """Training rows, their teacher's outputs among them, and which of their labels are wrong [n]."""

    batch: Batch
    wrong: Tensor


class Gates(NamedTuple):
    """A gate of rows with right labels, and one of rows with wrong ones."""

    right: float = MIDDLE
    wrong: float = MIDDLE


class Judged(NamedTuple):
    """What held-out rows say: cross-entropy, the same at the best scale, a bounded loss, and accuracy."""

    plain: float
    calibrated: float
    bounded: float
    accuracy: float

    def minus(self, other: "Judged") -> "Judged":
        """How much more of each than another has."""
        return Judged(*(a - b for a, b in zip(self, other, strict=True)))


def each_loss(loss: Loss, output: Output, batch: Batch) -> Tensor:
    """The loss of each row, by losses that ask neither for classes nor for progress."""
    return loss(output, batch, Context(batch.y, torch.ones(()), detach_tree(output)))


def teaching_loss(student: nn.Module, rows: Rows, gates: Gates) -> Tensor:
    """Mean over rows of g CE(y, S) + (1 - g) T^2 KL(F || S)."""
    output = student(rows.batch.x)
    gate = torch.where(rows.wrong, gates.wrong, gates.right)
    alone, follow = (each_loss(loss, output, rows.batch) for loss in (CrossEntropy(), FOLLOW))
    return (gate * alone + (1 - gate) * follow).mean()


def train(student: nn.Module, batches: Iterable[Rows], gates: Gates, momentum: float) -> nn.Module:
    """A copy of the student after a step on each batch."""
    student = copy.deepcopy(student)
    descent = torch.optim.SGD(
        student.parameters(), lr=LR, momentum=momentum, weight_decay=WEIGHT_DECAY
    )
    for rows in batches:
        descent.zero_grad()
        teaching_loss(student, rows, gates).backward()
        descent.step()
    return student


@torch.no_grad()
def judge(student: nn.Module, batch: Batch) -> Judged:
    """What rows with right labels say."""
    output = student(batch.x)
    losses = (each_loss(loss, output, batch).mean().item() for loss in QUIZZES)
    return Judged(*losses, (output.logits.argmax(-1) == batch.y).float().mean().item())


def raised(group: str) -> tuple[Gates, Gates]:
    """Gates that are low, and high, for one group of rows."""
    return Gates(**{group: LOW}), Gates(**{group: HIGH})


def effect(
    student: nn.Module,
    batches: Sequence[Rows],
    group: str,
    held_out: Batch,
    momentum: float,
) -> Judged:
    """What a raised gate adds to what held-out rows say, after a step on each batch."""
    low, high = (
        judge(train(student, batches, gates, momentum), held_out) for gates in raised(group)
    )
    return high.minus(low)


class Material:
    """The rows of a regime and seed, as a recipe of its own reads them.

    Args:
        regime: what labels are like.
        seed: of everything.
        data: folder of the images.
    """

    def __init__(self, regime: Regime, seed: int, data: str) -> None:
        self.recipe, self.data = opened(training(BASE, regime, seed, DEFAULT, data))
        self.wrong = torch.zeros(int(self.source.all_rows().index.max()) + 1, dtype=torch.bool)
        self.wrong[self.source.all_rows().index] = self.source.wrong

    @property
    def source(self) -> Any:
        """The rows, some of whose labels are wrong."""
        return self.data.source

    def batches(self) -> Iterator[Rows]:
        """The batches of the training, step by step and without end."""
        batches = self.data.train_dataloader().loader.dataset
        for step in itertools.count():
            with torch.no_grad():
                rows, _ = self.data.on_after_batch_transfer(batches[step], 0)
                rows = self.recipe.with_teacher_outputs(rows)
            yield Rows(rows, self.wrong[rows.index])


def ask(regime: Regime, seed: int, data: str) -> dict[str, dict[str, float]]:
    """For each group of rows, what a raised gate adds, in thousandths of loss and points of accuracy."""
    material = Material(regime, seed, data)
    torch.manual_seed(seed)
    stream = material.batches()
    student = train(
        material.recipe.student, itertools.islice(stream, STEPS[BASE] // 2), Gates(), MOMENTUM
    )
    pilots, ahead = list(itertools.islice(stream, PILOTS)), list(itertools.islice(stream, LONG))
    quiz, test = (held_out(material.recipe, material.data, part) for part in ("quiz", "test"))
    answers = {}
    for group in ROWS:
        once = [effect(student, [rows], group, quiz, 0.0) for rows in pilots]
        again = [effect(student, [rows] * AGAIN, group, quiz, 0.0) for rows in pilots]
        later = effect(student, ahead, group, test, MOMENTUM)
        answers[group] = {
            "one step, cross-entropy": 1e3 * fmean(e.plain for e in once),
            "one step, calibrated": 1e3 * fmean(e.calibrated for e in once),
            "one step, bounded": 1e3 * fmean(e.bounded for e in once),
            f"{AGAIN} steps on its batch, calibrated": 1e3 * fmean(e.calibrated for e in again),
            f"{LONG} steps, cross-entropy": 1e3 * later.plain,
            f"{LONG} steps, calibrated": 1e3 * later.calibrated,
            f"{LONG} steps, accuracy": 100 * later.accuracy,
        }
    return answers


def table(rows: Answers) -> str:
    """A line for each regime and group of which all seeds were asked."""
    lines = []
    for regime in ASKED:
        for group in ROWS:
            of_seeds = [rows.get((regime.name, str(seed), group)) for seed in SEEDS]
            complete = [row for row in of_seeds if row is not None]
            if len(complete) < len(SEEDS):
                continue
            line = {"labels": regime.title, "gate raised where they are": group}
            for name in list(complete[0])[len(KEYS) :]:
                mean, half = over_seeds([float(row[name]) for row in complete])
                line[name] = f"{mean:+.2f} ± {half:.2f}"
            lines.append(line)
    return markdown(lines) if lines else ""


def main(data: str) -> None:
    """Ask, keep, fill."""
    rows = read_answers(FILE, KEYS)
    for regime in ASKED:
        for seed in SEEDS:
            is_kept = (regime.name, str(seed), ROWS[0]) in rows
            if is_kept or not teacher(BASE, regime, seed, data).complete:
                continue
            for group, values in ask(regime, seed, data).items():
                key = (regime.name, str(seed), group)
                rows[key] = answer(KEYS, key, values)
    if rows:
        keep(FILE, rows, PAGE, "horizon", table(rows))


if __name__ == "__main__":
    from_command_line(__doc__, main)
