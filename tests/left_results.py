"""Folders as tests of runs leave them, and cells of the tables that are made of them."""

import base64
import csv
import json
import re

import numpy as np

from lightning_metakd.settings.run_settings import digest
from lightning_metakd.storage.answer_table import AnswerTable, write_answers

BASE = {
    "experiment": "maml",
    "recipe": "MetaKD",
    "learner": "MAML",
    "source": "CIFARFS",
    "split": "test",
    "stage": "test",
    "n_way": 5,
    "k_shot": 1,
    "n_query": 15,
    "eval_seed": 7,
    "train_seed": 0,
    "episodes": 3,
    "ci95": 0.01,
    "student_params": 113000,
    "student_macs": 28_500_000,
    "student_flops": 57_000_000,
    "latency_ms": 1.234,
    "wall_s": 3725.0,
}


def leave(folder, accuracies=(0.5, 0.75, 0.25), ids=None, **changes):
    """What a test run leaves in its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    row = BASE | {"accuracy": float(np.mean(accuracies))} | changes
    if "settings" in row:
        row["settings_sha256"] = digest(row["settings"])
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    lines = [f"{i},{a!r},1.0" for i, a in zip(ids or range(99), accuracies, strict=False)]
    (folder / "episodes.test.csv").write_text("\n".join(["id,accuracy,nll", *lines]) + "\n")


def leave_seeds(folder, means, experiment, seeds=None, **changes):
    """One test for each training seed, whose episodes lie around its mean."""
    for seed, mean in zip(seeds or range(99), means, strict=False):
        parts = (changes.get(key) for key in ("control", "learner", "settings"))
        name = "_".join([experiment, *(re.sub(r"\W+", "_", str(part)) for part in parts)])
        accuracies = (mean - 0.125, mean, mean + 0.125)
        leave(
            folder / name / str(seed), accuracies, experiment=experiment, train_seed=seed, **changes
        )


PIXEL = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
"""A picture of one pixel, as WebP."""


def answer_table():
    """Three episodes of two classes, of four query rows; the teacher is right, the student in two of four."""
    label = np.tile([0, 1, 0, 1], 3)
    columns = {
        "episode": np.repeat([0, 1, 2], 4),
        "row": np.arange(12),
        "label": label,
        "predicted": np.tile([0, 1, 1, 0], 3),
        "probability": np.linspace(0.55, 0.95, 12, dtype=np.float32),
        "teacher_predicted": label,
        "teacher_probability": np.full(12, 0.75, np.float32),
    }
    support = {"episode": np.array([0, 0, 1, 1]), "row": np.arange(12, 16)}
    support["label"] = np.array([0, 1, 0, 1])
    gate = np.where(columns["episode"] == 0, np.linspace(0.1, 0.9, 12), np.nan)
    pictures = {row: PIXEL for row in range(16) if row != 3}
    return AnswerTable(
        columns, support, {"gate": gate}, ("ant", "bee"), pictures, {3: "a <b> sentence"}
    )


def leave_answers(folder, **changes):
    """What a test run leaves in its directory, with the answers to three episodes."""
    leave(folder, (0.5, 0.5, 0.5), **changes)
    write_answers(folder / "answers.test.npz", answer_table())


def leave_training(folder, **columns):
    """What a training leaves in its directory: numbers by step, one column each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.fit.yaml").write_text("{}")
    names = [name.replace("__", "/") for name in columns]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *names])
        writer.writerows(enumerate_rows(columns.values()))


def enumerate_rows(columns):
    """Lines of numbers, each behind its step."""
    return [[step, *line] for step, line in enumerate(zip(*columns, strict=True))]


def cell(text, name, column, key="name"):
    """A cell of the first table that has such a line and column."""
    header = None
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        header = None if not line.startswith("|") else header or cells
        if header and column in header and key in header and cells[header.index(key)] == name:
            return cells[header.index(column)]
    raise KeyError(f"{name}, {column}")
