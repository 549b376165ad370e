"""Prototype matching: rows have the similarities to class means that they have in the teacher's space.

A loss of this project, for episodes. Its class means are those of prototypical networks (Snell, Swersky,
Zemel 2017, arXiv:1703.05175); as in relational distillation (`rkd.py`) only relations within a space are
compared, so that widths may differ. Each row's cosines to
the class means of the batch, its own class without the row itself, become a distribution over classes,
in the student's space and in the teacher's; the student's should diverge little from the teacher's. It
compares no logits, so it trains embeddings whatever the heads.
"""

from jaxtyping import Float, Int
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.hinton import kd_loss
from lightning_metakd.losses.loss import Loss, check_same_rows
from lightning_metakd.models.prototypes import leave_one_out_means, metric_logits, one_hot
from lightning_metakd.types import Batch, Context, Output

FAR = -1e4
"""Similarity to a class without rows in the batch; its probability is 0."""


def prototype_similarities(
    embedding: Float[Tensor, "n d"], y: Int[Tensor, " n"], n_way: int
) -> Float[Tensor, "n c"]:
    """Cosine of each row to each class mean; the mean of its own class is without it, if others are there."""
    cosine = metric_logits(embedding, leave_one_out_means(embedding, y, n_way), "cosine")
    return cosine.masked_fill(~one_hot(y, n_way).any(0), FAR)


def prototype_matching_loss(
    student_embedding: Float[Tensor, "n d"],
    teacher_embedding: Float[Tensor, "n e"],
    y: Int[Tensor, " n"],
    n_way: int,
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Divergence KL(teacher || student) of softened similarities to class means, times T^2, in nats per row.

    Args:
        student_embedding: of the batch.
        teacher_embedding: of the same rows; its width may differ.
        y: labels, 0 .. n_way - 1.
        n_way: classes; one without rows takes no part.
        temperature: T, softening of the cosines, > 0.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    student, teacher = (
        prototype_similarities(embedding, y, n_way)
        for embedding in (student_embedding, teacher_embedding)
    )
    return kd_loss(student, teacher, temperature)


class PrototypeMatching(Loss):
    """Match each row's similarities to the class means of the batch in the first teacher's space.

    Args:
        temperature: softening of the cosines, > 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import PrototypeMatching, example_rows
        >>> student, batch, context = example_rows()
        >>> PrototypeMatching()(student, batch, context)
        tensor([0.0020, 0.0026, 0.0026, 0.0062])
    """

    def __init__(self, temperature: Value = 0.1) -> None:
        super().__init__()
        self.temperature = coefficient(temperature, "temperature", 0.1, low=0.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        return prototype_matching_loss(
            student.embedding,
            batch.teacher_outputs[0].embedding,
            batch.y,
            student.logits.shape[-1],
            self.temperature(batch, context),
        )
