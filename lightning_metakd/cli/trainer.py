"""Training from Python that writes what the command writes, where the command writes it."""

from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch
from lightning.pytorch import Callback
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import Logger

from lightning_metakd.callbacks.answers import Answers
from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.cost import CostReport
from lightning_metakd.callbacks.predictions import Predictions
from lightning_metakd.callbacks.progress_bar import ProgressBar
from lightning_metakd.callbacks.replicas import FrozenParameterCheck, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.callbacks.stopping import StopOnSignal
from lightning_metakd.callbacks.strategy_monitor import StrategyMonitor
from lightning_metakd.callbacks.wandb_report import WandbReport
from lightning_metakd.loggers.wandb_logger import with_run_logger
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO

SETTINGS: dict[str, Any] = {
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
"""Where a Trainer of ours begins otherwise than Lightning's."""


BUILT_IN: tuple[type[Callback], ...] = (
    *(Checkpoints, CostReport, StrategyMonitor, StopOnSignal, ReplicaConsistency),
    *(FrozenParameterCheck, Results, Answers, WandbReport, Predictions, ProgressBar),
)
"""Callbacks of every run; `WandbReport` shows what those before it have written."""


def built_in() -> list[Callback]:
    """The callbacks of a run."""
    return [kind() for kind in BUILT_IN]


def with_built_in(callbacks: Sequence[Callback], shows_progress: bool = True) -> list[Callback]:
    """Callbacks of a user, and those of every run, in whose place they are where they are of their class.

    Args:
        callbacks: of the user.
        shows_progress: false leaves our progress out; a bar of the user does so too.
    """
    shows_progress = shows_progress and not any(
        isinstance(c, lightning_callbacks.ProgressBar) for c in callbacks
    )
    usual = [
        callback
        for callback in built_in()
        if not any(isinstance(c, type(callback)) for c in callbacks)
        if shows_progress or not isinstance(callback, lightning_callbacks.ProgressBar)
    ]
    return [*callbacks, *usual]


class Trainer(lightning.pytorch.Trainer):
    """Lightning's Trainer as the command sets it up: each run has a directory with its numbers and results.

    Args:
        experiment: name of what is run, whose runs lie in `<runs>/<experiment>/<version>/`.
        runs: folder of all runs.
        callbacks: beside those of every run, or in the place of those of the same class.
        logger: beside the run's directory; false writes nothing at all.
        plugins: as Lightning's Trainer has them.
        settings: what else Lightning's Trainer takes.
    """

    def __init__(
        self,
        experiment: str = "default",
        runs: str = "runs",
        *,
        callbacks: Callback | Iterable[Callback] | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        plugins: Any = None,
        **settings: Any,
    ) -> None:
        shows_progress = settings.get("enable_progress_bar") is not False
        super().__init__(
            **SETTINGS | settings,
            callbacks=with_built_in(as_list(callbacks), shows_progress),
            logger=with_run_logger(logger, experiment, runs),
            plugins=[AtomicCheckpointIO(), *as_list(plugins)],
        )


def as_list(parts: Any) -> list[Any]:
    """None, one, or several, as a list."""
    if parts is None:
        return []
    return list(parts) if isinstance(parts, list | tuple) else [parts]
