"""Which states of a run are kept, under names that say what they are."""

import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_metakd.arguments.ranges import check_positive
from lightning_metakd.callbacks.stopping import Stopped, requested_stop, stop
from lightning_metakd.loggers.run_logger import is_dry_run, run_directory, run_loggers
from lightning_metakd.storage.atomic_files import atomic_write, remove_unfinished
from lightning_metakd.storage.read_checkpoint import read_checkpoint

STAGED = ".last"
"""Name of a state whose numbers are not logged yet: the Trainer logs a step after its last hook."""


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` (to resume from), `best.ckpt` (on validation), `final.ckpt` (complete).

    Best is the highest `val/student_accuracy`; of equal ones the earlier. A run without `final.ckpt` was
    stopped. Whenever `last.ckpt` is written the numbers of all steps up to it are on disk. One that goes on
    from a checkpoint in a directory of its own takes the best so far along. Of a callback of your own it has
    what `state_dict` returns, if that is tensors and plain values; a state of anything else is named and left
    out.

    Args:
        every_minutes: time between two writes of `last.ckpt`.
    """

    def __init__(self, every_minutes: float = 2.0) -> None:
        check_positive("every_minutes", every_minutes)
        self.every_minutes, self.best = every_minutes, -math.inf
        self.is_best = False
        self.folder: Path | None = None
        self.trained = False
        self.written = time.monotonic()
        self.saved_step: int | None = None
        self.staged = self.owed = False
        self.stop_by = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = run_directory(trainer)  # every process
        quiet = folder is None or is_dry_run(trainer) or stage != "fit"
        self.folder = None if quiet or folder is None else folder / "checkpoints"
        if self.folder is not None and trainer.is_global_zero:
            remove_unfinished(self.folder.parent.parent, below=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "is_best": self.is_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit":
            between_steps(checkpoint["loops"]["fit_loop"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None:
            return
        if str(trainer.ckpt_path) != trainer.strategy.broadcast(str(trainer.ckpt_path)):
            raise ValueError(
                f"ckpt_path={trainer.ckpt_path} on process {trainer.global_rank} is not that of the first "
                "one: another run of this experiment has begun in between; start again."
            )
        earlier = Path(trainer.ckpt_path).with_name("best.ckpt")
        if earlier.is_file():
            # it may be later than the checkpoint that is resumed; every process must know
            record = read_checkpoint(earlier).get("callbacks", {}).get(self.state_key, {})
            if "best" not in record:
                rank_zero_warn(
                    f"{earlier} does not say how good it is; the best from now on counts."
                )
                return
            self.best = max(self.best, record["best"])
            self.keep(trainer, earlier, "best")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True
        if trainer.ckpt_path is None:
            return
        for logger in run_loggers(trainer):
            logger.go_on_from(trainer.global_step)
        self.drop_staged(trainer)  # of a process that was killed
        if self.folder is not None and trainer.is_global_zero:
            (self.folder / "final.ckpt").unlink(missing_ok=True)  # the run is complete no more
        if trainer.is_global_zero:
            print(f"goes on from step {trainer.global_step}: {trainer.ckpt_path}", file=sys.stderr)

    # --- last.ckpt is written where all numbers up to it are logged ------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        due = time.monotonic() - self.written > 60 * self.every_minutes
        due, self.stop_by = agreed(trainer, due, requested_stop(trainer))
        if due or self.stop_by:
            self.staged = True
            self.write(trainer, STAGED)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self.take_staged(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.take_staged(trainer)

    def take_staged(self, trainer: Trainer) -> None:
        """What was staged after the last step is `last.ckpt` now; where it was asked for, the run ends."""
        if not self.staged:
            return
        self.staged, self.written, self.saved_step = False, time.monotonic(), trainer.global_step
        for logger in run_loggers(trainer):
            logger.sync()
        if self.folder is not None and trainer.is_global_zero:
            (self.folder / f"{STAGED}.ckpt").replace(self.folder / "last.ckpt")
        if self.stop_by:
            stop(trainer, self.stop_by)

    def drop_staged(self, trainer: Trainer) -> None:
        """Remove what was staged."""
        if self.folder is not None and trainer.is_global_zero:
            (self.folder / f"{STAGED}.ckpt").unlink(missing_ok=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on from before a validation would leave it out: `last.ckpt` is written after it."""
        if self.staged:
            self.owed, self.staged = True, False
            self.drop_staged(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        accuracy = trainer.callback_metrics.get("val/student_accuracy")
        if accuracy is not None and float(accuracy) > self.best:
            self.best = float(accuracy)
            self.write(trainer, "best")
        _, self.stop_by = agreed(trainer, False, requested_stop(trainer))
        if self.owed or self.stop_by:
            self.owed = False
            self.write(trainer, "last")
        if self.stop_by:
            stop(trainer, self.stop_by)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer, "last")
        self.write(trainer, "final")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where nothing was left to train, the checkpoint that was resumed is the last and the final one."""
        batches = trainer.limit_train_batches and trainer.num_training_batches
        if not self.trained and trainer.ckpt_path is not None and batches:
            for name in ("last", "final"):
                self.keep(trainer, Path(trainer.ckpt_path), name)
            for logger in run_loggers(trainer):
                logger.be_latest()
        if self.folder is not None and trainer.is_global_zero:
            print(self.outcome(trainer), file=sys.stderr)

    def outcome(self, trainer: Trainer) -> str:
        """What the run has left, and what can be done with it."""
        final = Path(f"{self.folder}/final.ckpt")
        if not final.is_file():
            limits = ("max_steps", "max_epochs", "limit_train_batches", "num_training_batches")
            limits_text = ", ".join(f"{name}={getattr(trainer, name)}" for name in limits)
            return f"nothing was trained ({limits_text}), and no checkpoint is written"
        done = "is written" if self.trained else "is there, and nothing was left to train"
        if not (final.parents[1] / "config.fit.yaml").is_file():  # not of the command
            return f"{final} {done}"
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        try:
            data.test_dataloader()
        except ValueError as error:
            return f"{final} {done}; a test of it as it is configured would fail: {error}"
        return f"{final} {done}; metakd test --ckpt_path {final} tests it"

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on after a stop."""
        if not trainer.is_global_zero:
            return
        self.drop_staged(trainer)
        if isinstance(exception, Stopped) and trainer.state.fn == "fit":
            where = f"at step {trainer.global_step}" if self.trained else "before training began"
            print(f"stopped by {exception.by} {where}; {self.way_on()}", file=sys.stderr)

    def way_on(self) -> str:
        """What there is to go on from."""
        last = None if self.folder is None else self.folder / "last.ckpt"
        if last is None or not last.is_file():
            return "nothing was saved."
        of = "" if self.saved_step is None else f" of step {self.saved_step}"
        return f"{last}{of} is there: the same command with --resume goes on from it."

    def keep(self, trainer: Trainer, path: Path, name: str) -> None:
        """Copy a checkpoint of an earlier directory into this one."""
        if self.folder is None or not trainer.is_global_zero or not path.is_file():
            return
        target = self.folder / f"{name}.ckpt"
        if path.resolve() != target.resolve():
            with atomic_write(target) as part:
                shutil.copyfile(path, part)

    def write(self, trainer: Trainer, name: str) -> None:
        """Save under a name, over what stood there."""
        if self.folder is None:
            return
        if name == "last":
            self.written, self.saved_step = time.monotonic(), trainer.global_step
            for logger in run_loggers(trainer):
                logger.sync()
        self.is_best = name == "best"
        trainer.save_checkpoint(self.folder / f"{name}.ckpt")
        self.is_best = False


def between_steps(loops: dict[str, Any]) -> None:
    """Let the loops of a checkpoint stand before the next step, with nothing of the last one left to do.

    As the Trainer writes them they say at which hook of which step that was, and it does not go on rightly
    from each: after the last step of an epoch without validation it trains too much once it is stopped again.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    steps, in_epoch = batches["total"]["processed"], batches["current"]["processed"]
    if steps == 0:
        return
    begun = {kind: epochs[kind]["started"] for kind in ("total", "current")}
    if batches["is_last_batch"]:
        in_epoch, begun = 0, {kind: n + 1 for kind, n in begun.items()}
    for kind, n in (("total", steps), ("current", in_epoch)):
        batches[kind] = {"ready": n, "started": n, "processed": n, "completed": n - 1}
    for kind, n in begun.items():
        epochs[kind] = {"ready": n, "started": n, "processed": n - 1, "completed": n - 1}
    batches["is_last_batch"] = False
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - 1  # the Trainer adds one


def agreed(trainer: Trainer, due: bool, stop_by: int) -> tuple[bool, int]:
    """What any process finds due, and the signal that any has had: all of them save and stop together."""
    if trainer.world_size == 1:
        return due, stop_by
    here = torch.tensor([int(due), stop_by], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(here, torch.distributed.ReduceOp.MAX)
    return bool(here[0]), int(here[1])
