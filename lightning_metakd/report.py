"""Tables from the results that runs left on disk. Nothing is trained, built or downloaded for it."""

import csv
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_metakd.files import written_whole
from lightning_metakd.markdown import (
    between_markers,
    count,
    duration,
    markdown,
    milliseconds,
    percent,
)
from lightning_metakd.metrics import paired_difference

SAME_EPISODES = ("source", "split", "n_way", "k_shot", "n_query", "eval_seed")
"""Two rows are compared episode by episode only where all of these are known and agree."""

SAME_ROW = (
    *("experiment", "recipe", "learner", "loss", "control", "stage", "teacher_at_test"),
    *("train_seed", *SAME_EPISODES),
)
"""Of rows that agree in all of these, the latest counts."""

NOTE = (
    "Accuracy in percent with its 95 % half-width over episodes; one training run each, so that training "
    "noise is not in it. One multiply-add (MAC) is 2 FLOPs; convolutions, matrix products and attention "
    "are counted, for one input. Latency is the median of one input on the machine of that row."
)


class Result(NamedTuple):
    """One line of results.jsonl, and the directory in which it stands."""

    row: Mapping[str, Any]
    folder: Path


# --- reading -----------------------------------------------------------------------------------


def version_of(path: Path) -> tuple[str, int]:
    """Sorts runs/<experiment>/10 after runs/<experiment>/9."""
    folder = path.parent
    return str(folder.parent), int(folder.name) if folder.name.isdigit() else -1


def read_results(folder: Path) -> list[Result]:
    """All results under a folder, each once, the latest last; damaged lines are skipped with a warning.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = {
        path.resolve() for path in folder.rglob("results.jsonl")
    }  # `latest` is a second way in
    found = []
    for path in sorted(paths, key=version_of):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                found.append(Result(json.loads(line), path.parent))
            except json.JSONDecodeError as error:
                warnings.warn(
                    f"{path}:{number} is no JSON ({error}); it is left out.", stacklevel=2
                )
    if not found:
        raise FileNotFoundError(
            f"folder={str(folder)!r} holds no results.jsonl; run `metakd test --config ... --ckpt_path ...` "
            "first, or name the folder that your runs are in."
        )
    return found


def latest(results: Iterable[Result]) -> list[Result]:
    """Of results of the same experiment only the last, in the place of the first."""
    kept: dict[tuple[Any, ...], Result] = {}
    for result in results:
        kept[tuple(str(result.row.get(key)) for key in SAME_ROW)] = result
    return list(kept.values())


def read_episodes(result: Result) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(ids, accuracies) of a result; None where they are gone, or a later test has overwritten them."""
    path = result.folder / f"episodes.{result.row.get('split')}.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        rows = [(int(row["id"]), float(row["accuracy"])) for row in csv.DictReader(file)]
    ids = torch.tensor([i for i, _ in rows])
    accuracies = torch.tensor([a for _, a in rows], dtype=torch.float64)
    same = rows and abs(float(accuracies.mean()) - result.row["accuracy"]) < 1e-9
    return (ids, accuracies) if same else None


# --- comparing ---------------------------------------------------------------------------------


def comparable(a: Result, b: Result) -> bool:
    """Whether two results are about the same episodes."""
    return all(
        a.row.get(key) is not None and a.row.get(key) == b.row.get(key) for key in SAME_EPISODES
    )


def difference(result: Result, baselines: list[Result]) -> tuple[float, float] | None:
    """Accuracy of a result minus that of the baseline on the same episodes, and its 95% half-width."""
    candidates = [b for b in baselines if comparable(result, b)]
    # where there are several: the one that adapted in the same way, and shares the seed
    candidates.sort(
        key=lambda b: [b.row.get(key) != result.row.get(key) for key in ("learner", "train_seed")]
    )
    own, other = read_episodes(result), read_episodes(candidates[0]) if candidates else None
    if own is None or other is None or not torch.equal(own[0].sort()[0], other[0].sort()[0]):
        return None
    return paired_difference(own[1], other[1], ids=(own[0], other[0]))


def named(results: list[Result], baseline: str) -> list[Result]:
    """The results of an experiment.

    Raises:
        ValueError: if there is none.
    """
    chosen = [r for r in results if r.row.get("experiment") == baseline]
    if not chosen:
        known = ", ".join(sorted({str(r.row.get("experiment")) for r in results}))
        raise ValueError(f"baseline={baseline!r} has no result; choose one of {known}.")
    return chosen


# --- writing -----------------------------------------------------------------------------------


def name_of(result: Result, several: bool) -> str:
    """What a row is called."""
    row = result.row
    said = str(row.get("experiment"))
    if row.get("control") not in (None, "none"):
        said += f", control {row['control']}"
    if row.get("teacher_at_test"):
        said += ", teacher at test"
    if row.get("transductive"):
        said += ", transductive"
    return said + (f", seed {row.get('train_seed')}" if several else "")


def how(result: Result) -> str:
    """By what the student adapted."""
    return str(result.row.get("learner") or result.row.get("recipe") or "-")


def cells(result: Result, several: bool, baselines: list[Result] | None) -> dict[str, str]:
    """One row of a table."""
    row = result.row
    found = {
        "name": name_of(result, several),
        "learner": how(result),
        "accuracy": percent(row.get("accuracy"), row.get("ci95")),
        "teacher": percent(row.get("teacher_accuracy"), row.get("teacher_ci95")),
    }
    if baselines is not None:
        told = difference(result, baselines)
        itself = any(result is b for b in baselines)
        label = f"minus {baselines[0].row['experiment']}"
        found[label] = "-" if told is None or itself else percent(*told, sign="+")
    return found | {
        "parameters": count(row.get("student_params")),
        "MACs": count(row.get("student_macs")),
        "FLOPs": count(row.get("student_flops")),
        "latency": milliseconds(row.get("latency_ms")),
        "adapting": milliseconds(row.get("adapt_ms")),
        "training": duration(row.get("wall_s")),
        "episodes": count(row.get("episodes")),
    }


def heading(row: Mapping[str, Any]) -> str:
    """What the rows of one table have in common."""
    task = [str(row[key]) for key in ("source", "split") if row.get(key) is not None]
    if row.get("n_way") is not None and row.get("k_shot") is not None:
        task.append(f"{row['n_way']}-way {row['k_shot']}-shot")
    return "### " + ", ".join(task)


def made_with(results: list[Result]) -> str:
    """Machines, seeds and code of the results, each combination once."""
    said = []
    for row in (result.row for result in results):
        told = {
            "device": row.get("device"),
            "threads": row.get("threads"),
            "seed": row.get("train_seed"),
            "torch": (row.get("versions") or {}).get("torch"),
            "commit": (row.get("git") or "")[:10] or None,
        }
        said.append(
            ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
        )
    return "Made with " + "; ".join(dict.fromkeys(said)) + "."


def tables(results: list[Result], baseline: str | None = None) -> str:
    """Markdown: one table for each task, the best first."""
    baselines = None if baseline is None else named(results, baseline)
    groups: dict[str, list[Result]] = {}
    results = latest(results)
    for result in results:
        groups.setdefault(heading(result.row), []).append(result)
    parts = []
    for title in sorted(groups):
        group = sorted(groups[title], key=lambda r: -(r.row.get("accuracy") or 0))
        names = [(name_of(r, False), how(r)) for r in group]
        rows = [
            cells(r, names.count(name) > 1, baselines) for r, name in zip(group, names, strict=True)
        ]
        parts.append(f"{title}\n\n{markdown(rows)}")
    return "\n\n".join([*parts, f"{NOTE} {made_with(results)}"])


def report(
    folder: Path = Path("runs"),
    baseline: str | None = None,
    output: Path | None = None,
    section: str = "results",
) -> None:
    """Print a table of all results under a folder.

    Args:
        folder: where to search for results.jsonl.
        baseline: experiment that the others are compared with, episode by episode.
        output: Markdown file to put the table into as well, between the lines
            `<!-- results:begin SECTION -->` and `<!-- results:end -->`.
        section: SECTION of these lines.
    """
    table = tables(read_results(folder), baseline)
    print(table)
    if output is not None:
        changed = between_markers(output.read_text(), section, table)
        with written_whole(output) as part:
            part.write_text(changed)
