"""The twelve-layer residual network of few-shot learning.

Oreshkin et al. (2018), "TADAM", arXiv:1805.10123; in the wide form of Lee et al. (2019),
"Meta-Learning with Differentiable Convex Optimization", arXiv:1904.03758. Four blocks of three 3x3
convolutions with batch norm and LeakyReLU(0.1) beside a 1x1 shortcut, each followed by a 2x2
max-pool; global average pooling as in Tian et al. (2020), arXiv:2003.11539.

Here the last LeakyReLU of a block follows its max-pool: the two commute. DropBlock (Ghiasi et al.
2018, arXiv:1810.12890) has a constant rate, where the published code raises it over the first
40,000 steps.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, max_pool2d, pad

from lightning_metakd.arguments.ranges import (
    LARGEST_SIDE,
    MOST_CHANNELS,
    check_integer,
    check_integers,
    check_share,
)
from lightning_metakd.models.model import Maps, Model, check_side, check_width, linear_head
from lightning_metakd.models.resnet import start_convolutions

SLOPE = 0.1


class DropBlock(nn.Module):
    """Drops squares of each map while training; torchvision's refuses even sides."""

    def __init__(self, rate: float, side: int) -> None:
        super().__init__()
        self.rate, self.side = rate, side

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        h, w = x.shape[-2:]
        side = min(self.side, h, w)
        rows, columns = h - side + 1, w - side + 1
        share = self.rate * h * w / (side**2 * rows * columns)  # equation 1
        corners = (torch.rand_like(x[..., :rows, :columns]) < share).to(x.dtype)
        kept = 1 - max_pool2d(pad(corners, [side - 1] * 4), side, stride=1)
        return x * kept / kept.mean().clamp(min=1e-6)


class Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 shortcut, then a max-pool."""

    def __init__(self, in_width: int, width: int, drop: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(
            nn.Conv2d(in_width, width, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        hidden = leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        hidden = leaky_relu(self.bn2(self.conv2(hidden)), SLOPE)
        hidden = self.bn3(self.conv3(hidden)) + self.downsample(x)
        return self.drop(leaky_relu(max_pool2d(hidden, 2), SLOPE))


class ResNet12(Model):
    """Four residual blocks and global average pooling.

    Args:
        widths: channels of the four blocks; 64 160 320 640 (12.4 M parameters), 64 128 256 512
            (8.0 M) or 32 80 160 320 (3.1 M).
        n_classes: size of the head; 0 for learners that bring their own.
        drop_rate: share of activations dropped after each block while training, in [0, 1); 0.1 is
            published. Blocks 1 and 2 drop single activations, blocks 3 and 4 squares.
        drop_block: side of those squares; 5 is published for 84x84 images, 2 for 32x32.
        in_channels: 3 for colour, 1 for grey.

    Raises:
        ValueError: if a size or the rate is out of range.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        n_classes: int = 0,
        drop_rate: float = 0.0,
        drop_block: int = 2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_integers("widths", widths, 4, 1, MOST_CHANNELS)
        check_share("drop_rate", drop_rate)
        check_integer("drop_block", drop_block, 1, LARGEST_SIDE)
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        self.embedding_width = widths[3]
        self.layer1 = Block(in_channels, widths[0], nn.Dropout(drop_rate))
        self.layer2 = Block(widths[0], widths[1], nn.Dropout(drop_rate))
        self.layer3 = Block(widths[1], widths[2], DropBlock(drop_rate, drop_block))
        self.layer4 = Block(widths[2], widths[3], DropBlock(drop_rate, drop_block))
        self.head = linear_head(widths[3], n_classes)
        start_convolutions(self, SLOPE)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding and the maps after each block."""
        check_width(self, x, "in_channels", self.layer1.conv1.in_channels)
        check_side(self, x, 16)
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        fourth = self.layer4(third)
        maps = {"layer1": first, "layer2": second, "layer3": third, "layer4": fourth}
        return fourth.mean((2, 3)), maps
