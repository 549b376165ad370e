"""The result of an evaluation: one line of JSON, and one row per episode beside it."""

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

import lightning_metakd
from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import is_dry_run, run_directory
from lightning_metakd.loggers.wandb_logger import keep_file
from lightning_metakd.reporting.terminal import result_table
from lightning_metakd.storage.atomic_files import append_line, file_sha256
from lightning_metakd.storage.episode_table import episodes_file, write_episodes

KEYS = tuple(
    """
    experiment recipe learner loss strategy control stage source domain split
    n_way k_shot n_query wrong_support support_views episodes train_steps train_seed eval_seed
    accuracy ci95 accuracy_within teacher_accuracy teacher_ci95 paired_difference paired_ci95
    nll ece agreement
    transductive teacher_at_test teacher_head train_classes external_data
    student_params student_macs student_flops student_bytes latency_ms latency_p95_ms latency_batch
    adapt_ms adapt_flops
    teacher_params teacher_macs teacher_flops teacher_latency_ms teacher_forwards gradient_evaluations
    compiled wall_s episodes_per_s peak_memory_bytes device threads world_size precision
    checkpoint_sha256 init_sha256 teacher_sha256 strategy_sha256 git versions
    settings_sha256 settings
    """.split()  # noqa: SIM905
)
"""The keys of a line of results.jsonl, all of them in every line; what is not known is null."""


def plain(value: Any) -> Any:
    """As JSON knows it: tensors as numbers, what is not finite as null, paths as text."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def result_row(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """One line with exactly the keys; earlier sources come first, missing values are None."""
    rows = [plain(source) for source in sources]
    return {
        key: next((source[key] for source in rows if source.get(key) is not None), None)
        for key in KEYS
    }


def code_version() -> str | None:
    """Commit of the checkout this package runs from, `-dirty` if it was changed; None elsewhere."""
    root = Path(lightning_metakd.__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed somewhere inside another project's checkout
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        output = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return output.stdout.strip() or None if output.returncode == 0 else None


def package_version(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """What the number was made with."""
    names = ("torchvision", "lightning", "torchmetrics")
    packages = {
        "lightning_metakd": lightning_metakd.__version__,
        "python": platform.python_version(),
    }
    packages["torch"] = torch.__version__  # with the build: +cu128
    return packages | {name: package_version(name) for name in names}


def processor() -> str:
    """What the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, text = line.partition(":")
        if name.strip() == "model name":
            return text.strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The device and what it is."""
    cuda = device.type == "cuda"
    return f"{device.type} ({torch.cuda.get_device_name(device) if cuda else processor()})"


def sentence(row: Mapping[str, Any]) -> str:
    """The result for a human: accuracies in percent with their 95% half-widths."""

    def percent(value: str, half_width: str) -> str:
        width = row[half_width]
        text = f"{100 * row[value]:.2f}"
        return f"{text} %" if width is None else f"{text} +- {100 * width:.2f} %"

    if row["accuracy"] is None:
        return f"{row['experiment']}: {row['stage']} reported no accuracy"
    where = f" on {row['domain']}" if row["domain"] else ""
    text = f"{row['experiment']}: {row['stage']} accuracy{where} {percent('accuracy', 'ci95')}"
    if row["teacher_accuracy"] is not None:
        text += f", teacher {percent('teacher_accuracy', 'teacher_ci95')}"
    if row["paired_difference"] is not None:
        text += f", student - teacher {percent('paired_difference', 'paired_ci95')}"
    counted = "" if row["episodes"] is None else f"{row['episodes']} episodes, "
    return f"{text} ({counted}95% interval)"


class Results(Callback):
    """Writes `episodes.<split>.csv` and one line of `results.jsonl`, and says it in a sentence and a table.

    After `test`, and after `validate` on its own. `wall_s` is the time spent in training up to the
    checkpoint, resumed parts added; `episodes_per_s` is the rate of the evaluation.
    """

    def __init__(self) -> None:
        self.trained_s = 0.0
        self.began: float | None = None
        self.evaluation_began = 0.0
        self.train_seed: int | None = None
        self.train_steps: int | None = None
        self.complete = False

    # --- what a checkpoint knows of its training -----------------------------------------------

    def wall_s(self) -> float:
        """Seconds spent in training so far."""
        return self.trained_s + (0.0 if self.began is None else time.monotonic() - self.began)

    def state_dict(self) -> dict[str, Any]:
        return {
            "wall_s": self.wall_s(),
            "train_seed": self.train_seed,
            "complete": self.complete,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trained_s, self.train_seed = state_dict["wall_s"], state_dict["train_seed"]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.train_steps = checkpoint.get("global_step")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began, seed = time.monotonic(), os.environ.get("PL_GLOBAL_SEED")
        self.complete = False
        if self.train_seed is None and seed is not None:  # a resumed run keeps its first seed
            self.train_seed = int(seed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained_s, self.began, self.complete = self.wall_s(), None, True
        self.train_steps = trainer.global_step

    # --- the evaluation ------------------------------------------------------------------------

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.evaluation_began = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.evaluation_began = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.write(trainer, pl_module, "val")

    def write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Every process must call it; the first one writes."""
        folder = run_directory(trainer)
        if not trainer.is_global_zero or is_dry_run(trainer):
            return
        run, rows = self.run_fields(trainer, pl_module, stage), []
        for fields, episode_rows in reported(pl_module).record.evaluations():
            row = result_row(fields, run)
            rows.append(row)
            print(sentence(row), end="", flush=True)  # before anything can fail
            where = ""
            try:
                if folder is not None:
                    append_line(folder / "results.jsonl", json.dumps(row, allow_nan=False))
                    where = f"; written to {folder / 'results.jsonl'}"
            finally:
                print(where)
            if folder is not None and episode_rows:
                columns = {name: column.tolist() for name, column in episode_rows.items()}
                write_episodes(folder / episodes_file(row), columns)
        print(result_table(rows))
        if folder is not None:
            keep_file(trainer, folder / "results.jsonl", "results")

    def run_fields(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> dict[str, Any]:
        """What can be said without the recipe."""
        seconds = time.monotonic() - self.evaluation_began
        episodes = reported(pl_module).record.result.get("episodes")
        checkpoint = trainer.ckpt_path
        return {
            "experiment": trainer.loggers[0].name if trainer.loggers else None,
            "stage": stage,
            "split": stage,
            "train_steps": self.train_steps,
            "train_seed": self.train_seed,
            "wall_s": self.wall_s(),
            "episodes_per_s": None if episodes is None else episodes / seconds,
            "device": device_name(pl_module.device),
            "threads": torch.get_num_threads(),
            "world_size": trainer.world_size,
            "precision": trainer.precision,
            "checkpoint_sha256": None if checkpoint is None else file_sha256(Path(checkpoint)),
            "git": code_version(),
            "versions": versions(),
        }
