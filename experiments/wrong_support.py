"""Wrong labels among the support rows: class means that count each row by what student and teacher say of it.

Each way of counting is trained where four of ten support labels of each class are wrong; it is tested there,
with fewer wrong ones, and with fewer rows. A constant weight counts all rows alike, as plain class means do.
"""

import json

from experiments.gate_rivals import part
from experiments.plan import Run, initial_checkpoint, report
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
TASKS = [(10, 40), (10, 20), (5, 40), (5, 20)]
"""Support rows of a class, and how many in a hundred are wrong."""


def words(name: str, seed: int, data: str, shots: int, wrong: int) -> tuple[str, ...]:
    """The options of a row."""
    rate = 0.0 if name == RIGHT else wrong / 100
    weight = WEIGHTS[name]
    weigh = f"--model.learner.init_args.support_weight={json.dumps(weight)}"
    return (
        *(f"--seed_everything={seed}", f"--data.seed={seed}", embedded_images(data)),
        *(f"--data.k_shot={shots}", f"--data.wrong_support={rate}", weigh),
    )


def test(name: str, seed: int, data: str, shots: int, wrong: int) -> Run:
    """A row's test in a task, behind its training in the first one."""
    place = f"seed{seed}/{as_word(name)}"
    options = words(name, seed, data, *TASKS[0])
    training = Run("fit", f"wrong_support/fit/{place}", CONFIG, options)
    options = (*words(name, seed, data, shots, wrong), initial_checkpoint(training))
    folder = f"wrong_support/{shots}shot_{wrong}/{place}"
    return Run("test", folder, CONFIG, options, (training,))


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
    ]


if __name__ == "__main__":
    main(plan)
