"""The scale at which logits are most likely to be right.

Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599, section
4.2: one number divides (here: multiplies) all logits, which changes the confidence and not the order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

HALVINGS = 40


def likeliest_scale(
    logits: Float[Tensor, "n c"], y: Int[Tensor, " n"], largest: float, smallest: float = 0.0
) -> Float[Tensor, ""]:
    """The s in [smallest, largest] that minimises the mean cross-entropy of s * logits, by bisection.

    The mean is convex in s, with derivative mean(expected logit) - mean(logit of the truth).

    Args:
        logits: unscaled class scores, of a finite spread.
        y: labels.
        largest: upper end; separable rows would go to infinity.
        smallest: lower end, the result where no larger scale is better; above 0, the search halves log s.

    Example:
        >>> likeliest_scale(torch.tensor([[2.0, 0.0]] * 3 + [[0.0, 2.0]]), torch.zeros(4).long(), 8.0)
        tensor(0.5493)
    """
    truth = logits.gather(1, y[:, None]).mean()
    low, high = torch.full_like(truth, smallest), torch.full_like(truth, largest)
    for _ in range(HALVINGS):
        s = (low * high).sqrt() if smallest > 0 else (low + high) / 2
        expected = ((s * logits).softmax(-1) * logits).sum(-1).mean()
        too_small = expected < truth
        low, high = torch.where(too_small, s, low), torch.where(too_small, high, s)
    return low
