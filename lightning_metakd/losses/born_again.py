"""Born-again networks: a student learns from a trained network of its own architecture.

Furlanello, Lipton, Tschannen, Itti, Anandkumar (2018), "Born Again Neural Networks", arXiv:1805.04770.
The student learns the teacher's distribution by plain cross-entropy; that the teacher is the same
network, one generation before, is configuration (its `model` the student's, its `checkpoint` the last
generation's). The gradient is that of Hinton's loss at temperature 1. CWTM, the paper's control
without the teacher's other classes, learns the labels instead, each row weighted by the teacher's
largest probability.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_metakd.losses.loss import Loss, check_same_classes
from lightning_metakd.types import Batch, Context, Output


def soft_cross_entropy(
    student_logits: Float[Tensor, "n c"], teacher_logits: Float[Tensor, "n c"]
) -> Float[Tensor, " n"]:
    """Cross-entropy with the teacher's distribution, in nats per row; its minimum is the teacher's entropy.

    Raises:
        ValueError: if the two differ in rows or classes.
    """
    check_same_classes(student_logits, teacher_logits)
    return -(teacher_logits.softmax(-1) * student_logits.log_softmax(-1)).sum(-1)


def confidence_weights(teacher_logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """The teacher's largest probability of each row, over the mean of the rows (eq. 10 times n)."""
    confidence = teacher_logits.softmax(-1).amax(-1)
    return confidence / confidence.mean()


class BornAgain(Loss):
    """Learn the first teacher's distribution by cross-entropy.

    Args:
        confidence_weighted: learn the labels instead, each row weighted by the teacher's largest
            probability (CWTM).

    Example:
        >>> from lightning_metakd.losses import BornAgain, example_rows
        >>> student, batch, context = example_rows()
        >>> BornAgain()(student, batch, context)
        tensor([0.7543, 0.8757, 1.1941, 1.0446])
    """

    def __init__(self, confidence_weighted: bool = False) -> None:
        super().__init__()
        self.confidence_weighted = confidence_weighted

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        teacher_logits = batch.teacher_outputs[0].logits
        if self.confidence_weighted:
            hard = F.cross_entropy(student.logits, batch.y, reduction="none")
            return confidence_weights(teacher_logits) * hard
        return soft_cross_entropy(student.logits, teacher_logits)
