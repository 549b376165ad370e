"""The command `metakd classify`: photographs in folders, or texts in files, by an exported student.

A folder for each class with a few pictures is all that an adaptable student needs to tell the classes
apart; a classifier of fixed classes needs none. Where the pictures to be classified lie in folders that are
called as the classes, these are their labels, and what the student confuses is shown.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lightning_metakd.classify.contact_sheet import confusion_picture, contact_sheets
from lightning_metakd.classify.onnx_student import TEXT, OnnxStudent, softmax
from lightning_metakd.classify.pictures import Gallery, Row, printable
from lightning_metakd.classify.texts import TextFiles
from lightning_metakd.storage.atomic_files import atomic_write

CHUNK = 256
"""Rows that are classified at once."""
SHOWN = 8
"""Classes, and lines of what was left out, that are named one by one."""


Reader = Gallery | TextFiles
"""What reads support and query, and keeps what it left out."""


class Support(NamedTuple):
    """What a student adapts to: its rows, their labels, and the names of the classes."""

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]


class Prediction(NamedTuple):
    """What a student says of a row.

    Attributes:
        row: of which it says it.
        answer: the class that is most probable.
        probability: of that class.
        runner_up: the next class.
        runner_up_probability: of that one.
    """

    row: Row
    answer: str
    probability: float
    runner_up: str
    runner_up_probability: float

    @property
    def label(self) -> str:
        """The class of the row; empty where that is none of the classes."""
        return self.row.label

    @property
    def thumbnail(self) -> Image.Image:
        """As a contact sheet shows it."""
        assert self.row.thumbnail is not None
        return self.row.thumbnail


def classify(
    model: Path, query: Path, support: Path | None = None, output: Path = Path("classified")
) -> None:
    """Classify the pictures in a folder, or the texts in a file, by an exported student.

    Args:
        model: file that metakd export wrote as onnx or onnx-int8.
        query: folder of pictures, of any size and format; where they lie in folders that are called as the
            classes, the student is judged. Of texts: a .csv or .tsv file with a column text (and label, by
            which the student is judged), or a .txt file with one in each line.
        support: folder with a folder for each class, and a few pictures in it; of texts a table with the
            columns text and label. A classifier needs none.
        output: folder for predictions.csv, and for contact_sheet.png and confusion.png.
    """
    student = OnnxStudent(model)
    check_kind(student, model, support)
    is_text = student.mode == TEXT
    reader: Reader = TextFiles(student.about) if is_text else Gallery(student.size, student.mode)
    examples = None if support is None else read_support(support, reader)
    classes = student.classes if examples is None else examples.classes
    rows = reader.query(query, classes)
    predictions = [
        p for chunk in chunks(rows, CHUNK) for p in predict(student, examples, classes, chunk)
    ]
    for line in reader.left_out[:SHOWN]:
        print(printable(f"left out: {line}"), file=sys.stderr)
    if (more := len(reader.left_out) - SHOWN) > 0:
        print(f"left out: {more} more, listed in {output / 'left_out.txt'}", file=sys.stderr)
    if not predictions:
        raise ValueError(
            f"query={query} holds no {reader.noun} that can be read; name a place with {reader.noun}s."
        )
    files = write(output, predictions, classes, reader.left_out)
    print(printable(sentence(predictions, classes, examples, reader.noun)))
    print(f"written to {output}: {', '.join(files)}")


def check_kind(student: OnnxStudent, model: Path, support: Path | None) -> None:
    """Raise where a student and a support set do not go together."""
    if student.kind == "features":
        raise ValueError(
            f"model={model} is a feature extractor without classes; export it by --head prototypes, which "
            "classifies by the nearest class mean."
        )
    if student.kind == "adaptable" and support is None:
        raise ValueError(
            f"support=null: model={model} adapts to classes of yours; name a folder that holds a folder of "
            "pictures for each class."
        )
    if student.kind == "classifier" and support is not None:
        raise ValueError(
            f"support={support}: model={model} tells {len(student.classes)} fixed classes apart and adapts "
            "to no others; leave --support out, or export the student by --head prototypes."
        )


def read_support(place: Path, reader: Reader) -> Support:
    """The rows of each class; a class without any that can be read is left out.

    Raises:
        ValueError: if there are fewer than two classes.
    """
    rows = reader.support(place)
    empty = [name for name, of_class in rows.items() if not of_class]
    reader.left_out += [
        f"{place}: class {name!r} has no {reader.noun} that can be read" for name in empty
    ]
    classes = [name for name in rows if name not in empty]
    if len(classes) < 2:
        there = f"the class {classes[0]!r} alone" if classes else "no class"
        reasons = "; ".join(reader.left_out[:SHOWN])
        raise ValueError(
            f"support={place} has {there} with {reader.noun}s that can be read, and a choice needs two; add "
            f"{reader.noun}s of another class.{reasons and ' Left out: '}{reasons}"
        )
    labels = [k for k, name in enumerate(classes) for _ in rows[name]]
    together = np.stack([x for name in classes for x in rows[name]])
    return Support(together, np.asarray(labels, dtype=np.int64), classes)


def predict(
    student: OnnxStudent, support: Support | None, classes: Sequence[str], rows: Sequence[Row]
) -> Iterator[Prediction]:
    """What the student says of some rows."""
    x = np.stack([row.x for row in rows])
    if support is None:
        logits = student.embed(x)
    else:
        logits = student.adapt_and_predict(support.rows, support.labels, x)
    for row, probs in zip(rows, softmax(logits), strict=True):
        first, second = np.argsort(-probs, kind="stable")[:2]
        answer, runner_up = ((classes[k], float(probs[k])) for k in (first, second))
        yield Prediction(row, *answer, *runner_up)


def chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """The rows in lists of a size; the last one may be shorter."""
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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
    columns = [name, "class", "probability", "runner_up", "runner_up_probability"]
    yield [*columns, "label"] if has_labels else columns
    for p in predictions:
        cells = [p.row.name, p.answer, f"{p.probability:.4f}"]
        cells += [p.runner_up, f"{p.runner_up_probability:.4f}"]
        yield [*cells, p.label] if has_labels else cells


def confusion(labelled: Sequence[Prediction], classes: Sequence[str]) -> np.ndarray:
    """How many of each class (rows) were taken for each (columns)."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for p in labelled:
        counts[classes.index(p.label), classes.index(p.answer)] += 1
    return counts


def sentence(
    predictions: Sequence[Prediction], classes: Sequence[str], support: Support | None, noun: str
) -> str:
    """What was done, for a human."""
    few = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
    by = "" if support is None else f" after {counted(len(support.labels), f'support {noun}')}"
    text = f"{counted(len(predictions), noun)} of {len(classes)} classes ({few}){by}"
    if labelled := [p for p in predictions if p.label]:
        right = sum(p.label == p.answer for p in labelled)
        text += (
            f"; accuracy {100 * right / len(labelled):.2f} % of {len(labelled)} with a label "
            f"({right} right)"
        )
    return text


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
