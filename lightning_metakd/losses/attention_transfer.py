"""Attention transfer: the student's maps are strong at the positions where the teacher's are.

Zagoruyko, Komodakis (2017), "Paying More Attention to Attention: Improving the Performance of Convolutional
Neural Networks via Attention Transfer", arXiv:1612.03928, section 3.1. The attention map of a layer is the
sum over channels of |F|^p at each position; student and teacher are compared after each map is scaled to
length one, so widths may differ and no projection is needed.

How this differs: eq. 2 takes the length of the difference of two maps, here it is squared, as in the authors'
code, so that it is smooth where they agree: 1/2 |q_S - q_T|^2 = 1 - cos. Their code averages over positions
where this sums; its weight of 1000 for maps of 8x8 is one of 31 here.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.losses.layer_pairs import pairs
from lightning_metakd.losses.layer_weights import LayerWeights, Weights
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.models.prototypes import unit
from lightning_metakd.types import Batch, Context, Output


def attention(features: Float[Tensor, "n ch h w"], power: int = 2) -> Float[Tensor, "n hw"]:
    """Sum over channels of |features|^power at each position, scaled to length one; a dead map stays zero.

    Raises:
        ValueError: if the features are no maps [n, ch, h, w].
    """
    if features.dim() != 4:
        raise ValueError(
            f"features {tuple(features.shape)} have no positions to attend to; AttentionTransfer compares "
            "maps [n, ch, h, w], so name layers that return such."
        )
    wide = at_least_single(features)
    even = wide if power % 2 == 0 else wide.abs()  # |x| has no second derivative at 0, x^2 has
    return unit(even.pow(power).sum(1).flatten(1))


def attention_loss(
    student: Float[Tensor, "n c1 h w"], teacher: Float[Tensor, "n c2 h w"], power: int = 2
) -> Float[Tensor, " n"]:
    """Half the squared distance of the two attention maps of each row, in [0, 2]."""
    return (attention(student, power) - attention(teacher, power)).square().sum(1) / 2


MOST_POWER = 64
"""Larger ones leave the range of 32 bits."""


class AttentionTransfer(Loss):
    """Match the attention maps of the first teacher.

    Args:
        layers: module path in the student -> module path in the teacher, of maps.
        power: p of the sum over channels of |F|^p, >= 1; larger ones look at the strongest channels.
        weights: of each pair, >= 0; a number or a coefficient, or such by the teacher's layer.

    Example:
        >>> from lightning_metakd.losses import AttentionTransfer, example_rows
        >>> student, batch, context = example_rows()
        >>> AttentionTransfer({"block": "block"})(student, batch, context)
        tensor([0.1860, 0.1786, 0.3067, 0.4601])
    """

    def __init__(self, layers: dict[str, str], power: int = 2, weights: Weights = 1.0) -> None:
        super().__init__()
        check_integer("power", power, 1, MOST_POWER, "for instance 2")
        self.layers, self.power = layers, power
        self.weights = LayerWeights(list(layers.items()), weights)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        compared = pairs(student, batch.teacher_outputs[0], self.layers)
        losses = [attention_loss(*pair, self.power) for pair in compared]
        return self.weights(losses, batch, context)
