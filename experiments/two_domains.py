"""Two domains, a teacher for each: photographs of CIFAR-FS and characters of Omniglot, one domain a task.

The student is a perceptron over the embedding of a network that was trained on photographs. Each teacher
answers for the other's tasks too, by class means, and nobody says which domain a task is of.
"""

import json
from statistics import fmean
from typing import Any, NamedTuple

from experiments.gate_rivals import SHUFFLED, part
from experiments.gate_runs import SEEDS, as_word, provenance, validated_by
from experiments.plan import ROOT, Run, initial_checkpoint
from experiments.runner import main
from experiments.specialists import pooled, single
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE, CONFIG = ROOT / "docs/where-it-pays.md", "meta_kd_cifar_fs_omniglot_taught"
OF_CHARACTERS = "single_task_omniglot_colour_teacher"
SHOTS, ALONE = (1, 5), "--model.teachers=[]"


class Row(NamedTuple):
    """A way to train the student.

    Args:
        loss: as a configuration has it.
        words: further words of the command.
    """

    loss: dict[str, Any]
    words: tuple[str, ...] = ()


OTHER = ("--model.strategy_training.quiz_classes=other",)


def gated(weights: Any, words: tuple[str, ...]) -> Row:
    """Each row followed as far as a gate says."""
    loss = pooled(weights)
    loss["init_args"]["gate"] = part("LearnedPerSample")
    return Row(loss, words)


CONSTANTS = {
    "teacher of photographs": Row(single(0).loss),
    "teacher of characters": Row(single(1).loss),
    "uniform": Row(pooled(1.0)),
    "three to one": Row(pooled([3.0, 1.0])),
    "one to three": Row(pooled([1.0, 3.0])),
}
ROWS = {
    "no teacher": Row(part("CrossEntropy")),
    **CONSTANTS,
    "by confidence": Row(pooled(part("Confidence", power=1.0))),
    "most confident": Row(pooled(part("Confidence", power=30.0))),
    "by probability of the label": Row(pooled(part("Posterior", rate=0.5))),
    "learned per teacher": Row(pooled([part("Learned")] * 2)),
    "learned per teacher and row": Row(pooled(part("LearnedPerSample"))),
    "learned per teacher and row, shuffled quiz": Row(pooled(part("LearnedPerSample")), SHUFFLED),
    "learned gate": gated(1.0, OTHER),
    "learned gate, quiz of the same classes": gated(1.0, ()),
    "learned gate and teachers": gated(part("LearnedPerSample"), OTHER),
    "learned gate and teachers, quiz of the same classes": gated(part("LearnedPerSample"), ()),
    "learned gate and teachers, shuffled quiz": gated(
        part("LearnedPerSample"), (*OTHER, *SHUFFLED)
    ),
}
UNROLLED = "--model.strategy_training.hypergradient=unrolled"
LOOKS = {
    "5 steps ahead": (UNROLLED, "--model.strategy_training.pilot_steps=5"),
    "20 steps ahead": (UNROLLED, "--model.strategy_training.pilot_steps=20"),
    "a pilot of 0.02": ("--model.strategy_training.pilot_lr=0.02",),
    "at a tenth of the rate": ("--model.strategy_training.lr=0.0005",),
}
"""Whether a longer look, or a slower strategy, sees that a teacher does harm in the end."""
ROWS |= {
    f"learned gate and teachers, {look}": gated(part("LearnedPerSample"), (*OTHER, *words))
    for look, words in LOOKS.items()
}
CHOSEN = "best constant by validation"


def teacher_of_characters(data: str) -> Run:
    """The training of the teacher that the package does not bring."""
    return Run("fit", OF_CHARACTERS, OF_CHARACTERS, (f"--data.source.root={data}",))


def of_data(seed: int, data: str) -> tuple[str, ...]:
    """The options of the tasks."""
    domains = ("cifar_fs", "omniglot")
    roots = (f"--data.source.source.sources.{domain}.root={data}" for domain in domains)
    return (*roots, f"--seed_everything={seed}", f"--data.seed={seed}")


def training(name: str, seed: int, data: str) -> Run:
    """The training of a row."""
    row, is_taught = ROWS[name], name != "no teacher"
    options = (
        *of_data(seed, data),
        *(() if is_taught else (ALONE,)),
        f"--model.loss={json.dumps(row.loss)}",
        *row.words,
    )
    folder = f"two_domains/fit/seed{seed}/{as_word(name)}"
    return Run("fit", folder, CONFIG, options, (teacher_of_characters(data),) if is_taught else ())


def test(name: str, seed: int, shots: int, data: str) -> Run:
    """The test of a row, on new classes of both domains."""
    run = training(name, seed, data)
    folder = run.folder.replace("/fit/", f"/test/{shots}shot/")
    options = (*of_data(seed, data), ALONE, f"--data.k_shot={shots}", initial_checkpoint(run))
    return Run("test", folder, CONFIG, options, (run,))


def plan(data: str) -> list[Run]:
    """All rows."""
    return [test(n, seed, shots, data) for seed in SEEDS for n in ROWS for shots in SHOTS]


class Outcome(NamedTuple):
    """What a row came to in a seed.

    Args:
        accuracy: by domain and shots.
        seconds: of training.
    """

    accuracy: dict[str, float]
    seconds: float


def outcome(name: str, seed: int) -> Outcome:
    """What the tests of a row have left."""
    accuracy, seconds = {}, 0.0
    for shots in SHOTS:
        for text in test(name, seed, shots, "").mark.read_text().splitlines():
            line = json.loads(text)
            accuracy[f"{line['source']}, {shots} shot{'s' * (shots > 1)}"] = line["accuracy"]
            seconds = line["wall_s"]
    return Outcome(accuracy, seconds)


def table() -> str:
    """Accuracy of each row by domain and shots, the mean below that of the best row, and the cost."""
    outcomes = {name: [outcome(name, seed) for seed in SEEDS] for name in ROWS}
    outcomes[CHOSEN] = []
    seconds_of_choice = [sum(outcomes[n][k].seconds for n in CONSTANTS) for k in range(len(SEEDS))]
    for k, seed in enumerate(SEEDS):
        chosen = max(CONSTANTS, key=lambda name: validated_by(training(name, seed, "")))
        outcomes[CHOSEN].append(outcomes[chosen][k]._replace(seconds=seconds_of_choice[k]))
    means = {name: [fmean(o.accuracy.values()) for o in row] for name, row in outcomes.items()}
    tops = [max(values) for values in zip(*means.values(), strict=True)]
    unit = fmean(o.seconds for o in outcomes["uniform"])
    lines = []
    for name in ("no teacher", *CONSTANTS, CHOSEN, *list(ROWS)[1 + len(CONSTANTS) :]):
        row, regret = outcomes[name], [t - m for t, m in zip(tops, means[name], strict=True)]
        of_tests = {
            column: percent(*over_seeds([o.accuracy[column] for o in row]))
            for column in row[0].accuracy
        }
        cost = f"{fmean(o.seconds for o in row) / unit:.1f}"
        lines.append(
            {"": name, **of_tests, "regret": percent(*over_seeds(regret)), "cost, runs": cost}
        )
    return markdown(lines)


def write_page() -> None:
    """Fill the section of the page."""
    runs = (test(name, seed, shots, "") for name in ROWS for seed in SEEDS for shots in SHOTS)
    fill_section(PAGE, "two-domains", f"{table()}\n\n{provenance(runs, 'two-domains')}")


if __name__ == "__main__":
    if main(plan):
        write_page()
