"""Published methods of few-shot learning from scratch on CIFAR-FS, all but one for a part of their length.

The files of the experiments hold the published hyper-parameters and lengths: each is one command in full.
Here ANIL has its 1,000 steps and the others some minutes of a core. One that adapts by gradient is trained
for each number of shots, as published, the others once.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from experiments.gate_runs import result
from experiments.plan import ROOT, Run, images, initial_checkpoint, shipped
from experiments.runner import main
from lightning_metakd.reporting.markdown import fill_section, markdown, percent

PAGE = ROOT / "docs/results/published.md"
SHOTS = (1, 5)
MAML, PROTONET = "meta_kd_cifar_fs_5w5s_maml", "meta_kd_cifar_fs_published_protonet"


class Published(NamedTuple):
    """A method as it was published, and how it is trained here.

    Args:
        accuracy: as published, in percent, with one shot and with five.
        source: of these numbers.
        config: stem of its experiment's file.
        steps: of training here.
        by_shots: whether it is trained for each number of shots.
        words: further words of training and test.
        tested: stem of the file by which it is tested, where that is another.
        test_words: further words of the test.
    """

    accuracy: tuple[str, str]
    source: str
    config: str
    steps: int
    by_shots: bool = True
    words: tuple[str, ...] = ()
    tested: str = ""
    test_words: tuple[str, ...] = ()


FIRST_ORDER = f"--model.learner={shipped('configs/learner/fomaml.yaml')}"
EMBEDDED = (
    f"--model.learner={shipped('configs/learner/logistic.yaml')}",
    f"--model.student={shipped('configs/model/conv4_64_average.yaml')}",
)
METHODS = {
    "MAML, Conv4-32": Published(
        ("58.9 ± 1.9", "71.5 ± 1.0"), "Bertinetto's run, in arXiv:1904.03758", MAML, 500
    ),
    "first-order MAML, Conv4-32": Published(
        ("57.06 ± 3.83", "72.24 ± 1.71"), "PaddleFSL", MAML, 500, words=(FIRST_ORDER,)
    ),
    "ANIL, Conv4-32": Published(
        ("56.19 ± 3.39", "68.60 ± 1.25"), "PaddleFSL", "meta_kd_cifar_fs_published_anil", 1000
    ),
    "ProtoNet, Conv4-64": Published(
        ("55.5 ± 0.7", "72.0 ± 0.6"),
        "Bertinetto's run, in arXiv:1904.03758",
        PROTONET,
        1500,
        by_shots=False,
    ),
    "R2-D2, Conv4-64": Published(
        ("62.3 ± 0.2", "77.4 ± 0.2"),
        "arXiv:1805.08136",
        "meta_kd_cifar_fs_published_r2d2",
        1500,
        by_shots=False,
    ),
    "RFS-simple, Conv4-64": Published(
        ("62.7 ± 0.8", "78.7 ± 0.5"),
        "arXiv:2003.11539",
        "single_task_cifar_fs_published_rfs",
        9000,
        by_shots=False,
        tested=PROTONET,
        test_words=EMBEDDED,
    ),
}


def training(name: str, shots: int, data: str) -> Run:
    """A method, trained for a number of shots or for all."""
    method = METHODS[name]
    options = [images(data), f"--trainer.max_steps={method.steps}", *method.words]
    folder = f"published/fit/{as_word(name)}"
    if method.by_shots:
        folder += f"_{shots}shot"
        options += [f"--data.k_shot={shots}", "--trainer.limit_val_batches=0"]
    return Run("fit", folder, method.config, tuple(options))


def as_word(name: str) -> str:
    """A method's name as one word."""
    return re.sub(r"[ ,]+", "_", name)


def evaluation(name: str, shots: int, data: str = "") -> Run:
    """A method, tested on the novel classes with a number of shots."""
    method, trained = METHODS[name], training(name, shots, data)
    options = [
        *(images(data), f"--data.k_shot={shots}", "--data.n_episodes=2000"),
        *(*method.words, *method.test_words, initial_checkpoint(trained)),
    ]
    folder = f"published/test/{shots}shot/{as_word(name)}"
    return Run("test", folder, method.tested or method.config, tuple(options), (trained,))


def plan(data: str) -> list[Run]:
    """All tests, with the trainings before them."""
    return [evaluation(name, shots, data) for name in METHODS for shots in SHOTS]


def line(name: str) -> dict[str, str]:
    """A method's numbers, published and here."""
    method, row = METHODS[name], {"": name}
    tests = [result(evaluation(name, shots)) for shots in SHOTS]
    for shots, published, here in zip(SHOTS, method.accuracy, tests, strict=True):
        row[f"published, {shots} shot"] = published
        row[f"here, {shots} shot"] = percent(here["accuracy"], here["ci95"])
    text = (ROOT / f"configs/experiment/{method.config}.yaml").read_text()
    (full,) = re.findall(r"^  max_steps: (\d+)$", text, re.MULTILINE)
    return {**row, "steps here": f"{method.steps:,}", "in full": f"{int(full):,}"} | {
        "published by": method.source,
        "here on": joined(here["device"] for here in tests),
        "commit": joined(here["git"][:10] for here in tests),
    }


def joined(values: Iterable[str]) -> str:
    """Those that differ."""
    return ", ".join(dict.fromkeys(values))


def rows_of(page: str) -> dict[str, dict[str, str]]:
    """The table that the page holds, by method."""
    section = page.split("<!-- results:begin published -->")[1].split("<!-- results:end -->")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def write_page() -> None:
    """Put the methods of which all is tested here into the table; others keep their rows."""
    rows = rows_of(PAGE.read_text())
    runs = {name: [evaluation(name, shots) for shots in SHOTS] for name in METHODS}
    rows |= {name: line(name) for name in METHODS if all(run.complete for run in runs[name])}
    if rows:
        fill_section(PAGE, "published", markdown([rows[name] for name in METHODS if name in rows]))


if __name__ == "__main__":
    if main(plan):
        write_page()
