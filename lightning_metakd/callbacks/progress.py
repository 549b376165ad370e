"""A progress bar with the numbers that matter, and no bar where nobody looks."""

import os
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_metakd.loggers import run_directory

SHOWN = {
    "train/outer_loss": "loss",
    "train/student_accuracy": "train",
    "val/student_accuracy": "val",
    "val/teacher_accuracy": "teacher",
}


class Progress(TQDMProgressBar):
    """Loss, accuracies and the learned coefficients; one line per validation where there is no terminal.

    Args:
        refresh_rate: batches between two updates of the bar; 0 shows nothing.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
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
        recipe: Any = pl_module
        said = recipe.describe_strategy().items()
        means = {n.removesuffix("_mean"): v for n, v in said if n.endswith("_mean")}
        return shown(trainer) | means

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        inside_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self.lines and inside_fit and trainer.is_global_zero:
            said = ", ".join(f"{name} {value:.4g}" for name, value in shown(trainer).items())
            print(f"step {trainer.global_step}: {said}", file=sys.stderr)


def shown(trainer: Trainer) -> dict[str, Any]:
    """The last values of what is shown, under short names."""
    last = trainer.callback_metrics
    return {short: float(last[name]) for name, short in SHOWN.items() if name in last}
