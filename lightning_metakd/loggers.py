"""Where a run writes: one directory of its own, and Weights & Biases beside it when asked for.

`runs/<experiment>/<version>/` is made by exactly one process and agreed on by all;
`runs/<experiment>/latest` points to the newest with numbers in it. Nothing here needs an account or asks
a question.
"""

import netrc
import os
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

SECRET = re.compile(r"(^|[_.-])(key|api_?key|token|secret|password)s?$", re.IGNORECASE)
IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def scrubbed(value: Any, name: str = "") -> Any:
    """The value with every text under a name like `api_key`, and passwords inside URLs, hidden."""
    if isinstance(value, dict):
        return {k: scrubbed(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(v, name) for v in value]
    if isinstance(value, str):
        return "***" if SECRET.search(name) else IN_URL.sub("***", value)
    return value


def as_dict(params: Namespace | Mapping[str, Any] | None) -> dict[str, Any]:
    """Hyper-parameters in any form that Lightning passes."""
    return vars(params) if isinstance(params, Namespace) else dict(params or {})


def new_version(folder: Path) -> str:
    """Make the next numbered directory and return its number; two starts never get the same.

    Raises:
        OSError: if the directory cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (folder / str(version)).mkdir()
        except FileExistsError:  # another process was quicker
            version += 1
        else:
            return str(version)


def point_latest(folder: Path, version: str) -> None:
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
        super().__init__(save_dir, "", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self.call_it(experiment or "default")
        self.is_named = experiment is not None
        self._agreed = self._is_latest = False

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
            self._version = new_version(Path(self.root_dir))
        if not self._agreed and torch.distributed.is_initialized():
            told = [self._version]
            torch.distributed.broadcast_object_list(told, src=0)
            self._version, self._agreed = told[0], True
        if self._version is None:
            raise RuntimeError(
                "the run's version is not known on this process before the processes have met; "
                "read it in setup() or later."
            )
        return str(self._version)

    @property
    def log_dir(self) -> str:
        """The run's directory."""
        return str(Path(self.root_dir) / self.version)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep numbers; from the first of them on this run is the latest, and not if it fails before."""
        if not self._is_latest:
            point_latest(Path(self.root_dir), self.version)
            self._is_latest = True
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Keep them beside the numbers, without secrets."""
        super().log_hyperparams(scrubbed(as_dict(params)))


def logged_in(host: str | None = None) -> bool:
    """Whether W&B would find credentials without asking: in the environment or in netrc.

    Args:
        host: address of the server; null takes WANDB_BASE_URL, or the public one.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = host or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    names = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in names if name):
        try:
            return netrc.netrc(path).authenticators(urlsplit(host).netloc) is not None
        except FileNotFoundError:
            continue
        except (netrc.NetrcParseError, OSError) as error:
            rank_zero_warn(f"{path} cannot be read ({error}); the W&B run is offline.")
            return False
    return False


class WandbOrOffline(WandbLogger):
    """Weights & Biases: online when logged in, offline otherwise, and never asking.

    Its files lie in the run's directory; `wandb sync <run directory>/wandb/offline-run-*` uploads them.
    WANDB_MODE=offline or disabled is respected.

    Args:
        project: name of the project on the server.
        entity: team or user; null is the default of the account.
        name: of the run; null is `<experiment>/<version>`.
        tags: words to find the run by.
        log_model: upload the checkpoints, when online.
    """

    def __init__(
        self,
        project: str = "lightning_metakd",
        entity: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        log_model: bool = True,
    ) -> None:
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not logged_in()
        super().__init__(
            name=name,
            project=project,
            offline=offline,
            log_model=log_model and not offline,
            entity=entity,
            tags=tags,
        )
        self._wandb_init.pop("anonymous", None)  # wandb warns of it although it is off
        if os.environ.get("WANDB_MODE") == "disabled":
            self._wandb_init["mode"] = "disabled"
        elif offline:
            self._wandb_init["mode"] = "offline"
        self._offline = False  # the Trainer's way is WANDB_MODE, which would outlive this run
        self._beside: RunLogger | None = None

    def beside(self, run: RunLogger) -> None:
        """Write into the directory of this run, and take its name."""
        self._beside = run

    @property
    def experiment(self) -> Any:
        """The W&B run, begun on the first process when it is first asked for."""
        run = self._beside
        if run is not None and self._experiment is None and first_process():
            _ = run.experiment  # its writer expects an empty directory
            self._wandb_init["dir"] = self._save_dir = run.log_dir
            self._wandb_init["name"] = self._name = self._name or f"{run.name}/{run.version}"
            self._wandb_init["group"] = run.name
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """The configuration without secrets."""
        super().log_hyperparams(scrubbed(as_dict(params)))

    @rank_zero_only
    def keep_file(self, path: Path, kind: str) -> None:
        """A file of the run as an artifact; offline it is uploaded by `wandb sync`."""
        if not self.experiment.disabled:
            self.experiment.log_artifact(str(path), name=f"{kind}-{self.experiment.id}", type=kind)


def with_run_logger(
    given: Logger | Iterable[Logger] | bool | None, experiment: str, save_dir: str = "runs"
) -> list[Logger]:
    """The loggers of a Trainer: the run's directory first, and what was asked for beside it.

    Args:
        given: what `trainer.logger` says; false writes nothing at all.
        experiment: name of the run, where `given` does not hold a RunLogger with one.
        save_dir: folder of all runs, where `given` does not hold a RunLogger.
    """
    if given is False:
        return []
    if given is None or given is True:
        asked: list[Logger] = []
    else:
        asked = [given] if isinstance(given, Logger) else list(given)
    runs = [logger for logger in asked if isinstance(logger, RunLogger)]
    run = runs[0] if runs else RunLogger(experiment, save_dir)
    if not run.is_named:
        run.call_it(experiment)
    others = [logger for logger in asked if logger is not run]
    for logger in others:
        if isinstance(logger, WandbOrOffline):
            logger.beside(run)
    return [run, *others]


def rehearsed(trainer: Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which writes and measures nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def run_directory(trainer: Trainer) -> Path | None:
    """The run's directory, None where nothing is to be written. Every process must call it."""
    if rehearsed(trainer) or not trainer.loggers:
        return None
    folder = trainer.log_dir  # a collective: asked under is_global_zero it hangs the others
    return None if folder is None else Path(folder)


def keep_file(trainer: Trainer, path: Path, kind: str) -> None:
    """Hand a file of the run to W&B where it is used."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbOrOffline):
            logger.keep_file(path, kind)
