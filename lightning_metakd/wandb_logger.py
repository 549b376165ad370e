"""Weights & Biases beside the run's directory, where it is asked for.

Nothing here needs an account or asks a question.
"""

import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_metakd.loggers import RunLogger, as_dict, first_process, scrubbed


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


def keep_file(trainer: Trainer, path: Path, kind: str) -> None:
    """Hand a file of the run to W&B where it is used."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbOrOffline):
            logger.keep_file(path, kind)
