"""A small transformer over tokens, with the average over a text's tokens as its embedding."""

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_LAYERS, check_integer
from lightning_metakd.models.model import Maps, linear_head
from lightning_metakd.models.norm import LayerNorm
from lightning_metakd.models.reading import LONGEST
from lightning_metakd.models.token_model import TokenEmbedding, TokenModel
from lightning_metakd.models.transformer import MOST_MLP_RATIO, Block, check_heads, start


class TextTransformer(TokenModel):
    """Tokens, position, transformer blocks, the average over tokens.

    Args:
        width: length of a token.
        depth: blocks.
        n_heads: attention heads; divides the width.
        n_classes: size of the head; 0 for learners that bring their own.
        n_tokens: size of the vocabulary, at least that of the source.
        max_tokens: most tokens of a text, at least those of the source.
        mlp_ratio: hidden units of the perceptron, in widths.

    Raises:
        ValueError: if the heads do not divide the width, or a size is out of range.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        n_heads: int = 4,
        n_classes: int = 0,
        n_tokens: int = 4096,
        *,
        max_tokens: int = 64,
        mlp_ratio: int = 2,
    ) -> None:
        super().__init__()
        check_heads(width, n_heads)
        check_integer("depth", depth, 1, MOST_LAYERS)
        check_integer("max_tokens", max_tokens, 1, LONGEST)
        check_integer("mlp_ratio", mlp_ratio, 1, MOST_MLP_RATIO)
        self.embedding_width, self.max_tokens = width, max_tokens
        self.tokens = TokenEmbedding(n_tokens, width)
        self.position = nn.Parameter(torch.empty(1, max_tokens, width))
        self.blocks = nn.ModuleList(Block(width, n_heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.head = linear_head(width, n_classes)
        start(self, self.position)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding; blocks are tapped as [n, l, d], `blocks.0` and so on."""
        present, length = self.present(x), x.shape[1]
        if length > self.position.shape[1]:
            raise ValueError(
                f"texts of {length} tokens do not fit max_tokens={self.max_tokens} of TextTransformer; raise "
                "it, or lower data.source.max_tokens."
            )
        vectors = self.tokens(x) + self.position[:, :length]
        for block in self.blocks:
            vectors = block(vectors, present)
        return self.mean(self.norm(vectors), x), {}
