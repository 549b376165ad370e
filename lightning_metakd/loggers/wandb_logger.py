"""Weights & Biases beside the run's directory, where it is asked for.

Nothing here needs an account or a network, or asks a question.
"""

import io
import netrc
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from PIL import Image

from lightning_metakd.loggers.run_logger import RunLogger, as_dict, first_process
from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.redaction import redact, redact_words

PUBLIC = ("https://api.forge.coreweave.com", "https://api.wandb.ai")
"""Addresses of the public server; `wandb login` writes down the one that is its default, and reads either."""

PATIENCE = 10.0
"""Seconds in which a server has to answer before a run goes offline; WANDB_INIT_TIMEOUT goes before."""

SUMMARIES = {"val/student_accuracy": "max", "train/outer_loss": "min"}
"""What of a curve stands in the list of runs, beside its last value."""

EVALUATION = re.compile(r"\.(validate|test|predict)$")
"""How the name of an experiment ends that judges another one; both are a group."""

NETWORK = "network"
"""Kind of the artifact of a checkpoint, whoever uses it: the student of one run is the teacher of another."""
LETTERS = 12
"""So much of the SHA-256 of a file stands in the name of its artifact."""


def logged_in(host: str | None = None) -> bool:
    """Whether W&B would find credentials without asking: in the environment or in netrc.

    Args:
        host: address of the server; null takes WANDB_BASE_URL, or the public ones.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = host or os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(address).netloc for address in ([host] if host else PUBLIC)]
    names = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in names if name):
        try:
            machines = netrc.netrc(path)
            return any(machines.authenticators(name) is not None for name in hosts)
        except FileNotFoundError:
            continue
        except (netrc.NetrcParseError, OSError) as error:
            rank_zero_warn(f"{path} cannot be read ({error}); the W&B run is offline.")
            return False
    return False


@contextmanager
def without_secrets() -> Iterator[None]:
    """W&B writes down the words of the command; inside it sees them without secrets."""
    words = sys.argv
    sys.argv = redact_words(words)
    try:
        yield
    finally:
        sys.argv = words


@contextmanager
def copies_in(folder: str) -> Iterator[None]:
    """W&B copies a file before it uploads it; inside to this folder, unless WANDB_DATA_DIR names another."""
    name = "WANDB_DATA_DIR"
    begin = os.environ.get(name)
    os.environ.setdefault(name, folder)
    try:
        yield
    finally:
        if begin is None:
            del os.environ[name]


class WandbOrOffline(WandbLogger):
    """Weights & Biases: online when logged in and the server answers, offline otherwise, and never asking.

    Its files lie in the run's directory; `wandb sync <run directory>/wandb/offline-run-*` uploads them.
    WANDB_MODE=offline or disabled is respected.

    Args:
        project: name of the project on the server.
        entity: team or user; null is the default of the account.
        name: of the run; null is `<experiment>/<version>`.
        tags: words to find the run by.
        log_model: artifacts of checkpoints hold the files; if false, only their SHA-256.

    Example:
        >>> from lightning_metakd.loggers import WandbOrOffline
        >>> logger = WandbOrOffline(tags=["first try"])  # begins no run yet
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
            log_model=log_model and not offline,  # those of Lightning's own callback
            entity=entity,
            tags=tags,
        )
        if not os.environ.get("WANDB_INIT_TIMEOUT"):
            self._wandb_init["settings"] = {"init_timeout": PATIENCE}
        self._wandb_init.pop("anonymous", None)  # wandb warns of it although it is off
        if os.environ.get("WANDB_MODE") == "disabled":
            self._wandb_init["mode"] = "disabled"
        elif offline:
            self._wandb_init["mode"] = "offline"
        self.log_model = log_model
        self._offline = False  # the Trainer's way is WANDB_MODE, which would outlive this run
        self._beside: RunLogger | None = None

    def beside(self, run: RunLogger) -> None:
        """Write into the directory of this run, and take its name."""
        self._beside = run

    @property
    def experiment(self) -> Any:
        """The W&B run, begun on the first process when it is first asked for."""
        from wandb.errors import CommError  # late: a second that other commands need not wait

        run = self._beside
        if run is not None and self._experiment is None and first_process():
            _ = run.experiment  # its writer expects an empty directory
            self._wandb_init["dir"] = self._save_dir = run.log_dir
            self._wandb_init["name"] = self._name = self._name or f"{run.name}/{run.version}"
            self._wandb_init["group"] = EVALUATION.sub("", run.name)
        begins = self._experiment is None
        with without_secrets():
            try:
                experiment = super().experiment
            except CommError as error:
                if "mode" in self._wandb_init:
                    raise
                self.go_offline(str(error).partition("\n")[0])
                experiment = super().experiment
        if begins and first_process():
            for curve, best in SUMMARIES.items():
                experiment.define_metric(
                    curve, step_metric="trainer/global_step", summary=f"{best},last"
                )
        return experiment

    def go_offline(self, reason: str) -> None:
        """Begin an offline run, as the server does not answer or does not know the account."""
        self._wandb_init["mode"], self._log_model = "offline", False
        rank_zero_warn(
            f"W&B cannot begin a run ({redact(reason)}); it is offline, and `wandb sync` uploads it later "
            "(with WANDB_MODE=offline nothing is asked)."
        )

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """The configuration without secrets."""
        super().log_hyperparams(redact(as_dict(params)))

    @rank_zero_only
    def add_tags(self, tags: Iterable[str]) -> None:
        """Words to find the run by, beside those of the user."""
        self.experiment.tags = tuple(dict.fromkeys((*(self.experiment.tags or ()), *tags)))

    @rank_zero_only
    def keep_file(self, path: Path, kind: str, *aliases: str, is_input: bool = False) -> None:
        """A file as an artifact that is named, and recognised in other runs, by its content.

        Args:
            is_input: whether the run reads it, and another one may have made it.
        """
        if self.experiment.disabled or not path.is_file():
            return
        with copies_in(f"{self._save_dir}/wandb"):
            artifact = artifact_of(path, kind, self.log_model or kind != NETWORK)
            if is_input:
                # as `use_artifact`, which waits for a server that answers, and refuses where there is none
                self.experiment._log_artifact(artifact, aliases=[*aliases], use_after_commit=True)
            else:
                self.experiment.log_artifact(artifact, aliases=[*aliases])

    @rank_zero_only
    def log_tables(self, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Tables by name, of rows that have a cell for each column; bytes are the file of a picture."""
        from wandb import Image as Picture
        from wandb import Table

        def cell(value: Any) -> Any:
            return Picture(Image.open(io.BytesIO(value))) if isinstance(value, bytes) else value

        with copies_in(f"{self._save_dir}/wandb"):
            self.experiment.log(
                {
                    name: Table([*rows[0]], [[cell(v) for v in row.values()] for row in rows])
                    for name, rows in tables.items()
                }
            )


def artifact_of(path: Path, kind: str, whole: bool) -> Any:
    """The artifact of a file, the same in every run.

    Args:
        whole: whether the file is in it; otherwise its SHA-256 stands for it.
    """
    from wandb import Artifact

    sha256 = str(file_sha256(path))
    artifact = Artifact(f"{kind}-{sha256[:LETTERS]}", kind, metadata={"sha256": sha256})
    if whole:
        artifact.add_file(str(path), f"{kind}{path.suffix}")
    else:
        with artifact.new_file("sha256.txt") as file:
            file.write(sha256)
    return artifact


def with_run_logger(
    configured: Logger | Iterable[Logger] | bool | None, experiment: str, save_dir: str = "runs"
) -> list[Logger]:
    """The loggers of a Trainer: a RunLogger first, then the other configured ones.

    Args:
        configured: `trainer.logger` of the configuration; false writes nothing at all.
        experiment: name of the run, where no RunLogger with a name is configured.
        save_dir: folder of all runs, where no RunLogger is configured.
    """
    if configured is False:
        return []
    if configured is None or configured is True:
        loggers: list[Logger] = []
    else:
        loggers = [configured] if isinstance(configured, Logger) else list(configured)
    runs = [logger for logger in loggers if isinstance(logger, RunLogger)]
    run = runs[0] if runs else RunLogger(experiment, save_dir)
    if not run.is_named:
        run.call_it(experiment)
    others = [logger for logger in loggers if logger is not run]
    for logger in others:
        if isinstance(logger, WandbOrOffline):
            logger.beside(run)
    return [run, *others]


def wandb_loggers(trainer: Trainer) -> list[WandbOrOffline]:
    """The loggers that show a run on W&B."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbOrOffline)]


def keep_file(
    trainer: Trainer, path: Path, kind: str, *aliases: str, is_input: bool = False
) -> None:
    """Hand a file to W&B where it is used; see `WandbOrOffline.keep_file`."""
    for logger in wandb_loggers(trainer):
        logger.keep_file(path, kind, *aliases, is_input=is_input)
