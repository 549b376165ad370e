"""Makes the zoo: trains what it holds, writes it in half precision, and tests the file that was written.

What a card says of accuracy is what `metakd test` prints for `zoo:NAME`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import plain_conv4, wrong_support
from experiments.gate_rivals import DEFAULT, LEARNED_AT, PER_ROW
from experiments.gate_runs import (
    ASIDE,
    BASE,
    CONV4,
    ELSEWHERE,
    PERCEPTRON,
    Student,
    result,
    symmetric,
    training,
)
from experiments.gate_runs import tests as tests_of_rows
from experiments.plan import ROOT, Run, fit, images, shipped
from experiments.runner import main
from lightning_metakd.storage import zoo
from lightning_metakd.storage.atomic_files import atomic_write, file_sha256
from lightning_metakd.storage.read_checkpoint import (
    RECORD,
    RECORDED,
    read_checkpoint,
    student_weights,
)
from lightning_metakd.storage.tensor_file import create_tensor_file

FOLDER = ROOT / "zoo"
EVALUATE = "meta_kd_cifar_fs_5w5s_evaluate"
SHOTS = (1, 5)


class Entry(NamedTuple):
    """A file of the zoo.

    Attributes:
        training: what trains it, by the folder of images.
        model: file of its network.
        purpose: what it is for.
    """

    training: Callable[[str], Run]
    model: str
    purpose: str


ENTRIES = {
    "conv4_64_cifar_fs_start": Entry(
        lambda data: fit("single_task_cifar_fs_start", data),
        "conv4_64_average",
        "where students of CIFAR-FS begin, and what embeds it",
    ),
    "resnet12_cifar_fs_teacher": Entry(
        lambda data: fit("single_task_cifar_fs_teacher", data),
        "resnet12_256",
        "the teacher of the tables of CIFAR-FS, of 48 of the 64 base classes",
    ),
    "resnet12_cifar_fs_teacher_64": Entry(
        lambda data: fit("single_task_cifar_fs_teacher_64", data),
        "resnet12_256",
        "the teacher of the best plain Conv4-64, of all 64 base classes",
    ),
    "conv4_64_cifar_fs": Entry(
        lambda data: plain_conv4.students(data)[plain_conv4.BEST],
        "conv4_64_average",
        "the best plain Conv4-64 of CIFAR-FS: taught for long, then tuned by episodes",
    ),
}
SEED = 0


class Strategy(NamedTuple):
    """A strategy of wrong labels, of which 40 % were wrong where it was learned.

    Attributes:
        split: classes on which it was learned.
        student: that it taught there.
        row: by whose name it is carried to other classes.
        rates: percents of labels that are wrong where it is tested.
        source: of the rows.
    """

    split: str
    student: Student
    row: str
    rates: tuple[int, ...]
    source: str

    def training(self, data: str) -> Run:
        """What it was learned by."""
        return training(self.split, symmetric(LEARNED_AT, self.student), SEED, PER_ROW, data)

    def tests(self, data: str) -> dict[str, Run]:
        """What it is worth on classes that it has not met, beside rivals, by the row's name."""
        rows = [self.row, DEFAULT, "alone"]
        return {
            f"{rate} % wrong labels, {name}": run
            for rate in self.rates
            for name, run in tests_of_rows(
                ELSEWHERE, symmetric(rate, self.student), SEED, rows, data
            ).items()
        }


STRATEGIES = {
    "wrong_labels": Strategy(
        *(BASE, PERCEPTRON, "carried", (40,)),
        "CIFARFS embedded by single_task_cifar_fs_start, train, 40 % wrong labels",
    ),
    "wrong_labels_images": Strategy(
        *(ASIDE, CONV4, "carried from images", (40, 60)), "CIFARFS, val, 40 % wrong labels"
    ),
}


SUPPORT_WEIGHTS, LEARNED_BY = "support_weights", "learner.support_weight."
"""A file's name, and how the names of its tensors begin."""
SUPPORT_SOURCE = (
    "CIFARFS embedded by single_task_cifar_fs_start, train, 40 % of 10 support labels wrong"
)


def tests_of_support_weights(data: str) -> dict[str, Run]:
    """What it is worth for another network, beside counting all rows alike, by the row's name."""
    rows = {wrong_support.LEARNED: SEED, wrong_support.PLAIN: None}
    return {
        f"{wrong} % wrong of {shots} shots, {name}": wrong_support.of_network(
            name, data, shots, wrong, seed
        )
        for shots, wrong in wrong_support.ITS_TASKS
        for name, seed in rows.items()
    }


def tests(name: str, data: str) -> list[Run]:
    """Nearest class mean on the novel classes, by a file."""
    return [
        Run(
            "test",
            f"zoo/{name}/{shots}shot",
            EVALUATE,
            (
                *(images(data), f"--data.k_shot={shots}", "--model.teachers=[]"),
                f"--model.student={shipped(f'configs/model/{ENTRIES[name].model}.yaml')}",
                f"--model.initialisation.checkpoint={zoo.PREFIX}{name}",
            ),
        )
        for shots in SHOTS
    ]


def plan(data: str) -> list[Run]:
    """What is trained, and then tested, for all of it."""
    runs = []
    for name, entry in ENTRIES.items():
        runs += [entry.training(data), *tests(name, data)]
    runs += [run for s in STRATEGIES.values() for run in s.tests(data).values()]
    return [*runs, *tests_of_support_weights(data).values()]


def write_network(path: Path, checkpoint: dict[str, Any]) -> None:
    """A student's weights, matrices and kernels in half precision, with what is recorded beside them."""
    halved = {name: half(tensor) for name, tensor in student_weights(checkpoint).items()}
    in_order = dict(sorted(halved.items(), key=lambda item: -item[1].element_size()))
    record = {name: checkpoint[name] for name in RECORDED if name in checkpoint}
    write_tensors(path, in_order, {RECORD: json.dumps(record)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Tensors in a file, in their order."""
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with create_tensor_file(path, shapes, metadata) as places:
        for name, tensor in tensors.items():
            places[name].copy_(tensor)


def half(tensor: Tensor) -> Tensor:
    """In half precision where it has rows; statistics and biases stay as they are."""
    return tensor.to(torch.float16) if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def write_card(name: str, card: dict[str, Any]) -> None:
    """A card beside its file."""
    with atomic_write(FOLDER / f"{name}.json") as part:
        part.write_text(json.dumps(card, indent=1) + "\n")


def write_file(name: str, entry: Entry, run: Run) -> None:
    """A file and what its card knows before a test."""
    checkpoint = read_checkpoint(run.mark)
    path = FOLDER / f"{name}.safetensors"
    write_network(path, checkpoint)
    settings = checkpoint["settings"]
    card = {
        "purpose": entry.purpose,
        "model": f"configs/model/{entry.model}.yaml",
        "experiment": f"configs/experiment/{run.config}.yaml",
        "source": f"{settings['data.source']}, {settings.get('data.split', 'train')}",
        "n_classes": len(checkpoint.get("classes", [])),
        "seed": settings["seed_everything"],
        "steps": checkpoint["global_step"],
        "external_data": checkpoint.get("external_data", []),
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
    }
    write_card(name, card)


def write_strategy(name: str) -> None:
    """A strategy as it was learned, and its card."""
    strategy, path = STRATEGIES[name], FOLDER / f"{name}.safetensors"
    run = strategy.training("")
    learned_file = run.mark.parents[1] / "strategy.safetensors"
    with atomic_write(path) as part:
        part.write_bytes(learned_file.read_bytes())
    purpose = "how far to believe each label where some are wrong: MatchGate over Hinton at 4"
    its_row = f"{strategy.rates[0]} % wrong labels, {strategy.row}"
    write_card_of_tests(path, purpose, run, strategy.source, strategy.tests(""), its_row)


def write_card_of_tests(
    path: Path, purpose: str, run: Run, source: str, tests: dict[str, Run], its_row: str
) -> None:
    """The card of a part that was learned: what it is, by what, and what tests with it and without say.

    Args:
        its_row: row of the test whose device and commit are told.
    """
    rows = {row: result(test) for row, test in tests.items()}
    made = rows[its_row]
    card = {
        "purpose": purpose,
        "experiment": f"configs/experiment/{run.config}.yaml",
        "source": source,
        "seed": SEED,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "device": made["device"],
        "commit": str(made["git"])[:10],
        "reached": {
            f"CIFARFS test classes, {row}": {
                "accuracy": round(line["accuracy"], 4),
                "ci95": round(line["ci95"], 4),
            }
            for row, line in rows.items()
        },
    }
    write_card(path.stem, card)


def write_support_weights(name: str) -> None:
    """How much support rows count as it was learned, and its card."""
    run = wrong_support.training(wrong_support.LEARNED, SEED, "")
    path, state = FOLDER / f"{name}.safetensors", read_checkpoint(run.mark)["state_dict"]
    write_tensors(path, {n: t for n, t in state.items() if n.startswith(LEARNED_BY)}, {})
    purpose = "how much each support row counts where some of their labels are wrong: MetaWeightNet"
    tests = tests_of_support_weights("")
    write_card_of_tests(path, purpose, run, SUPPORT_SOURCE, tests, next(iter(tests)))


def make_part(
    name: str,
    tests: Callable[[str], dict[str, Run]],
    write: Callable[[str], None],
    words: list[str],
) -> None:
    """Learn, test and write what is no network where it is missing."""
    start = Path.cwd()
    if (FOLDER / f"{name}.safetensors").is_file():
        return
    if main(lambda data: list(tests(data).values()), words):
        write(name)
        os.chdir(start)


def add_accuracy(name: str) -> None:
    """What the tests of a file left."""
    card, reached = zoo.card(name), {}
    for shots in SHOTS:
        mark = Path(f"runs/zoo/{name}/{shots}shot/latest/results.jsonl")
        row = json.loads(mark.read_text().splitlines()[0])
        reached[f"{row['source']} {row['split']}, {row['n_way']}-way {shots}-shot"] = {
            "accuracy": round(row["accuracy"], 4),
            "ci95": round(row["ci95"], 4),
            "episodes": row["episodes"],
        }
        card |= {"device": row["device"], "commit": str(row["git"])[:10]}
    write_card(name, card | {"reached": reached})


def make(name: str, words: list[str]) -> None:
    """Train, write and test what is missing of a file."""
    entry, start = ENTRIES[name], Path.cwd()
    if not (FOLDER / f"{name}.safetensors").is_file():
        if not main(lambda data: [entry.training(data)], words):
            return
        FOLDER.mkdir(exist_ok=True)
        write_file(name, entry, entry.training(""))
        os.chdir(start)  # where the words are from
    if "reached" not in zoo.card(name) and main(lambda data: tests(name, data), words):
        add_accuracy(name)
        os.chdir(start)


if __name__ == "__main__":
    words_typed = sys.argv[1:]  # runs set their own
    for name_of_file in ENTRIES:
        make(name_of_file, words_typed)
    for name_of_strategy, strategy in STRATEGIES.items():
        make_part(name_of_strategy, strategy.tests, write_strategy, words_typed)
    make_part(SUPPORT_WEIGHTS, tests_of_support_weights, write_support_weights, words_typed)
