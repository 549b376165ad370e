"""Where the numbers of a run go."""

from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.loggers.wandb_logger import WandbOrOffline

__all__ = ["RunLogger", "WandbOrOffline"]
