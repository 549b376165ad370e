"""Wrong labels among the support rows: class means that count each row by what student and teacher say of it.

Each way of counting is trained where four of ten support labels of each class are wrong; it is tested there,
with fewer wrong ones, and with fewer rows. A constant weight counts all rows alike, as plain class means do.
What perceptrons over an embedding have learned is carried to a whole network of images, as it is.
"""

import json

from experiments.gate_rivals import part
from experiments.plan import Run, images, initial_checkpoint, report
from experiments.runner import main
from experiments.teaching import as_word, embedded_images

CONFIG, SEEDS = "meta_kd_cifar_fs_wrong_support", (0, 1, 2)
RIGHT, PLAIN = "right labels", "all alike"
WEIGHTS = {
    RIGHT: None,
    PLAIN: None,
    "rule, student threshold 0.2": part("Threshold", threshold=0.2, judge="student"),
    "rule, teacher threshold 0.2": part("Threshold", threshold=0.2),
    "rule, student posterior": part("Posterior", rate=0.4, judge="student"),
    "rule, teacher posterior": part("Posterior", rate=0.4),
    "learned, student loss": part("MetaWeightNet"),
    "learned, student and teacher": part("LearnedPerSample"),
}
"""How much a row counts, by the row's name."""
LEARNED = "learned, student loss"
"""What is carried, as it needs no teacher."""
TASKS = [(10, 40), (10, 20), (5, 40), (5, 20)]
"""Support rows of a class, and how many in a hundred are wrong."""
NETWORK, ITS_CONFIG = "zoo:conv4_64_cifar_fs", "meta_kd_cifar_fs_5w5s_tuned"
"""To which it is carried."""
RULES = [name for name in WEIGHTS if not name.startswith("learned")]
"""What needs no training, and is tried on it too."""
ITS_TASKS = [(10, 40), (5, 20)]


def words(name: str, seed: int, data: str, shots: int, wrong: int) -> tuple[str, ...]:
    """The options of a row."""
    return (
        *(f"--seed_everything={seed}", f"--data.seed={seed}", embedded_images(data)),
        *of_task(name, shots, wrong),
    )


def of_task(name: str, shots: int, wrong: int) -> tuple[str, ...]:
    """How many support rows there are, how many are wrong, and how much each counts."""
    rate = 0.0 if name == RIGHT else wrong / 100
    weigh = f"--model.learner.init_args.support_weight={json.dumps(WEIGHTS[name])}"
    return f"--data.k_shot={shots}", f"--data.wrong_support={rate}", weigh


def training(name: str, seed: int, data: str) -> Run:
    """A row's training, in the first task."""
    folder = f"wrong_support/fit/seed{seed}/{as_word(name)}"
    return Run("fit", folder, CONFIG, words(name, seed, data, *TASKS[0]))


def test(name: str, seed: int, data: str, shots: int, wrong: int) -> Run:
    """A row's test in a task, behind its training in the first one."""
    trained = training(name, seed, data)
    options = (*words(name, seed, data, shots, wrong), initial_checkpoint(trained))
    folder = f"wrong_support/{shots}shot_{wrong}/seed{seed}/{as_word(name)}"
    return Run("test", folder, CONFIG, options, (trained,))


def of_network(name: str, data: str, shots: int, wrong: int, seed: int | None = None) -> Run:
    """The test of a row by the whole network, which is trained for none.

    Args:
        seed: of the training that a learned weight is from.
    """
    options = [
        *("--seed_everything=0", images(data), "--data.n_episodes=1000"),
        *(*of_task(name, shots, wrong), f"--model.initialisation.checkpoint={NETWORK}"),
    ]
    needs, row = [], as_word(name)
    if seed is not None:
        needs.append(training(name, seed, data))
        options.append(f"--model.initialisation.support_weight={needs[0].mark}")
        row = f"carried_student_loss_seed{seed}"
    folder = f"wrong_support/images/{shots}shot_{wrong}/{row}"
    return Run("test", folder, ITS_CONFIG, tuple(options), tuple(needs))


def its_table(shots: int, wrong: int, data: str) -> Run:
    """What the network makes of a task, by rules and by what each seed has learned."""
    tests = [of_network(name, data, shots, wrong) for name in RULES]
    tests += [of_network(LEARNED, data, shots, wrong, seed) for seed in SEEDS]
    return report(
        f"wrong_support/images/{shots}shot_{wrong}",
        "wrong-support",
        f"wrong-support-images-{shots}-{wrong}",
        tests,
        f"--baseline={as_word(PLAIN)}",
    )


def plan(data: str) -> list[Run]:
    """A table for each task."""
    return [
        report(
            f"wrong_support/{shots}shot_{wrong}",
            "wrong-support",
            f"wrong-support-{shots}-{wrong}",
            (test(name, seed, data, shots, wrong) for name in WEIGHTS for seed in SEEDS),
            f"--baseline={as_word(PLAIN)}",
        )
        for shots, wrong in TASKS
    ] + [its_table(shots, wrong, data) for shots, wrong in ITS_TASKS]


if __name__ == "__main__":
    main(plan)
