"""Signals that ask a run to stop, and how it ends then."""

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any, NoReturn

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # a Unix
)


class Stopped(SystemExit):
    """A run that was asked to stop; the process ends with 128 + the number of the signal, as a shell has it.

    Args:
        by: the signal.
        code: exit code, where it is another one.
    """

    def __init__(self, by: int, code: int | None = None) -> None:
        super().__init__(128 + by if code is None else code)
        self.by = signal.Signals(by).name


class StopOnSignal(Callback):
    """Ends a run on SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1; a second SIGINT ends it at once.

    In a training the step in hand ends first, or the validation, and `Checkpoints` writes `last.ckpt`.
    Before a training, and in a command that trains nothing, the run ends at once. Under SLURM with requeueing
    its signal (SIGUSR1) has the job queued again, and the exit code is 0.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.defers = False
        self.handlers: dict[int, Any] = {}
        self.process = os.getpid()

    # --- handlers are ours for as long as the run lasts ------------------------------------------

    def install_handlers(self) -> None:
        """Take the signals over, from the Trainer too, which stops without saving."""
        if threading.current_thread() is not threading.main_thread():
            return  # nobody else may set handlers
        self.process = os.getpid()
        for number in SIGNALS:
            handler = signal.signal(number, self.handle)
            self.handlers.setdefault(number, handler)

    def give_back(self) -> None:
        """Put the handlers back that were there before the run."""
        self.defers = False
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers.clear()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, or end the run where nothing would be saved by waiting.

        Raises:
            Stopped: at once before a training, outside of one, and at a second SIGINT.
        """
        if os.getpid() != self.process:  # a loader's process, which ends with this one
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if not self.defers or (number == signal.SIGINT and self.requested is not None):
            raise Stopped(number)
        self.requested = number
        if number == signal.SIGINT:  # print is not safe in a handler
            os.write(2, b"\nthe step in hand ends first; Ctrl-C again stops at once\n")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.requested = None
        self.install_handlers()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.install_handlers()  # over the Trainer's, which it sets after `setup`
        self.defers = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.install_handlers()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.install_handlers()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.install_handlers()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.defers = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.give_back()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        trainer._signal_connector.teardown()  # which would put ours back after this
        self.give_back()
        launcher = trainer.strategy.launcher
        if isinstance(exception, Stopped) and not self.requested and launcher is not None:
            launcher.kill(signal.SIGTERM)  # others may wait for this process


def requested_stop(trainer: Trainer) -> int:
    """The signal that has asked this process to stop, 0 where none has."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return max((c.requested or 0 for c in callbacks if isinstance(c, StopOnSignal)), default=0)


def stop(trainer: Trainer, by: int) -> NoReturn:
    """End the run; all processes must have agreed on it.

    Raises:
        Stopped: always.
    """
    # the Trainer has no other name for it
    environment: Any = trainer._accelerator_connector.cluster_environment
    slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
    if slurm and by == (environment.requeue_signal or signal.SIGUSR1):
        if trainer.is_global_zero:
            requeue()
        raise Stopped(by, 0)
    # a launcher that sees another process fail would kill the first one before it has said how to go on
    raise Stopped(by, None if trainer.is_global_zero else 0)


def requeue() -> None:
    """Have SLURM start this job again.

    Raises:
        OSError: if it does not.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{task}"
    answer = subprocess.run(
        ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False
    )
    if answer.returncode:
        raise OSError(
            answer.returncode,
            f"job {job} could not be queued again ({answer.stderr.strip()}); submit it once more: --resume "
            "goes on from last.ckpt.",
        )
