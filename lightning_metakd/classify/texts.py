"""Texts in files: which there are, and the tokens of each.

A table (.csv or .tsv) has a column `text`, and one called `label` where classes are on record; of a .txt file
each line is a text. Tokens are made by the library `tokenizers`, which needs no torch.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lightning_metakd.classify.pictures import Row
from lightning_metakd.storage.limits import check_size

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TextFiles:
    """Reads texts as one student does.

    Args:
        about: what the student's metadata say: tokeniser, pad, and size, the most tokens of a text.

    Attributes:
        left_out: a line for each text that was left out, with the reason.

    Raises:
        ImportError: if tokenizers is not installed.
        ValueError: if the student's tokeniser is none.
    """

    noun = "text"

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.left_out: list[str] = []
        self.most = int(about["size"])
        self.tokeniser: Any = opened(str(about.get("tokeniser")))
        self.tokeniser.enable_truncation(self.most)
        self.tokeniser.enable_padding(pad_id=int(about.get("pad", 0)), length=self.most)

    def support(self, path: Path) -> dict[str, list[np.ndarray]]:
        """The texts of each class.

        Args:
            path: a table with the columns text and label.
        """
        classes: dict[str, list[np.ndarray]] = {}
        for text, label in self.read(path, "support"):
            if label:
                classes.setdefault(label, []).append(self.tokens(text))
            else:
                self.left_out.append(f"{path}: {text[:40]!r} has no label")
        return dict(sorted(classes.items()))

    def query(self, path: Path, classes: Sequence[str]) -> Iterator[Row]:
        """The texts to be classified, one after another.

        Args:
            path: a table, or a file with a text in each line.
            classes: labels that are classes.
        """
        for text, label in self.read(path, "query"):
            yield Row(text, label if label in classes else "", self.tokens(text))

    def tokens(self, text: str) -> np.ndarray:
        """Numbers of the tokens of a text, filled up to the longest."""
        words = " ".join(text.replace("\0", " ").split()[: self.most])
        return np.asarray(self.tokeniser.encode(words).ids, dtype=np.int64)

    def read(self, path: Path, argument: str) -> Iterator[tuple[str, str]]:
        """Each text that is not empty, with its label or nothing.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is neither a table with a column `text` nor a text file.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{argument}={path} is no file; name a .csv, .tsv or .txt file of texts."
            )
        check_size(path.stat().st_size, f"{argument}={path}")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if path.suffix.lower() not in DELIMITERS:
            yield from ((line.strip(), "") for line in lines if line.strip())
            return
        table = csv.DictReader(lines, delimiter=DELIMITERS[path.suffix.lower()])
        if "text" not in (table.fieldnames or ()):
            raise ValueError(
                f"{argument}={path} has the columns {', '.join(table.fieldnames or ())}; call that of the "
                "texts `text`, and that of the classes `label`."
            )
        for number, row in enumerate(table, 2):
            if text := (row["text"] or "").strip():
                yield text, (row.get("label") or "").strip()
            else:
                self.left_out.append(f"{path}: line {number} has no text")


def opened(tokeniser: str) -> Any:
    """A tokeniser, as the library `tokenizers` writes it in JSON."""
    try:
        library = import_module("tokenizers")
    except ImportError as error:
        raise ImportError(
            "texts are divided into tokens by the package tokenizers, which is not installed; "
            "pip install tokenizers"
        ) from error
    try:
        return library.Tokenizer.from_str(tokeniser)
    except Exception as error:  # the library has no exceptions of its own
        raise ValueError(
            f"model: its tokeniser cannot be read ({error}); take a file that metakd export wrote."
        ) from error
