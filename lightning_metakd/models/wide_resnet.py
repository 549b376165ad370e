"""Wide residual networks for 32x32 images.

Zagoruyko, Komodakis (2016), "Wide Residual Networks", arXiv:1605.07146. WRN-d-k: a stem of 16
channels and three stages of (d - 4) / 6 pre-activation blocks, k times as wide as 16-32-64.
Parameters are named as in the code of Tian et al. (2020), arXiv:1910.10699, but for the classifier,
so its checkpoints load once `fc` is called `head`.
"""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from lightning_metakd.arguments.ranges import MOST_CHANNELS, MOST_LAYERS, check_integer, check_share
from lightning_metakd.models.model import Maps, Model, check_width, linear_head
from lightning_metakd.models.resnet import stage, start_convolutions


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice; the shortcut of a block that widens starts after the ReLU."""

    def __init__(self, in_width: int, width: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.drop_rate = drop_rate
        self.widens = in_width != width
        if self.widens:
            self.convShortcut = nn.Conv2d(in_width, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.bn1(x))
        hidden = relu(self.bn2(self.conv1(active)))
        hidden = dropout(hidden, self.drop_rate, self.training)
        return self.conv2(hidden) + (self.convShortcut(active) if self.widens else x)


class WideResNet(Model):
    """A stem, three stages of pre-activation blocks, global average pooling.

    Args:
        depth: layers; 6 k + 4, as in 16, 28, 40.
        width: how many times wider than 16-32-64; 2 makes stages of 32, 64 and 128 channels.
        n_classes: size of the head; 0 for learners that bring their own.
        drop_rate: dropout inside each block, in [0, 1); 0.3 in the paper's WRN-28-10.
        in_channels: 3 for colour, 1 for grey.

    Raises:
        ValueError: if the depth is not 6 k + 4, or a size or the rate is out of range.
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 2,
        n_classes: int = 0,
        drop_rate: float = 0.0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_integer("depth", depth, 10, MOST_LAYERS)
        check_integer("width", width, 1, MOST_CHANNELS // 64)
        check_share("drop_rate", drop_rate)
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        if (depth - 4) % 6:
            raise ValueError(f"depth={depth} is not 6 k + 4; choose 10, 16, 22, 28, 34 or 40.")
        blocks = (depth - 4) // 6
        self.embedding_width = 64 * width
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        block = partial(PreActivationBlock, drop_rate=drop_rate)
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.block1, self.block2, self.block3 = (
            nn.Sequential(OrderedDict(layer=stage(block, *ends, blocks, stride)))
            for ends, stride in zip(pairwise(widths), (1, 2, 2), strict=True)
        )
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.head = linear_head(64 * width, n_classes)
        start_convolutions(self)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding and the maps after each stage, before the last norm and ReLU."""
        check_width(self, x, "in_channels", self.conv1.in_channels)
        first = self.block1(self.conv1(x))
        second = self.block2(first)
        third = self.block3(second)
        maps = {"block1": first, "block2": second, "block3": third}
        return relu(self.bn1(third)).mean((2, 3)), maps
