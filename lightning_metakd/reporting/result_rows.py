"""Results that runs left on disk, and the rows of a table that they make."""

import csv
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lightning_metakd.settings.row_names import determines, differing_settings
from lightning_metakd.storage.answer_table import answers_file, read_answers
from lightning_metakd.storage.atomic_files import DamagedFileError
from lightning_metakd.storage.episode_table import episodes_file

SAME_EPISODES = ("source", "split", "n_way", "k_shot", "n_query", "eval_seed")
"""Two rows are compared episode by episode only where all of these are known and agree."""

SAME_DATA = ("source", "split")
"""Where there are no episodes they are compared row by row where these agree, and the rows are the same."""

SAME_ROW = (
    *("experiment", "recipe", "learner", "loss", "control", "stage", "teacher_at_test"),
    *("train_seed", "train_classes", "settings_sha256", *SAME_EPISODES),
)
"""Of results that agree in all of these, the latest counts."""

SEVERAL_SEEDS = (*(key for key in SAME_ROW if key != "train_seed"), "episodes")
"""Results that agree in all of these are one row."""

NUMBER = (int, float, type(None))
KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("accuracy", "ci95", "teacher_accuracy", "teacher_ci95", "episodes"), NUMBER),
    **dict.fromkeys(("student_params", "student_macs", "student_flops", "latency_ms"), NUMBER),
    **dict.fromkeys(("adapt_ms", "wall_s", "teacher_forwards", "gradient_evaluations"), NUMBER),
    **dict.fromkeys(
        ("student_bytes", "peak_memory_bytes", "paired_difference", "paired_ci95"), NUMBER
    ),
    **dict.fromkeys(("teacher_params", "teacher_macs", "teacher_flops"), NUMBER),
    "teacher_latency_ms": NUMBER,
    **dict.fromkeys(("train_steps", "episodes_per_s", "threads", "world_size"), NUMBER),
    **dict.fromkeys(("versions", "settings"), (dict, type(None))),
    **{"train_seed": (int, type(None)), "git": (str, type(None))},
}
"""What the values of a line must be that are more than shown."""


class Result(NamedTuple):
    """One line of results.jsonl, and the directory in which it stands."""

    row: Mapping[str, Any]
    folder: Path


class Row(NamedTuple):
    """Results that differ in the training seed alone, in its order.

    Args:
        apart: by what it differs from rows of the same name.
    """

    results: tuple[Result, ...]
    apart: str = ""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What the results have in common, in the words of the first."""
        return self.results[0].row

    @property
    def seeds(self) -> list[int | None]:
        """The training seeds."""
        return [result.row.get("train_seed") for result in self.results]

    @property
    def experiment(self) -> str:
        """The experiment of all results."""
        return str(self.fields.get("experiment"))

    @property
    def control(self) -> str | None:
        """What the training altered to see whether a gain stays; None where it is the method."""
        control = self.fields.get("control")
        return None if control in (None, "none") else str(control)

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """Those that trained and tested it; None where its results do not say."""
        return self.fields.get("settings")

    @property
    def name(self) -> str:
        """What it is called."""
        fields = self.fields.get
        parts = {
            f"control {self.control}": self.control,
            "teacher at test": fields("teacher_at_test"),
            "transductive": fields("transductive"),
            f"wrong support {fields('wrong_support')}": fields("wrong_support"),
            f"{fields('support_views')} views of the support": fields("support_views"),
            f"external data {fields('external_data')}": fields("external_data"),
            self.apart: self.apart,
        }
        return ", ".join([self.experiment, *(part for part, so in parts.items() if so)])

    @property
    def learner(self) -> str:
        """By what the student adapted."""
        return str(self.fields.get("learner") or self.fields.get("recipe") or "-")

    def values_of(self, key: str) -> list[Any]:
        """The values of a key, one per seed that has it."""
        return [r.row[key] for r in self.results if r.row.get(key) is not None]


def version_of(path: Path) -> tuple[str, int]:
    """Sorts runs/<experiment>/10 after runs/<experiment>/9."""
    folder = path.parent
    return str(folder.parent), int(folder.name) if folder.name.isdigit() else -1


def read_results(folder: Path) -> list[Result]:
    """All results under a folder, each once, the latest last; damaged lines are skipped with a warning.

    Raises:
        FileNotFoundError: if there is none.
    """
    # `latest` is a second way in
    paths = {path.resolve() for path in folder.rglob("results.jsonl") if path.is_file()}
    rows = []
    for path in sorted(paths, key=version_of):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                rows.append(Result(read_line(line), path.parent))
            except ValueError as error:
                warnings.warn(f"{path}:{number} {error}; it is left out.", stacklevel=2)
    if not rows:
        raise FileNotFoundError(
            f"folder={str(folder)!r} holds no results.jsonl; run `metakd test --config ... --ckpt_path ...` "
            "first, or name the folder that your runs are in."
        )
    return rows


def read_line(line: bytes) -> dict[str, Any]:
    """One line of results.jsonl.

    Raises:
        ValueError: if it is none, or has a text where a number belongs.
    """
    try:
        row = json.loads(line, parse_constant=float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__} and no result")
    for key, kinds in KINDS.items():
        value = row.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool) or value != value:
            expected = " or ".join(k.__name__ for k in kinds if k is not type(None))
            raise ValueError(f"has {key}={value!r}, which is no {expected}")
    return row


def identity(result: Result, keys: Iterable[str]) -> tuple[str, ...]:
    """What two results must share to count as the same."""
    return tuple(str(result.row.get(key)) for key in keys)


def latest(results: Iterable[Result]) -> list[Result]:
    """Of results of the same experiment only the last, in the place of the first."""
    return list({identity(result, SAME_ROW): result for result in results}.values())


def rows_of(results: Iterable[Result], by_seed: bool = False) -> list[Row]:
    """The latest results as rows.

    Args:
        by_seed: a row of its own for each training seed.
    """
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in latest(results):
        keys = SAME_ROW if by_seed else SEVERAL_SEEDS
        groups.setdefault(identity(result, keys), []).append(result)
    rows = [
        Row(tuple(sorted(group, key=lambda r: r.row.get("train_seed") or 0)))
        for group in groups.values()
    ]
    return named_apart(rows, by_seed)


def named_apart(rows: Sequence[Row], by_seed: bool = False) -> list[Row]:
    """The rows, in their order; where several of a table have one name, with all in which they differ."""
    same: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        same.setdefault((heading(row.fields), row.name, row.learner), []).append(i)
    apart = [""] * len(rows)
    for places in same.values():
        for i, parts in zip(places, differences([rows[i] for i in places], by_seed), strict=True):
            apart[i] = ", ".join(parts)
    return [row._replace(apart=text) for row, text in zip(rows, apart, strict=True)]


def differences(rows: Sequence[Row], by_seed: bool) -> list[list[str]]:
    """By what each of some rows differs from the others: settings, and what does not follow from them."""
    by_settings = iter(differing_settings([dict(r.settings) for r in rows if r.settings]))
    several = len({r.settings is None for r in rows}) > 1
    parts = [next(by_settings) if row.settings else ["settings unknown"] * several for row in rows]
    digests = [row.fields.get("settings_sha256") for row in rows]
    for key in (*SEVERAL_SEEDS, *(["train_seed"] if by_seed else [])):
        values = [str(row.fields.get(key)) for row in rows]
        texts = key == "train_seed" or not determines(digests, values)
        if len(set(values)) > 1 and texts:
            for part, value in zip(parts, values, strict=True):
                part.append(f"{key.removeprefix('train_')} {value}")
    return parts


def heading(row: Mapping[str, Any]) -> str:
    """What the rows of one table have in common."""
    task = [str(row[key]) for key in ("source", "split") if row.get(key) is not None]
    if row.get("n_way") is not None and row.get("k_shot") is not None:
        task.append(f"{row['n_way']}-way {row['k_shot']}-shot")
    return "### " + ", ".join(task)


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each table, the best first."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: -fmean(r.values_of("accuracy") or [0])):
        groups.setdefault(heading(row.fields), []).append(row)
    return dict(sorted(groups.items()))


Accuracies = tuple[list[int], list[float]]
"""Numbers of episodes, or of rows, and the accuracy of each."""


def accuracies_of(result: Result) -> Accuracies | None:
    """What a result is the mean of: its episodes, or its rows; None where they are not all there."""
    return (read_rows if result.row.get("episodes") is None else read_episodes)(result)


def all_of(result: Result, ids: list[int], accuracies: list[float]) -> Accuracies | None:
    """What was read for a result, if it is that of which it is the mean."""
    accuracy = result.row.get("accuracy")
    same = accuracies and accuracy is not None and abs(fmean(accuracies) - accuracy) < 1e-9
    return (ids, accuracies) if same else None


def read_rows(result: Result) -> Accuracies | None:
    """(numbers, rightly answered or not) of the rows of a result without episodes."""
    path = result.folder / answers_file(result.row)
    if not path.is_file():
        return None
    try:
        columns = read_answers(path).columns
    except DamagedFileError as error:
        warnings.warn(f"{path} {error}; it is not compared.", stacklevel=2)
        return None
    right = columns["predicted"] == columns["label"]
    return all_of(result, columns["row"].tolist(), right.astype(float).tolist())


def read_episodes(result: Result) -> Accuracies | None:
    """(ids, accuracies) of a result; None where they are gone, or a later test has overwritten them."""
    path = result.folder / episodes_file(result.row)
    if not path.is_file():
        return None
    try:
        with path.open(newline="") as file:
            rows = [(int(row["id"]), float(row["accuracy"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        warnings.warn(f"{path} is damaged ({error}); it is not compared.", stacklevel=2)
        return None
    return all_of(result, [i for i, _ in rows], [a for _, a in rows])
