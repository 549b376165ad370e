"""Meta-learned distillation from end to end: teachers, a strategy over tasks, and its use elsewhere.

Two networks of images and the names of the classes are the pool; a student of embeddings and the weights of
its teachers, row by row, are meta-trained on CIFAR-FS, judged by classes on which neither trains. The
strategy is then applied as it is to FC100: tasks, a student and a teacher that it has never met, beside
constant weights and learning alone.
"""

from experiments.kinds_of_teachers import ALONE, OF_IMAGES, OF_NAMES, SEEDS, SHOTS, teachers
from experiments.plan import Run, fit, images, initial_checkpoint, loss, report, strategy_of
from experiments.runner import main
from experiments.teaching import HELD_OUT, OTHER, embedded_images, prepared

LEARNED, APPLIED = "meta_kd_cifar_fs_teaching", "meta_kd_fc100_apply"
LOSS, UNIFORM = "match_gate_two_teachers_per_sample", "match_gate_two_teachers_uniform"
WIDE = {"class_path": "WideResNet", "init_args": {"depth": 16, "width": 2}}
ROWS = ("alone", "uniform", "carried")


def wide(training: str) -> dict[str, object]:
    """A WRN-16-2 that a training left."""
    checkpoint = f"runs/{training}/latest/checkpoints/final.ckpt"
    head = {"class_path": "PrototypeHead"}
    return {"model": WIDE, "checkpoint": checkpoint, "head": head, "cache": True}


def meta_trained(seed: int, data: str) -> Run:
    """A student, and a strategy for three teachers of different kind."""
    pool = teachers(OF_IMAGES, wide("single_task_cifar_fs_teacher_wrn"), OF_NAMES)
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}")
    options = (*seeds, pool, loss(LOSS), *HELD_OUT, *OTHER, embedded_images(data))
    return Run("fit", f"three_stages/strategy/seed{seed}", LEARNED, options, (prepared(data),))


def applied(row: str, seed: int, data: str) -> Run:
    """A student of FC100 that is taught as a row says."""
    needs = [fit("single_task_fc100_teacher", data)]
    pool = teachers(wide("single_task_fc100_teacher"), OF_NAMES)
    strategy = "--model.initialisation.strategy_file=null"
    teaching = {"alone": ALONE, "uniform": (pool, loss(UNIFORM)), "carried": (pool, loss(LOSS))}
    if row == "carried":
        needs.append(meta_trained(seed, data))
        strategy = strategy_of(f"runs/{needs[-1].folder}/latest")
    seeds = (f"--seed_everything={seed}", f"--data.seed={seed}", images(data))
    options = (*seeds, *teaching[row], strategy)
    return Run("fit", f"three_stages/fit/seed{seed}/{row}", APPLIED, options, tuple(needs))


def test(student: Run, shots: int, data: str) -> Run:
    """A test of the student without its teachers."""
    options = (
        *(initial_checkpoint(student), f"--data.k_shot={shots}", images(data)),
        *(*ALONE, "--model.initialisation.strategy_file=null"),
    )
    folder = student.folder.replace("/fit/", f"/test/{shots}shot/")
    return Run("test", folder, APPLIED, options, (student,))


def plan(data: str) -> list[Run]:
    """The three stages and the table of the last."""
    students = [applied(row, seed, data) for seed in SEEDS for row in ROWS]
    tests = [test(student, shots, data) for student in students for shots in SHOTS]
    page = "three-stages"
    return [report("three_stages/test", page, page, tests, "--baseline=uniform")]


if __name__ == "__main__":
    main(plan)
