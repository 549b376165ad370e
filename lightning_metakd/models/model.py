"""What every network of the project is: a body and a head.

A body turns inputs into one vector per row; a head turns vectors into logits. Learners, teachers
and export need the two apart, and everything that is worth transferring lies in the body.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lightning_metakd.types import Output


class Model(nn.Module, ABC):
    """A network as body and head; the parameters of the head are named `head.*`.

    `embedding_width` is the `d` of its embeddings `[n, d]`.
    """

    head: nn.Module
    embedding_width: int

    @abstractmethod
    def body(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embedding [n, d] and the features tapped on the way."""

    def forward(self, x: Tensor) -> Output:
        embedding, features = self.body(x)
        return Output(self.head(embedding), embedding, features)


def linear_head(width: int, n_classes: int) -> nn.Module:
    """A linear classifier, or nothing where the learner brings its own (n_classes = 0).

    A head that no loss reaches would be a parameter without gradient, an error on several
    processes.
    """
    return nn.Linear(width, n_classes) if n_classes else nn.Identity()
