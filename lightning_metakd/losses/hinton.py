"""Soft-target distillation.

Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
The student matches the teacher's class distribution softened by a temperature. The T^2 factor keeps
gradient size independent of T (section 2 of the paper); where the temperature is learned, T^2 and its
derivative are part of the objective.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.loss import Loss, check_same_classes
from lightning_metakd.types import Batch, Context, Output


def kd_loss(
    student_logits: Float[Tensor, "n c"],
    teacher_logits: Float[Tensor, "n c"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Divergence KL(teacher || student) of softened distributions, times T^2, in nats per row.

    Args:
        student_logits: unnormalised scores of the student.
        teacher_logits: those of the teacher, for the same rows and classes.
        temperature: T, softening, > 0; 1 compares the plain distributions.

    Raises:
        ValueError: if the two differ in rows or classes.

    Example:
        >>> kd_loss(Tensor([[0.0, 0.0]]), Tensor([[0.0, 2.0]]), Tensor([1.0]))
        tensor([0.3278])
    """
    check_same_classes(student_logits, teacher_logits)
    t = temperature[..., None]  # [] -> [1], [n] -> [n 1]
    log_student, log_teacher = ((z / t).log_softmax(-1) for z in (student_logits, teacher_logits))
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return temperature**2 * divergence


class Hinton(Loss):
    """Match the first teacher's softened class distribution.

    Args:
        temperature: softening, > 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import Hinton, example_rows
        >>> student, batch, context = example_rows()
        >>> Hinton(temperature=2.0)(student, batch, context)
        tensor([0.4441, 0.1759, 0.2277, 0.0052])
    """

    def __init__(self, temperature: Value = 4.0) -> None:
        super().__init__()
        self.temperature = coefficient(temperature, "temperature", 4.0, low=0.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        return kd_loss(
            student.logits, batch.teacher_outputs[0].logits, self.temperature(batch, context)
        )
