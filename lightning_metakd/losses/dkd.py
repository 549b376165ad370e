"""Decoupled distillation: the true class apart from the others.

Zhao, Cui, Song, Qiu, Liang (2022), "Decoupled Knowledge Distillation", arXiv:2203.08679.
With t the true class, KL(p_T || p_S) = KL(b_T || b_S) + (1 - p_T(t)) KL(q_T || q_S), where b is the
pair (p(t), 1 - p(t)) and q the distribution among the other classes. A confident teacher thereby gives
its second term no weight; DKD weighs the two terms freely. Both are computed from logits (the others'
joint logit is their logsumexp), never from a logarithm of a probability. The paper lets the loss grow
over 20 epochs: that is a scheduled weight in `WeightedSum`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient, weight
from lightning_metakd.losses.hinton import kd_loss
from lightning_metakd.losses.loss import Loss, check_same_classes
from lightning_metakd.types import Batch, Context, Output


def others(logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c-1"]:
    """The logits of all classes but the true one, in order."""
    column = torch.arange(logits.shape[-1] - 1, device=y.device)
    return logits.gather(-1, column + (column >= y[:, None]))


def true_or_not(
    logits: Float[Tensor, "n c"],
    y: Int[Tensor, " n"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> Float[Tensor, "n 2"]:
    """The logits of the true class and, at this temperature, of all others together."""
    t = temperature[..., None]
    rest = t * (others(logits, y) / t).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, y[:, None]), rest], -1)


def dkd_terms(
    student_logits: Float[Tensor, "n c"],
    teacher_logits: Float[Tensor, "n c"],
    y: Int[Tensor, " n"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(divergence about the true class, divergence among the others), both times T^2, in nats per row.

    Args:
        student_logits: unnormalised scores of the student.
        teacher_logits: those of the teacher, for the same rows and classes.
        y: the true classes.
        temperature: T, softening, > 0.

    Raises:
        ValueError: if the two differ in rows or classes.
    """
    check_same_classes(student_logits, teacher_logits)
    # T^2 and beta would magnify what half precision rounds off
    single = torch.promote_types(student_logits.dtype, torch.float32)
    student, teacher = student_logits.to(single), teacher_logits.to(single)
    return (
        kd_loss(
            true_or_not(student, y, temperature), true_or_not(teacher, y, temperature), temperature
        ),
        kd_loss(others(student, y), others(teacher, y), temperature),
    )


class DKD(Loss):
    """Match the first teacher about the true class and, apart from that, among the others.

    Args:
        alpha: weight of the divergence about the true class, >= 0; a number or a coefficient.
        beta: weight of the divergence among the other classes, >= 0; a number or a coefficient.
        temperature: softening, > 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import DKD, example_rows
        >>> student, batch, context = example_rows()
        >>> DKD()(student, batch, context)
        tensor([1.7936, 0.1909, 2.2916, 0.0397])
    """

    def __init__(self, alpha: Value = 1.0, beta: Value = 8.0, temperature: Value = 4.0) -> None:
        super().__init__()
        self.alpha = weight(alpha, "alpha", 1.0)
        self.beta = weight(beta, "beta", 8.0)
        self.temperature = coefficient(temperature, "temperature", 4.0, low=0.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        temperature = self.temperature(batch, context)
        teacher_logits = batch.teacher_outputs[0].logits
        target, rest = dkd_terms(student.logits, teacher_logits, batch.y, temperature)
        return self.alpha(batch, context) * target + self.beta(batch, context) * rest
