"""Distillation from a stronger teacher: correlations instead of a divergence.

Huang, You, Wang, Qian, Xu (2022), "Knowledge Distillation from A Stronger Teacher" (DIST),
arXiv:2205.10536.
One minus Pearson's correlation of student and teacher, of each row's softened distribution over classes
(inter-class) and of each class's probability over the rows (intra-class). So the student follows the
relations of a much stronger teacher, not its sharpness. For z-scores u, v, 1 - corr(u, v) is
mean (u - v)^2 / 2, and this is the form computed: each row's share of an intra-class term is its own
disagreement, and their mean over rows is the paper's loss. Where all values are equal (the paper's code
then finds no correlation, loss 1) it is 1/2.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient, weight
from lightning_metakd.losses.logit_standardisation import standardised
from lightning_metakd.losses.loss import Loss, check_same_classes
from lightning_metakd.types import Batch, Context, Output


def dist_terms(
    student_logits: Float[Tensor, "n c"],
    teacher_logits: Float[Tensor, "n c"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(inter-class, intra-class) correlation distances, both times T^2, each row's share.

    Args:
        student_logits: unnormalised scores of the student.
        teacher_logits: those of the teacher, for the same rows and classes.
        temperature: T, softening, > 0.

    Raises:
        ValueError: if the two differ in rows or classes.
    """
    check_same_classes(student_logits, teacher_logits)
    t = temperature[..., None]
    student, teacher = ((z / t).softmax(-1) for z in (student_logits, teacher_logits))
    inter, intra = (
        temperature**2 * (standardised(student, dim) - standardised(teacher, dim)).square().mean(-1)
        for dim in (-1, 0)
    )
    return inter / 2, intra / 2


class DIST(Loss):
    """Correlate the softened distributions of student and first teacher, over classes and over rows.

    Args:
        beta: weight of the correlation over the classes of a row, >= 0; a number or a coefficient.
        gamma: weight of the correlation over the rows of a class, >= 0; a number or a coefficient.
        temperature: softening, > 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import DIST, example_rows
        >>> student, batch, context = example_rows()
        >>> DIST()(student, batch, context)
        tensor([16.8920, 44.2292, 71.0199,  3.3968])
    """

    def __init__(self, beta: Value = 2.0, gamma: Value = 2.0, temperature: Value = 4.0) -> None:
        super().__init__()
        self.beta = weight(beta, "beta", 2.0)
        self.gamma = weight(gamma, "gamma", 2.0)
        self.temperature = coefficient(temperature, "temperature", 4.0, low=0.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        temperature = self.temperature(batch, context)
        inter, intra = dist_terms(student.logits, batch.teacher_outputs[0].logits, temperature)
        return self.beta(batch, context) * inter + self.gamma(batch, context) * intra
