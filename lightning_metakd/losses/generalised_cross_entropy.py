"""Generalised cross-entropy: between cross-entropy, which is fast, and absolute error, which resists noise.

Zhang, Sabuncu (2018), "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
Labels", arXiv:1805.07836, eq. 6: L_q = (1 - p(y)^q) / q. It goes to -log p(y) as q goes to 0 and is 1 - p(y)
at 1. Rows that the student finds unlikely weigh less the larger q is: the gradient is p(y)^q times that of
cross-entropy.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output

LEAST = 1e-6
"""Below it the loss is cross-entropy to single precision."""


class GeneralisedCrossEntropy(Loss):
    """A loss of the labels that trusts the student where it disagrees with them.

    Args:
        q: in [0, 1]; 0 is cross-entropy, 1 absolute error; a number or a coefficient. The paper takes 0.7.

    Example:
        >>> from lightning_metakd.losses import GeneralisedCrossEntropy, example_rows
        >>> GeneralisedCrossEntropy(q=0.5)(*example_rows()).shape
        torch.Size([4])
    """

    needs_teacher = False

    def __init__(self, q: Value = 0.7) -> None:
        super().__init__()
        self.q = coefficient(q, "q", 0.7, low=0.0, high=1.0, closed=True)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        q = self.q(batch, context).clamp(min=LEAST)
        surprise = cross_entropy(student.logits, batch.y, reduction="none")
        return -torch.expm1(-q * surprise) / q
