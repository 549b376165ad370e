"""The table of bad inputs: what a user types, and the line that answers.

`table.txt` has sections `[NEED: words of the command]`. In each, a line of further words is followed by an
indented one with the whole answer, in which `...` stands for anything. A first word `@name` is a function of
`plants.py`, which puts a file where the command finds it. NEED says how far a command must come to refuse:

- parse: the parser alone
- build: the constructors, and what is checked before anything is read
- start: the start of a run, on data
- files: the same, in a folder of its own with a trained teacher and student
- report: no Trainer at all
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A command that is refused."""

    need: str
    plant: str | None
    words: tuple[str, ...]
    line: str

    @property
    def pattern(self) -> str:
        """The line that answers, as a regular expression."""
        return "metakd: " + ".*".join(map(re.escape, self.line.split("...")))

    def __str__(self) -> str:
        return " ".join([f"@{self.plant}"] * (self.plant is not None) + [*self.words])


def read(path: Path) -> list[Row]:
    """All rows of a file."""
    rows: list[Row] = []
    need, base, words = "", [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            need, _, command = line.strip("[]").partition(":")
            base, words = shlex.split(command), []
        elif line.startswith(" "):
            plant = words.pop(0)[1:] if words and words[0].startswith("@") else None
            rows.append(Row(need, plant, (*base, *words), line.strip()))
        else:
            words = shlex.split(line)
    return rows


ROWS = read(Path(__file__).with_name("table.txt"))


def rows(need: str) -> list[Row]:
    """Those of a need."""
    return [row for row in ROWS if row.need == need]
