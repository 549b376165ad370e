"""Numbers with their uncertainty, calibration and cost."""

from lightning_metakd.metrics.episode_metrics import accuracy, interval

__all__ = ["accuracy", "interval"]
