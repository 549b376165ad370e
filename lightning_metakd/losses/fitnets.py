"""Hints: a layer of the student comes near a layer of the teacher.

Romero et al. (2015), "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, eq. 3. A layer of the student,
projected by a regressor to the teacher's width, comes near a layer of the teacher: L = 1/2 |F_T - r(F_S)|^2.

How this differs: the paper sums over the elements of a layer, here it is their mean, so that a weight means
the same for layers of any size. The paper trains with hints first and with labels afterwards; in a
WeightedSum the two go together, or one after the other by scheduled weights. The regressor r is a 1x1
convolution that is trained with the student (`adapters.py`).
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.layer_pairs import adapted_pairs, check_shapes
from lightning_metakd.losses.layer_weights import LayerWeights, Weights
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.types import Batch, Context, Output


def hint_loss(hint: Float[Tensor, "n ..."], target: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Half the squared difference, mean over the elements of a row.

    Args:
        hint: the student's layer at the teacher's width.
        target: the teacher's layer.

    Raises:
        ValueError: if the two differ in shape.
    """
    check_shapes(hint, target)
    difference = at_least_single(hint) - at_least_single(target)
    return difference.square().flatten(1).mean(1) / 2  # eq. 3, over the number of elements


class FitNets(Loss):
    """Bring layers of the student, projected to the teacher's width, near layers of the first teacher.

    Args:
        layers: module path in the student -> module path in the teacher; `embedding` is the vector in front
            of the head.
        weights: of each pair, >= 0; a number or a coefficient, or such by the teacher's layer.

    Example:
        >>> from lightning_metakd.losses import FitNets, example_rows
        >>> student, batch, context = example_rows()
        >>> FitNets({"block": "block"})(student, batch, context)
        tensor([0.8420, 1.0359, 0.9532, 1.1821])
    """

    needs_adapters = True

    def __init__(self, layers: dict[str, str], weights: Weights = 1.0) -> None:
        super().__init__()
        self.layers = layers
        self.weights = LayerWeights(list(layers.items()), weights)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        pairs = adapted_pairs(student, batch.teacher_outputs[0], self.layers)
        return self.weights([hint_loss(*pair) for pair in pairs], batch, context)
