"""Texts of one's own: a table with a column of texts and one of labels."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_metakd.data.sources.class_splits import (
    Fractions,
    check_division,
    divide_otherwise,
    divided,
)
from lightning_metakd.data.sources.text_source import LabelledTexts, TextSource

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
LARGEST_FIELD = 16 * 2**20
"""Characters of one text; the csv module stops at 131,072 of itself."""


class Texts(TextSource):
    """Texts from a CSV, TSV or JSON-lines file, with their classes divided for few-shot learning.

    Args:
        path: a .csv or .tsv file with a line of column names, or a .jsonl file with an object on each line.
        text: name of the column of texts.
        label: name of the column of labels.
        encoding: of the file.
        splits: labels of train, val and test; without it they are drawn by the fractions.
        fractions: shares of the labels for train, val and test; null for 0.64, 0.16 and 0.2, but for val and
            test 5 labels at least, or a quarter of all where they are fewer than 15.
        split_seed: of that draw.
        n_tokens: most tokens of the vocabulary, which is made of the texts of split train alone.
        max_tokens: of a text, as many words at most; what is longer is cut.
        word_dropout: part of the words that an augmented view leaves out.

    Example:
        >>> from lightning_metakd.data.sources import Texts
        >>> source = Texts("tickets.csv", text="message", label="team")
        >>> source.name  # reads its file where rows are first needed
        'Texts(tickets.csv)'
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        label: str = "label",
        encoding: str = "utf-8-sig",
        splits: dict[str, list[str]] | None = None,
        fractions: Fractions | None = None,
        split_seed: int = 0,
        *,
        n_tokens: int = 4096,
        max_tokens: int = 64,
        word_dropout: float = 0.1,
    ) -> None:
        super().__init__(n_tokens, max_tokens, word_dropout)
        check_division(splits, fractions, split_seed)
        self.path, self.columns, self.encoding = Path(path).expanduser(), (text, label), encoding
        self.splits_by_name, self.fractions, self.split_seed = splits, fractions, split_seed
        if self.path.suffix.lower() not in (*SEPARATORS, *JSON_LINES):
            raise ValueError(
                f"path={path} is no table of texts; give a file that ends in "
                f"{', '.join((*SEPARATORS, *JSON_LINES))}."
            )

    @property
    def name(self) -> str:
        return f"Texts({self.path.name})"

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Labels of each split, as listed or drawn."""
        names = self.all_rows().class_names
        return divided(names, self.splits_by_name, self.fractions, self.split_seed)

    @property
    def more_classes(self) -> str:
        return divide_otherwise(self.split_names)

    def read_texts(self) -> LabelledTexts:
        return read_table(self.path, self.encoding, *self.columns)


def read_table(path: Path, encoding: str, text: str, label: str) -> LabelledTexts:
    """The texts of a table and their labels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another encoding or form, a column or a value is missing, or a class has a
            single text.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path} for data.source.path; correct the path, which begins at the working "
            "directory."
        )
    table = LabelledTexts([], [])
    try:
        for line, row in lines(path, encoding):
            check_columns(path, line, row, (text, label))
            table.texts.append(value(path, line, row, text))
            table.labels.append(value(path, line, row, label))
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(
            f"data.source.path={path} cannot be read as encoding={encoding} ({error}); save it as UTF-8, or "
            "set data.source.encoding, for instance to cp1252 or utf-16."
        ) from error
    counts = Counter(table.labels)
    if single := [name for name, count in counts.items() if count < 2]:
        raise ValueError(
            f"label {single[0]!r} in {path} has 1 text, and a class needs 2 at least, one for support and "
            "one for query; add texts or remove it."
        )
    if not counts:
        raise ValueError(f"data.source.path={path} holds no texts; give a file with some.")
    return table


def lines(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each line that is not empty."""
    with path.open(encoding=encoding, newline="") as file:
        if path.suffix.lower() in SEPARATORS:
            csv.field_size_limit(LARGEST_FIELD)
            reader = csv.DictReader(file, delimiter=SEPARATORS[path.suffix.lower()])
            try:
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise ValueError(f"line {reader.line_num} of {path} is no row: {error}.") from error
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, parsed(path, number, line)


def parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    """The object on a line of JSON."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"line {number} of {path} is no JSON: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(
            f"line {number} of {path} is {line.strip()[:40]!r}, and must be an object."
        )
    return row


def check_columns(path: Path, line: int, row: dict[str, Any], columns: tuple[str, str]) -> None:
    """Raise where a column is not there."""
    for argument, column in zip(("text", "label"), columns, strict=True):
        if column not in row:
            raise ValueError(
                f"data.source.{argument}={column!r} is no column of {path} (line {line} has "
                f"{', '.join(str(name) for name in row if name is not None)}); set it to one that is."
            )


def value(path: Path, line: int, row: dict[str, Any], column: str) -> str:
    """A value of a row; numbers may be labels."""
    content = row[column]
    if isinstance(content, str | int) and str(content).strip():
        return str(content).strip()
    empty = content is None or str(content).strip() == ""
    fault = "is empty" if empty else f"is {content!r}, no text"
    raise ValueError(
        f"column {column!r} of line {line} of {path} {fault}; fill it, or remove the line."
    )
