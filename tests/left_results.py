"""Folders as tests of runs leave them, and cells of the tables that are made of them."""

import json
import re

import numpy as np

from lightning_metakd.settings.run_settings import digest

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


def cell(text, name, column, key="name"):
    """A cell of the first table that has such a line and column."""
    header = None
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        header = None if not line.startswith("|") else header or cells
        if header and column in header and key in header and cells[header.index(key)] == name:
            return cells[header.index(column)]
    raise KeyError(f"{name}, {column}")
