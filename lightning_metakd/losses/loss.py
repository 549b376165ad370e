"""The contract of a loss, and the losses of labels alone.

A Loss reads the student's output, the labels and the teachers' outputs in the batch, and returns one
number a row, never reduced. CrossEntropy compares with the labels, Hinton with a teacher; MatchGate
weighs the two, WeightedSum adds any of them up. The submodules of a Loss are Coefficients or further
losses, and its parameters are the strategy: nothing but a coefficient is learned here. Projections of
features belong to the student (`adapters.py`).

A relational loss (one that compares rows) returns each row's share, so that the mean over rows is
the paper's loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import check_positive, check_share
from lightning_metakd.losses.calibration import likeliest_scale
from lightning_metakd.losses.coefficient import Value, weight
from lightning_metakd.losses.layer_pairs import LayerPair, Layers
from lightning_metakd.types import Batch, BatchLoss, Context, Output, Params


class Loss(nn.Module, ABC, Configured):
    """A loss of each row of a batch.

    Its teacher is the first of the batch; `multi_teacher.py` shows it others.

    Attributes:
        needs_teacher: whether it, or a coefficient in it, reads a teacher's output.
        layers: module path in the student -> module path in the teacher of the layers that it compares.
        needs_adapters: whether it reads the student's layers at the teacher's widths.
    """

    needs_teacher: bool = True
    layers: Layers = MappingProxyType({})
    needs_adapters: bool = False

    @abstractmethod
    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        """The loss of each row.

        Args:
            student: the student's output for the batch.
            batch: labels, and the teachers' outputs for the same rows.
            context: what coefficients read beside the batch.
        """

    def layer_pairs(self, teacher: int | None = 0) -> Iterator[LayerPair]:
        """All pairs of layers that it and its parts compare.

        Args:
            teacher: number of its teacher in the pool; None stands for every teacher.
        """
        for student_layer, teacher_layer in self.layers.items():
            yield LayerPair(teacher, student_layer, teacher_layer, self.needs_adapters)
        for part in self.parts():
            yield from part.layer_pairs(teacher)

    def parts(self) -> Iterator["Loss"]:
        """The losses that it holds."""
        for child in self.children():
            inner = child.children() if isinstance(child, nn.ModuleDict) else [child]
            yield from (part for part in inner if isinstance(part, Loss))


def check_same_classes(
    student_logits: Float[Tensor, "n c"], teacher_logits: Float[Tensor, "n c"]
) -> None:
    """Raise where logits of student and teacher differ in rows or classes."""
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits "
            f"{tuple(teacher_logits.shape)} must have the same rows and classes; "
            "give the teacher a head for this episode's classes."
        )


def check_same_rows(
    student_embedding: Float[Tensor, "n d"], teacher_embedding: Float[Tensor, "n e"]
) -> None:
    """Raise where embeddings of student and teacher differ in their number of rows; widths may differ."""
    if len(student_embedding) != len(teacher_embedding):
        raise ValueError(
            f"student_embedding {tuple(student_embedding.shape)} and teacher_embedding "
            f"{tuple(teacher_embedding.shape)} must embed the same rows; "
            "give the teacher the student's batch."
        )


def batch_loss(
    teach: Callable[..., Tensor],
    strategy: Params,
    batch: Batch,
    classes: Int[Tensor, " c"],
    support: Batch | None = None,
) -> BatchLoss:
    """The loss of one batch as a function of the student's output, with the coefficients fixed.

    Args:
        teach: a loss as a function of its parameters, from `functional.bind_loss`.
        strategy: the parameters of its coefficients.
        batch: rows with labels and the teachers' outputs.
        classes: dataset class of each label.
        support: the episode's support rows with held-out outputs of the teachers, from which coefficients
            get each teacher's accuracy; None where there is no support set.
    """
    support_accuracy = () if support is None else held_out_accuracy(support)
    return BatchLoss(teach, strategy, batch, classes[batch.y], support_accuracy)


def held_out_accuracy(support: Batch) -> Float[Tensor, " k"] | tuple[()]:
    """Accuracy of each teacher on the support rows, in [0, 1]; `()` without teachers."""
    right = [
        (t.logits.argmax(-1) == support.y).to(t.logits.dtype).mean()
        for t in support.teacher_outputs
    ]
    return torch.stack(right) if right else ()


class CrossEntropy(Loss):
    """Cross-entropy with the labels, in nats: learning without a teacher.

    Args:
        label_smoothing: part of the target that is spread over all classes, in [0, 1).

    Example:
        >>> from lightning_metakd.losses import CrossEntropy, example_rows
        >>> student, batch, context = example_rows()
        >>> CrossEntropy()(student, batch, context)
        tensor([0.6701, 0.9467, 2.1344, 1.3787])
    """

    needs_teacher = False

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_share("label_smoothing", label_smoothing, "where 0 switches it off")
        self.label_smoothing = label_smoothing

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        return F.cross_entropy(
            student.logits, batch.y, reduction="none", label_smoothing=self.label_smoothing
        )


class WeightedSum(Loss):
    """Sum of named losses, each times its weight.

    Args:
        terms: name -> loss.
        weights: name -> weight, >= 0, a number or a coefficient; 1 where not given.

    Raises:
        ValueError: if weights name no term, or one is negative.

    Example:
        >>> from lightning_metakd.losses import CrossEntropy, Hinton, WeightedSum, example_rows
        >>> loss = WeightedSum({"hard": CrossEntropy(), "soft": Hinton()}, {"soft": 0.5})
        >>> loss(*example_rows())
        tensor([0.9320, 1.0387, 2.2407, 1.3814])
    """

    def __init__(self, terms: dict[str, Loss], weights: Mapping[str, Value] | None = None) -> None:
        super().__init__()
        weights = weights or {}
        if unknown := sorted(set(weights) - set(terms)):
            raise ValueError(
                f"weights name {', '.join(unknown)}, but terms has {', '.join(terms)}; rename or drop them."
            )
        self.terms = nn.ModuleDict(terms)
        self.weights = nn.ModuleDict(
            {name: weight(weights.get(name, 1.0), f"weights.{name}") for name in terms}
        )
        parts = [*terms.values(), *self.weights.values()]
        self.needs_teacher = any(part.needs_teacher for part in parts)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        weighted = [
            self.weights[name](batch, context) * term(student, batch, context)
            for name, term in self.terms.items()
        ]
        return torch.stack(weighted).sum(0)


class CalibratedCrossEntropy(Loss):
    """Cross-entropy of the logits at the scale that suits them best: min over s of CE(s * logits).

    As a quiz it rewards a better order of the classes, not a change of confidence. The scale is found by
    bisection on (0, max_scale); by the envelope theorem the gradient is the one at that fixed scale. Where no
    scale is better than chance it is 0, and so is the gradient.

    Args:
        max_scale: upper end of the search; separable rows would go to infinity.

    Example:
        >>> from lightning_metakd.losses import CalibratedCrossEntropy, example_rows
        >>> student, batch, context = example_rows()
        >>> CalibratedCrossEntropy()(student, batch, context)
        tensor([1.0986, 1.0986, 1.0986, 1.0986])
    """

    needs_teacher = False

    def __init__(self, max_scale: float = 8.0) -> None:
        super().__init__()
        check_positive("max_scale", max_scale, "for instance 8")
        self.max_scale = max_scale

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        scale = likeliest_scale(student.logits.detach(), batch.y, self.max_scale)
        return F.cross_entropy(scale * student.logits, batch.y, reduction="none")
