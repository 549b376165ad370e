"""What is watched, kept and written while a run goes on."""

from lightning_metakd.callbacks.answers import Answers
from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.cost import CostReport
from lightning_metakd.callbacks.herding import Herding
from lightning_metakd.callbacks.predictions import Predictions
from lightning_metakd.callbacks.progress_bar import ProgressBar
from lightning_metakd.callbacks.replicas import FrozenParameterCheck, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.callbacks.save_config import SaveConfig
from lightning_metakd.callbacks.stopping import StopOnSignal
from lightning_metakd.callbacks.strategy_monitor import StrategyMonitor
from lightning_metakd.callbacks.wandb_report import WandbReport

__all__ = [
    "Answers",
    "Checkpoints",
    "CostReport",
    "FrozenParameterCheck",
    "Herding",
    "Predictions",
    "ProgressBar",
    "ReplicaConsistency",
    "Results",
    "SaveConfig",
    "StopOnSignal",
    "StrategyMonitor",
    "WandbReport",
]
