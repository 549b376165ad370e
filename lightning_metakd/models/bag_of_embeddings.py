"""A bag of embeddings: the mean over the tokens of a text, and what a perceptron adds to it.

Iyyer et al. (2015), "Deep Unordered Composition Rivals Syntactic Methods for Text Classification". Here the
perceptron is residual, and its input is normalised.
"""

from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CHANNELS, MOST_UNITS, check_integer
from lightning_metakd.models.model import Maps, linear_head
from lightning_metakd.models.norm import LayerNorm
from lightning_metakd.models.token_model import TokenEmbedding, TokenModel


class BagOfEmbeddings(TokenModel):
    """The mean of the embeddings of a text's tokens, whatever their order.

    Args:
        width: numbers of an embedding.
        hidden: units of the perceptron; 0 leaves it out.
        n_classes: size of the head; 0 for learners that bring their own.
        n_tokens: size of the vocabulary, at least that of the source.
    """

    def __init__(
        self, width: int = 128, hidden: int = 256, n_classes: int = 0, n_tokens: int = 4096
    ) -> None:
        super().__init__()
        check_integer("width", width, 1, MOST_CHANNELS)
        check_integer("hidden", hidden, 0, MOST_UNITS)
        self.embedding_width = width
        self.tokens = TokenEmbedding(n_tokens, width)
        self.norm = LayerNorm(width)
        self.hidden = (
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
            if hidden
            else None
        )
        self.head = linear_head(width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding; `tokens` is tapped as [n, l, d]."""
        mean = self.norm(self.mean(self.tokens(x), x))
        return mean if self.hidden is None else mean + self.hidden(mean), {}
