"""A small vision transformer.

Dosovitskiy et al. (2021), "An Image is Worth 16x16 Words", arXiv:2010.11929, with the average over
tokens instead of a class token, as in Beyer et al. (2022), "Better plain ViT baselines",
arXiv:2205.01580. Attention is written out: the fused kernels of
`F.scaled_dot_product_attention` have no second derivative on every device, and second-order
meta-learning needs one. For the same reason its layer norm is that of `models.norm`.
"""

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import (
    LARGEST_SIDE,
    MOST_CHANNELS,
    MOST_LAYERS,
    check_integer,
)
from lightning_metakd.models.model import Maps, Model, check_width, linear_head
from lightning_metakd.models.norm import LayerNorm

MOST_MLP_RATIO = 64


class Attention(nn.Module):
    """Self-attention of several heads, twice differentiable everywhere."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # [n, l, 3 d] -> 3 of [n, heads, l, d / heads]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
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

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Model):
    """Patches, position, transformer blocks, the average over tokens.

    Args:
        width: length of a token.
        n_classes: size of the head; 0 for learners that bring their own.
        depth: blocks.
        n_heads: attention heads; divides the width.
        patch: side of a patch in pixels; divides the image size.
        image_size: height and width of the images.
        mlp_ratio: hidden units of the perceptron, in widths.
        in_channels: 3 for colour, 1 for grey.

    Raises:
        ValueError: if the heads do not divide the width, or the patches the image, or a size is out of range.
    """

    def __init__(
        self,
        width: int = 128,
        n_classes: int = 0,
        depth: int = 6,
        n_heads: int = 4,
        patch: int = 4,
        *,
        image_size: int = 32,
        mlp_ratio: int = 2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_integer("width", width, 1, MOST_CHANNELS)
        check_integer("depth", depth, 1, MOST_LAYERS)
        check_integer("n_heads", n_heads, 1, MOST_CHANNELS)
        check_integer("patch", patch, 1, LARGEST_SIDE)
        check_integer("image_size", image_size, 1, LARGEST_SIDE)
        check_integer("mlp_ratio", mlp_ratio, 1, MOST_MLP_RATIO)
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        if width % n_heads:
            raise ValueError(
                f"n_heads={n_heads} does not divide width={width}; choose one that does."
            )
        if image_size % patch:
            raise ValueError(
                f"patch={patch} does not divide image_size={image_size}; change either."
            )
        self.embedding_width, self.image_size = width, image_size
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.empty(1, (image_size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, n_heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.head = linear_head(width, n_classes)
        start(self)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding and the tokens after each block, laid out as maps [n, d, h, w]."""
        check_width(self, x, "in_channels", self.patches.in_channels)
        if x.shape[-1] != self.image_size or x.shape[-2] != self.image_size:
            raise ValueError(
                f"images of {x.shape[-2]}x{x.shape[-1]} do not fit image_size={self.image_size}; "
                "resize them or build the model with their size."
            )
        patches = self.patches(x)
        tokens = patches.flatten(2).transpose(1, 2) + self.position  # [n, d, h, w] -> [n, l, d]
        maps: Maps = {}
        for k, block in enumerate(self.blocks):
            tokens = block(tokens)
            maps[f"blocks.{k}"] = tokens.transpose(1, 2).unflatten(2, patches.shape[2:])
        return self.norm(tokens).mean(1), maps


def start(model: ViT) -> None:
    """Weights and positions from a normal of deviation 0.02, biases zero, as in the paper's code."""
    nn.init.trunc_normal_(model.position, std=0.02)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
