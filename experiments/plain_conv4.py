"""The best plain Conv4-64: long training on the base classes, taught or not, then tuned by episodes or not.

All four students of a seed have as many steps and the same rows, and the teacher is that of the zoo; each is
tested by nearest class mean and by logistic regression, at one shot and at five.
"""

from experiments.plan import Run, images, initial_checkpoint, loss, report, shipped
from experiments.runner import main

TEACHER = "zoo:resnet12_cifar_fs_teacher_64"
STUDENT, TUNED = "single_task_cifar_fs_distilled", "meta_kd_cifar_fs_5w5s_tuned"
RESNET12 = shipped("configs/model/resnet12_256.yaml")
WAYS = {
    "taught": (),
    "alone": ("--model.teachers=[]", loss("cross_entropy")),
}
LEARNERS = {
    "nearest_mean": "configs/learner/protonet_cosine.yaml",
    "logistic": "configs/learner/logistic.yaml",
}
SEEDS, SHOTS = (0, 1), (1, 5)
BEST = "taught_tuned"


def words(seed: int, data: str) -> tuple[str, ...]:
    """Options of any run."""
    return images(data), f"--seed_everything={seed}", f"--data.seed={seed}"


def students(data: str, seed: int = 0) -> dict[str, Run]:
    """The four trainings of a seed, by the row's name."""
    rows = {}
    for way, of_way in WAYS.items():
        options = (*words(seed, data), *of_way)
        long = Run("fit", f"plain_conv4/seed{seed}/{way}", STUDENT, options)
        tuned = (*options, initial_checkpoint(long))
        rows[way] = long
        rows[f"{way}_tuned"] = Run(
            "fit", f"plain_conv4/seed{seed}/{way}_tuned", TUNED, tuned, (long,)
        )
    return rows


def tests(seed: int, data: str) -> list[Run]:
    """All that a table holds, on the novel classes, without teachers."""
    rows = {name: (initial_checkpoint(run), (run,)) for name, run in students(data, seed).items()}
    rows["teacher"] = f"--model.initialisation.checkpoint={TEACHER}", ()
    return [
        Run(
            "test",
            f"plain_conv4_table/seed{seed}/{shots}shot/{name}_{learner}",
            TUNED,
            (
                *(*words(seed, data), "--model.teachers=[]", loss("cross_entropy")),
                *(f"--data.k_shot={shots}", f"--model.learner={shipped(LEARNERS[learner])}"),
                *(start, *((f"--model.student={RESNET12}",) if name == "teacher" else ())),
            ),
            needs,
        )
        for name, (start, needs) in rows.items()
        for learner in LEARNERS
        for shots in SHOTS
    ]


def plan(data: str) -> list[Run]:
    """The trainings, their tests and a table for each seed."""
    baseline = "--baseline=alone_logistic"
    return [
        report(
            f"plain_conv4_table/seed{seed}",
            "plain-conv4",
            f"plain-conv4-seed{seed}",
            tests(seed, data),
            baseline,
        )
        for seed in SEEDS
    ]


if __name__ == "__main__":
    main(plan)
