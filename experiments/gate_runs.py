"""Trainings of the rivals of a learned gate, under wrong and few labels.

Most students are perceptrons over the embedding of a frozen network, whose training takes seconds, so that
every rival stands in every regime with three seeds; others are whole networks of images. Teachers learn from
the same rows; ten trusted rows a class judge, and choose among what is not learned.
"""

import csv
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments.gate_rivals import MIXED_UP, ROWS, SAME, Row, part
from experiments.plan import Run, initial_checkpoint
from lightning_metakd.data.sources.class_splits import packaged

SEEDS = (0, 1, 2)
CLASSES = {"train": 64, "test": 20, "val": 16}
"""Where a gate is learned, where it is carried to, and where one of images is learned."""
STEPS = {"train": 1500, "test": 470, "val": 376}
"""As often for each of 100 rows a class."""
FEWEST_STEPS = 300
ROWS_OF_CLASS, TRUSTED_ROWS = 600, 10
"""Images a class, and how many of them the files of the experiments keep for the quiz, and for validation."""
BASE, ELSEWHERE, ASIDE = CLASSES
CHOSEN_BY = "val/student_accuracy"


class Student(NamedTuple):
    """What learns, and by whom it is taught.

    Args:
        name: of its folders.
        config: stem of its experiment's file.
        images: option that names the folder of the images.
        network: of the student, as a configuration has it.
        teacher: the network of its teacher.
        words: further words of the teacher's training.
        share: of the student's steps that the teacher has.
        cache: whether the teacher's answers are stored.
        teacher_config: stem of the file of the teacher's training, where that is another.
        under: network of other data over whose embedding the teacher is trained.
    """

    name: str
    config: str
    images: str
    network: dict[str, Any]
    teacher: dict[str, Any]
    words: tuple[str, ...] = ()
    share: float = 1.0
    cache: bool = False
    teacher_config: str = ""
    under: dict[str, Any] | None = None


MLP = "lightning_metakd.models.MLP"
PERCEPTRON = Student(
    "perceptrons",
    "single_task_cifar_fs_wrong_labels",
    "data.source.source.source.root",
    part(MLP, width_in=64, widths=[128]),
    part(MLP, width_in=64, widths=[512]),
)
FOREIGN = PERCEPTRON._replace(
    teacher=part(MLP, width_in=1280, widths=[512]),
    cache=True,
    teacher_config="single_task_cifar_fs_foreign_teacher",
    under=part("Preprocessed", model="EfficientNetLite0", size=64),
)
"""Taught by a perceptron over a network that was trained on ImageNet."""
CONV4 = Student(
    "conv4",
    "single_task_cifar_fs_wrong_labels_images",
    "data.source.source.root",
    part("Conv4", pooling="average"),
    part("ResNet12", widths=[32, 64, 128, 256]),
    ("--model.initialisation.checkpoint=zoo:resnet12_cifar_fs_teacher",),
    share=0.5,
    cache=True,
)
"""Whole networks on images, both trained on from their starts; half the steps make a teacher know its rows by
heart."""


class Regime(NamedTuple):
    """What the labels are like, and who learns from them.

    Args:
        name: of its folders.
        title: of its table.
        rate: share of wrong labels.
        kind: which class a wrong label names.
        rows: labels a class.
        teacher: loss by which the teacher is trained, as a row's name.
        student: what learns.
        trusted: rows a class in the quiz, and as many in validation.
    """

    name: str
    title: str
    rate: float = 0.0
    kind: str = "symmetric"
    rows: int = 100
    teacher: str = "alone"
    student: Student = PERCEPTRON
    trusted: int = TRUSTED_ROWS


CLEAN = Regime("clean", "right labels")


def symmetric(share: int, student: Student = PERCEPTRON) -> Regime:
    """So many labels in a hundred are wrong, and name any other class."""
    return Regime(f"rate{share}", f"{share} % wrong", share / 100, student=student)


def as_word(name: str) -> str:
    """A row's name as one word."""
    return name.replace(", ", "_").replace(" ", "_")


def place(split: str, regime: Regime, seed: int, name: str) -> str:
    """Where a training lies."""
    return f"{regime.student.name}/fit/{split}/{regime.name}/seed{seed}/{as_word(name)}"


def mixed_up() -> dict[str, str]:
    """For each base class the next one."""
    names = packaged("cifar_fs")[BASE]
    return dict(zip(names, [*names[1:], names[0]], strict=True))


def of_data(
    split: str, regime: Regime, seed: int, data: str, labels: str = SAME
) -> tuple[str, ...]:
    """The options of the rows."""
    wrong: dict[str, Any] = {"rate": regime.rate, "kind": regime.kind}
    if labels == MIXED_UP:
        wrong = {"rate": 0.99, "kind": json.dumps(mixed_up())}
    noise = {"split": split, "seed": seed, **wrong}
    noisy = tuple(f"--data.source.{name}={value}" for name, value in noise.items())
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}", f"--data.split_seed={seed}")
    rows = [f"--data.split={split}", f"--data.rows_per_class={regime.rows}"]
    if regime.trusted != TRUSTED_ROWS:
        share = round(regime.trusted / ROWS_OF_CLASS, 4)
        rows += [f"--data.quiz_fraction={share}", f"--data.val_fraction={share}"]
    return (*rows, *noisy, *seeds, f"--{regime.student.images}={data}")


def for_classes(split: str, network: dict[str, Any]) -> dict[str, Any]:
    """A network that tells the classes of a split apart."""
    return part(network["class_path"], **network["init_args"], n_classes=CLASSES[split])


def learner(
    split: str, regime: Regime, network: dict[str, Any], share: float = 1.0
) -> tuple[str, ...]:
    """The options of a network for the classes of a split, and of how long it learns."""
    student = f"--model.student={json.dumps(for_classes(split, network))}"
    steps = round(share * max(FEWEST_STEPS, STEPS[split] * regime.rows // 100))
    return (student, *(f"--trainer.{name}={steps}" for name in ("max_steps", "val_check_interval")))


def teacher(split: str, regime: Regime, seed: int, data: str, labels: str = SAME) -> Run:
    """The training of a teacher on the same rows."""
    row = ROWS[regime.teacher]
    options = (
        *of_data(split, regime, seed, data, labels),
        *learner(split, regime, regime.student.teacher, regime.student.share),
        *regime.student.words,
        *row.words,
    )
    if regime.teacher != "alone":
        options += (f"--model.loss={json.dumps(row.loss)}",)
    name = "teacher" if labels == SAME else f"teacher {labels}"
    return Run("fit", place(split, regime, seed, name), teacher_config(regime), options)


def teacher_config(regime: Regime) -> str:
    """Stem of the file of the teacher's training."""
    return regime.student.teacher_config or regime.student.config


def learned_where(row: Row, regime: Regime) -> tuple[str, Regime]:
    """The classes and the regime of the strategy that a row carries over."""
    if row.learned_at:
        return ASIDE, symmetric(row.learned_at, regime.student)
    return BASE, regime._replace(student=PERCEPTRON)


def training(split: str, regime: Regime, seed: int, name: str, data: str) -> Run:
    """The training of a row."""
    row = ROWS[name]
    options = [*of_data(split, regime, seed, data), *learner(split, regime, regime.student.network)]
    options += [f"--model.loss={json.dumps(row.loss)}", *row.words]
    needs = [teacher(split, regime, seed, data, labels) for labels in row.pool]
    if needs:
        options.append(
            f"--model.teachers={json.dumps([as_teacher(split, regime, n) for n in needs])}"
        )
    if row.carried:
        before = training(*learned_where(row, regime), seed, row.carried, data)
        needs.append(before)
        file = before.mark.parents[1] / "strategy.safetensors"
        options.append(f"--model.initialisation.strategy_file={file}")
    config = regime.student.config
    return Run("fit", place(split, regime, seed, name), config, tuple(options), tuple(needs))


def as_teacher(split: str, regime: Regime, run: Run) -> dict[str, Any]:
    """What a run has trained, as a teacher."""
    network, student = for_classes(split, regime.student.teacher), regime.student
    of_file = {"model": network, "checkpoint": str(run.mark)}
    if student.under is not None:
        of_file = {"model": student.under, "top": network, "top_checkpoint": str(run.mark)}
    head = part("SlicedHead")
    return part("lightning_metakd.teachers.Teacher", **of_file, head=head, cache=student.cache)


def tests(split: str, regime: Regime, seed: int, names: Iterable[str], data: str) -> dict[str, Run]:
    """The test of each row, and of the teacher, on rows with right labels."""
    student = regime.student.config, regime.student.network
    of_teacher = teacher_config(regime), regime.student.teacher
    trained = {"teacher": teacher(split, regime, seed, data)}
    trained |= {name: training(split, regime, seed, name, data) for name in names}
    tested = {}
    for name, run in trained.items():
        config, network = of_teacher if name == "teacher" else student
        options = (
            *of_data(split, regime, seed, data),
            *learner(split, regime, network),
            initial_checkpoint(run),
        )
        folder = run.folder.replace("/fit/", "/test/")
        tested[name] = Run("test", folder, config, options, (run,))
    return tested


def validated(split: str, regime: Regime, seed: int, name: str) -> float:
    """Accuracy on the rows that choose."""
    return validated_by(training(split, regime, seed, name, ""))


def validated_by(run: Run) -> float:
    """What a training has reached on the rows that choose."""
    with run.mark.parents[1].joinpath("metrics.csv").open(newline="") as file:
        values = [row[CHOSEN_BY] for row in csv.DictReader(file)]
    return float([value for value in values if value][-1])


def best(split: str, regime: Regime, seed: int, names: Iterable[str]) -> str:
    """The row that validation chooses."""
    return max(names, key=lambda name: validated(split, regime, seed, name))


def result(run: Run) -> dict[str, Any]:
    """What a test has left."""
    return dict(json.loads(run.mark.read_text().splitlines()[0]))


def provenance(
    runs: Iterable[Run], target: str, seeds: Iterable[int] = SEEDS, over: str = "seeds"
) -> str:
    """What the numbers were made with."""
    lines = [result(run) for run in runs]
    commits, devices = (
        ", ".join(sorted({str(line[name])[:length] for line in lines}))
        for name, length in (("git", 10), ("device", None))
    )
    return (
        f"Percent; 95 % intervals over {over} {', '.join(map(str, seeds))}. {devices}, "
        f"{lines[0]['threads']} threads; `make {target}`; commits {commits}"
    )
