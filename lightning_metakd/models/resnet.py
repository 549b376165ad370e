"""Residual networks for 32x32 images.

He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition", arXiv:1512.03385,
section 4.2: a stem and three stages of (depth - 2) / 6 blocks, 16-32-64 channels wide. The variants
8x4 and 32x4 (stem 32, stages 64-128-256) and the shortcut are those of Tian, Krishnan, Isola
(2020), "Contrastive Representation Distillation", arXiv:1910.10699: where a block changes the shape,
the shortcut is a 1x1 convolution and batch norm (option B), not zero padding. Parameters are named
as in that paper's code, but for the classifier, so its checkpoints load once `fc` is called `head`.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import relu

from lightning_metakd.arguments.ranges import MOST_CHANNELS, check_integer, check_integers
from lightning_metakd.models.model import Maps, Model, check_width, linear_head

MOST_DEPTH = 1_202
"""The paper's deepest."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(residual + self.downsample(x))


class ResNet(Model):
    """A stem, three stages of basic blocks, global average pooling.

    Args:
        depth: layers; 6 k + 2, as in 8, 20, 32, 56, 110.
        n_classes: size of the head; 0 for learners that bring their own.
        widths: channels of the three stages; 64 128 256 for the variants named x4.
        stem: channels of the first convolution; 32 for the variants named x4.
        in_channels: 3 for colour, 1 for grey.

    Raises:
        ValueError: if the depth is not 6 k + 2, or a size is out of range.
    """

    def __init__(
        self,
        depth: int = 20,
        n_classes: int = 0,
        widths: tuple[int, int, int] = (16, 32, 64),
        stem: int = 16,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_integer("depth", depth, 8, MOST_DEPTH)
        check_integers("widths", widths, 3, 1, MOST_CHANNELS)
        check_integer("stem", stem, 1, MOST_CHANNELS)
        check_integer("in_channels", in_channels, 1, MOST_CHANNELS)
        if (depth - 2) % 6:
            raise ValueError(f"depth={depth} is not 6 k + 2; choose 8, 14, 20, 32, 44, 56 or 110.")
        blocks = (depth - 2) // 6
        self.embedding_width = widths[2]
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stage(BasicBlock, stem, widths[0], blocks, stride=1)
        self.layer2 = stage(BasicBlock, widths[0], widths[1], blocks, stride=2)
        self.layer3 = stage(BasicBlock, widths[1], widths[2], blocks, stride=2)
        self.head = linear_head(widths[2], n_classes)
        start_convolutions(self)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding and the maps after each stage."""
        check_width(self, x, "in_channels", self.conv1.in_channels)
        first = self.layer1(relu(self.bn1(self.conv1(x))))
        second = self.layer2(first)
        third = self.layer3(second)
        return third.mean((2, 3)), {"layer1": first, "layer2": second, "layer3": third}


def stage(
    block: Callable[[int, int, int], nn.Module], in_width: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    """Blocks of one width; the first changes width and size.

    Args:
        block: (channels in, channels out, stride) -> block.
    """
    rest = (block(width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(in_width, width, stride), *rest)


def start_convolutions(module: nn.Module, slope: float = 0.0) -> None:
    """Draw every convolution as in He et al. (2015), arXiv:1502.01852, by fan-out.

    Args:
        slope: of the (leaky) ReLU for negative inputs.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=slope, mode="fan_out")
