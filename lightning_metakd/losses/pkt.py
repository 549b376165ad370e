"""Probabilistic knowledge transfer: the student's rows have the neighbours that the teacher's have.

Passalis, Tefas (2018), "Learning Deep Representations with Probabilistic Knowledge Transfer",
arXiv:1803.10837.
Each row gives every other row of the batch a probability in proportion to the similarity of their
embeddings, here (1 + cosine) / 2; the student's should diverge little from the teacher's. Only
similarities are compared, so widths may differ. As in the paper a row is no neighbour of itself. The
authors' code counts it as its own, most similar one, which makes the divergence a little smaller, and
takes the mean over all pairs, so that its weight of 30000 in batches of 64 is about 30000 / 64 = 469 here.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.dkd import others
from lightning_metakd.losses.hinton import kd_loss
from lightning_metakd.losses.loss import Loss, check_same_rows
from lightning_metakd.models.prototypes import metric_logits
from lightning_metakd.types import Batch, Context, Output


def log_similarities(embedding: Float[Tensor, "n d"]) -> Float[Tensor, "n n-1"]:
    """Log of the similarity of row i to each other row: logits whose softmax is the paper's distribution."""
    similarity = (1 + metric_logits(embedding, embedding[None], "cosine")) / 2
    itself = torch.arange(len(embedding), device=embedding.device)
    # 1e-7, as in the authors' code, for rows that are opposite, or by rounding a little more
    return (others(similarity, itself).clamp(min=0) + 1e-7).log()


def pkt_loss(
    student_embedding: Float[Tensor, "n d"], teacher_embedding: Float[Tensor, "n e"]
) -> Float[Tensor, " n"]:
    """Divergence KL(teacher || student) of each row's distribution over the other rows, in nats.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    student, teacher = (log_similarities(e) for e in (student_embedding, teacher_embedding))
    return kd_loss(student, teacher, student.new_ones(()))


class PKT(Loss):
    """Match each row's distribution over neighbours among the first teacher's embeddings of the batch.

    Example:
        >>> from lightning_metakd.losses import PKT, example_rows
        >>> student, batch, context = example_rows()
        >>> PKT()(student, batch, context)
        tensor([0.0066, 0.1834, 0.1874, 0.0129])
    """

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        return pkt_loss(student.embedding, batch.teacher_outputs[0].embedding)
