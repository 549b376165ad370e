"""What a student is taught, per row.

A Loss reads the student's answer, the labels and the teachers' answers in the batch, and returns
one number a row, never reduced. CrossEntropy is the plain loss of the labels; Hinton adds a teacher;
MatchGate weighs the two; WeightedSum adds any of them up. The submodules of a Loss are Coefficients
(or further losses), and its parameters are the strategy, so nothing but a coefficient may be
learned here: projections of features belong to the student (`adapters.py`).

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
from lightning_metakd.functional.calibration import likeliest_scale
from lightning_metakd.losses.coefficient import Value, weight
from lightning_metakd.losses.layer_pairs import LayerPair, Layers
from lightning_metakd.types import Batch, BatchLoss, Context, Output, Params


class Loss(nn.Module, ABC, Configured):
    """A per-row teaching objective.

    `layers` are those that it compares, and `adapts` tells whether it wants the student's at the teacher's
    width. Its teacher is the first of the batch (`multi_teacher.py` shows it another).
    """

    needs_teacher: bool = True
    layers: Layers = MappingProxyType({})
    needs_adapters: bool = False

    @abstractmethod
    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        """The loss of each row."""

    def layer_pairs(self, teacher: int | None = 0) -> Iterator[LayerPair]:
        """All pairs of layers that it and its parts compare.

        Args:
            teacher: number of its teacher in the pool; None stands for every one.
        """
        for student_layer, teacher_layer in self.layers.items():
            yield LayerPair(teacher, student_layer, teacher_layer, self.needs_adapters)
        for part in self.parts():
            yield from part.layer_pairs(teacher)

    def parts(self) -> Iterator["Loss"]:
        """The losses of which it is made."""
        for child in self.children():
            inner = child.children() if isinstance(child, nn.ModuleDict) else [child]
            yield from (part for part in inner if isinstance(part, Loss))


def check_same_classes(
    student_logits: Float[Tensor, "n c"], teacher_logits: Float[Tensor, "n c"]
) -> None:
    """Raise where student and teacher do not answer for the same rows and classes."""
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits "
            f"{tuple(teacher_logits.shape)} must answer for the same rows and classes; "
            "give the teacher a head that answers for this episode's classes."
        )


def check_same_rows(
    student_embedding: Float[Tensor, "n d"], teacher_embedding: Float[Tensor, "n e"]
) -> None:
    """Raise where student and teacher do not embed the same rows; widths may differ."""
    if len(student_embedding) != len(teacher_embedding):
        raise ValueError(
            f"student_embedding {tuple(student_embedding.shape)} and teacher_embedding "
            f"{tuple(teacher_embedding.shape)} must embed the same rows; "
            "ask the teacher about the batch that the student saw."
        )


def batch_loss(
    teach: Callable[..., Tensor],
    strategy: Params,
    batch: Batch,
    classes: Int[Tensor, " c"],
    support: Batch | None = None,
) -> BatchLoss:
    """A loss with these coefficients over one batch, its labels and its teachers.

    Args:
        teach: a loss as a function of its parameters, from `functional.bind_loss`.
        classes: dataset class of each label.
        support: rows on which the teachers' answers, held out of what they were fitted on, show how far they
            can be trusted in this episode.
    """
    support_accuracy = () if support is None else held_out_accuracy(support)
    return BatchLoss(teach, strategy, batch, classes[batch.y], support_accuracy)


def held_out_accuracy(support: Batch) -> Float[Tensor, " k"] | tuple[()]:
    """Part of the support rows which each teacher names rightly, `()` without teachers."""
    right = [
        (t.logits.argmax(-1) == support.y).to(t.logits.dtype).mean()
        for t in support.teacher_outputs
    ]
    return torch.stack(right) if right else ()


class CrossEntropy(Loss):
    """Cross-entropy with the labels: learning without a teacher.

    Args:
        label_smoothing: part of the target that is spread over all classes, in [0, 1).
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
        weights: name -> weight, >= 0; 1 where not given.
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

    As a quiz it does not pay for lower confidence, only for better order. The scale is found by
    bisection on (0, max_scale); by the envelope theorem the gradient is the one at that fixed scale. Where no
    scale is better than chance it is 0, and so is the gradient.

    Args:
        max_scale: upper end of the search; separable rows would go to infinity.
    """

    needs_teacher = False

    def __init__(self, max_scale: float = 8.0) -> None:
        super().__init__()
        check_positive("max_scale", max_scale, "for instance 8")
        self.max_scale = max_scale

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        scale = likeliest_scale(student.logits.detach(), batch.y, self.max_scale)
        return F.cross_entropy(scale * student.logits, batch.y, reduction="none")
