"""What misleads a gate in two domains, and whether what mends it does harm where a teacher is worth more.

A gate for each row is judged by other classes: at the best scale of the student's logits, as it comes, or
by a bounded loss. Over photographs and characters labels alone are better than following both teachers
half; where a student learns photographs of its teacher's classes, and not those that judge, half is better.
"""

import csv
import json
from statistics import fmean
from typing import Any, NamedTuple

from experiments.gate_rivals import part
from experiments.gate_runs import SEEDS, as_word, provenance
from experiments.plan import ROOT, Run, initial_checkpoint, shipped
from experiments.runner import main
from experiments.specialists import pooled
from experiments.two_domains import (
    ALONE,
    CONFIG,
    OTHER,
    SHOTS,
    gated,
    of_data,
    teacher_of_characters,
)
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE = ROOT / "docs/where-it-pays.md"
JUDGES = {
    "learned gate": (),
    "learned gate, bounded quiz": ("--model.strategy_training.quiz=GeneralisedCrossEntropy",),
}
"""What judges a step that a gate has taught."""
ROWS, GATE = ("no teacher", "half", *JUDGES), "strategy/gate_mean"
COLUMNS = tuple(
    f"{of}, {shots}" for shots in ("1 shot", "5 shots") for of in ("CIFARFS", "Omniglot")
)
TEACHER = {
    "class_path": "lightning_metakd.teachers.Teacher",
    "init_args": {
        "model": {"class_path": "ResNet12", "init_args": {"widths": [32, 64, 128, 256]}},
        "checkpoint": "zoo:resnet12_cifar_fs_teacher",
        "cache": True,
    },
}


class Setting(NamedTuple):
    """Tasks, and how their teachers are followed.

    Args:
        by_gate: the loss as far as a gate for each row says.
        half: the loss at a gate of 0.5.
        of_photographs: whether tasks are of photographs alone, with their teacher alone.
        learns_judges: whether the student learns the classes that judge as well.
    """

    by_gate: dict[str, Any]
    half: dict[str, Any]
    of_photographs: bool
    learns_judges: bool

    def of_data(self, seed: int, data: str) -> tuple[str, ...]:
        """The options of the tasks."""
        split = () if self.learns_judges else ("--data.train_split=teacher",)
        if not self.of_photographs:
            return (*of_data(seed, data), *split)
        return (
            f"--data.source={shipped('configs/source/cifar_fs_embedded.yaml')}",
            *("--data.source.views=0", f"--data.source.source.root={data}"),
            *(*split, f"--seed_everything={seed}", f"--data.seed={seed}"),
        )


def one_teacher(gate: Any) -> dict[str, Any]:
    """Following it as far as a gate says."""
    return part("MatchGate", gate=gate, match=part("Hinton", temperature=4.0))


BOTH, ONE = (
    (gated(1.0, ()).loss, pooled(1.0)),
    (one_teacher(part("LearnedPerSample")), one_teacher(0.5)),
)
SETTINGS = {
    "photographs and characters": Setting(*BOTH, of_photographs=False, learns_judges=True),
    "photographs and characters, fewer classes": Setting(
        *BOTH, of_photographs=False, learns_judges=False
    ),
    "photographs of fewer classes": Setting(*ONE, of_photographs=True, learns_judges=False),
}


def training(name_of_setting: str, name: str, seed: int, data: str) -> Run:
    """The training of a row."""
    setting, is_taught, is_learned = SETTINGS[name_of_setting], name != "no teacher", name in JUDGES
    if setting.of_photographs:
        teachers, needs = [f"--model.teachers={json.dumps([TEACHER])}"], []
    else:
        teachers, needs = [], [teacher_of_characters(data)]
    loss = setting.by_gate if is_learned else setting.half
    options = (
        *(*setting.of_data(seed, data), *(teachers if is_taught else [ALONE])),
        f"--model.loss={json.dumps(loss if is_taught else part('CrossEntropy'))}",
        *((*OTHER, *JUDGES[name]) if is_learned else ()),
    )
    folder = f"misled_gates/fit/{as_word(name_of_setting)}/seed{seed}/{as_word(name)}"
    return Run("fit", folder, CONFIG, options, tuple(needs) if is_taught else ())


def test(setting: str, name: str, seed: int, shots: int, data: str) -> Run:
    """The test of a row on new classes."""
    run = training(setting, name, seed, data)
    words = SETTINGS[setting].of_data(seed, data)
    options = (*words, ALONE, f"--data.k_shot={shots}", initial_checkpoint(run))
    return Run("test", run.folder.replace("/fit/", f"/test/{shots}shot/"), CONFIG, options, (run,))


def plan(data: str) -> list[Run]:
    """All rows, seed by seed."""
    rows = [(setting, name) for setting in SETTINGS for name in ROWS]
    return [test(*row, seed, shots, data) for seed in SEEDS for row in rows for shots in SHOTS]


def outcome(setting: str, name: str, seed: int) -> dict[str, float]:
    """What the tests of a row have left, by domain and shots."""
    accuracy = {}
    for shots in SHOTS:
        for text in test(setting, name, seed, shots, "").mark.read_text().splitlines():
            line = json.loads(text)
            source = line["source"].removesuffix(" embedded by Conv4")  # as one domain is called
            accuracy[f"{source}, {shots} shot{'s' * (shots > 1)}"] = line["accuracy"]
    return accuracy


def late_gate(run: Run) -> float:
    """The mean of a gate in the second half of a training, over tasks of all domains; 1 is the label."""
    with run.mark.parents[1].joinpath("metrics.csv").open(newline="") as file:
        gates = [float(row[GATE]) for row in csv.DictReader(file) if row[GATE]]
    return fmean(gates[len(gates) // 2 :])


def lines_of(setting: str) -> list[dict[str, str]]:
    """A line for each row: accuracy, how far below the best row, and its gate."""
    outcomes = {name: [outcome(setting, name, seed) for seed in SEEDS] for name in ROWS}
    means = {name: [fmean(o.values()) for o in row] for name, row in outcomes.items()}
    tops = [max(values) for values in zip(*means.values(), strict=True)]
    lines = []
    for name, row in outcomes.items():
        line = {"tasks": setting, "": name}
        for title in COLUMNS:
            values = [o[title] for o in row if title in o]
            line[title] = percent(*over_seeds(values)) if values else "-"
        regret = [top - mean for top, mean in zip(tops, means[name], strict=True)]
        gates = [late_gate(training(setting, name, seed, "")) for seed in SEEDS if name in JUDGES]
        line["regret"] = percent(*over_seeds(regret))
        line["gate"] = "{:.2f} ± {:.2f}".format(*over_seeds(gates)) if gates else "-"
        lines.append(line)
    return lines


def write_page() -> None:
    """Fill the section of the page."""
    table = markdown([line for setting in SETTINGS for line in lines_of(setting)])
    fill_section(PAGE, "misled-gates", f"{table}\n\n{provenance(plan(''), 'misled-gates')}")


if __name__ == "__main__":
    if main(plan):
        write_page()
