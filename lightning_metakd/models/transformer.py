"""Blocks of a transformer.

Vaswani et al. (2017), "Attention Is All You Need", arXiv:1706.03762, with the norm in front of each layer
(Xiong et al. 2020, arXiv:2002.04745). Attention is written out: the fused kernels of
`F.scaled_dot_product_attention` have no second derivative on every device, and second-order
meta-learning needs one. For the same reason the layer norm is that of `models.norm`.
"""

from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CHANNELS, check_integer
from lightning_metakd.models.norm import LayerNorm

MOST_MLP_RATIO = 64
ABSENT = -1e4
"""Score of a token that is not there; its weight is zero in every precision."""


class Attention(nn.Module):
    """Self-attention of several heads, twice differentiable everywhere, to the tokens that are present."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        # [n, l, 3 d] -> 3 of [n, heads, l, d / heads]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None, :], ABSENT)
        weights = scores.softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, n_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.norm2 = LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), present)
        return x + self.mlp(self.norm2(x))


def check_heads(width: int, n_heads: int) -> None:
    """Raise where a width cannot be divided among heads."""
    check_integer("width", width, 1, MOST_CHANNELS)
    check_integer("n_heads", n_heads, 1, MOST_CHANNELS)
    if width % n_heads:
        raise ValueError(f"n_heads={n_heads} does not divide width={width}; choose one that does.")


def start(model: nn.Module, position: nn.Parameter) -> None:
    """Weights and positions from a normal of deviation 0.02, biases zero, as in the paper's code."""
    nn.init.trunc_normal_(position, std=0.02)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
