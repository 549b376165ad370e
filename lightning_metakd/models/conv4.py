"""The four-block convolutional network of few-shot learning.

Vinyals et al. (2016), "Matching Networks for One Shot Learning", arXiv:1606.04080; with 32 channels
in Finn et al. (2017), arXiv:1703.03400, and 64 in Snell et al. (2017), arXiv:1703.05175. Each block
is a 3x3 convolution, a norm, a ReLU and a 2x2 max-pool. Two read-outs are published: the flattened
map after four pools, and that of Tian et al. (2020), "Rethinking Few-Shot Image Classification",
arXiv:2003.11539, without the fourth pool and with global average pooling.

Here the ReLU follows the max-pool: the two commute, and it then has a quarter of the values. So has
the affine part of a norm for episodes (models/norm.py).
Convolutions keep their bias, as in the published counts (113 k for 64 channels); in front of a
batch norm it changes nothing and its gradient is zero.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from lightning_metakd.arguments.ranges import (
    LARGEST_SIDE,
    MOST_CHANNELS,
    check_choice,
    check_integer,
)
from lightning_metakd.models.model import Maps, Model, check_side, check_width, linear_head
from lightning_metakd.models.norm import norm_and_pool

Norm = Literal["batch", "group", "instance", "none"]
Pooling = Literal["flatten", "average"]

# instance norm is a group norm of single channels: nn.InstanceNorm2d calls F.batch_norm, which
# torch.func.vmap differentiates wrongly
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(min(8, width), width),
    "instance": lambda width: nn.GroupNorm(width, width),
    "none": lambda width: nn.Identity(),
}


def half_size(x: Tensor) -> Tensor:
    """The maxima over windows of 2 x 2."""
    return max_pool2d(x, 2)


class Conv4(Model):
    """Four blocks of convolution, norm, max-pool and ReLU; their maps are block1 to block4.

    Args:
        width: channels of every block; a multiple of 8 for norm 'group', which has 8 groups.
        n_classes: size of the head; 0 for learners that bring their own.
        norm: batch (models.norm converts it for episodes), group, instance or none.
        in_channels: 3 for colour, 1 for grey.
        pooling: flatten the map after four pools (256 numbers for 32x32 images and width 64), or
            leave out the fourth pool and average over the map (64 numbers, at any image size).
        image_size: height and width of the images; with 'flatten' the embedding depends on it.

    Raises:
        ValueError: if norm or pooling is unknown, a size is out of range, or the images are too small for
            four pools.
    """

    maps = ("block1", "block2", "block3", "block4")

    def __init__(
        self,
        width: int = 64,
        n_classes: int = 0,
        norm: Norm = "batch",
        in_channels: int = 3,
        pooling: Pooling = "flatten",
        image_size: int = 32,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        check_choice("pooling", pooling, get_args(Pooling))
        check_integer("width", width, 1, MOST_CHANNELS, "for instance 64")
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        check_integer("image_size", image_size, 16, LARGEST_SIDE, "as there are four pools")
        self.width, self.pooling, self.image_size = width, pooling, image_size
        self.in_channels = in_channels
        self.convs = nn.ModuleList(
            nn.Conv2d(width if block else in_channels, width, 3, padding=1) for block in range(4)
        )
        self.norms = nn.ModuleList(NORMS[norm](width) for _ in range(4))
        self.embedding_width = width * (image_size // 16) ** 2 if pooling == "flatten" else width
        self.head = linear_head(self.embedding_width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding and the maps after each block."""
        check_width(self, x, "in_channels", self.in_channels)
        check_side(self, x, 16 if self.pooling == "flatten" else 8)
        if self.pooling == "flatten" and any(
            n // 16 != self.image_size // 16 for n in x.shape[-2:]
        ):
            raise ValueError(
                f"images of {x.shape[-2]}x{x.shape[-1]} do not fit image_size={self.image_size}, on which "
                "the embedding of pooling='flatten' depends; build the model with their size, or average."
            )
        maps: Maps = {}
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = self.pooling == "flatten" or len(maps) < 3
            x = norm_and_pool(norm, conv(x), half_size) if pooled else norm(conv(x))
            x = relu(x)
            maps[f"block{len(maps) + 1}"] = x
        embedding = x.flatten(1) if self.pooling == "flatten" else x.mean((2, 3))
        return embedding, maps
