"""A perceptron over vectors, such as those of `data.embedded.Embedded`.

Plain, its last hidden vector is the embedding. Residual, the embedding is the input plus what the hidden
layers add to it; what they add is zero at first, so that training starts exactly at the frozen embedding.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_UNITS, check_integer, check_integers
from lightning_metakd.models.model import Maps, Model, check_width, linear_head


class MLP(Model):
    """Linear layers with ReLU between them.

    Args:
        width_in: numbers of an input vector.
        widths: of the hidden layers.
        n_classes: size of the head; 0 for learners that bring their own.
        residual: add a linear map of the last hidden vector to the input, zero at first, instead of taking
            that vector itself.

    Raises:
        ValueError: if a width is not positive, or there is no hidden layer.
    """

    reads_vectors = True

    def __init__(
        self,
        width_in: int,
        widths: Sequence[int] = (128,),
        n_classes: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_integer("width_in", width_in, 1, MOST_UNITS, "for instance 64")
        check_integers("widths", widths, None, 1, MOST_UNITS)
        self.width_in = width_in
        befores = [width_in, *widths[:-1]]
        self.hidden = nn.ModuleList(
            nn.Linear(before, width) for before, width in zip(befores, widths, strict=True)
        )
        self.added = nn.Linear(widths[-1], width_in) if residual else None
        if self.added is not None:
            nn.init.zeros_(self.added.weight)
            nn.init.zeros_(self.added.bias)
        self.embedding_width = width_in if residual else widths[-1]
        self.head = linear_head(self.embedding_width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding; hidden layers are tapped before their ReLU, as `hidden.0`."""
        check_width(self, x, "width_in", self.width_in)
        vector = x
        for layer in self.hidden:
            vector = layer(vector).relu()
        return vector if self.added is None else x + self.added(vector), {}
