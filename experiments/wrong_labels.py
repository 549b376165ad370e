"""Wrong labels: what a learned gate is worth where it was learned, and carried to classes it has never met.

Students and teachers are perceptrons over the embedding of the frozen Conv4-64 start, trained on 100 rows a
class of which a part has wrong labels, the teacher plainly. On the 64 base classes a gate for each row is
learned by ten trusted rows a class. It is then carried, as it is, to the 20 test classes, whose trusted rows
it does not see: they choose the best constant and robust loss, and train what is learned there.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.plan import ROOT, Run, fit, initial_checkpoint
from experiments.runner import main
from lightning_metakd.reporting.markdown import between_markers, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.atomic_files import atomic_write

NAME = "single_task_cifar_fs_wrong_labels"
PAGE = ROOT / "docs/results/wrong-labels.md"
SEEDS, RATES = (0, 1, 2), (0.2, 0.4, 0.6)
CLASSES = {"train": 64, "test": 20}
"""Where a gate is learned, and where it is carried to."""
STEPS = {"train": 1500, "test": 470}
"""As often for each row."""
BASE, ELSEWHERE = CLASSES
CONSTANTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
STUDENT, TEACHER = 128, 512
"""Hidden units."""
LEARNING = ("--model.strategy_training.lr=0.005",)
CALIBRATED = (*LEARNING, "--model.strategy_training.quiz=CalibratedCrossEntropy")
SHUFFLED = "--model.strategy_training.control=shuffled"
FINAL = "--model.strategy_training.control=final_constant"


def gated(gate: Any) -> dict[str, Any]:
    """Match-Gate at a temperature of 4."""
    match = {"class_path": "Hinton", "init_args": {"temperature": 4.0}}
    return {"class_path": "MatchGate", "init_args": {"gate": gate, "match": match}}


def part(class_path: str, **settings: Any) -> dict[str, Any]:
    """A component of the configuration."""
    return {"class_path": class_path, "init_args": settings}


PER_SAMPLE = gated(part("LearnedPerSample"))
WEIGHED = part(
    "WeightedSum",
    terms={"labels": part("CrossEntropy")},
    weights={"labels": part("MetaWeightNet")},
)
Row = tuple[dict[str, Any], tuple[str, ...]]
OF_LABELS: dict[str, Row] = {
    "alone": (part("CrossEntropy"), ()),
    "label smoothing": (part("CrossEntropy", label_smoothing=0.1), ()),
    "Meta-Weight-Net": (WEIGHED, LEARNING),
}
"""Rows without a teacher: their loss and further words."""
RATES_OF_ROBUST = ("0.05", "0.2")
ROBUST: dict[str, Row] = {
    f"{name}, lr {lr}": (loss, (f"--model.optimisation.lr={lr}",))
    for lr in RATES_OF_ROBUST
    for name, loss in {
        "GCE 0.4": part("GeneralisedCrossEntropy", q=0.4),
        "GCE 0.7": part("GeneralisedCrossEntropy", q=0.7),
        "SCE": part("SymmetricCrossEntropy", alpha=6.0, beta=0.1),
    }.items()
}
"""Losses made for wrong labels; where they are small for most rows they want longer steps."""
CONSTANT: dict[str, Row] = {f"constant {gate:g}": (gated(gate), ()) for gate in CONSTANTS}
TAUGHT: dict[str, Row] = {
    **CONSTANT,
    "rule, threshold 0.1": (gated(part("Threshold", threshold=0.1)), ()),
    "learned scalar": (gated(part("Learned")), LEARNING),
    "learned per row": (PER_SAMPLE, LEARNING),
    "learned per row, calibrated quiz": (PER_SAMPLE, CALIBRATED),
    "learned per row, shuffled quiz": (PER_SAMPLE, (*LEARNING, SHUFFLED)),
}
CARRIED = {
    "carried": ("learned per row", ()),
    "carried, its mean alone": ("learned per row", (*LEARNING, FINAL)),
    "carried, shuffled quiz": ("learned per row, shuffled quiz", ()),
}
"""Rows of the second classes by a strategy of the first: whose it is, and how it is used."""
CHOSEN = {"best constant by validation": CONSTANT, "best robust loss by validation": ROBUST}
"""Rows that are the best of others on the rows that choose, in each seed."""


def rows_of(split: str) -> list[str]:
    """The rows that are trained."""
    return [*OF_LABELS, *ROBUST, *TAUGHT, *(CARRIED if split == ELSEWHERE else ())]


def as_word(name: str) -> str:
    """A row's name as one word."""
    return name.replace(", ", "_").replace(" ", "_")


def place(split: str, rate: float, seed: int, name: str) -> str:
    """Where a row's training lies."""
    return f"wrong_labels/fit/{split}/rate{100 * rate:.0f}/seed{seed}/{as_word(name)}"


def of_data(split: str, rate: float, seed: int, data: str) -> tuple[str, ...]:
    """The options of the rows."""
    noise = f"--data.source.split={split}", f"--data.source.rate={rate}"
    seeds = tuple(f"--data.{name}={seed}" for name in ("seed", "split_seed", "source.seed"))
    images = f"--data.source.source.source.root={data}"
    return (f"--data.split={split}", *noise, f"--seed_everything={seed}", *seeds, images)


def perceptron(split: str, width: int) -> tuple[str, ...]:
    """The options of a student for the classes of a split."""
    size = f"--model.student.widths=[{width}]", f"--model.student.n_classes={CLASSES[split]}"
    steps = (f"--trainer.{name}={STEPS[split]}" for name in ("max_steps", "val_check_interval"))
    return (*size, *steps)


def teacher(split: str, rate: float, seed: int, data: str) -> Run:
    """A wider perceptron on the same labels."""
    options = (*of_data(split, rate, seed, data), *perceptron(split, TEACHER))
    folder = place(split, rate, seed, "teacher")
    return Run("fit", folder, NAME, options, (fit("single_task_cifar_fs_start", data),))


def training(split: str, name: str, rate: float, seed: int, data: str) -> Run:
    """The training of a row."""
    options: list[str] = [*of_data(split, rate, seed, data), *perceptron(split, STUDENT)]
    helper = teacher(split, rate, seed, data)
    needs = [helper]
    source, usage = CARRIED.get(name, (name, ()))
    loss, words = {**OF_LABELS, **ROBUST, **TAUGHT}[source]
    options.append(f"--model.loss={json.dumps(loss)}")
    if name in CARRIED:
        before = training(BASE, source, rate, seed, data)
        needs.append(before)
        file = Path("runs", before.folder, "latest/strategy.safetensors")
        options += [f"--model.initialisation.strategy_file={file}", *usage]
    else:
        options += words
    if source in TAUGHT:
        network = part("lightning_metakd.models.MLP", width_in=64, widths=[TEACHER])
        network["init_args"]["n_classes"] = CLASSES[split]
        settings = {"model": network, "checkpoint": str(helper.mark), "head": part("SlicedHead")}
        pool = [part("lightning_metakd.teachers.Teacher", **settings)]
        options.append(f"--model.teachers={json.dumps(pool)}")
    return Run("fit", place(split, rate, seed, name), NAME, tuple(options), tuple(needs))


def test(run: Run, split: str, rate: float, seed: int, data: str, width: int) -> Run:
    """Its test, on rows with right labels."""
    options = (
        *of_data(split, rate, seed, data),
        *perceptron(split, width),
        initial_checkpoint(run),
    )
    return Run("test", run.folder.replace("/fit/", "/test/"), NAME, options, (run,))


def tests(split: str, rate: float, seed: int, data: str) -> dict[str, Run]:
    """The test of each row, and of the teacher."""
    helper = teacher(split, rate, seed, data)
    rows = {
        name: test(training(split, name, rate, seed, data), split, rate, seed, data, STUDENT)
        for name in rows_of(split)
    }
    return {"teacher": test(helper, split, rate, seed, data, TEACHER), **rows}


def plan(data: str) -> list[Run]:
    """All rows at all rates."""
    return [
        run
        for rate in RATES
        for seed in SEEDS
        for split in CLASSES
        for run in tests(split, rate, seed, data).values()
    ]


def validated(split: str, name: str, rate: float, seed: int) -> float:
    """Accuracy on the rows that choose."""
    run = training(split, name, rate, seed, "")
    with run.mark.parents[1].joinpath("metrics.csv").open(newline="") as file:
        values = [row["val/student_accuracy"] for row in csv.DictReader(file)]
    return float([value for value in values if value][-1])


def best(rows: Iterable[str], split: str, rate: float, seed: int) -> str:
    """The row that validation chooses."""
    return max(rows, key=lambda name: validated(split, name, rate, seed))


def accuracies(split: str, rate: float) -> dict[str, list[float]]:
    """Accuracy in the test by row and seed, those that validation chooses among them."""
    result: dict[str, list[float]] = {}
    for seed in SEEDS:
        runs = tests(split, rate, seed, "")
        for name, rows in CHOSEN.items():
            runs[name] = runs[best(rows, split, rate, seed)]
        for name, run in runs.items():
            line = json.loads(run.mark.read_text().splitlines()[0])
            result.setdefault(name, []).append(line["accuracy"])
    constants = [max(result[name][k] for name in CONSTANT) for k in range(len(SEEDS))]
    return {**result, "best constant in the test": constants}


def table(split: str) -> str:
    """A column for each rate, and one for the difference to the best constant by validation."""
    columns = {rate: accuracies(split, rate) for rate in RATES}
    rival, first = next(iter(CHOSEN)), ("teacher", "best constant in the test", *CHOSEN)
    rows = [*first, *(n for n in rows_of(split) if n not in CONSTANT and n not in ROBUST)]
    lines = []
    for name in rows:
        line = {"": name}
        for rate, column in columns.items():
            line[f"{rate:.0%} wrong"] = percent(*over_seeds(column[name]))
            differences = [a - b for a, b in zip(column[name], column[rival], strict=True)]
            line[f"minus it, {rate:.0%}"] = (
                "-" if name == rival else percent(*over_seeds(differences), sign="+")
            )
        lines.append(line)
    return markdown(lines)


def write_page() -> None:
    """Fill the tables of the page."""
    run = tests(BASE, 0.4, 0, "")["alone"]
    line = json.loads(run.mark.read_text().splitlines()[0])
    made = (
        f"Percent; 95 % intervals over seeds {', '.join(map(str, SEEDS))}. {line['device']}, "
        f"{line['threads']} threads; `make wrong-labels`; "
        f"commit {str(line['git'])[:10]}"
    )
    text = PAGE.read_text()
    for split in CLASSES:
        text = between_markers(
            text, f"wrong-labels-{split}", f"{table(split)}\n\n{STEPS[split]} steps. {made}"
        )
    with atomic_write(PAGE) as file:
        file.write_text(text)


if __name__ == "__main__":
    if main(plan):
        write_page()
