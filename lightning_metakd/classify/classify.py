"""Photographs in folders, or texts in files, sorted into classes by a student.

A folder for each class with a few pictures is all that an adaptable student needs to tell the classes
apart; a classifier of fixed classes needs none. Where the pictures to be classified lie in folders that are
called as the classes, these are their labels, and what the student confuses is shown. A teacher may answer
beside it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lightning_metakd.classify.onnx_student import TEXT, softmax
from lightning_metakd.classify.outcome import SHOWN, Prediction, sentence, write
from lightning_metakd.classify.pictures import Gallery, Row, printable
from lightning_metakd.classify.texts import TextFiles

CHUNK = 256
"""Rows that are classified at once."""

Reader = Gallery | TextFiles
"""What reads support and query, and keeps what it left out."""


class Support(NamedTuple):
    """What a student adapts to: its rows, their labels, and the names of the classes."""

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]


@runtime_checkable
class AnyStudent(Protocol):
    """What answers: an exported student, or one that comes with torch; see `OnnxStudent`."""

    @property
    def kind(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def about(self) -> Mapping[str, Any]: ...

    def embed(self, rows: np.ndarray) -> np.ndarray: ...
    def adapt_and_predict(
        self, support: np.ndarray, labels: np.ndarray, query: np.ndarray
    ) -> np.ndarray: ...


class Classifier(NamedTuple):
    """A student, how it reads, and what it has adapted to.

    Attributes:
        student: that answers.
        reader: of rows as it reads them.
        support: that it adapts to; None of one with fixed classes.
        classes: that it tells apart.
    """

    student: AnyStudent
    reader: Reader
    support: Support | None
    classes: list[str]


def sort_rows(
    students: Mapping[str, AnyStudent],
    paths: Mapping[str, Path],
    query: Path,
    support: Path | None,
    output: Path,
) -> None:
    """Say which class rows are of, and write that down.

    Args:
        students: one, and a teacher beside it if there is one, by the argument that names each.
        paths: of their files.
        query: where the rows lie.
        support: what they adapt to.
        output: folder for tables and pictures.
    """
    check_kinds(students, paths, support)
    classifiers = [prepared(student, support) for student in students.values()]
    check_classes(classifiers, paths.get("teacher"))
    by_student, *by_teacher = (answers(c, query, classifiers[0].classes) for c in classifiers)
    predictions = list(by_student)
    for others in by_teacher:
        predictions = [
            p._replace(teacher=other.answer, teacher_probability=other.probability)
            for p, other in zip(predictions, others, strict=True)
        ]
    reader, examples = classifiers[0].reader, classifiers[0].support
    print_left_out(reader.left_out, output)
    if not predictions:
        raise ValueError(
            f"query={query} holds no {reader.noun} that can be read; name a place with {reader.noun}s."
        )
    classes, n_support = classifiers[0].classes, 0 if examples is None else len(examples.labels)
    files = write(output, predictions, classes, reader.left_out)
    print(printable(sentence(predictions, classes, n_support, reader.noun)))
    print(f"written to {output}: {', '.join(files)}")


def print_left_out(lines: Sequence[str], output: Path) -> None:
    """Say what was left out, or where it is listed."""
    for line in lines[:SHOWN]:
        print(printable(f"left out: {line}"), file=sys.stderr)
    if (more := len(lines) - SHOWN) > 0:
        print(f"left out: {more} more, listed in {output / 'left_out.txt'}", file=sys.stderr)


def check_kinds(
    students: Mapping[str, AnyStudent], paths: Mapping[str, Path], support: Path | None
) -> None:
    """Raise where students and a support set do not go together.

    Args:
        students: by the argument that names each.
        paths: of their files.
        support: that they adapt to.
    """
    for argument, student in students.items():
        who = f"{argument}={paths[argument]}"
        if student.kind == "features":
            raise ValueError(
                f"{who} is a feature extractor without classes; export it by --head prototypes, which "
                "classifies by the nearest class mean."
            )
        if student.kind == "adaptable" and support is None:
            raise ValueError(
                f"support=null: {who} adapts to classes of yours; name a folder that holds a folder of "
                "pictures for each class."
            )
        if (student.mode == TEXT) != (students["model"].mode == TEXT):
            what = ("texts", "pictures") if student.mode == TEXT else ("pictures", "texts")
            raise ValueError(
                f"{who} reads {what[0]}, and model={paths['model']} {what[1]}; name a teacher of {what[1]}."
            )
    if support is not None and all(s.kind == "classifier" for s in students.values()):
        raise ValueError(
            f"support={support}: model={paths['model']} tells {len(students['model'].classes)} fixed classes "
            "apart and adapts to no others; leave --support out, or export the student by --head prototypes."
        )


def check_classes(classifiers: Sequence[Classifier], teacher: Path | None) -> None:
    """Raise where a teacher has no answer for a class of the student."""
    for other in classifiers[1:]:
        if missing := [name for name in classifiers[0].classes if name not in other.classes]:
            few = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise ValueError(
                f"teacher={teacher} does not know {few}, which the model tells apart; name a teacher of the "
                "same classes, or one that adapts."
            )


def prepared(student: AnyStudent, support: Path | None) -> Classifier:
    """A student with what it adapts to, unless its classes are fixed."""
    is_text = student.mode == TEXT
    reader: Reader = TextFiles(student.about) if is_text else Gallery(student.size, student.mode)
    if support is None or student.kind == "classifier":
        return Classifier(student, reader, None, student.classes)
    examples = read_support(support, reader)
    return Classifier(student, reader, examples, examples.classes)


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


def answers(classifier: Classifier, query: Path, labels: Sequence[str]) -> Iterator[Prediction]:
    """What a student says of every row that can be read.

    Args:
        classifier: that is asked.
        query: where the rows lie.
        labels: names of folders that are labels.
    """
    for chunk in chunks(classifier.reader.query(query, labels), CHUNK):
        yield from predict(classifier, chunk)


def predict(classifier: Classifier, rows: Sequence[Row]) -> Iterator[Prediction]:
    """What a student says of some rows."""
    student, _, support, classes = classifier
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
