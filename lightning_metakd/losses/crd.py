"""Contrastive distillation: find your row among the teacher's embeddings.

Tian, Krishnan, Isola (2020), "Contrastive Representation Distillation", arXiv:1910.10699.
The student's embedding of a row, projected to the teacher's width, should be nearer to the teacher's
embedding of that row than to those of other rows. The paper draws 16384 negatives from memory banks
over a data set of fixed size, estimates by noise contrast and projects both to 128 dimensions. An
episode has no such bank: here the negatives are the batch's other rows, the loss is InfoNCE (van den
Oord 2018, arXiv:1807.03748), the teacher is left as it is, and only the student asks.
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
    """-log softmax over the batch of cosine / temperature, at the own row.

    Args:
        spared: which rows are no negatives of a row; itself is never one.
        temperature: softening, > 0.

    Raises:
        ValueError: if the two do not embed the same rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    cosine = metric_logits(student_embedding, teacher_embedding[None], "cosine")
    other = ~torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    logits = (cosine / temperature[..., None]).masked_fill(spared & other, -torch.inf)
    return -logits.log_softmax(-1).diagonal()


class CRD(Loss):
    """Tell the first teacher's embedding of a row from its embeddings of the batch's other rows.

    Args:
        temperature: softening of the cosines, > 0; a number or a coefficient.
        same_class_negatives: whether other rows of a row's class are among its negatives; an episode has
            several rows of each class, which are alike on purpose.
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
