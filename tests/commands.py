"""Tiny configurations for the command, what may go wrong on the way, and what runs leave behind."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from lightning.pytorch import Callback
from torch import Tensor, nn

CONFIGS = Path(__file__).parents[1] / "configs"
SOURCE = {"class_path": "Synthetic", "init_args": {"per_class": 8}}
ONE_CPU = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1}
EPISODES = {
    "source": SOURCE,
    "k_shot": 2,
    "n_query": 4,
    "meta_batch_size": 2,
    "steps_per_epoch": 3,
    "n_episodes": 7,
}
TEACHER = {
    "model": {
        "class_path": "SingleTask",
        "init_args": {
            "student": {"class_path": "Conv4", "init_args": {"width": 4, "n_classes": 48}},
            "optimisation": {"lr": 0.1, "optimiser": "sgd", "schedule": "one_cycle"},
        },
    },
    "data": {
        "class_path": "SupervisedData",
        "init_args": {"source": SOURCE, "split": "teacher", "val_fraction": 0.125},
    },
    "trainer": {**ONE_CPU, "max_epochs": 1, "limit_train_batches": 2},
}
STUDENT = {
    "model": {
        "class_path": "MetaKD",
        "init_args": {
            "student": {"class_path": "Conv4", "init_args": {"width": 4}},
            "learner": {
                "class_path": "ProtoNet",
                "init_args": {"metric": "cosine", "scale": 10.0, "learn_scale": True},
            },
            "loss": {
                "class_path": "MatchGate",
                "init_args": {
                    "gate": {"class_path": "LearnedPerSample"},
                    "match": {
                        "class_path": "Hinton",
                        "init_args": {"temperature": {"class_path": "Learned"}},
                    },
                },
            },
            "strategy_training": {"lr": 0.01},
            "teachers": [
                {
                    "class_path": "lightning_metakd.teachers.Teacher",
                    "init_args": {
                        "model": {"class_path": "Conv4", "init_args": {"width": 4}},
                        "checkpoint": "runs/teacher/latest/checkpoints/final.ckpt",
                        "cache": True,
                    },
                }
            ],
            "optimisation": {"lr": 0.01, "schedule": "cosine"},
        },
    },
    "data": {
        "class_path": "EpisodicData",
        "init_args": {
            **EPISODES,
            "strategy_split": "strategy",
            "views": 1,
        },
    },
    "trainer": {**ONE_CPU, "max_epochs": 2},
}
MAML = {
    "model": {
        "class_path": "MetaKD",
        "init_args": {
            "student": {"class_path": "Conv4", "init_args": {"width": 4, "n_classes": 5}},
            "learner": {"class_path": "MAML", "init_args": {"inner_lr": 0.1, "inner_steps": 2}},
            "optimisation": {"lr": 0.01},
        },
    },
    "data": {
        "class_path": "EpisodicData",
        "init_args": EPISODES,
    },
    "trainer": {**ONE_CPU, "max_epochs": 2},
}


def written(folder: Path, **configs: dict) -> None:
    """The configurations as files of their names."""
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))


def fresh(folder: Path, *words: object, **settings: str) -> subprocess.CompletedProcess:
    """The command in a process of its own, as a user starts it, with nobody to answer a question."""
    return subprocess.run(
        [sys.executable, "-m", "lightning_metakd", *map(str, words)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def results(experiment: str, folder: Path | None = None) -> list[dict]:
    """The lines of the latest results of an experiment."""
    path = (folder or Path()) / "runs" / experiment / "latest" / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def checkpoint(experiment: str, name: str = "final", version: str = "latest") -> dict:
    """A checkpoint of a run, opened without trust."""
    path = Path("runs") / experiment / version / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, weights_only=True)


def numbers(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what differs between two runs of the same training: times."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    return [{k: v for k, v in row.items() if not k.startswith("cost/")} for row in rows]


def same(one: object, other: object) -> bool:
    """Whether two nests hold the same, tensors bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class PowerCut(Callback):
    """The training ends here.

    Args:
        step: outer steps before.
        hook: where in the step after, or in what follows.
    """

    def __init__(self, step: int, hook: str = "on_train_batch_start") -> None:
        self.step = step
        setattr(self, hook, self.cut)

    def cut(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


class Trace(Callback):
    """Writes what the training is about, line by line.

    Args:
        path: where.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write(self, trainer, where: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{trainer.global_step} {where}\n")

    def on_train_batch_start(self, trainer, *args) -> None:
        self.write(trainer, "in a step")

    def on_train_batch_end(self, trainer, *args) -> None:
        self.write(trainer, "after a step")

    def on_validation_start(self, trainer, *args) -> None:
        self.write(trainer, "in a validation")

    def on_validation_end(self, trainer, *args) -> None:
        self.write(trainer, "after a validation")


class Net(nn.Module):
    """A network of somebody who does not know this project.

    Args:
        n_classes: logits.
    """

    def __init__(self, n_classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def work_in(folder, patch):
    """Commands of this process run in a folder of their own; what they set is put back afterwards."""
    patch.chdir(folder)
    patch.setenv("METAKD_CACHE", str(folder / "cache"))
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        patch.setenv(name, "0")
    patch.setattr(sys, "argv", ["metakd"])
