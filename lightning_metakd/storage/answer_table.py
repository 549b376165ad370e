"""What was answered in an evaluation: row by row, with small pictures or texts of a few rows.

A compressed file of plain arrays, `answers.<split>.npz`. Classes are places among `classes`; -1 is none.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_metakd.storage.atomic_files import DamagedFileError, atomic_write
from lightning_metakd.storage.episode_table import episodes_file
from lightning_metakd.storage.limits import check_size, open_zip

Columns = Mapping[str, np.ndarray]

COLUMNS = (
    *("episode", "row", "label", "predicted", "probability"),
    *("teacher_predicted", "teacher_probability"),
)
"""Of each query row; a coefficient that differs from row to row has one more, under its name."""
SUPPORT = ("episode", "row", "label")
EPISODES, QUERY_ROWS, SUPPORT_ROWS = 10, 15, 25
"""So many episodes have pictures or texts, and so many rows of each; without episodes as many query rows."""
HARDEST = 5
"""So many episodes with the most wrong answers have them too."""
EXTREMES = 12
"""So many rows with the lowest and with the highest value of a coefficient have them too."""


class AnswerTable(NamedTuple):
    """What a student and its teacher answered.

    Attributes:
        columns: `COLUMNS` of each query row, in the order of episodes, [n].
        support: `SUPPORT` of each support row of the first and of the hardest episodes, [s].
        coefficients: values of the teaching loss for each query row by name, nan where there is none, [n].
        classes: names of the classes.
        pictures: of some rows by their number, as WebP.
        texts: of some rows by their number.
    """

    columns: Columns
    support: Columns
    coefficients: Columns
    classes: tuple[str, ...]
    pictures: Mapping[int, bytes]
    texts: Mapping[int, str]


def answers_file(row: Mapping[str, Any]) -> str:
    """Name of the file of the answers of a result."""
    return episodes_file(row).replace("episodes", "answers", 1).removesuffix(".csv") + ".npz"


def hardest_episodes(columns: Columns) -> dict[int, np.ndarray]:
    """Of each of the episodes with the most wrong answers, the places of some query rows, wrong ones first.

    Nothing where rows are of no episode.
    """
    episode, right = columns["episode"], columns["predicted"] == columns["label"]
    numbers = np.unique(episode[episode >= 0])
    order = np.argsort([right[episode == k].mean() for k in numbers], kind="stable")
    places = {int(k): np.flatnonzero(episode == k) for k in numbers[order][:HARDEST]}
    return {k: p[np.argsort(right[p], kind="stable")][:QUERY_ROWS] for k, p in places.items()}


def numbered(columns: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The columns under names that begin alike."""
    return {f"{prefix}.{name}": column for name, column in columns.items()}


def write_answers(path: Path, table: AnswerTable) -> None:
    """All of the table, or what stood there before."""
    sizes = np.array([len(picture) for picture in table.pictures.values()], dtype=np.int64)
    arrays: dict[str, Any] = {
        **numbered(table.columns, "query"),
        **numbered(table.support, "support"),
        **numbered(table.coefficients, "coefficient"),
        "classes": np.array(table.classes, dtype=np.str_),
        "picture_rows": np.array(list(table.pictures), dtype=np.int64),
        "picture_ends": sizes.cumsum(),
        "pictures": np.frombuffer(b"".join(table.pictures.values()), dtype=np.uint8),
        "text_rows": np.array(list(table.texts), dtype=np.int64),
        "texts": np.array(list(table.texts.values()), dtype=np.str_),
    }
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_answers(path: Path) -> AnswerTable:
    """The table of a file.

    Raises:
        DamagedFileError: if it is none.
    """
    try:
        with open_zip(path) as archive:
            check_size(sum(member.file_size for member in archive.infolist()), str(path))
        with np.load(path, allow_pickle=False) as file:
            return table_of(dict(file))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise DamagedFileError(f"is no table of answers ({error})") from error


def table_of(arrays: Mapping[str, np.ndarray]) -> AnswerTable:
    """The arrays of a file as a table.

    Raises:
        KeyError: if one is missing.
        ValueError: if columns differ in length, or name a class that is not there.
    """
    columns = {name: arrays[f"query.{name}"] for name in COLUMNS}
    support = {name: arrays[f"support.{name}"] for name in SUPPORT}
    coefficients = {
        name.removeprefix("coefficient."): column
        for name, column in arrays.items()
        if name.startswith("coefficient.")
    }
    classes = tuple(map(str, arrays["classes"]))
    for group in ([*columns.values(), *coefficients.values()], list(support.values())):
        if len({column.shape for column in group}) > 1 or group[0].ndim != 1:
            raise ValueError("columns of several lengths")
    labels = [columns[name] for name in ("label", "predicted", "teacher_predicted")]
    for column in (*labels, support["label"]):
        if len(column) and not -1 <= column.min() <= column.max() < len(classes):
            raise ValueError("a class that has no name")
    pictures = np.split(arrays["pictures"], arrays["picture_ends"])
    return AnswerTable(
        columns,
        support,
        coefficients,
        classes,
        {int(row): p.tobytes() for row, p in zip(arrays["picture_rows"], pictures, strict=False)},
        dict(zip(map(int, arrays["text_rows"]), map(str, arrays["texts"]), strict=True)),
    )
