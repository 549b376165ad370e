"""Rivals of a learned gate, under wrong and few labels.

Most students are perceptrons over the embedding of a frozen network, whose training takes seconds, so that
every rival stands in every regime with three seeds; others are whole networks of images. Teachers learn from
the same rows; ten trusted rows a class judge, and choose among what is not learned.
"""

import csv
import json
import random
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiments.plan import Run, fit, initial_checkpoint
from lightning_metakd.data.sources.class_splits import packaged

SEEDS = (0, 1, 2)
CLASSES = {"train": 64, "test": 20}
"""Where a gate is learned, and where it is carried to."""
STEPS = {"train": 1500, "test": 470}
"""As often for each of 100 rows a class."""
FEWEST_STEPS = 300
BASE, ELSEWHERE = CLASSES
LEARNING = ("--model.strategy_training.lr=0.005",)
ANEW = ("--model.strategy_training.lr=1", "--model.optimisation.strategy_optimiser=sgd")
CALIBRATED = (*LEARNING, "--model.strategy_training.quiz=CalibratedCrossEntropy")
SHUFFLED = (*LEARNING, "--model.strategy_training.control=shuffled")
FINAL = (*LEARNING, "--model.strategy_training.control=final_constant")


class Student(NamedTuple):
    """What learns, and by whom it is taught.

    Args:
        name: of its folders.
        config: stem of its experiment's file.
        images: option that names the folder of the images.
        network: of the student, as a configuration has it.
        teacher: the network of its teacher.
        words: further words of the teacher's training.
        cache: whether the teacher's answers are stored.
    """

    name: str
    config: str
    images: str
    network: dict[str, Any]
    teacher: dict[str, Any]
    words: tuple[str, ...] = ()
    cache: bool = False


def part(class_path: str, **settings: Any) -> dict[str, Any]:
    """A component of the configuration."""
    return {"class_path": class_path, "init_args": settings}


MLP = "lightning_metakd.models.MLP"
PERCEPTRON = Student(
    "perceptrons",
    "single_task_cifar_fs_wrong_labels",
    "data.source.source.source.root",
    part(MLP, width_in=64, widths=[128]),
    part(MLP, width_in=64, widths=[512]),
)
CONV4 = Student(
    "conv4",
    "single_task_cifar_fs_wrong_labels_images",
    "data.source.source.root",
    part("Conv4", pooling="average"),
    part("ResNet12", widths=[32, 64, 128, 256]),
    (
        "--model.initialisation.checkpoint=zoo:resnet12_cifar_fs_teacher",
        *("--trainer.max_steps=235", "--trainer.val_check_interval=235"),
    ),
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
    """

    name: str
    title: str
    rate: float = 0.0
    kind: str = "symmetric"
    rows: int = 100
    teacher: str = "alone"
    student: Student = PERCEPTRON


class Row(NamedTuple):
    """A way to train a student.

    Args:
        loss: as a configuration has it.
        words: further words of the command.
        carried: row of perceptrons and the base classes whose strategy it takes, as it is.
        pool: its teachers, by what their labels are like.
    """

    loss: dict[str, Any]
    words: tuple[str, ...] = ()
    carried: str = ""
    pool: tuple[str, ...] = ()


SAME, MIXED_UP = "same", "mixed up"
"""Labels of a teacher: those of the student, or those of the class before."""


def gated(
    gate: Any, words: tuple[str, ...] = (), *, temperature: Any = 4.0, carried: str = ""
) -> Row:
    """A row by Match-Gate."""
    loss = part("MatchGate", gate=gate, match=part("Hinton", temperature=temperature))
    return Row(loss, words, carried, (SAME,))


ALONE = {
    "alone": Row(part("CrossEntropy")),
    "label smoothing": Row(part("CrossEntropy", label_smoothing=0.1)),
}
WEIGHED = {
    name: Row(
        part(
            "WeightedSum",
            terms={"labels": part("CrossEntropy")},
            weights={"labels": part(weight)},
        ),
        words,
    )
    for name, weight, words in (
        ("Meta-Weight-Net", "MetaWeightNet", LEARNING),
        ("learning to reweight", "LearningToReweight", ANEW),
    )
}
ROBUST = {
    f"{name}, lr {lr}": Row(loss, (f"--model.optimisation.lr={lr}",))
    for lr in ("0.05", "0.2")
    for name, loss in {
        "GCE 0.4": part("GeneralisedCrossEntropy", q=0.4),
        "GCE 0.7": part("GeneralisedCrossEntropy", q=0.7),
        "SCE": part("SymmetricCrossEntropy", alpha=6.0, beta=0.1),
    }.items()
}
"""Losses made for wrong labels; where they are small for most rows they want longer steps."""
DEFAULT = "constant 0.5"
CONSTANTS = {f"constant {gate:g}": gated(gate) for gate in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)}
TRUSTED = {
    f"constant {gate:g}, trusted rows thrice": gated(gate, ("--data.quiz_in_training=3",))
    for gate in (0.1, 0.5, 0.9)
}
"""The rows that judge, used plainly: they train, and choose nothing."""
RULES = {"rule, threshold 0.1": gated(part("Threshold", threshold=0.1))}
PER_ROW = "learned per row"
LEARNED = {
    "learned scalar": gated(part("Learned"), LEARNING),
    PER_ROW: gated(part("LearnedPerSample"), LEARNING),
}
QUIZZES = {
    f"{PER_ROW}, calibrated quiz": gated(part("LearnedPerSample"), CALIBRATED),
    f"{PER_ROW}, shuffled quiz": gated(part("LearnedPerSample"), SHUFFLED),
}
STARTS = {
    f"{PER_ROW}, from gate {gate} and temperature {temperature:g}": gated(
        part("LearnedPerSample", init=gate),
        LEARNING,
        temperature=part("Learned", init=temperature),
    )
    for gate, temperature in ((0.05, 16.0), (0.95, 1.0))
}
"""A gate and a temperature that begin where they do harm."""
CARRIED = {
    "carried": gated(part("LearnedPerSample"), carried=PER_ROW),
    "carried, its mean alone": gated(part("LearnedPerSample"), FINAL, carried=PER_ROW),
    "carried, shuffled quiz": gated(part("LearnedPerSample"), carried=f"{PER_ROW}, shuffled quiz"),
}


def drawn(n: int) -> dict[str, Row]:
    """A random search: gates of (0, 1) and temperatures of 1 to 16, on a scale of logarithms."""
    generator = random.Random(0)
    pairs = [(round(generator.random(), 2), round(16 ** generator.random(), 2)) for _ in range(n)]
    return {
        f"random {i}, gate {gate:g}, temperature {temperature:g}": gated(
            gate, temperature=temperature
        )
        for i, (gate, temperature) in enumerate(pairs)
    }


SEARCHED = drawn(8)
MANY = ("labels", "hinton", "rkd", "similarity", "dkd", "mixed up")
"""Terms of a loss of many coefficients; the last follows a teacher whose classes are mixed up."""


def many(weights: Mapping[str, Any], temperature: Any, words: tuple[str, ...] = ()) -> Row:
    """A row of all terms by two teachers."""
    soft = part("Hinton", temperature=temperature)
    of_teacher = {
        "hinton": (0, soft),
        "rkd": (0, part("RKD", distance=25.0, angle=0.0)),
        "similarity": (0, part("SimilarityPreserving", weights=50.0)),
        "dkd": (0, part("DKD")),
        "mixed up": (1, soft),
    }
    terms = {"labels": part("CrossEntropy")}
    terms |= {
        name: part("OfTeacher", teacher=k, loss=loss) for name, (k, loss) in of_teacher.items()
    }
    loss = part("WeightedSum", terms=terms, weights=dict(weights))
    return Row(loss, words, pool=(SAME, MIXED_UP))


def drawn_many(n: int) -> dict[str, Row]:
    """A random search over all coefficients, on a scale of logarithms: weights of 0.02 to 2."""
    generator = random.Random(0)
    draws = [
        ({name: round(0.02 * 100 ** generator.random(), 3) for name in MANY}, generator.random())
        for _ in range(n)
    ]
    return {f"many, random {i}": many(w, round(16**t, 2)) for i, (w, t) in enumerate(draws)}


ALL_LEARNED = dict.fromkeys(MANY, part("Learned", init=1 / len(MANY)))
OF_MANY = {
    "many, uniform": many(dict.fromkeys(MANY, 1 / len(MANY)), 4.0),
    "many, halves": many(dict.fromkeys(MANY, 0.0) | {"labels": 0.5, "hinton": 0.5}, 4.0),
    "many, learned": many(ALL_LEARNED, part("Learned", init=4.0), LEARNING),
    "many, learned, shuffled quiz": many(ALL_LEARNED, part("Learned", init=4.0), SHUFFLED),
}
SEARCHED_MANY = drawn_many(24)
ROWS = {
    **ALONE,
    **WEIGHED,
    **ROBUST,
    **CONSTANTS,
    **TRUSTED,
    **RULES,
    **LEARNED,
    **QUIZZES,
    **STARTS,
    **CARRIED,
    **SEARCHED,
    **OF_MANY,
    **SEARCHED_MANY,
}


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
    rows = f"--data.split={split}", f"--data.rows_per_class={regime.rows}"
    return (*rows, *noisy, *seeds, f"--{regime.student.images}={data}")


def for_classes(split: str, network: dict[str, Any]) -> dict[str, Any]:
    """A network that tells the classes of a split apart."""
    return part(network["class_path"], **network["init_args"], n_classes=CLASSES[split])


def learner(split: str, regime: Regime, network: dict[str, Any]) -> tuple[str, ...]:
    """The options of a network for the classes of a split, and of how long it learns."""
    student = f"--model.student={json.dumps(for_classes(split, network))}"
    steps = max(FEWEST_STEPS, STEPS[split] * regime.rows // 100)
    return (student, *(f"--trainer.{name}={steps}" for name in ("max_steps", "val_check_interval")))


def teacher(split: str, regime: Regime, seed: int, data: str, labels: str = SAME) -> Run:
    """The training of a teacher on the same rows."""
    row = ROWS[regime.teacher]
    options = (
        *of_data(split, regime, seed, data, labels),
        *learner(split, regime, regime.student.teacher),
        *regime.student.words,
        *row.words,
    )
    if regime.teacher != "alone":
        options += (f"--model.loss={json.dumps(row.loss)}",)
    name = "teacher" if labels == SAME else f"teacher {labels}"
    start = fit("single_task_cifar_fs_start", data)
    return Run("fit", place(split, regime, seed, name), regime.student.config, options, (start,))


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
        base = regime._replace(student=PERCEPTRON)
        before = training(BASE, base, seed, row.carried, data)
        needs.append(before)
        file = before.mark.parents[1] / "strategy.safetensors"
        options.append(f"--model.initialisation.strategy_file={file}")
    needs = needs or [fit("single_task_cifar_fs_start", data)]
    config = regime.student.config
    return Run("fit", place(split, regime, seed, name), config, tuple(options), tuple(needs))


def as_teacher(split: str, regime: Regime, run: Run) -> dict[str, Any]:
    """What a run has trained, as a teacher."""
    network = for_classes(split, regime.student.teacher)
    return part(
        "lightning_metakd.teachers.Teacher",
        model=network,
        checkpoint=str(run.mark),
        head=part("SlicedHead"),
        cache=regime.student.cache,
    )


def tests(split: str, regime: Regime, seed: int, names: Iterable[str], data: str) -> dict[str, Run]:
    """The test of each row, and of the teacher, on rows with right labels."""
    networks = regime.student.network, regime.student.teacher
    trained = {"teacher": teacher(split, regime, seed, data)}
    trained |= {name: training(split, regime, seed, name, data) for name in names}
    return {
        name: Run(
            "test",
            run.folder.replace("/fit/", "/test/"),
            regime.student.config,
            (
                *of_data(split, regime, seed, data),
                *learner(split, regime, networks[name == "teacher"]),
                initial_checkpoint(run),
            ),
            (run,),
        )
        for name, run in trained.items()
    }


def validated(split: str, regime: Regime, seed: int, name: str) -> float:
    """Accuracy on the rows that choose."""
    run = training(split, regime, seed, name, "")
    with run.mark.parents[1].joinpath("metrics.csv").open(newline="") as file:
        values = [row["val/student_accuracy"] for row in csv.DictReader(file)]
    return float([value for value in values if value][-1])


def best(split: str, regime: Regime, seed: int, names: Iterable[str]) -> str:
    """The row that validation chooses."""
    return max(names, key=lambda name: validated(split, regime, seed, name))


def result(run: Run) -> dict[str, Any]:
    """What a test has left."""
    return dict(json.loads(run.mark.read_text().splitlines()[0]))


def provenance(runs: Iterable[Run], target: str, seeds: Iterable[int] = SEEDS) -> str:
    """What the numbers were made with."""
    lines = [result(run) for run in runs]
    commits = ", ".join(sorted({str(line["git"])[:10] for line in lines}))
    return (
        f"Percent; 95 % intervals over seeds {', '.join(map(str, seeds))}. {lines[0]['device']}, "
        f"{lines[0]['threads']} threads; `make {target}`; commits {commits}"
    )
