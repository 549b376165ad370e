"""Calibration error: the difference of confidence and accuracy, bit for bit independent of processes.

Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599. Rows
are counted in bins of confidence, in integers, so that the order of the episodes does not matter.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lightning_metakd.arguments.ranges import MOST_BINS, check_integer
from lightning_metakd.metrics.episode_metrics import exact

FIXED_POINT = 2**40
"""Confidences are summed as integers of this resolution: an exact sum, in any order."""


def calibration_counts(
    probs: Float[Tensor, "n c"], y: Int[Tensor, " n"], bins: int = 15
) -> Int[Tensor, "b 3"]:
    """Rows, correct rows and summed confidence (times 2^40) of each bin of confidence, [b, 3].

    Args:
        probs: class probabilities, not logits.
        y: labels.
        bins: of equal width over (0, 1], each closed on the right.

    Raises:
        ValueError: if bins is out of range, or a confidence is not finite or lies outside [0, 1].
    """
    check_integer("bins", bins, 1, MOST_BINS, "for instance 15")
    confidence, answer = exact(probs).max(-1)
    if not confidence.isfinite().all():
        raise ValueError(
            "probs has values that are not finite; look at the weights and the inputs of the network."
        )
    if len(probs) and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
        raise ValueError(
            f"confidences lie in [{confidence.min():.3g}, {confidence.max():.3g}], not in [0, 1]; "
            "probs takes probabilities, apply softmax to logits first."
        )
    place = (torch.ceil(confidence * bins).long() - 1).clamp(0, bins - 1)
    correct = (answer == y.to(answer.device)).long()
    of_row = torch.stack([torch.ones_like(correct), correct, (confidence * FIXED_POINT).long()], -1)
    return torch.zeros(bins, 3, dtype=torch.long, device=of_row.device).index_add_(0, place, of_row)


def calibration_gap(counts: Int[Tensor, "b 3"]) -> float:
    """Sum over bins of (share of rows) * |accuracy - mean confidence|.

    Raises:
        ValueError: if nothing was counted.
    """
    rows = counts.tolist()
    n = sum(row[0] for row in rows)
    if n == 0:
        raise ValueError("calibration of 0 rows does not exist; evaluate at least 1 episode.")
    return math.fsum(abs(correct - summed / FIXED_POINT) / n for _, correct, summed in rows)


def expected_calibration_error(
    probs: Float[Tensor, "n c"], y: Int[Tensor, " n"], bins: int = 15
) -> float:
    """Expected calibration error of rows at hand (equation 3), in [0, 1]; 0 is calibrated.

    Over a few rows it is biased upwards. Evaluations pool the rows of all episodes by `Calibration`; this
    function is for one set of rows, as for the card that describes a finished student.

    Args:
        probs: class probabilities, not logits.
        y: labels.
        bins: of equal width over (0, 1].

    Raises:
        ValueError: if there are no rows, bins is out of range, or probs are no probabilities.

    Example:
        >>> expected_calibration_error(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
        0.25
    """
    return calibration_gap(calibration_counts(probs, y, bins))


class Calibration(Metric):
    """Expected calibration error over the rows of all episodes and processes.

    Args:
        bins: of equal width over (0, 1].
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_integer("bins", bins, 1, MOST_BINS, "for instance 15")
        self.bins = bins
        zero = torch.zeros(bins, 3, dtype=torch.long)
        self.add_state("counts", default=zero, dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true, as a process may have no rows."""
        return True

    def update(self, probs: Tensor, y: Tensor) -> None:
        """Count the rows of one episode."""
        self.counts += calibration_counts(probs.detach(), y, self.bins).to(self.counts.device)

    def compute(self) -> float:
        """The error over all counted rows.

        Raises:
            ValueError: if there are none.
        """
        return calibration_gap(self.counts)
