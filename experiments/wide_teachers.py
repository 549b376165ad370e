"""ResNet-12 by the recipe of RFS beside the published ones, and what it teaches a plain Conv4-64.

Teachers learn the base classes, on a GPU in minutes, and are tested by nearest class mean. One of each data
set teaches a student that is then tuned by episodes; on CIFAR-FS it stands beside one whose teacher has half
the width, on FC100 beside one that learned alone.
"""

import json
from typing import Any

from experiments.gate_rivals import part
from experiments.plan import Run, images, initial_checkpoint, loss, report, shipped
from experiments.runner import main

TEACHER, STUDENT, TUNED = (
    "single_task_cifar_fs_teacher_wide",
    "single_task_cifar_fs_distilled_wide",
    "meta_kd_cifar_fs_tuned_wide",
)
FOLDER, TABLE = "wide_teachers", "wide_teachers_table"
CLASSES = {"cifar_fs": 64, "fc100": 60}
"""Base classes, by the name of the source's file."""
SEEDS, SHOTS = (0, 1), (1, 5)
BEFORE = "zoo:conv4_64_cifar_fs"
ALONE = ("--model.teachers=[]", loss("cross_entropy"))


def words(source: str, seed: int, root: str) -> tuple[str, ...]:
    """Options of any run."""
    of_source = f"--data.source={shipped(f'configs/source/{source}.yaml')}"
    return of_source, images(root), f"--seed_everything={seed}", f"--data.seed={seed}"


def teacher(source: str, seed: int, root: str) -> Run:
    """The training of a teacher."""
    head = f"--model.student.init_args.n_classes={CLASSES[source]}"
    options = (*words(source, seed, root), head)
    return Run("fit", f"{FOLDER}/{source}/teacher/seed{seed}", TEACHER, options)


def pool(source: str, root: str, **head: Any) -> str:
    """The option of the teacher that teaches, with its classes: stored answers then serve all students.

    Args:
        head: what it answers with, where that is not the class means of an episode.
    """
    network = part("ResNet12", widths=[64, 128, 256, 512], n_classes=CLASSES[source])
    of_file = {"model": network, "checkpoint": str(teacher(source, 0, root).mark)}
    made = part("lightning_metakd.teachers.Teacher", **of_file, **head, cache=True)
    return f"--model.teachers={json.dumps([made])}"


def students(source: str, root: str) -> dict[str, Run]:
    """A student alone and what the teacher makes of it, by the row's name."""
    common, teaches = words(source, 0, root), teacher(source, 0, root)
    head = f"--model.student.init_args.n_classes={CLASSES[source]}"
    by_head = pool(source, root, head=part("SlicedHead"))

    def training(name: str, config: str, options: tuple[str, ...], *needs: Run) -> Run:
        return Run("fit", f"{FOLDER}/{source}/{name}", config, (*common, *options), needs)

    student = training("taught", STUDENT, (head, by_head), teaches)
    start = (initial_checkpoint(student), pool(source, root))
    rows = {
        "taught": student,
        "taught_tuned": training("taught_tuned", TUNED, start, teaches, student),
    }
    if source == "fc100":
        rows["alone"] = training("alone", STUDENT, (head, *ALONE))
    return rows


def tests(source: str, shots: int, root: str) -> list[Run]:
    """All that a table holds, on the novel classes, without teachers."""
    wide = f"--model.student={shipped('configs/model/resnet12_512.yaml')}"
    teachers = [(seed, teacher(source, seed, root)) for seed in SEEDS]
    rows = [("teacher", seed, (initial_checkpoint(run), wide), (run,)) for seed, run in teachers]
    if source == "cifar_fs":
        of_before = (f"--model.initialisation.checkpoint={BEFORE}",)
        rows += [("half_width_tuned", 0, of_before, ())]
    rows += [
        (name, 0, (initial_checkpoint(run),), (run,))
        for name, run in students(source, root).items()
    ]
    return [
        Run(
            "test",
            f"{TABLE}/{source}/{shots}shot/seed{seed}/{name}",
            TUNED,
            (*words(source, seed, root), *ALONE, f"--data.k_shot={shots}", *options),
            needs,
        )
        for name, seed, options, needs in rows
    ]


def plan(data: str) -> list[Run]:
    """The trainings, their tests and the tables."""
    baseline = {"cifar_fs": "half_width_tuned", "fc100": "alone"}
    return [
        report(
            f"{TABLE}/{source}/{shots}shot",
            "plain-conv4",
            f"wide-teachers-{source.replace('_', '-')}-{shots}",
            tests(source, shots, data),
            f"--baseline={baseline[source]}",
        )
        for source in CLASSES
        for shots in SHOTS
    ]


if __name__ == "__main__":
    main(plan)
