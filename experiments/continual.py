"""CIFAR-100 as a stream of ten tasks: what is kept, and what it takes.

Every row is one network that learns the tasks one after another, each from the checkpoint of the one before,
for the same number of steps: with labels alone, with a memory of 500 images, with its previous self as a
teacher, by constant or learned weights. `joint` has all images of the earlier tasks, and is a bound; `alone`
learns each task from scratch without the others. Among all classes so far (class-incremental) and among those
of the task (task-incremental).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from experiments.plan import ROOT, Run, images, shipped
from experiments.runner import main
from lightning_metakd.metrics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from lightning_metakd.reporting.markdown import fill_section, markdown

NAME, TASKS, NEW = "single_task_cifar100_stream", 10, 10
PAGE = ROOT / "docs/results/continual.md"
NONE, ALL = "--data.memory_size=0", "--data.memory_size=null"
LEARNED = (
    "--data.quiz_fraction=0.2",
    *("--model.strategy_training.lr=0.02", "--model.strategy_training.every=1"),
    "--model.strategy_training.quiz=CrossEntropy",
)
HERDING = "--trainer.callbacks+=lightning_metakd.callbacks.Herding"
ROWS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "labels alone": (None, (NONE,)),
    "LwF": ("previous_self", (NONE,)),
    "replay": (None, ()),
    "replay, herding": (None, (HERDING,)),
    "DER++ by the previous self": ("previous_self_logits", ()),
    "learned weights": ("previous_self_learned", LEARNED),
    "joint": (None, (ALL,)),
    "alone": (None, ("--data.alone=true",)),
}
"""Loss of all tasks but the first, and further words of all."""


def task(row: str, k: int, data: str, seed: int = 0) -> Run:
    """The training of a task; the first is the same for all, but for what it writes."""
    loss, options = ROWS[row]
    if not k:  # there is no previous self
        options = tuple(word for word in options if "strategy" not in word)
    n_classes = NEW if row == "alone" else NEW * (k + 1)
    words = [
        *(f"--seed_everything={seed}", f"--data.seed={seed}", images(data)),
        *(f"--data.task={k}", f"--model.student.n_classes={n_classes}", *options),
    ]
    needs: tuple[Run, ...] = ()
    if k and row != "alone":
        before = task(row, k - 1, data, seed)
        needs, last = (before,), str(before.mark)
        words.append(f"--model.initialisation.checkpoint={last}")
        if loss is not None:
            words += [f"--model.loss={shipped(f'configs/loss/{loss}.yaml')}", teacher(last, k)]
        if HERDING in options:
            words.append(f"--data.memory_file={before.mark.parents[1] / 'memory.json'}")
    return Run("fit", f"continual/{as_word(row)}/fit/task{k}", NAME, tuple(words), needs)


def teacher(checkpoint: str, k: int) -> str:
    """The option that has the previous self teach the classes that it knows."""
    network = {"width": 32, "n_classes": NEW * k, "pooling": "average"}
    settings = {
        "model": {"class_path": "Conv4", "init_args": network},
        "checkpoint": checkpoint,
        "head": {"class_path": "SlicedHead", "init_args": {"unknown": "mark"}},
    }
    teachers = [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": settings}]
    return f"--model.teachers={json.dumps(teachers)}"


def test(student: Run, row: str) -> Run:
    """The test of all tasks so far, by the settings of the training without its teachers."""
    left_out = ("--model.initialisation", "--model.teachers", "--model.loss", "--trainer")
    words = [w for w in student.options if not w.startswith((*left_out, "--model.strategy"))]
    words.append(f"--model.initialisation.checkpoint={student.mark}")
    return Run("test", student.folder.replace("/fit/", "/test/"), NAME, tuple(words), (student,))


def as_word(row: str) -> str:
    """A row's name as one word."""
    return row.replace("++", "pp").replace(", ", "_").replace(" ", "_")


def plan(data: str) -> list[Run]:
    """Every task of every row, and its test; of joint training the last alone is told."""
    return [test(task(row, k, data), row) for row in ROWS for k in range(TASKS)]


def matrix(row: str, key: str) -> Tensor:
    """Accuracy on task j (column) after learning task i (row); zero above the diagonal."""
    after = torch.zeros(TASKS, TASKS, dtype=torch.float64)
    for i in range(TASKS):
        path = Path(f"runs/continual/{as_word(row)}/test/task{i}/latest/results.jsonl")
        for line in map(json.loads, path.read_text().splitlines()):
            after[i, int(line["domain"].removeprefix("task "))] = line[key]
    return after


def table(key: str) -> str:
    """A row for each way to learn the stream."""
    alone = matrix("alone", "accuracy_within").diagonal()
    rows = []
    for row in ROWS:
        after = matrix(row, key)
        if row == "alone":
            continue
        numbers = {
            "average accuracy at the end": average_accuracy(after),
            "forgetting": forgetting(after),
            "backward transfer": backward_transfer(after),
        }
        if key == "accuracy_within":
            numbers["forward transfer"] = forward_transfer(after, alone)
        rows.append({"": row, **{name: f"{100 * n:.1f}" for name, n in numbers.items()}})
    return markdown(rows)


def heat_map(rows: Sequence[str], path: Path) -> None:
    """Matrices of accuracy among all classes so far, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, -(-len(rows) // 2), figsize=(11, 6.6), layout="constrained")
    for axis, row in zip(axes.flat, rows, strict=False):
        after = 100 * matrix(row, "accuracy")
        hidden = torch.ones_like(after).triu(1).bool()
        image = axis.imshow(after.masked_fill(hidden, torch.nan), vmin=0, vmax=100, cmap="viridis")
        axis.set_title(row, fontsize=10)
        axis.set_xticks(range(0, TASKS, 3))
        axis.set_yticks(range(0, TASKS, 3))
    for axis in axes.flat[len(rows) :]:
        axis.set_visible(False)
    figure.supxlabel("accuracy on task")
    figure.supylabel("after learning task")
    figure.colorbar(image, ax=axes, label="accuracy among all classes so far, %", shrink=0.8)
    figure.savefig(path, dpi=110)


def write_page() -> None:
    """Fill the tables and the picture of the page."""
    line = json.loads(
        Path("runs/continual/replay/test/task9/latest/results.jsonl").read_text().splitlines()[0]
    )
    made = (
        f"{line['device']}, {line['threads']} threads; seed {line['train_seed']}, {line['train_steps']} "
        f"steps a task; `make continual`; commit {str(line['git'])[:10]}"
    )
    for section, key in {"class": "accuracy", "task": "accuracy_within"}.items():
        fill_section(PAGE, f"continual-{section}", f"{table(key)}\n\n{made}")
    heat_map([row for row in ROWS if row != "alone"], PAGE.with_suffix(".png"))


if __name__ == "__main__":
    if main(plan):
        write_page()
