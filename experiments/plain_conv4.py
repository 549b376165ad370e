"""The best plain Conv4-64: long training on the base classes, taught or not, then tuned by episodes or not.

All four students of a seed have as many steps and the same rows, and the teacher is that of the zoo; each is
tested by nearest class mean and by logistic regression, at one shot and at five. What a lever of the training
is worth is asked of shorter ones.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from experiments.gate_rivals import part
from experiments.plan import ROOT, Run, images, initial_checkpoint, loss, report, shipped
from experiments.runner import main
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE = ROOT / "docs/results/plain-conv4.md"

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
ROTATED = {"rotated": ("--model.rotation.weight=1.0",)}
"""Taught, and beside it telling turned rows apart."""
SEEDS, OF_LEVERS, SHOTS = (0, 1, 2), (0, 1), (1, 5)
PAIR = 2
"""So few seeds have no interval worth showing."""
SHORT = "--trainer.max_steps=5000"
BEST = "taught_tuned"
"""The row that the zoo has, of the first seed."""


def beside_logits(**terms: Any) -> str:
    """The option of a loss of labels and the teacher's logits, half each, and further terms."""
    halves = {"labels": part("CrossEntropy"), "logits": part("Hinton", temperature=4.0)}
    weights = {"labels": 0.5, "logits": 0.5}
    return f"--model.loss={json.dumps(part('WeightedSum', terms=halves | terms, weights=weights))}"


LEVERS = {
    "taught": (),
    "alone": WAYS["alone"],
    "taught_by_nine_tenths": ("--model.loss.init_args.gate=0.9",),
    "relations_beside_logits": (beside_logits(relations=part("RKD")),),
    "rotation_beside_logits": ROTATED["rotated"],
    "averaged_weights": ("--model.optimisation.ema_decay=0.999",),
    "alone_by_mixup": (*WAYS["alone"], "--model.mixing.kind=mixup", "--model.mixing.alpha=0.2"),
    "alone_by_cutmix": (*WAYS["alone"], "--model.mixing.kind=cutmix"),
}
"""What is changed in a short training that is half taught."""


def words(seed: int, data: str) -> tuple[str, ...]:
    """Options of any run."""
    return images(data), f"--seed_everything={seed}", f"--data.seed={seed}"


def students(
    data: str, seed: int = 0, ways: Mapping[str, tuple[str, ...]] = WAYS
) -> dict[str, Run]:
    """The trainings of a seed, each way's long one and the tuning behind it, by the row's name."""
    rows = {}
    for way, of_way in ways.items():
        options = (*words(seed, data), *of_way)
        long = Run("fit", f"plain_conv4/seed{seed}/{way}", STUDENT, options)
        # rotation is of the long training alone
        tuned = (*words(seed, data), *WAYS.get(way, ()), initial_checkpoint(long))
        rows[way] = long
        rows[f"{way}_tuned"] = Run(
            "fit", f"plain_conv4/seed{seed}/{way}_tuned", TUNED, tuned, (long,)
        )
    return rows


def evaluation(
    folder: str, learner: str, shots: int, trained: Run | str, data: str, seed: int = 0
) -> Run:
    """A student on the novel classes, without teachers.

    Args:
        trained: its training, or a file of the zoo.
    """
    needs: tuple[Run, ...]
    if isinstance(trained, Run):
        start, needs = [initial_checkpoint(trained)], (trained,)
    else:
        start, needs = [f"--model.initialisation.checkpoint={trained}"], ()
    if trained == TEACHER:
        start.append(f"--model.student={RESNET12}")
    options = (
        *(*words(seed, data), "--model.teachers=[]", loss("cross_entropy")),
        *(f"--data.k_shot={shots}", f"--model.learner={shipped(LEARNERS[learner])}"),
        *start,
    )
    return Run("test", folder, TUNED, options, needs)


def tests(seed: int, data: str) -> list[Run]:
    """All that a table holds."""
    rows: dict[str, Run | str] = {**students(data, seed), "teacher": TEACHER}
    return [
        evaluation(
            f"plain_conv4_table/seed{seed}/{shots}shot/{name}_{learner}",
            *(learner, shots, trained, data, seed),
        )
        for name, trained in rows.items()
        for learner in LEARNERS
        for shots in SHOTS
    ]


def rotation(seed: int, data: str) -> Run:
    """The table of students that are taught and tell turned rows apart."""
    folder = f"plain_conv4_rotation/seed{seed}"
    tests = [
        evaluation(
            f"{folder}/{shots}shot/{name}_nearest_mean", "nearest_mean", shots, trained, data, seed
        )
        for name, trained in students(data, seed, ROTATED).items()
        for shots in SHOTS
    ]
    return report(folder, "plain-conv4", f"plain-conv4-rotation-seed{seed}", tests)


def short(lever: str, data: str, seed: int) -> Run:
    """A short training with a lever."""
    options = (*words(seed, data), *LEVERS[lever], SHORT)
    return Run("fit", f"plain_conv4_levers/seed{seed}/{lever}", STUDENT, options)


def levers(seed: int, data: str) -> Run:
    """The table of what they are worth."""
    folder = f"plain_conv4_levers_table/seed{seed}"
    trained = {lever: short(lever, data, seed) for lever in LEVERS}
    tests = [
        evaluation(f"{folder}/{shots}shot/{lever}", "nearest_mean", shots, run, data, seed)
        for lever, run in trained.items()
        for shots in SHOTS
    ]
    section = f"plain-conv4-levers-seed{seed}"
    return report(folder, "plain-conv4", section, tests, "--baseline=taught")


def plan(data: str) -> list[Run]:
    """The trainings, their tests and a table for each seed, and what levers are worth."""
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
    ] + [
        *(rotation(seed, data) for seed in OF_LEVERS),
        *(levers(seed, data) for seed in OF_LEVERS),
    ]


def accuracies(page: str, seed: int, shots: int) -> dict[str, float]:
    """Of the rows of all tables of a seed, which the page holds, in [0, 1]."""
    tables = rf"results:begin plain-conv4-(?:\w+-)?seed{seed} -->(.*?)<!-- results:end"
    of_seed: dict[str, float] = {}
    for table in re.findall(tables, page, re.DOTALL):
        of_shots = table.split(f"{shots}-shot\n", 1)[1].split("###")[0]
        rows = re.findall(r"^\| (\w+) +\|(?:[^|]*\|){2} +([\d.]+) ±", of_shots, re.MULTILINE)
        of_seed |= {name: float(accuracy) / 100 for name, accuracy in rows}
    return of_seed


def over_all_seeds(
    page: str, rows: Mapping[str, str], minus: str, seeds: tuple[int, ...] = SEEDS
) -> str:
    """Rows over the seeds whose tables the page holds.

    Args:
        rows: for each, the row that is subtracted from it seed by seed, on the same episodes.
        minus: what that is.
    """
    lines = {name: {"": name.removesuffix("_nearest_mean")} for name in rows}
    for shots in SHOTS:
        of_seeds = [accuracies(page, seed, shots) for seed in seeds]
        for name, baseline in rows.items():
            more = [here[name] - here[baseline] for here in of_seeds]
            lines[name] |= {
                f"{shots} shot": of_all([here[name] for here in of_seeds]),
                f"minus {minus}, {shots} shot": "-" if name == baseline else of_all(more, "+"),
            }
    shown = "95 % intervals over" if len(seeds) > PAIR else "by"
    made = f"Percent; {shown} seeds {', '.join(map(str, seeds))}, whose tables stand below"
    return f"{markdown(list(lines.values()))}\n\n{made}; nearest class mean."


def of_all(values: list[float], sign: str = "") -> str:
    """The mean over seeds and its half-width, or each of two."""
    if len(values) > PAIR:
        return percent(*over_seeds(values), sign=sign)
    return ", ".join(f"{100 * value:{sign}.2f}" for value in values)


def write_page() -> None:
    """Fill the tables of all seeds from those of each, which the page holds."""
    page = PAGE.read_text()
    names = [f"{name}_nearest_mean" for name in ("alone", "alone_tuned", "taught", BEST)]
    of_students = over_all_seeds(page, dict.fromkeys(names, names[0]), "alone")
    of_levers = over_all_seeds(page, dict.fromkeys(LEVERS, "taught"), "taught", OF_LEVERS)
    unrotated = {name.replace("taught", "rotated"): name for name in names[2:]}
    of_rotation = over_all_seeds(page, unrotated, "only taught", OF_LEVERS)
    fill_section(PAGE, "plain-conv4-seeds", of_students)
    fill_section(PAGE, "plain-conv4-levers", of_levers)
    fill_section(PAGE, "plain-conv4-rotation", of_rotation)


if __name__ == "__main__":
    if main(plan):
        write_page()
