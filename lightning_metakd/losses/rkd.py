"""Relational distillation: distances between rows and angles among them.

Park, Kim, Lu, Cho (2019), "Relational Knowledge Distillation", arXiv:1904.05068.
The student's embeddings should lie to each other as the teacher's do: Huber losses of all pairs'
distances, each over the mean distance of its network, and of the cosines of all triplets' angles. No
coordinate is compared, so widths may differ. Time and memory grow with the cube of the rows. As in the
authors' code the means are over all n^2 pairs and n^3 triplets, those of a row with itself, which are 0,
included. Rows that lie on each other have distance and cosine 0 and derivatives of ordinary size.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_metakd.losses.coefficient import Value, weight
from lightning_metakd.losses.loss import Loss, check_same_rows
from lightning_metakd.types import Batch, Context, Output


def relations(
    embedding: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n n"]]:
    """Distances [n, n] over the mean of those above 0; cosines [n, n, n] of the angle at i from j to k."""
    difference = embedding[None] - embedding[:, None]  # [n n d], from i to j
    squared = difference.square().sum(-1)
    same = squared < 1e-12
    length = torch.where(same, 1.0, squared).sqrt()
    distance = torch.where(same, 0.0, length)
    n_apart = (~same).sum()
    mean = torch.where(n_apart > 0, distance.sum() / n_apart.clamp(min=1), 1.0)
    towards = difference / length[..., None]
    return distance / mean, towards @ towards.mT


def rkd_terms(
    student_embedding: Float[Tensor, "n d"], teacher_embedding: Float[Tensor, "n e"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(distance-wise, angle-wise) Huber losses of each row: over its n pairs, and the n^2 angles at it.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    (distance, cosine), (wanted_distance, wanted_cosine) = (
        relations(embedding) for embedding in (student_embedding, teacher_embedding)
    )
    return (
        F.smooth_l1_loss(distance, wanted_distance, reduction="none").mean(-1),
        F.smooth_l1_loss(cosine, wanted_cosine, reduction="none").mean((-2, -1)),
    )


class RKD(Loss):
    """Match the distances and angles among the first teacher's embeddings of the batch.

    Args:
        distance: weight of the distances, >= 0; a number or a coefficient.
        angle: weight of the angles, >= 0; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import RKD, example_rows
        >>> student, batch, context = example_rows()
        >>> RKD()(student, batch, context)
        tensor([4.0590, 2.6598, 2.0316, 1.3363])
    """

    def __init__(self, distance: Value = 25.0, angle: Value = 50.0) -> None:
        super().__init__()
        self.distance = weight(distance, "distance", 25.0)
        self.angle = weight(angle, "angle", 50.0)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        distances, angles = rkd_terms(student.embedding, batch.teacher_outputs[0].embedding)
        return self.distance(batch, context) * distances + self.angle(batch, context) * angles
