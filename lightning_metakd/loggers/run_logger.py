"""Where a run writes: one directory of its own.

`runs/<experiment>/<version>/` is made by exactly one process and agreed on by all; a run that goes on after
a stop does so in its directory. `runs/<experiment>/latest` points to the newest with numbers in it.
"""

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.loggers.metrics_file import MetricsFile
from lightning_metakd.storage.atomic_files import hold_folder, named
from lightning_metakd.storage.redaction import redact


def as_dict(params: Namespace | Mapping[str, Any] | None) -> dict[str, Any]:
    """Hyper-parameters in any form that Lightning passes."""
    return vars(params) if isinstance(params, Namespace) else dict(params or {})


def new_version(folder: Path) -> str:
    """Make the next numbered directory and return its number; two starts never get the same.

    Raises:
        OSError: if the directory cannot be made.
    """
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    version = max(taken, default=-1) + 1
    while True:
        try:
            # with its parent, which another start that failed may just have removed
            (folder / str(version)).mkdir(parents=True)
        except FileExistsError:  # another process was quicker
            version += 1
        else:
            return str(version)


def update_latest_link(folder: Path, version: str) -> None:
    """Let `latest` point to a version, in one step."""
    link = folder / f".latest.{os.getpid()}"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(version, target_is_directory=True)
        link.replace(folder / "latest")
    except OSError as error:  # a file system without links, or a directory named latest
        link.unlink(missing_ok=True)
        rank_zero_warn(f"{folder / 'latest'} could not be set ({error}); read {folder / version}.")


def first_process() -> bool:
    """Whether this is the process that writes, as far as is known."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


class RunLogger(CSVLogger):
    """Numbers in `<save_dir>/<experiment>/<version>/metrics.csv`, versions counted from 0.

    Args:
        experiment: name of what is run; null is that of the configuration file.
        save_dir: folder of all runs.
        flush_logs_every_n_steps: how often numbers are written to disk.
    """

    def __init__(
        self,
        experiment: str | None = None,
        save_dir: str = "runs",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        check_integer("flush_logs_every_n_steps", flush_logs_every_n_steps, 1)
        super().__init__(save_dir, "", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self.call_it("default" if experiment is None else experiment)
        self.is_named = experiment is not None
        self._agreed = self._is_latest = self._waits = False
        self._lock: int | None = None

    def call_it(self, experiment: str) -> None:
        """Set the name of what is run."""
        if not re.fullmatch(r"\w[\w.+-]*", experiment) or experiment == "latest":
            raise ValueError(
                f"experiment={experiment!r} names a directory; use letters, digits, and . _ + -."
            )
        self._name = experiment

    @property
    def version(self) -> str:
        """Number of the run, as text: the first process makes the directory and tells the others.

        The first time that it is read after the processes have met, all of them must read it; the
        Trainer does so when it starts.
        """
        if self._version is None and first_process():
            self.write_in(new_version(Path(self.root_dir)))
        if not self._agreed and torch.distributed.is_initialized():
            shared = [self._version]
            torch.distributed.broadcast_object_list(shared, src=0)
            self._version, self._agreed = shared[0], True
        if self._version is None:
            raise RuntimeError(
                "the run's version is not known on this process before the processes have met; "
                "read it in setup() or later."
            )
        return str(self._version)

    def write_in(self, version: str) -> None:
        """Write in the directory of this version, that of an earlier process for instance.

        Raises:
            OSError: if another process writes in it.
        """
        if first_process():
            self._lock = hold_folder(Path(self.root_dir) / version)
        self._version = version

    @property
    def log_dir(self) -> str:
        """The run's directory."""
        return str(Path(self.root_dir) / self.version)

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:
        """The table of numbers."""
        if self._experiment is None:
            self._experiment = MetricsFile(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @rank_zero_only
    def be_latest(self) -> None:
        """Let `latest` point to this run."""
        if not self._is_latest:
            update_latest_link(Path(self.root_dir), self.version)
            self._is_latest = True

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep numbers; from the first of them on this run is the latest, and not if it fails before."""
        self.be_latest()
        super().log_metrics(metrics, step)

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Drop the numbers of this step and later ones, which are logged again."""
        self.experiment.keep_before(step)

    @rank_zero_only
    def sync(self) -> None:
        """All numbers so far are on disk when this returns, if there is room."""
        self.save()
        self.experiment.sync()

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged; what a full disk does not take is tried again, last at the end."""
        try:
            super().save()
        except OSError as error:
            if not self._waits:
                rank_zero_warn(f"{self.log_dir}/metrics.csv waits: {error.strerror or error}.")
            self._waits = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest; a directory in which nothing was written goes away, and one without runs.

        Raises:
            OSError: if numbers are lost.
        """
        try:
            if self._waits:
                with named(Path(self.log_dir) / "metrics.csv"):
                    super().save()
            super().finalize(status)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
        if self._version is not None:
            with suppress(OSError):  # something is in it
                Path(self.log_dir).rmdir()
                Path(self.root_dir).rmdir()

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Keep them beside the numbers, with the first of which they are written, without secrets."""
        super().log_hyperparams(redact(as_dict(params)))


def run_loggers(trainer: Trainer) -> list[RunLogger]:
    """The loggers that write into a run's directory."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def is_dry_run(trainer: Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which writes and measures nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def run_directory(trainer: Trainer) -> Path | None:
    """The run's directory, None where nothing is to be written. Every process must call it."""
    if is_dry_run(trainer) or not trainer.loggers:
        return None
    folder = trainer.log_dir  # a collective: asked under is_global_zero it hangs the others
    return None if folder is None else Path(folder)


def directory_made(trainer: Trainer) -> Path | None:
    """The run's directory where there is one already; asks no other process, which may have ended."""
    made = (logger for logger in run_loggers(trainer) if logger._version is not None)
    return next((Path(logger.log_dir) for logger in made), None)
