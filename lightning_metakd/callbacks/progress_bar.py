"""A progress bar with the numbers that matter, and no bar where nobody looks."""

import math
import os
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, TQDMProgressBar

from lightning_metakd.arguments.ranges import check_integer, check_positive
from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import run_directory

SHOWN = {
    "train/outer_loss": "loss",
    "train/student_accuracy": "train",
    "val/student_accuracy": "val",
    "val/teacher_accuracy": "teacher",
}


class ProgressBar(TQDMProgressBar):
    """Loss, accuracies and the learned coefficients.

    Where there is no terminal, a line after each validation and every 30 seconds of training.

    Args:
        refresh_rate: batches between two updates of the bar; 0 shows nothing.
        every_seconds: time between two lines where there is no terminal.
    """

    def __init__(self, refresh_rate: int = 10, every_seconds: float = 30.0) -> None:
        check_integer("refresh_rate", refresh_rate, 0)
        check_positive("every_seconds", every_seconds)
        self.every_seconds, self.printed = every_seconds, time.monotonic()
        self.quiet = not sys.stderr.isatty()
        self.lines = self.quiet and refresh_rate > 0
        super().__init__(refresh_rate=0 if self.quiet else refresh_rate)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where the run writes, on what and from which seed it runs."""
        super().setup(trainer, pl_module, stage)
        folder = run_directory(trainer)  # every process
        if not trainer.is_global_zero:
            return
        where = "rehearsal, nothing is written" if folder is None else str(folder)
        processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
        command = getattr(trainer.state.fn, "value", None)
        seed = os.environ.get("PL_GLOBAL_SEED", "none")
        print(
            f"{where}: {command} on {pl_module.device.type}{processes}, seed {seed}",
            file=sys.stderr,
        )

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        coefficients = reported(pl_module).coefficient_log.values.items()
        means = {n.removesuffix("_mean"): v for n, v in coefficients if n.endswith("_mean")}
        return bar_values(trainer) | means

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.began, self.first_step = time.monotonic(), trainer.global_step
        self.printed = self.began

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        now = time.monotonic()
        if now - self.printed >= self.every_seconds:
            self.say(trainer, seconds_left(trainer, now - self.began, self.first_step))

    def say(self, trainer: Trainer, left: float = math.inf) -> None:
        """One line, where there is no terminal."""
        if not self.lines or not trainer.is_global_zero:
            return
        self.printed = time.monotonic()
        values = [f"{name} {value:.4g}" for name, value in bar_values(trainer).items()]
        if math.isfinite(left):
            values.append(f"{left:.0f} s left")
        print(f"step {trainer.global_step}: {', '.join(values)}", file=sys.stderr)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        inside_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if inside_fit:
            self.say(trainer)


def seconds_left(trainer: Trainer, elapsed: float, first_step: int) -> float:
    """Time to the end of the training at the pace so far, infinite where nothing limits it.

    Args:
        elapsed: seconds since this process began to train.
        first_step: where it began.
    """
    total, done = trainer.estimated_stepping_batches, trainer.global_step
    by_steps = elapsed * (total - done) / (done - first_step) if total > 0 else math.inf
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    timers = [c for c in callbacks if isinstance(c, Timer)]
    by_time = [left for timer in timers if (left := timer.time_remaining()) is not None]
    return max(0.0, min(by_steps, *by_time, math.inf))


def bar_values(trainer: Trainer) -> dict[str, Any]:
    """The last values of what is shown, under short names."""
    last = trainer.callback_metrics
    return {short: float(last[name]) for name, short in SHOWN.items() if name in last}
