"""What networks over tokens share: a table of embeddings, and means over the tokens that are there."""

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.models.model import Model
from lightning_metakd.models.reading import MOST_TOKENS, in_words
from lightning_metakd.types import Reading, Vocabulary


class TokenEmbedding(nn.Embedding):
    """A vector for each token, begun as those of a transformer are."""

    def __init__(self, n_tokens: int, width: int) -> None:
        check_integer("n_tokens", n_tokens, 1, MOST_TOKENS)
        super().__init__(n_tokens, width)
        nn.init.normal_(self.weight, std=width**-0.5)


class TokenModel(Model):
    """A network that reads tokens [n, l], of which the padding behind a text changes nothing.

    Attributes:
        tokens: its table of embeddings.
        max_tokens: most tokens of a text that it reads; None reads any number.
    """

    tokens: TokenEmbedding
    max_tokens: int | None = None

    @property
    def pad(self) -> int:
        """Number of the token that fills up shorter texts."""
        return self.reading.pad if isinstance(self.reading, Vocabulary) else 0

    def read_as(self, reading: Reading | None, who: str) -> None:
        """Refuse a vocabulary that is larger than the table, or texts that are too long.

        Raises:
            ValueError: if it is.
        """
        if not isinstance(reading, Vocabulary):
            raise ValueError(
                f"{who}: {type(self).__name__} reads texts, and the rows have {in_words(reading)}; take "
                "another model, or another data.source."
            )
        if reading.size > (n_tokens := self.tokens.num_embeddings):
            raise ValueError(
                f"{who}: {in_words(reading)} does not fit n_tokens={n_tokens} of {type(self).__name__}; "
                "raise the model's n_tokens, or lower data.source.n_tokens."
            )
        if self.max_tokens is not None and reading.max_tokens > self.max_tokens:
            raise ValueError(
                f"{who}: texts of up to {reading.max_tokens} tokens do not fit max_tokens={self.max_tokens} "
                f"of {type(self).__name__}; raise the model's max_tokens, or lower data.source.max_tokens."
            )
        super().read_as(reading, who)

    def present(self, x: Shaped[Tensor, "n l"]) -> Bool[Tensor, "n l"]:
        """Which tokens are there."""
        check_tokens(self, x)
        return x != self.pad

    def mean(self, vectors: Float[Tensor, "n l d"], x: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """The mean over the tokens that are there; zero for a text without any."""
        there = self.present(x)[..., None].to(vectors.dtype)
        return (vectors * there).sum(1) / there.sum(1).clamp(min=1)


def check_tokens(network: nn.Module, x: Tensor) -> None:
    """Raise where a network's input is no tokens."""
    if x.is_floating_point() or x.dim() != 2:
        raise ValueError(
            f"rows of shape {list(x.shape[1:])} and type {x.dtype} are no tokens, which "
            f"{type(network).__name__} reads; choose a data.source of texts."
        )
