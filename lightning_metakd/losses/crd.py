"""Contrastive distillation: a row's two embeddings are nearer than those of different rows.

Tian, Krishnan, Isola (2020), "Contrastive Representation Distillation", arXiv:1910.10699.
The student's embedding of a row, projected to the teacher's width, should be nearer to the teacher's
embedding of that row than to those of other rows. The paper draws 16384 negatives from memory banks
over a data set of fixed size, estimates by noise contrast and projects both to 128 dimensions. An
episode has no such bank: here the negatives are the batch's other rows, the loss is InfoNCE (van den
Oord 2018, arXiv:1807.03748), the teacher is not projected, and only the
student's rows are anchors.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.layer_pairs import adapted_pairs
from lightning_metakd.losses.loss import Loss, check_same_rows
from lightning_metakd.models.model import EMBEDDING
from lightning_metakd.models.prototypes import metric_logits
from lightning_metakd.types import Batch, Context, Output


def crd_loss(
    student_embedding: Float[Tensor, "n d"],
    teacher_embedding: Float[Tensor, "n d"],
    spared: Bool[Tensor, "n n"],
    temperature: Float[Tensor, ""] | Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """-log softmax over the teacher's rows of cosine / temperature, at the same row, in nats per row.

    Args:
        student_embedding: at the teacher's width.
        teacher_embedding: of the same rows.
        spared: True where row j is no negative of row i; the row itself never is.
        temperature: softening of the cosines, > 0.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    cosine = metric_logits(student_embedding, teacher_embedding[None], "cosine")
    other = ~torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    logits = (cosine / temperature[..., None]).masked_fill(spared & other, -torch.inf)
    return -logits.log_softmax(-1).diagonal()


class CRD(Loss):
    """Bring a row's embedding nearer to the first teacher's of that row than to those of other rows.

    Args:
        temperature: softening of the cosines, > 0; a number or a coefficient.
        same_class_negatives: whether other rows of a row's class are among its negatives; an episode has
            several rows of each class, which are alike on purpose.

    Example:
        >>> from lightning_metakd.losses import CRD, example_rows
        >>> student, batch, context = example_rows()
        >>> CRD()(student, batch, context)
        tensor([1.0535, 0.0244, 9.1841, 6.5243])
    """

    needs_adapters = True

    def __init__(self, temperature: Value = 0.1, same_class_negatives: bool = True) -> None:
        super().__init__()
        self.temperature = coefficient(temperature, "temperature", 0.1, low=0.0)
        self.same_class_negatives, self.layers = same_class_negatives, {EMBEDDING: EMBEDDING}

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        ((student_embedding, teacher_embedding),) = adapted_pairs(
            student, batch.teacher_outputs[0], self.layers
        )
        same_class = batch.y[:, None] == batch.y[None]
        spared = torch.zeros_like(same_class) if self.same_class_negatives else same_class
        temperature = self.temperature(batch, context)
        return crd_loss(student_embedding, teacher_embedding, spared, temperature)
