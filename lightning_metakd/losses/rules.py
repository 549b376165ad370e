"""Coefficients without parameters: rules that weigh a row by how likely its label is, or how sure a teacher.

What a learned coefficient of each row should be compared with. Most read the probability that a teacher,
or the student itself, gives the label of the row; the student's is no part of a graph.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_metakd.arguments.ranges import check_choice, check_number, check_share
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.types import Batch, Context

Judge = Literal["teacher", "student"]
LARGEST_POWER = 100.0


def probability_of_label(judge: Judge, batch: Batch, context: Context) -> Float[Tensor, " n"]:
    """What the first teacher, or the student, gives the label of each row, in [0, 1]."""
    output = batch.teacher_outputs[0] if judge == "teacher" else context.student_detached
    return output.logits.softmax(-1).gather(-1, batch.y[:, None])[:, 0]


class Threshold(Coefficient):
    """One value where the label is likely enough, another where it is not.

    Args:
        threshold: least probability of a label that is taken for right, in [0, 1].
        above: value of such a row.
        below: value of the others.
        judge: whose probability it is, `teacher` or `student`.

    Example:
        >>> from lightning_metakd.losses import MatchGate, Threshold, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=Threshold(0.0)).gate(batch, context)
        tensor([1., 1., 1., 1.])
    """

    def __init__(
        self,
        threshold: float = 0.1,
        above: float = 1.0,
        below: float = 0.0,
        judge: Judge = "teacher",
    ) -> None:
        super().__init__()
        check_number("threshold", threshold, 0.0, 1.0, "[]", "for instance 0.1")
        check_number("above", above)
        check_number("below", below)
        check_choice("judge", judge, get_args(Judge))
        self.threshold, self.above, self.below, self.judge = threshold, above, below, judge
        self.needs_teacher = judge == "teacher"

    def configured_values(self) -> Mapping[str, float]:
        return {"above": self.above, "below": self.below}

    def forward(self, batch: Batch, context: Context) -> Tensor:
        p = probability_of_label(self.judge, batch, context)
        return torch.where(p >= self.threshold, p.new_tensor(self.above), p.new_tensor(self.below))


class Posterior(Coefficient):
    """The probability that a label is right, by Bayes' rule.

    Of labels, a part `rate` is wrong, each other class alike. With p what the judge gives the label of a row
    among C classes, the label is right with probability (1 - r) p / ((1 - r) p + r (1 - p) / (C - 1)).

    Args:
        rate: part of the labels that is wrong, in [0, 1).
        judge: whose probability p is, `teacher` or `student`.

    Example:
        >>> from lightning_metakd.losses import MatchGate, Posterior, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=Posterior(rate=0.0)).gate(batch, context)
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, rate: float = 0.4, judge: Judge = "teacher") -> None:
        super().__init__()
        check_share("rate", rate, "for instance 0.4")
        check_choice("judge", judge, get_args(Judge))
        self.rate, self.judge = rate, judge
        self.needs_teacher = judge == "teacher"

    def forward(self, batch: Batch, context: Context) -> Tensor:
        p = probability_of_label(self.judge, batch, context)
        n_classes = context.student_detached.logits.shape[-1]
        right, wrong = (1 - self.rate) * p, self.rate * (1 - p) / (n_classes - 1)
        return torch.where(
            right > 0, right / (right + wrong).clamp(min=torch.finfo(p.dtype).tiny), 0
        )


class Confidence(Coefficient):
    """The largest probability that a teacher gives any class of a row, to a power.

    As the weights of `MultiTeacher` it lets teachers count by how sure they are, whether or not they may be.

    Args:
        power: >= 0; 0 counts all teachers alike, and with 30 hardly anyone but the surest counts.

    Example:
        >>> from lightning_metakd.losses import Confidence, example_rows
        >>> _, batch, context = example_rows()
        >>> Confidence(power=2.0)(batch, context)
        tensor([0.7134, 0.5642, 0.2896, 0.2461])
    """

    needs_teacher = True

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        check_number("power", power, 0.0, LARGEST_POWER, "[]", "for instance 1")
        self.power = power

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return batch.teacher_outputs[0].logits.softmax(-1).amax(-1) ** self.power


class KnownLabel(Coefficient):
    """One value for rows whose class the teacher knows, another for those of other classes.

    With the previous self as teacher the former are rows of a memory, the latter those of the new task.

    Args:
        inside: value of a row of the teacher's classes.
        outside: value of the others.

    Example:
        >>> from lightning_metakd.losses import KnownLabel, MatchGate, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=KnownLabel(0.5, 1.0)).gate(batch, context)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, inside: float = 1.0, outside: float = 0.0) -> None:
        super().__init__()
        check_number("inside", inside)
        check_number("outside", outside)
        self.inside, self.outside = inside, outside

    def configured_values(self) -> Mapping[str, float]:
        return {"inside": self.inside, "outside": self.outside}

    def forward(self, batch: Batch, context: Context) -> Tensor:
        logits = batch.teacher_outputs[0].logits
        has_logit = logits.gather(-1, batch.y[:, None])[:, 0].isfinite()
        return torch.where(
            has_logit, logits.new_tensor(self.inside), logits.new_tensor(self.outside)
        )
