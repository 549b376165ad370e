"""Relational distillation: distances between rows and angles among them.

Park, Kim, Lu, Cho (2019), "Relational Knowledge Distillation", arXiv:1904.05068.
The student's embeddings should lie to each other as the teacher's do: Huber losses of all pairs'
distances, each over the mean distance of its network, and of the cosines of all triplets' angles. No
coordinate is compared, so widths may differ. Time and memory grow with the cube of the rows, and with their
square where no angle counts. As in the authors' code the means are over all n^2 pairs and n^3 triplets, those
of a row with itself, which are 0, included. Rows that lie on each other have distance and cosine 0 and
derivatives of ordinary size.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_metakd.losses.coefficient import Value, is_zero, weight
from lightning_metakd.losses.loss import Loss, check_same_rows
from lightning_metakd.types import Batch, Context, Output


class Relations(NamedTuple):
    """Of the rows of an embedding.

    Attributes:
        distance: of each pair [n, n], over the mean of those above 0.
        difference: from i to j [n, n, d].
        length: of each difference [n, n]; 1 between rows that lie on each other.
    """

    distance: Float[Tensor, "n n"]
    difference: Float[Tensor, "n n d"]
    length: Float[Tensor, "n n"]

    @property
    def cosine(self) -> Float[Tensor, "n n n"]:
        """Of the angle at i from j to k."""
        towards = self.difference / self.length[..., None]
        return towards @ towards.mT


def relations(embedding: Float[Tensor, "n d"]) -> Relations:
    """Distances and directions among rows."""
    difference = embedding[None] - embedding[:, None]  # [n n d], from i to j
    squared = difference.square().sum(-1)
    same = squared < 1e-12
    length = torch.where(same, 1.0, squared).sqrt()
    distance = torch.where(same, 0.0, length)
    n_apart = (~same).sum()
    mean = torch.where(n_apart > 0, distance.sum() / n_apart.clamp(min=1), 1.0)
    return Relations(distance / mean, difference, length)


def rkd_terms(
    student_embedding: Float[Tensor, "n d"],
    teacher_embedding: Float[Tensor, "n e"],
    angles: bool = True,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(distance-wise, angle-wise) Huber losses of each row: over its n pairs, and the n^2 angles at it.

    Args:
        student_embedding: of the rows.
        teacher_embedding: of the same rows.
        angles: whether they are wanted, at n times the cost; 0 otherwise.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    check_same_rows(student_embedding, teacher_embedding)
    student, teacher = (relations(e) for e in (student_embedding, teacher_embedding))
    distance = F.smooth_l1_loss(student.distance, teacher.distance, reduction="none").mean(-1)
    if not angles:
        return distance, torch.zeros_like(distance)
    angle = F.smooth_l1_loss(student.cosine, teacher.cosine, reduction="none")
    return distance, angle.mean((-2, -1))


class RKD(Loss):
    """Match the distances and angles among the first teacher's embeddings of the batch.

    Args:
        distance: weight of the distances, >= 0; a number or a coefficient.
        angle: weight of the angles, >= 0; a number or a coefficient. Of 0 they are not computed.

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
        distances, angles = rkd_terms(
            student.embedding, batch.teacher_outputs[0].embedding, angles=not is_zero(self.angle)
        )
        return self.distance(batch, context) * distances + self.angle(batch, context) * angles
