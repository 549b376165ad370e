"""The weight of a row by whether a step on it would help trusted rows.

Ren, Zeng, Yang, Urtasun (2018), "Learning to Reweight Examples for Robust Deep Learning", arXiv:1803.09050:
the weights of a batch begin at 0, are moved once against the gradient of the quiz after a step with them
(eq. 4 to 6), and what is positive of them, divided by its sum, weighs the step that is then made (eq. 7, 8).
"""

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CLASSES, check_integer
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.types import Batch, Context


class LearningToReweight(Coefficient):
    """A weight in [0, n] for each of the n rows of a batch, learned anew for every batch.

    As the weight of a label term, judged by cross-entropy (`strategy_training.quiz`), it is the method of the
    paper; it reads no teacher, and the weights of a batch have the mean 1, or are all 0 where no row helps.
    It is for SingleTask, and is learned by plain descent (`optimisation.strategy_optimiser=sgd`), whose rate
    does not matter.

    Args:
        batch_size: rows of a batch at most.

    Example:
        >>> from lightning_metakd.losses import LearningToReweight, example_rows
        >>> _, batch, context = example_rows()
        >>> weight = LearningToReweight(4)
        >>> _ = weight.raw.data.copy_(torch.tensor([1.0, -2.0, 3.0, 0.0]))
        >>> weight(batch, context).detach()
        tensor([1., 0., 3., 0.])
    """

    of_batch = True

    def __init__(self, batch_size: int = 128) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, 1, MOST_CLASSES)
        self.raw = nn.Parameter(torch.zeros(batch_size))

    def restart(self) -> None:
        nn.init.zeros_(self.raw)

    def forward(self, batch: Batch, context: Context) -> Tensor:
        n = len(batch.y)
        if n > len(self.raw):
            raise ValueError(
                f"LearningToReweight.batch_size={len(self.raw)}, and a batch has {n} rows; give it "
                "data.batch_size."
            )
        raw = self.raw[:n]
        positive = raw.detach().clamp(min=0.0)
        weights = n * positive / positive.sum().clamp(min=torch.finfo(raw.dtype).tiny)
        return raw + (weights - raw.detach())  # at zero its derivative is that of the plain weight
