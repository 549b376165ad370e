"""Accuracies with their uncertainty, calibration, forgetting and cost."""

from lightning_metakd.metrics.calibration_error import Calibration, expected_calibration_error
from lightning_metakd.metrics.continual import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from lightning_metakd.metrics.cost import (
    Cost,
    Shape,
    count_flops,
    evaluating,
    input_shapes,
    measure,
    milliseconds,
    one_like,
    peak_memory,
    shape_of,
)
from lightning_metakd.metrics.episode_metrics import (
    EpisodeRows,
    accuracy,
    agreement,
    interval,
    nll,
    paired_difference,
    summary,
)

__all__ = [
    "Calibration",
    "Cost",
    "EpisodeRows",
    "Shape",
    "accuracy",
    "agreement",
    "average_accuracy",
    "backward_transfer",
    "count_flops",
    "evaluating",
    "expected_calibration_error",
    "forgetting",
    "forward_transfer",
    "input_shapes",
    "interval",
    "measure",
    "milliseconds",
    "nll",
    "one_like",
    "paired_difference",
    "peak_memory",
    "shape_of",
    "summary",
]
