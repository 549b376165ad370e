"""ResNet-12 by the recipe of RFS beside the published ones, and what it teaches a plain Conv4-64.

Teachers learn the base classes, on a GPU in minutes, and are tested by nearest class mean. One of CIFAR-FS
teaches a student that is then tuned by episodes; it stands beside the one whose teacher has half the width.
"""

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


def words(source: str, seed: int, root: str) -> tuple[str, ...]:
    """Options of any run."""
    of_source = f"--data.source={shipped(f'configs/source/{source}.yaml')}"
    return of_source, images(root), f"--seed_everything={seed}", f"--data.seed={seed}"


def teacher(source: str, seed: int, root: str) -> Run:
    """The training of a teacher."""
    head = f"--model.student.init_args.n_classes={CLASSES[source]}"
    options = (*words(source, seed, root), head)
    return Run("fit", f"{FOLDER}/{source}/teacher/seed{seed}", TEACHER, options)


def students(root: str) -> dict[str, Run]:
    """What the teacher of CIFAR-FS makes of a student, by the row's name."""
    teaches = teacher("cifar_fs", 0, root)
    student = Run("fit", f"{FOLDER}/taught", STUDENT, (images(root),), (teaches,))
    tuned = Run("fit", f"{FOLDER}/taught_tuned", TUNED, (images(root),), (teaches, student))
    return {"taught": student, "taught_tuned": tuned}


def tests(source: str, shots: int, root: str) -> list[Run]:
    """All that a table holds, on the novel classes, without teachers."""
    wide = f"--model.student={shipped('configs/model/resnet12_512.yaml')}"
    teachers = [(seed, teacher(source, seed, root)) for seed in SEEDS]
    rows = [("teacher", seed, (initial_checkpoint(run), wide), (run,)) for seed, run in teachers]
    if source == "cifar_fs":
        of_before = (f"--model.initialisation.checkpoint={BEFORE}",)
        rows += [("half_width_tuned", 0, of_before, ())]
        rows += [
            (name, 0, (initial_checkpoint(run),), (run,)) for name, run in students(root).items()
        ]
    alone = ("--model.teachers=[]", loss("cross_entropy"), f"--data.k_shot={shots}")
    return [
        Run(
            "test",
            f"{TABLE}/{source}/{shots}shot/seed{seed}/{name}",
            TUNED,
            (*words(source, seed, root), *alone, *options),
            needs,
        )
        for name, seed, options, needs in rows
    ]


def plan(data: str) -> list[Run]:
    """The trainings, their tests and the tables."""
    baseline = {"cifar_fs": ("--baseline=half_width_tuned",), "fc100": ()}
    return [
        report(
            f"{TABLE}/{source}/{shots}shot",
            "plain-conv4",
            f"wide-teachers-{source.replace('_', '-')}-{shots}",
            tests(source, shots, data),
            *baseline[source],
        )
        for source in CLASSES
        for shots in SHOTS
    ]


if __name__ == "__main__":
    main(plan)
