"""The learners' table: no teacher, one start, each learner trained for the same time, tested as it adapts."""

from experiments.plan import Run, fit, images, initial_checkpoint, report, shipped
from experiments.runner import main

PLAIN, PROTONET = "single_task_cifar_fs_plain", "meta_kd_cifar_fs_5w5s_alone"
REPTILE = "meta_kd_cifar_fs_5w5s_reptile"
LEARNERS = (PROTONET, "meta_kd_cifar_fs_5w5s_ridge", "meta_kd_cifar_fs_5w5s_anil", REPTILE)
ONE_SHOT = {REPTILE: ("--model.learner.init_args.inner_lr=0.02",)}
"""At the rate of its training some episodes of one image a class lead Reptile to infinity; the better of two
on validation."""


def plan(data: str) -> list[Run]:
    """The trainings, twelve tests and their table."""
    start = fit("single_task_cifar_fs_start", data)
    tests = []

    def test(name: str, config: str, student: Run, shots: int, *options: str) -> None:
        words = (
            *(initial_checkpoint(student), f"--data.k_shot={shots}"),
            *("--data.n_query=15", "--data.n_episodes=2000", images(data), *options),
        )
        tests.append(Run("test", f"learners/{shots}shot/{name}", config, words, (student,)))

    logistic = f"--model.learner={shipped('configs/learner/logistic.yaml')}"
    for shots in (1, 5):
        plain = fit(PLAIN, data, start)
        test(PLAIN, PROTONET, plain, shots)
        test(f"{PLAIN}_logistic", PROTONET, plain, shots, logistic)
        for name in LEARNERS:
            options = ONE_SHOT.get(name, ()) if shots == 1 else ()
            test(name, name, fit(name, data, start), shots, *options)
    return [report("learners", "learners", "cifar-fs-learners", tests, f"--baseline={PLAIN}")]


if __name__ == "__main__":
    main(plan)
