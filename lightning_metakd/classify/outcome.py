"""What was said of rows: a table, pictures, and a sentence."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lightning_metakd.classify.contact_sheet import confusion_picture, contact_sheets
from lightning_metakd.classify.pictures import Row
from lightning_metakd.storage.atomic_files import atomic_write

SHOWN = 8
"""Classes, and lines of what was left out, that are named one by one."""


class Prediction(NamedTuple):
    """What a student says of a row.

    Attributes:
        row: of which it says it.
        answer: the class that is most probable.
        probability: of that class.
        runner_up: the next class.
        runner_up_probability: of that one.
        teacher: the class that is most probable to a teacher; empty where there is none.
        teacher_probability: of that one.
    """

    row: Row
    answer: str
    probability: float
    runner_up: str
    runner_up_probability: float
    teacher: str = ""
    teacher_probability: float = 0.0

    @property
    def label(self) -> str:
        """The class of the row; empty where that is none of the classes."""
        return self.row.label

    @property
    def thumbnail(self) -> Image.Image:
        """As a contact sheet shows it."""
        assert self.row.thumbnail is not None
        return self.row.thumbnail


def write(
    folder: Path, predictions: Sequence[Prediction], classes: Sequence[str], left_out: Sequence[str]
) -> list[str]:
    """Write table and pictures, and return their names."""
    labelled = [p for p in predictions if p.label]
    with (
        atomic_write(folder / "predictions.csv") as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(table(predictions, bool(labelled)))
    names = ["predictions.csv"]
    shown = [p for p in predictions if p.row.thumbnail is not None]
    pictures = dict(contact_sheets(shown))
    if labelled:
        pictures["confusion.png"] = confusion_picture(confusion(labelled, classes), classes)
    for name, picture in pictures.items():
        with atomic_write(folder / name) as part:
            picture.save(part, format="PNG")
        names.append(name)
    if left_out:
        with atomic_write(folder / "left_out.txt") as part:
            part.write_text("\n".join(left_out) + "\n", encoding="utf-8", errors="surrogateescape")
        names.append("left_out.txt")
    return names


def table(predictions: Sequence[Prediction], has_labels: bool) -> Iterator[list[str]]:
    """A head, and a line for each row, in their order."""
    name = "text" if predictions[0].row.thumbnail is None else "file"
    has_teacher = bool(predictions[0].teacher)
    columns = [name, "class", "probability", "runner_up", "runner_up_probability"]
    columns += ["teacher", "teacher_probability", "agreement"] if has_teacher else []
    yield [*columns, "label"] if has_labels else columns
    for p in predictions:
        cells = [p.row.name, p.answer, f"{p.probability:.4f}"]
        cells += [p.runner_up, f"{p.runner_up_probability:.4f}"]
        if has_teacher:
            cells += [p.teacher, f"{p.teacher_probability:.4f}", str(int(p.answer == p.teacher))]
        yield [*cells, p.label] if has_labels else cells


def confusion(labelled: Sequence[Prediction], classes: Sequence[str]) -> np.ndarray:
    """How many of each class (rows) were taken for each (columns)."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for p in labelled:
        counts[classes.index(p.label), classes.index(p.answer)] += 1
    return counts


def sentence(
    predictions: Sequence[Prediction], classes: Sequence[str], n_support: int, noun: str
) -> str:
    """What was done, for a human.

    Args:
        predictions: of all rows.
        classes: that are told apart.
        n_support: rows that the student adapted to; 0 where it did not.
        noun: what rows are called.
    """
    few = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
    by = f" after {counted(n_support, f'support {noun}')}" if n_support else ""
    text = f"{counted(len(predictions), noun)} of {len(classes)} classes ({few}){by}"
    has_teacher = bool(predictions[0].teacher)
    labelled = [p for p in predictions if p.label]
    if labelled:
        right = sum(p.label == p.answer for p in labelled)
        share = 100 * right / len(labelled)
        text += f"; accuracy {share:.2f} % of {len(labelled)} with a label ({right} right)"
    if labelled and has_teacher:
        right = sum(p.label == p.teacher for p in labelled)
        text += f", the teacher's {100 * right / len(labelled):.2f} % ({right} right)"
    if has_teacher:
        same = sum(p.answer == p.teacher for p in predictions)
        text += f"; both say the same of {same:,} of {counted(len(predictions), noun)}"
    return text


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
