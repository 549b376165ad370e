"""Similarity-preserving distillation: rows are as similar in the student as in the teacher.

Tung, Mori (2019), "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682. With the layer of a batch
as a matrix A [b, d], G = A A^T holds the similarities of its rows; each row of G is scaled to length one, and
L = |G_S - G_T|_F^2 / b^2 (eq. 4), summed over pairs of layers. Widths and sizes may differ, so nothing is
projected.

A row's share here is |row of G_S - row of G_T|^2 / b, so that the mean over rows is the paper's loss.
"""

from jaxtyping import Float
from torch import Tensor, autocast

from lightning_metakd.losses.layer_pairs import layer_of
from lightning_metakd.losses.layer_weights import LayerWeights, Weights
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import EMBEDDING
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.models.prototypes import unit
from lightning_metakd.types import Batch, Context, Output


def similarities(features: Float[Tensor, "b ..."]) -> Float[Tensor, "b b"]:
    """Products of all pairs of rows, those of a row scaled to length one (eq. 2, 3)."""
    rows = at_least_single(features).flatten(1)
    with autocast(rows.device.type, enabled=False):  # a half-precision product has three digits
        return unit(rows @ rows.T)


def similarity_loss(
    student: Float[Tensor, "b ..."], teacher: Float[Tensor, "b ..."]
) -> Float[Tensor, " b"]:
    """Each row's share of the squared difference of similarities; the mean over rows is the paper's loss.

    Raises:
        ValueError: if the two differ in their number of rows.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"student [{len(student)} rows] and teacher [{len(teacher)} rows] must have the same rows; "
            "give the teacher the student's batch."
        )
    return (similarities(student) - similarities(teacher)).square().mean(1)


class SimilarityPreserving(Loss):
    """Match the similarities among the rows of a batch in layers of the first teacher.

    Args:
        layers: module path in the student -> module path in the teacher; by default the embeddings.
        weights: of each pair, >= 0; a number or a coefficient, or such by the teacher's layer.

    Example:
        >>> from lightning_metakd.losses import SimilarityPreserving, example_rows
        >>> student, batch, context = example_rows()
        >>> SimilarityPreserving()(student, batch, context)
        tensor([0.0898, 0.3133, 0.3494, 0.0855])
    """

    def __init__(self, layers: dict[str, str] | None = None, weights: Weights = 1.0) -> None:
        super().__init__()
        self.layers = {EMBEDDING: EMBEDDING} if layers is None else layers
        self.weights = LayerWeights(list(self.layers.items()), weights)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        teacher = batch.teacher_outputs[0]
        losses = [
            similarity_loss(layer_of(student, s), layer_of(teacher, t))
            for s, t in self.layers.items()
        ]
        return self.weights(losses, batch, context)
