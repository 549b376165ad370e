"""A student of two domains beside students that have not seen one of them, tested on each.

Photographs of CIFAR-FS and characters of Omniglot; every row has the same number of steps.
"""

from experiments.plan import Run, initial_checkpoint, report
from experiments.runner import main

NAME = "meta_kd_cifar_fs_omniglot"
SEEDS, SHOTS = (0, 1, 2), (1, 5)
ROWS = {"both": "[]", "without_omniglot": "[omniglot]", "without_cifar_fs": "[cifar_fs]"}
"""The domains that a row has not seen."""


def roots(data: str) -> tuple[str, ...]:
    """The options that name the folder of the images of each domain."""
    place = "--data.source.sources.{}.root=" + data
    return tuple(place.format(domain) for domain in ("cifar_fs", "omniglot"))


def training(row: str, seed: int, data: str) -> Run:
    """One training."""
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}")
    options = (*seeds, *roots(data), f"--data.source.held_out={ROWS[row]}")
    return Run("fit", f"domains/fit/seed{seed}/{row}", NAME, options)


def test(student: Run, shots: int) -> Run:
    """A test on both domains; the student's reading is that of its training."""
    options = (*student.options, initial_checkpoint(student), f"--data.k_shot={shots}")
    folder = student.folder.replace("/fit/", f"/test/{shots}shot/")
    return Run("test", folder, NAME, options, (student,))


def plan(data: str) -> list[Run]:
    """Nine trainings, their tests and the table."""
    trainings = [training(row, seed, data) for row in ROWS for seed in SEEDS]
    tests = [test(student, shots) for student in trainings for shots in SHOTS]
    return [report("domains/test", "domains", "domains", tests, "--baseline=both")]


if __name__ == "__main__":
    main(plan)
