"""Distillation of standardised logits.

Sun, Ren, Li, Wang, Cao (2024), "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.
Each row's logits become z-scores, in student and teacher alike, before Hinton's loss compares them at a
base temperature. So the student follows the order and the relations of the teacher's logits and is free
in their scale: a temperature for each row without a parameter, and the control for any learned one. The
standard deviation is the paper's (algorithm 1: squares over c); the authors' code divides by c - 1,
which is the same loss at a base temperature sqrt(c / (c - 1)) times as high, but for T^2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.hinton import kd_loss
from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output


def standardised(x: Float[Tensor, "n c"], dim: int = -1) -> Float[Tensor, "n c"]:
    """The z-scores along a dimension: mean 0, variance 1.

    Values whose variance is below 1e-12 are only centred, so that all derivatives are finite and of ordinary
    size: a student that starts with a head of zeros can learn.
    """
    centred = x - x.mean(dim, keepdim=True)
    variance = centred.square().mean(dim, keepdim=True)
    return centred * torch.where(variance < 1e-12, 1.0, variance).rsqrt()


def logit_standardisation_loss(
    student_logits: Float[Tensor, "n c"],
    teacher_logits: Float[Tensor, "n c"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Divergence KL(teacher || student) of the z-scores' softened distributions, times T^2, in nats per row.

    Args:
        student_logits: unnormalised scores of the student.
        teacher_logits: those of the teacher, for the same rows and classes.
        temperature: T, base temperature, > 0.

    Raises:
        ValueError: if the two differ in rows or classes.
    """
    return kd_loss(standardised(student_logits), standardised(teacher_logits), temperature)


class LogitStandardisation(Loss):
    """Match the first teacher's logits up to each row's mean and scale.

    Args:
        temperature: softening of the z-scores, > 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import LogitStandardisation, example_rows
        >>> student, batch, context = example_rows()
        >>> LogitStandardisation()(student, batch, context)
        tensor([0.0068, 0.2333, 0.5042, 0.0332])
    """

    def __init__(self, temperature: Value = 2.0) -> None:
        super().__init__()
        self.temperature = coefficient(temperature, "temperature", 2.0, low=0.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        temperature = self.temperature(batch, context)
        return logit_standardisation_loss(
            student.logits, batch.teacher_outputs[0].logits, temperature
        )
