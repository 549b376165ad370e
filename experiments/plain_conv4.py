"""The best plain Conv4-64: long training on the base classes, taught or not, then tuned by episodes or not.

All four students have as many steps and the same rows; each is tested by nearest class mean and by logistic
regression, at one shot and at five.
"""

from experiments.plan import Run, fit, images, initial_checkpoint, loss, report, shipped
from experiments.runner import main

TEACHER, STUDENT = "single_task_cifar_fs_teacher_64", "single_task_cifar_fs_distilled"
TUNED = "meta_kd_cifar_fs_5w5s_tuned"
RESNET12 = shipped("configs/model/resnet12_256.yaml")
WAYS = {
    "taught": (),
    "alone": ("--model.teachers=[]", loss("cross_entropy")),
}
LEARNERS = {"nearest_mean": "protonet_cosine", "logistic": "logistic"}
SHOTS = (1, 5)
BEST = "taught_tuned"


def students(data: str) -> dict[str, Run]:
    """The four trainings, by the row's name."""
    teacher = fit(TEACHER, data)
    rows = {}
    for way, words in WAYS.items():
        needs = (teacher,) if way == "taught" else ()
        options = (images(data), *words)
        long = Run("fit", f"plain_conv4/{way}", STUDENT, options, needs)
        tuned = (*options, initial_checkpoint(long))
        rows[way] = long
        rows[f"{way}_tuned"] = Run("fit", f"plain_conv4/{way}_tuned", TUNED, tuned, (*needs, long))
    return rows


def test(name: str, trained: Run, learner: str, shots: int, *options: str) -> Run:
    """A test on the novel classes, without teachers."""
    words = (
        *(initial_checkpoint(trained), f"--data.k_shot={shots}", "--model.teachers=[]"),
        *(f"--model.learner={shipped(f'configs/learner/{LEARNERS[learner]}.yaml')}", *options),
    )
    return Run("test", f"plain_conv4_table/{shots}shot/{name}_{learner}", TUNED, words, (trained,))


def plan(data: str) -> list[Run]:
    """The trainings, their tests and the table."""
    network = f"--model.student={RESNET12}"
    rows: dict[str, tuple[Run, tuple[str, ...]]] = {
        name: (run, ()) for name, run in students(data).items()
    }
    rows["teacher"] = fit(TEACHER, data), (network,)
    tests = [
        test(name, run, learner, shots, images(data), loss("cross_entropy"), *options)
        for name, (run, options) in rows.items()
        for learner in LEARNERS
        for shots in SHOTS
    ]
    return [
        report(
            "plain_conv4_table", "plain-conv4", "plain-conv4", tests, "--baseline=alone_logistic"
        )
    ]


if __name__ == "__main__":
    main(plan)
