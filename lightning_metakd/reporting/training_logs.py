"""What trainings logged, step by step, as the mean over seeds."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

SHOWN = re.compile(
    r"(val|train)/(student_accuracy|outer_loss|quiz_loss)|strategy/.*_(mean|min|max)"
)
"""Logged numbers that a page shows."""
TESTED = re.compile(r"^(?:ckpt_path|\s+initialisation:\s+checkpoint): (\S+/checkpoints/\S+)$", re.M)
"""How the configuration of a test names the checkpoint that it tests."""

Series = Mapping[int, float]
"""Values by step."""


class Training(NamedTuple):
    """What trainings that differ in their seed logged.

    Attributes:
        name: their folder, without seed and version.
        columns: the mean over seeds of each logged number, by step.
        seeds: how many there are.
    """

    name: str
    columns: Mapping[str, Series]
    seeds: int


def trainings(folder: Path, tests: Iterable[Path] = ()) -> list[Training]:
    """All trainings under a folder, and those of the checkpoints that were tested.

    Args:
        tests: folders of tests.
    """
    folder = folder.resolve()
    # `latest` is a second way in
    runs = {path.resolve().parent for path in folder.rglob("metrics.csv") if path.is_file()}
    runs |= {run for test in tests for run in tested(test, folder)}
    groups: dict[str, list[dict[str, dict[int, float]]]] = {}
    for run in sorted(runs):
        if (run / "config.fit.yaml").is_file() and (run / "metrics.csv").is_file():
            groups.setdefault(name_of(run, folder), []).append(read_metrics(run / "metrics.csv"))
    return [Training(name, mean_of(runs), len(runs)) for name, runs in groups.items()]


def tested(test: Path, folder: Path) -> Iterator[Path]:
    """Folders of the trainings whose checkpoints a test names, and that had ended before it."""
    for config in test.glob("config.test*.yaml"):
        for name in TESTED.findall(config.read_text(errors="replace")):
            for base in (Path(), *folder.parents):
                checkpoint = base / name
                if checkpoint.is_file() and checkpoint.stat().st_mtime <= config.stat().st_mtime:
                    yield checkpoint.resolve().parents[1]
                    break


def name_of(run: Path, folder: Path) -> str:
    """The folders of a training that are neither version nor seed nor those of all trainings."""
    inside = run.is_relative_to(folder)
    parts = run.relative_to(folder).parts if inside else run.parts[-2:]
    kept = [p for p in parts if not re.fullmatch(r"\d+|latest|seed_?\d+|fit", p)]
    return "/".join(kept) or folder.name


def read_metrics(path: Path) -> dict[str, dict[int, float]]:
    """The columns of `metrics.csv` that are shown; what is no number is left out."""
    columns: dict[str, dict[int, float]] = {}
    with path.open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            step = number(row.get("step"))
            for name, text in row.items():
                shown = SHOWN.fullmatch(str(name))
                value = number(text) if shown else None
                if step is not None and value is not None:
                    columns.setdefault(name, {})[int(step)] = value
    return columns


def number(text: object) -> float | None:
    """A finite number, or None."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def mean_of(runs: Sequence[Mapping[str, Series]]) -> dict[str, Series]:
    """The mean over runs at the steps that all of those have which log the number."""
    means: dict[str, Series] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        columns = [run[name] for run in runs if name in run]
        steps = sorted(set(columns[0]).intersection(*columns[1:]))
        means[name] = {step: fmean(c[step] for c in columns) for step in steps}
    return means
