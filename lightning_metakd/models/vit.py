"""A small vision transformer.

Dosovitskiy et al. (2021), "An Image is Worth 16x16 Words", arXiv:2010.11929, with the average over
tokens instead of a class token, as in Beyer et al. (2022), "Better plain ViT baselines",
arXiv:2205.01580.
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
from lightning_metakd.models.transformer import MOST_MLP_RATIO, Block, check_heads, start


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
        check_integer("depth", depth, 1, MOST_LAYERS)
        check_integer("patch", patch, 1, LARGEST_SIDE)
        check_integer("image_size", image_size, 1, LARGEST_SIDE)
        check_integer("mlp_ratio", mlp_ratio, 1, MOST_MLP_RATIO)
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        check_heads(width, n_heads)
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
        start(self, self.position)

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
