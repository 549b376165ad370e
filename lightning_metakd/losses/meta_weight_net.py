"""The weight of a row by its loss alone.

Shu, Xie, Yi, Zhao, Zhou, Xu, Meng (2019), "Meta-Weight-Net: Learning an Explicit Mapping For Sample
Weighting", arXiv:1902.07379: a perceptron of one hidden layer of 100 units maps the loss of a row to its
weight in (0, 1), and is trained by what a step with these weights does on trusted rows.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_UNITS, check_integer, check_number
from lightning_metakd.losses.coefficient import Coefficient, Interval
from lightning_metakd.types import Batch, Context

VALUES = Interval(0.0, 1.0)


class MetaWeightNet(Coefficient):
    """A number in (0, 1) for each row, learned as a small network of the student's loss on its label.

    As the weight of a label term, judged by cross-entropy (`strategy_training.quiz`), it is the method of the
    paper; it reads no teacher. It starts at the same value for every row.

    Args:
        hidden: hidden units.
        init: where it starts, in (0, 1).

    Example:
        >>> from lightning_metakd.losses import CrossEntropy, MetaWeightNet, WeightedSum, example_rows
        >>> student, batch, context = example_rows()
        >>> loss = WeightedSum({"labels": CrossEntropy()}, {"labels": MetaWeightNet()})
        >>> loss(student, batch, context).detach()
        tensor([0.3351, 0.4733, 1.0672, 0.6893])
    """

    def __init__(self, hidden: int = 100, init: float = 0.5) -> None:
        super().__init__()
        check_integer("hidden", hidden, 1, MOST_UNITS, "for instance 100")
        check_number("init", init, *VALUES, "()", "for instance 0.5")
        self.init = init
        self.net = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def configured_values(self) -> Mapping[str, float]:
        return {"init": self.init}

    def set_value(self, value: float) -> None:
        weight, bias = self.net[2].parameters()
        nn.init.zeros_(weight)
        nn.init.constant_(bias, VALUES.unsquash(min(max(value, 1e-6), 1 - 1e-6)))

    def forward(self, batch: Batch, context: Context) -> Tensor:
        loss = F.cross_entropy(context.student_detached.logits, batch.y, reduction="none")
        return VALUES.squash(self.net(loss[:, None])[:, 0])
