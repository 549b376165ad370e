"""Specialists: four teachers of a quarter of the base classes each, and one of all that has seen little.

A specialist takes every picture for something of its own, and each has another scale of its logits. The
student has ten rows a class, and ten more that judge; which teacher is to be believed differs by row.
"""

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from experiments.gate_rivals import SHUFFLED, part
from experiments.gate_runs import (
    FEWEST_STEPS,
    MLP,
    SEEDS,
    as_word,
    provenance,
    result,
    validated_by,
)
from experiments.plan import ROOT, Run, initial_checkpoint
from experiments.runner import main
from experiments.stacking import Stacked
from lightning_metakd.data.sources.class_splits import packaged
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE, CONFIG = ROOT / "docs/where-it-pays.md", "single_task_cifar_fs_specialists"
LISTS = packaged("cifar_fs")
BASE = LISTS["train"]
QUARTERS = [BASE[k::4] for k in range(4)]
ROWS_OF_SPECIALIST, ROWS_OF_GENERALIST, ROWS_OF_STUDENT = 400, 10, 10
STEPS_OF_SPECIALIST = 1500
SCALES = (0.5, 1.0, 2.0, 4.0, 1.0)
"""By which the logits of each teacher are multiplied, the generalist's last."""
POOL = [f"specialist {k}" for k in range(4)] + ["generalist"]
GENERALIST = len(POOL) - 1


class Row(NamedTuple):
    """A way to train the student.

    Args:
        loss: as a configuration has it.
        words: further words of the command.
        scales: of each teacher's logits; None has it calibrated by the rows that judge.
    """

    loss: dict[str, Any]
    words: tuple[str, ...] = ()
    scales: Sequence[float | None] = SCALES


def pooled(weights: Any) -> dict[str, Any]:
    """Half learning alone, half following teachers of these weights."""
    pool = part("MultiTeacher", loss=part("Hinton", temperature=4.0), weights=weights)
    return part("MatchGate", gate=0.5, match=pool)


def followed(
    weights: Any, words: tuple[str, ...] = (), scales: Sequence[float | None] = SCALES
) -> Row:
    """A row by teachers of these weights."""
    return Row(pooled(weights), words, scales)


def single(k: int) -> Row:
    """Half following one teacher."""
    of_teacher = part("OfTeacher", teacher=k, loss=part("Hinton", temperature=4.0))
    return Row(part("MatchGate", gate=0.5, match=of_teacher))


PER_ROW, ALIKE, CALIBRATED = "learned per teacher and row", "all logits times 1.0", "calibrated"
UNKNOWN = [None] * len(POOL)
UNIFORM_CALIBRATED = f"uniform, {CALIBRATED}"
SINGLES = {f"{name} alone": single(k) for k, name in enumerate(POOL)}
ROWS = {
    "no teacher": Row(part("CrossEntropy")),
    **SINGLES,
    "uniform": followed(1.0),
    "uniform, all logits times 0.5": followed(1.0, scales=[0.5] * len(POOL)),
    f"uniform, {ALIKE}": followed(1.0, scales=[1.0] * len(POOL)),
    UNIFORM_CALIBRATED: followed(1.0, scales=UNKNOWN),
    "by confidence": followed(part("Confidence", power=1.0)),
    "most confident": followed(part("Confidence", power=30.0)),
    "by probability of the label": followed(part("Posterior", rate=0.5)),
    "learned per teacher": followed([part("Learned")] * len(POOL)),
    PER_ROW: followed(part("LearnedPerSample")),
    f"{PER_ROW}, {ALIKE}": followed(part("LearnedPerSample"), scales=[1.0] * len(POOL)),
    f"{PER_ROW}, {CALIBRATED}": followed(part("LearnedPerSample"), scales=UNKNOWN),
    f"{PER_ROW}, shuffled quiz": followed(part("LearnedPerSample"), SHUFFLED),
}
STACKED = f"stacked, {CALIBRATED}"
"""By weights that are fitted on the rows that judge, for teachers that are calibrated by them."""
BEST_SINGLE = "best single teacher by validation"
TRAINED = [*ROWS, STACKED]
SHOWN = ["no teacher", BEST_SINGLE, *TRAINED[1 + len(POOL) :]]


def of_data(classes: list[str], rows: int, seed: int, data: str) -> tuple[str, ...]:
    """The options of the rows, and as many steps for each of them where it is not too few to learn from.

    Teachers and student divide the images of a class alike: none trains on what judges, chooses or tests.
    """
    lists = {**LISTS, "train": classes}
    source = part("lightning_metakd.data.sources.CIFAR100ByClass", splits=lists, root=data)
    share = rows * len(classes) / (ROWS_OF_SPECIALIST * len(QUARTERS[0]))
    steps = max(FEWEST_STEPS, round(STEPS_OF_SPECIALIST * share))
    return (
        f"--data.source.source={json.dumps(source)}",
        *(f"--seed_everything={seed}", f"--data.seed={seed}", f"--data.split_seed={seed}"),
        f"--data.rows_per_class={rows}",
        *(f"--trainer.{name}={steps}" for name in ("max_steps", "val_check_interval")),
    )


def network(width: int, n_classes: int) -> dict[str, Any]:
    """A perceptron over embeddings."""
    return part(MLP, width_in=64, widths=[width], n_classes=n_classes)


def teacher(k: int, seed: int, data: str) -> Run:
    """The training of a teacher on its own classes."""
    is_general = k == GENERALIST
    classes = BASE if is_general else QUARTERS[k]
    rows = ROWS_OF_GENERALIST if is_general else ROWS_OF_SPECIALIST
    student = f"--model.student={json.dumps(network(512, len(classes)))}"
    options = (*of_data(classes, rows, seed, data), student)
    return Run("fit", f"specialists/fit/seed{seed}/{as_word(POOL[k])}", CONFIG, options)


def as_teacher(k: int, run: Run, scale: float | None) -> dict[str, Any]:
    """What a run has trained, as a teacher of all base classes."""
    return part(
        "lightning_metakd.teachers.Teacher",
        model=network(512, len(BASE if k == GENERALIST else QUARTERS[k])),
        checkpoint=str(run.mark),
        head=part("SlicedHead", scale=scale, unknown="least"),
    )


def training(name: str, seed: int, data: str) -> Run:
    """The training of a row."""
    row = ROWS[UNIFORM_CALIBRATED if name == STACKED else name]
    needs = [teacher(k, seed, data) for k in range(len(POOL))] if name != "no teacher" else []
    teachers = json.dumps([as_teacher(k, run, row.scales[k]) for k, run in enumerate(needs)])
    options = (*of_data(BASE, ROWS_OF_STUDENT, seed, data), f"--model.teachers={teachers}")
    folder = f"specialists/fit/seed{seed}/{as_word(name)}"
    if name == STACKED:
        uniform = training(UNIFORM_CALIBRATED, seed, data)
        return Stacked("fit", folder, CONFIG, options, tuple(needs), uniform=uniform, loss=pooled)
    options = (*options, f"--model.loss={json.dumps(row.loss)}", *row.words)
    return Run("fit", folder, CONFIG, options, tuple(needs))


def test(name: str, seed: int, data: str) -> Run:
    """The test of a row."""
    run = training(name, seed, data)
    options = (*of_data(BASE, ROWS_OF_STUDENT, seed, data), initial_checkpoint(run))
    return Run("test", run.folder.replace("/fit/", "/test/"), CONFIG, options, (run,))


def plan(data: str) -> list[Run]:
    """All rows."""
    return [test(name, seed, data) for seed in SEEDS for name in TRAINED]


def table() -> str:
    """Accuracy of each row, its difference to the uniform pool, and its cost."""
    columns = {n: [result(test(n, k, ""))["accuracy"] for k in SEEDS] for n in TRAINED}
    seconds = {n: fmean(result(test(n, k, ""))["wall_s"] for k in SEEDS) for n in TRAINED}
    columns[BEST_SINGLE] = []
    for place, seed in enumerate(SEEDS):
        chosen = max(SINGLES, key=lambda name: validated_by(training(name, seed, "")))
        columns[BEST_SINGLE].append(columns[chosen][place])
    seconds[BEST_SINGLE] = sum(seconds[name] for name in SINGLES)
    lines = []
    for name in SHOWN:
        minus = [a - b for a, b in zip(columns[name], columns["uniform"], strict=True)]
        lines.append(
            {
                "": name,
                "accuracy": percent(*over_seeds(columns[name])),
                "minus uniform": "-"
                if name == "uniform"
                else percent(*over_seeds(minus), sign="+"),
                "cost, runs": f"{seconds[name] / seconds['uniform']:.1f}",
            }
        )
    return markdown(lines)


def write_page() -> None:
    """Fill the section of the page."""
    runs = (test(name, seed, "") for name in TRAINED for seed in SEEDS)
    fill_section(PAGE, "specialists", f"{table()}\n\n{provenance(runs, 'specialists')}")


if __name__ == "__main__":
    if main(plan):
        write_page()
