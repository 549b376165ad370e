"""Keeps rows of the gate's tables in the repository: what took hours goes on where another machine stopped.

`pack` writes what runs have left into one file, beside what it holds already; `unpack` lays that out as if it
had been tested here, but for what is there, and `python -m experiments.regimes` goes on from it.
"""

import argparse
import csv
import json
import os
from pathlib import Path

from experiments import regimes, wrong_labels
from experiments.gate_runs import CHOSEN_BY, result, validated_by
from experiments.plan import ROOT, Run
from lightning_metakd.loggers.run_logger import update_latest_link
from lightning_metakd.storage.atomic_files import atomic_write

FILE = ROOT / "experiments/results/gate_rows.csv"
COLUMNS = ("accuracy", "wall_s", "git", "device", "threads")
"""Of a test's result, what a page reads."""
NUMBERS = {"accuracy": float, "wall_s": float, "threads": int}
FIELDS = ("folder", *COLUMNS, CHOSEN_BY)
Row = dict[str, str]


def all_tests() -> dict[str, Run]:
    """All tests of both plans, by their folders."""
    return {run.folder: run for run in (*regimes.plan(""), *wrong_labels.plan(""))}


def kept() -> dict[str, Row]:
    """The rows of the file, by their folders."""
    if not FILE.is_file():
        return {}
    with FILE.open(newline="") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def pack() -> int:
    """Write the rows of complete tests among those that are kept; how many these are."""
    rows = kept()
    for folder, run in all_tests().items():
        if run.complete:
            line = result(run)
            columns = {name: str(line[name]) for name in COLUMNS}
            (training,) = run.needs
            rows[folder] = {"folder": folder, **columns, CHOSEN_BY: str(validated_by(training))}
    with atomic_write(FILE) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[folder] for folder in sorted(rows))
    return len(rows)


def unpack() -> int:
    """Lay out the rows that are kept and not there, as tests and what chose among them; how many."""
    plan, new = all_tests(), 0
    for folder, row in kept().items():
        run = plan.get(folder)
        if run is None or run.complete:
            continue
        line = {name: NUMBERS.get(name, str)(row[name]) for name in COLUMNS}
        leave(run.mark, json.dumps(line))
        (training,) = run.needs
        if not training.mark.parents[1].exists():
            leave(training.mark.parents[1] / "metrics.csv", f"{CHOSEN_BY}\n{row[CHOSEN_BY]}")
        new += 1
    return new


def leave(path: Path, text: str) -> None:
    """Write a file into the latest directory of a run, which becomes its first one."""
    directory = path.parent.with_name("0")
    directory.mkdir(parents=True, exist_ok=True)
    update_latest_link(directory.parent, directory.name)
    with atomic_write(path) as part:
        part.write_text(f"{text}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("pack", "unpack"))
    parser.add_argument("--runs", type=Path, default="runs", help="folder of all runs, [PATH/]runs")
    settings = parser.parse_args()
    settings.runs.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.runs.parent)
    print({"pack": pack, "unpack": unpack}[settings.way](), "rows", FILE.name)
