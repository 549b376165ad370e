"""A strategy carried to another student, another teacher and other tasks, beside constant coefficients.

The strategies are those of rows of `experiments.teaching`, under the same seed; each task trains its student
alone, with constant coefficients, and by each strategy as it is.
"""

from experiments import teaching
from experiments.plan import Run, fit, images, initial_checkpoint, loss, report, strategy_of
from experiments.runner import main

TEACHERS = {
    "cifar_fs": "single_task_cifar_fs_teacher_wrn",
    "fc100": "single_task_fc100_teacher",
    "omniglot": "single_task_omniglot_teacher",
}
"""The teacher of each task."""

CARRIED = {
    "carried_learned_temperature": ("teaching", "learned temperature"),
    "carried_Match-Gate_per_sample": ("teaching", "Match-Gate per sample"),
    "carried_Match-Gate_per_sample_held_out": ("held_out", "Match-Gate per sample"),
}
"""Where the strategy of a row was learned: table and row."""

NOT_CARRIED = {"alone": "cross_entropy", "constant": "match_gate_constant"}
"""The losses of rows without a strategy."""

NO_STRATEGY = "--model.initialisation.strategy_file=null"


def training(task: str, name: str, seed: int, data: str) -> Run:
    """One training, by the strategy that was learned under the same seed."""
    needs = [fit(TEACHERS[task], data)]
    if name in CARRIED:
        table, row = CARRIED[name]
        needs.append(teaching.training(table, row, "none", seed, data))
        file, strategy = (
            teaching.TABLES[table][row].loss,
            strategy_of(teaching.directory(needs[-1])),
        )
    else:
        file, strategy = NOT_CARRIED[name], NO_STRATEGY
    options = (
        *(images(data), f"--seed_everything={seed}", f"--data.seed={seed}"),
        *(loss(file), strategy),
    )
    folder = f"transfer/fit/seed{seed}/{task}/{name}"
    return Run("fit", folder, f"meta_kd_{task}_apply", options, tuple(needs))


def test(student: Run, shots: int, with_teachers: bool, data: str) -> Run:
    """A test by nearest class mean; one row is enough to show what the teacher knows."""
    options = (
        *(images(data), f"--data.k_shot={shots}"),
        *(loss("cross_entropy"), NO_STRATEGY),
        *(() if with_teachers else ("--model.teachers=[]",)),
        initial_checkpoint(student),
    )
    folder = student.folder.replace("/fit/", f"/{shots}shot/")
    return Run("test", folder, student.config, options, (student,))


def plan(data: str) -> list[Run]:
    """The tables of `experiments.teaching`, then 45 trainings, their tests and their table."""
    tests = []
    for seed in teaching.SEEDS:
        for task in TEACHERS:
            for name in (*NOT_CARRIED, *CARRIED):
                student = training(task, name, seed, data)
                with_teachers = (name, seed) == ("alone", 0)
                tests += [test(student, shots, with_teachers, data) for shots in teaching.SHOTS]
    table = report("transfer", "transfer", "transfer", tests, "--baseline=constant")
    return [*teaching.plan(data), table]


if __name__ == "__main__":
    main(plan)
