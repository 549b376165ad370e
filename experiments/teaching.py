"""Ways of teaching beside one another on CIFAR-FS, with the controls of what is learned, over seeds.

All rows train the same student from the same start for the same number of steps; what differs is the loss
and what of it is learned. There are three tables. In `teaching` the student learns from all base classes, and
what is learned is judged within episodes of those classes that the teachers have not seen. In `held_out` the
student is not trained on them either (the network that embeds for it was): it learns from the teachers'
classes, and what is learned is judged by what a step on them does to the others. In `unseen` that network has
not seen them either.
"""

from typing import NamedTuple

from experiments.plan import Run, fit, initial_checkpoint, loss, report, strategy_of
from experiments.runner import main

ALONE, META_DISTIL = "meta_kd_cifar_fs_teaching", "meta_kd_cifar_fs_meta_distil"
STARTS = (
    "single_task_cifar_fs_teacher",
    "single_task_cifar_fs_teacher_wrn",
    "single_task_cifar_fs_start_held_out",
)
SEEDS, SHOTS = (0, 1, 2), (1, 5)
LEARNING = ("--model.strategy_training.lr=0.01",)
ALL = ("frozen", "shuffled", "step_size", "final_constant")


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        loss: stem of its file.
        options: further words of the training.
        controls: what is taken away from it for comparison.
        config: stem of its experiment's file.
    """

    loss: str
    options: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    config: str = ALONE


TEACHING = {
    "alone": Row("cross_entropy"),
    "KD": Row("match_gate_constant"),
    "KD, logit standardisation": Row("match_gate_standardised"),
    "DKD": Row("match_gate_dkd"),
    "prototype matching": Row("match_gate_prototypes"),
    "two teachers, uniform": Row("match_gate_two_teachers_uniform"),
    "two teachers, learned": Row("match_gate_two_teachers", LEARNING, (*ALL, "uniform")),
    "two teachers, learned per sample": Row(
        "match_gate_two_teachers_per_sample", LEARNING, (*ALL, "uniform")
    ),
    "learned temperature": Row("match_gate_temperature", LEARNING, ALL),
    "Match-Gate": Row("match_gate", LEARNING, ALL),
    "Match-Gate per sample": Row("match_gate_per_sample", LEARNING, ALL),
    "Match-Gate per sample, plain quiz": Row(
        "match_gate_per_sample", (*LEARNING, "--model.strategy_training.quiz=CrossEntropy"), ()
    ),
    "MetaDistil": Row("match_gate_constant", (), ("frozen", "shuffled"), META_DISTIL),
}
HELD_OUT, OTHER = (
    ("--data.train_split=teacher",),
    (*LEARNING, "--model.strategy_training.quiz_classes=other"),
)
UNSEEN = (
    *HELD_OUT,
    "--data.source.checkpoint=runs/single_task_cifar_fs_start_held_out/latest/checkpoints/final.ckpt",
)
BOTH = ("shuffled", "final_constant")
TABLES = {
    "teaching": TEACHING,
    "held_out": {
        "alone": Row("cross_entropy", HELD_OUT),
        "KD": Row("match_gate_constant", HELD_OUT),
        "KD, logit standardisation": Row("match_gate_standardised", HELD_OUT),
        "two teachers, uniform": Row("match_gate_two_teachers_uniform", HELD_OUT),
        "two teachers, learned per sample": Row(
            "match_gate_two_teachers_per_sample", (*HELD_OUT, *OTHER), (*BOTH, "uniform")
        ),
        "learned temperature": Row("match_gate_temperature", (*HELD_OUT, *OTHER), BOTH),
        "Match-Gate, same classes": Row("match_gate", (*HELD_OUT, *LEARNING)),
        "Match-Gate": Row("match_gate", (*HELD_OUT, *OTHER), (*BOTH, "frozen", "step_size")),
        "Match-Gate per sample": Row(
            "match_gate_per_sample", (*HELD_OUT, *OTHER), (*BOTH, "frozen", "step_size")
        ),
        "MetaDistil": Row(
            "match_gate_constant",
            (*HELD_OUT, "--model.strategy_training.quiz_classes=other"),
            ("shuffled",),
            META_DISTIL,
        ),
    },
    "unseen": {
        "alone": Row("cross_entropy", UNSEEN),
        "KD": Row("match_gate_constant", UNSEEN),
        "Match-Gate same": Row("match_gate", (*UNSEEN, *LEARNING)),
        "Match-Gate": Row("match_gate", (*UNSEEN, *OTHER)),
    },
}
PAGES = {"teaching": "teaching", "held_out": "held-out", "unseen": "unseen"}
STANDARDISED = "KD, logit standardisation"


def as_word(name: str) -> str:
    """A row's name as one word."""
    return name.replace(", ", "_").replace(" ", "_")


def prepared(data: str) -> Run:
    """The teachers and starts, and what they answer, stored."""
    starts = tuple(fit(name, data) for name in STARTS)
    return Run("precompute", ALONE, ALONE, (embedded_images(data),), starts)


def embedded_images(data: str) -> str:
    """The option that names the folder of the images that are embedded."""
    return f"--data.source.source.root={data}"


def training(table: str, name: str, control: str, seed: int, data: str) -> Run:
    """One training of a row; constant coefficients take the values that it learned."""
    row, needs, values = TABLES[table][name], [prepared(data)], []
    if control == "final_constant":
        needs.append(training(table, name, "none", seed, data))
        values = [strategy_of(directory(needs[-1]))]
    options = (
        *(f"--seed_everything={seed}", f"--data.seed={seed}", loss(row.loss)),
        *(f"--model.strategy_training.control={control}", *row.options),
        *(embedded_images(data), *values),
    )
    folder = f"{table}/fit/seed{seed}/{control}/{as_word(name)}"
    return Run("fit", folder, row.config, options, tuple(needs))


def directory(run: Run) -> str:
    """Where a training keeps what it learned."""
    return f"runs/{run.folder}/latest"


def test(student: Run, shots: int, row: Row, with_teachers: bool, data: str) -> Run:
    """A test by nearest class mean; one row is enough to show what the teachers know."""
    options = (
        *(initial_checkpoint(student), f"--data.k_shot={shots}"),
        *(() if with_teachers else ("--model.teachers=[]",)),
        *(word for word in row.options if word.startswith("--data.source")),
        embedded_images(data),
    )
    folder = student.folder.replace("/fit/", f"/{shots}shot/")
    return Run("test", folder, ALONE, options, (student,))


def table_of(table: str, data: str) -> Run:
    """A table, with its trainings and tests as what it needs."""
    tests = []
    for seed in SEEDS:
        for name, row in TABLES[table].items():
            for control in ("none", *row.controls):
                student = training(table, name, control, seed, data)
                with_teachers = (name, seed) == ("alone", 0)
                tests += [test(student, shots, row, with_teachers, data) for shots in SHOTS]
    page, options = PAGES[table], ["--baseline=KD"]
    if STANDARDISED in TABLES[table]:
        options.append(f"--controls={as_word(STANDARDISED)}")
    return report(table, page, f"cifar-fs-{page}", tests, *options)


def plan(data: str) -> list[Run]:
    """The three tables."""
    return [table_of(table, data) for table in TABLES]


if __name__ == "__main__":
    main(plan)
