"""What is watched, kept and written while a run goes on."""

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.cost import CostReport
from lightning_metakd.callbacks.predictions import Predictions
from lightning_metakd.callbacks.progress_bar import Progress
from lightning_metakd.callbacks.replicas import FrozenStaysFrozen, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.callbacks.save_config import SaveConfig
from lightning_metakd.callbacks.stopping import StopOnSignal
from lightning_metakd.callbacks.strategy_monitor import StrategyReport

__all__ = [
    "Checkpoints",
    "CostReport",
    "FrozenStaysFrozen",
    "Predictions",
    "Progress",
    "ReplicaConsistency",
    "Results",
    "SaveConfig",
    "StopOnSignal",
    "StrategyReport",
]
