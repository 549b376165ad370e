"""What was asked of trainings, a row each, in a file of the repository beside what was asked before."""

import argparse
import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning_metakd.reporting.markdown import fill_section
from lightning_metakd.storage.atomic_files import atomic_write

Answers = dict[tuple[str, ...], dict[str, str]]
"""Rows by the values of their first columns, the keys."""


def read_answers(file: Path, keys: Sequence[str]) -> Answers:
    """The rows of a file, none where it does not exist."""
    if not file.is_file():
        return {}
    with file.open(newline="") as lines:
        return {tuple(row[name] for name in keys): row for row in csv.DictReader(lines)}


def write_answers(file: Path, answers: Answers) -> None:
    """Write all rows, in the order of their keys."""
    with atomic_write(file) as part, part.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(next(iter(answers.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(answers[key] for key in sorted(answers))


def keep(file: Path, answers: Answers, page: Path, section: str, table: str) -> None:
    """Write all rows, and their table into its section of a page."""
    write_answers(file, answers)
    fill_section(page, section, table)


def answer(
    keys: Sequence[str], values: Sequence[str], numbers: Mapping[str, float]
) -> dict[str, str]:
    """A row of keys and numbers, which are rounded."""
    rounded = {name: str(round(number, 4)) for name, number in numbers.items()}
    return dict(zip(keys, values, strict=True)) | rounded


def from_command_line(description: str | None, main: Callable[[str], None]) -> None:
    """Call main with the folder of the images, from the directory in which the runs lie."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, default="runs", help="folder of all runs, [PATH/]runs")
    parser.add_argument("--data", type=Path, default="data", help="folder of the images")
    settings = parser.parse_args()
    images = settings.data.resolve()
    os.chdir(settings.runs.parent)
    main(os.path.relpath(images))
