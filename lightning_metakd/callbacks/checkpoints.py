"""Which states of a run are kept, under names that say what they are."""

import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_metakd.checkpoint import read_checkpoint
from lightning_metakd.files import remove_unfinished, written_whole
from lightning_metakd.loggers import rehearsed, run_directory


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` (to resume from), `best.ckpt` (on validation), `final.ckpt` (complete).

    Best is the highest `val/student_accuracy`; of equal ones the earlier. A run without `final.ckpt` was
    stopped. One that goes on from a checkpoint in a directory of its own takes the best so far along.

    Args:
        every_minutes: time between two writes of `last.ckpt`.
    """

    def __init__(self, every_minutes: float = 2.0) -> None:
        if every_minutes <= 0:
            raise ValueError(f"every_minutes={every_minutes} must be positive.")
        self.every_minutes, self.best = every_minutes, -math.inf
        self.is_best = False
        self.folder: Path | None = None
        self.trained = False
        self.written = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = run_directory(trainer)  # every process
        quiet = folder is None or rehearsed(trainer) or stage != "fit"
        self.folder = None if quiet or folder is None else folder / "checkpoints"
        if self.folder is not None and trainer.is_global_zero:
            remove_unfinished(self.folder.parent.parent, below=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "is_best": self.is_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        earlier = Path(trainer.ckpt_path or "none").with_name("best.ckpt")
        if trainer.ckpt_path is not None and earlier.is_file():
            # it may be later than the checkpoint that is resumed; every process must know
            known = read_checkpoint(earlier)["callbacks"][self.state_key]
            self.best = max(self.best, known["best"])
            self.keep(trainer, earlier, "best")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        due = time.monotonic() - self.written > 60 * self.every_minutes
        if trainer.world_size > 1:  # clocks differ, and saving is done by all processes together
            due = trainer.strategy.broadcast(due)
        if due:
            self.write(trainer, "last")
            self.written = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = trainer.callback_metrics.get("val/student_accuracy")
        inside_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if inside_fit and accuracy is not None and float(accuracy) > self.best:
            self.best = float(accuracy)
            self.write(trainer, "best")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer, "last")
        self.write(trainer, "final")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where nothing was left to train, the checkpoint that was resumed is the last and the final one."""
        if not self.trained and trainer.ckpt_path is not None:
            for name in ("last", "final"):
                self.keep(trainer, Path(trainer.ckpt_path), name)
        if self.folder is not None and trainer.is_global_zero:
            final = self.folder / "final.ckpt"
            print(f"{final} is written; metakd test --ckpt_path {final} tests it", file=sys.stderr)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on after a stop by hand."""
        last = None if self.folder is None else self.folder / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and last is not None:
            there = "add --resume to go on from it" if last.is_file() else "nothing was saved yet"
            print(f"stopped at step {trainer.global_step}; {last}: {there}.", file=sys.stderr)

    def keep(self, trainer: Trainer, path: Path, name: str) -> None:
        """Copy a checkpoint of an earlier directory into this one."""
        if self.folder is None or not trainer.is_global_zero or not path.is_file():
            return
        target = self.folder / f"{name}.ckpt"
        if path.resolve() != target.resolve():
            with written_whole(target) as part:
                shutil.copyfile(path, part)

    def write(self, trainer: Trainer, name: str) -> None:
        """Save under a name, over what stood there."""
        if self.folder is not None:
            self.is_best = name == "best"
            trainer.save_checkpoint(self.folder / f"{name}.ckpt")
            self.is_best = False
