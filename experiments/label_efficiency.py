"""What a start is worth: accuracy on 20 new classes by labels a class, and the steps to reach it.

The start is random, trained on the 64 base classes by their labels, or meta-trained on them with a teacher
for as long. From each start a student is fine-tuned on the test classes of CIFAR-FS as one task, as a whole
or by its head alone; validation chooses which, for each start and number of labels, and when to stop. Every
seed draws other labels and other test images.
"""

import csv
import json
from pathlib import Path

from experiments.main_table import GATE, PLAIN
from experiments.plan import ROOT, Run, fit, images, initial_checkpoint
from experiments.runner import main
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

NAME = "single_task_cifar_fs_fine_tune"
PAGE = ROOT / "docs/results/label-efficiency.md"
SEEDS = (0, 1, 2)
STARTS = {"from scratch": None, "pretrained": PLAIN, "meta-learned with teaching": GATE}
LABELS = {"1": 1, "5": 5, "10": 10, "50": 50, "all (420)": None}
WAYS = {
    "whole": ("--model.optimisation.lr=0.03",),
    "head": ("--model.optimisation.lr=0.1", "--model.initialisation.freeze=[body]"),
}
N_CLASSES, BATCH = 20, 64
REACHED = (0.4, 0.5, 0.6)
"""Accuracies on validation to which steps are counted."""


def ways(start: str) -> list[str]:
    """How a start is fine-tuned: the head of a random network alone learns nothing worth a row."""
    return [way for way in WAYS if way != "head" or STARTS[start] is not None]


def initial(start: str, data: str) -> Run | None:
    """The training that a start is taken from, with what it needs."""
    teacher, base = (
        fit("single_task_cifar_fs_teacher", data),
        fit("single_task_cifar_fs_start", data),
    )
    needs = {PLAIN: (base,), GATE: (teacher, base)}
    name = STARTS[start]
    return None if name is None else fit(name, data, *needs[name])


def words_of_rows(labels: str, seed: int, data: str) -> tuple[str, ...]:
    """The options of the rows and of the seed, for a training and its test."""
    n = LABELS[labels]
    few = () if n is None else (f"--data.rows_per_class={n}",)
    batch = BATCH if n is None else min(BATCH, n * N_CLASSES)
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}", f"--data.split_seed={seed}")
    return (images(data), *seeds, *few, f"--data.batch_size={batch}")


def training(start: str, labels: str, way: str, seed: int, data: str) -> Run:
    """One fine-tuning."""
    before = initial(start, data)
    begins = (
        "--model.initialisation.checkpoint=null" if before is None else initial_checkpoint(before)
    )
    folder = f"label_efficiency/fit/{as_word(start)}/{as_word(labels)}/{way}/seed{seed}"
    options = (*words_of_rows(labels, seed, data), begins, *WAYS[way])
    return Run("fit", folder, NAME, options, () if before is None else (before,))


def test(run: Run, labels: str, seed: int, data: str) -> Run:
    """The test of its best checkpoint by validation."""
    best = f"--model.initialisation.checkpoint={run.mark.with_name('best.ckpt')}"
    options = (*words_of_rows(labels, seed, data), best)
    return Run("test", run.folder.replace("/fit/", "/test/"), NAME, options, (run,))


def as_word(name: str) -> str:
    """A name as one word."""
    return name.split(" (")[0].replace(" ", "_")


def plan(data: str) -> list[Run]:
    """The starts, their fine-tunings and tests."""
    return [
        test(training(start, labels, way, seed, data), labels, seed, data)
        for start in STARTS
        for labels in LABELS
        for seed in SEEDS
        for way in ways(start)
    ]


def curve(run: Run) -> list[tuple[int, float]]:
    """Steps, and accuracy on validation after them."""
    with run.mark.parents[1].joinpath("metrics.csv").open(newline="") as file:
        rows = [(row["step"], row["val/student_accuracy"]) for row in csv.DictReader(file)]
    return [(int(step) + 1, float(accuracy)) for step, accuracy in rows if accuracy]


def chosen(start: str, labels: str) -> str:
    """The way of the best mean accuracy on validation."""

    def validated(way: str) -> float:
        runs = [training(start, labels, way, seed, "") for seed in SEEDS]
        return sum(max(accuracy for _, accuracy in curve(run)) for run in runs)

    return max(ways(start), key=validated)


def result(start: str, labels: str, way: str, seed: int) -> dict[str, object]:
    """The row that a test left."""
    run = test(training(start, labels, way, seed, ""), labels, seed, "")
    return dict(json.loads(run.mark.read_text().splitlines()[0]))


def accuracies(start: str, labels: str) -> list[float]:
    """Accuracy in the test of each seed, by the chosen way."""
    way = chosen(start, labels)
    return [float(str(result(start, labels, way, seed)["accuracy"])) for seed in SEEDS]


def table() -> str:
    """A row for each start, a column for each number of labels."""
    lines = []
    for start in STARTS:
        cells = {labels: percent(*over_seeds(accuracies(start, labels))) for labels in LABELS}
        lines.append({"start": start, **cells})
    first, last = (list(STARTS)[i] for i in (1, 2))
    differences = {}
    for labels in LABELS:
        pairs = zip(accuracies(last, labels), accuracies(first, labels), strict=True)
        differences[labels] = percent(*over_seeds([a - b for a, b in pairs]), sign="+")
    lines.append({"start": f"{last}, minus {first}", **differences})
    ways_chosen = [{"start": start, **{n: chosen(start, n) for n in LABELS}} for start in STARTS]
    return f"{markdown(lines)}\n\nWhat validation chose:\n\n{markdown(ways_chosen)}"


def steps_to(accuracy: float, start: str, labels: str) -> str:
    """Median over seeds of the steps after which validation first has an accuracy."""
    way = chosen(start, labels)
    curves = [curve(training(start, labels, way, seed, "")) for seed in SEEDS]
    first = sorted(min((s for s, a in c if a >= accuracy), default=10**9) for c in curves)
    steps = first[len(first) // 2]
    return "not reached" if steps == 10**9 else str(steps)


def table_of_steps() -> str:
    """Steps with all labels until validation has an accuracy."""
    labels = list(LABELS)[-1]
    return markdown(
        [
            {"start": start, **{f"{a:.0%}": steps_to(a, start, labels) for a in REACHED}}
            for start in STARTS
        ]
    )


def plot(path: Path) -> None:
    """Accuracy by number of labels, a line for each start."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for start in STARTS:
        means, widths = zip(*(over_seeds(accuracies(start, n)) for n in LABELS), strict=True)
        axes.errorbar(
            [n or 420 for n in LABELS.values()],
            [100 * mean for mean in means],
            [100 * width for width in widths],
            marker="o",
            capsize=3,
            label=start,
        )
    axes.set(xscale="log", xlabel="labels a class", ylabel="accuracy on 20 new classes, %")
    axes.set_xticks([n or 420 for n in LABELS.values()], [*map(str, (1, 5, 10, 50, 420))])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_page() -> None:
    """Fill the tables and the picture of the page."""
    line = result("pretrained", "10", "head", 0)
    made = (
        f"{line['device']}, {line['threads']} threads; seeds {', '.join(map(str, SEEDS))}; "
        f"`make label-efficiency`; commit {str(line['git'])[:10]}"
    )
    picture = f"![accuracy by labels a class]({PAGE.stem}.png)"
    parts = {"accuracy": f"{table()}\n\n{picture}", "steps": table_of_steps()}
    for section, part in parts.items():
        fill_section(PAGE, f"label-efficiency-{section}", f"{part}\n\n{made}")
    plot(PAGE.with_suffix(".png"))


if __name__ == "__main__":
    if main(plan):
        write_page()
