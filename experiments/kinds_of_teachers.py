"""Teachers of another kind: names of classes, and a network that adapts to the task before it teaches.

Students are residual perceptrons over the cached embeddings of the frozen Conv4-64 start. Names are beside
label smoothing, which says as little of the images, and beside an image teacher, alone and with it. The
teacher that adapts is beside the same network answering by class means, for a student that adapts by MAML.
"""

import json
from typing import Any

from experiments.plan import Run, fit, initial_checkpoint, loss, report
from experiments.runner import main
from experiments.teaching import as_word, embedded_images

NAMES, ADAPTED = "meta_kd_cifar_fs_names", "meta_kd_cifar_fs_adapted"
SEEDS, SHOTS = (0, 1, 2), (1, 5)
CLASS_PATH = "lightning_metakd.teachers.Teacher"
# all that a file of an experiment may say otherwise is said: settings of a class are merged
OF_NAMES = {
    "model": {"class_path": "lightning_metakd.models.SentenceEncoder"},
    "checkpoint": None,
    "head": {"class_path": "NameHead"},
    "cache": False,
}
OF_IMAGES = {
    "model": {"class_path": "ResNet12", "init_args": {"widths": [32, 64, 128, 256]}},
    "checkpoint": "runs/single_task_cifar_fs_teacher/latest/checkpoints/final.ckpt",
    "head": {"class_path": "PrototypeHead"},
    "cache": True,
}
SMOOTHED = {"class_path": "CrossEntropy", "init_args": {"label_smoothing": 0.1}}
ALONE = ("--model.teachers=null", "--model.loss=null")


def teachers(*settings: dict[str, Any]) -> str:
    """The option that takes these."""
    pool = [{"class_path": CLASS_PATH, "init_args": one} for one in settings]
    return f"--model.teachers={json.dumps(pool)}"


def rows(config: str) -> dict[str, tuple[str, ...]]:
    """What each row of a table changes."""
    if config == ADAPTED:
        return {"alone": ALONE, "class means": (teachers(OF_IMAGES),), "adapted": ()}
    both = teachers(OF_IMAGES, OF_NAMES)
    return {
        "alone": ALONE,
        "label smoothing": ("--model.teachers=null", f"--model.loss={json.dumps(SMOOTHED)}"),
        "names": (),
        "images": (teachers(OF_IMAGES),),
        "images and names": (both, loss("match_gate_two_teachers_uniform")),
        "images and names learned": (
            *(both, loss("match_gate_two_teachers"), "--model.strategy_training.lr=0.02"),
        ),
    }


TABLES = {"names": NAMES, "adapted": ADAPTED}


def prepared(data: str) -> Run:
    """The teacher, and what it answers, stored."""
    teacher = fit("single_task_cifar_fs_teacher", data)
    return Run("precompute", ADAPTED, ADAPTED, (embedded_images(data),), (teacher,))


def training(table: str, row: str, seed: int, data: str) -> Run:
    """One training of a row."""
    config = TABLES[table]
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}")
    options = (*seeds, embedded_images(data), *rows(config)[row])
    folder = f"kinds_of_teachers_{table}/fit/seed{seed}/{as_word(row)}"
    return Run("fit", folder, config, options, (prepared(data),))


def test(student: Run, shots: int, data: str) -> Run:
    """A test of the student without its teachers."""
    options = (initial_checkpoint(student), f"--data.k_shot={shots}", embedded_images(data))
    folder = student.folder.replace("/fit/", f"/test/{shots}shot/")
    return Run("test", folder, student.config, (*options, *ALONE), (student,))


def table_of(table: str, data: str) -> Run:
    """A table, with its trainings and tests as what it needs."""
    trainings = [training(table, row, seed, data) for row in rows(TABLES[table]) for seed in SEEDS]
    tests = [test(student, shots, data) for student in trainings for shots in SHOTS]
    folder, section = f"kinds_of_teachers_{table}/test", f"kinds-of-teachers-{table}"
    return report(folder, "kinds-of-teachers", section, tests, "--baseline=alone")


def plan(data: str) -> list[Run]:
    """Both tables."""
    return [table_of(table, data) for table in TABLES]


if __name__ == "__main__":
    main(plan)
