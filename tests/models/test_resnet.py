import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, relu

from lightning_metakd.models.resnet import BasicBlock, ResNet

X4 = ((64, 128, 256), 32)
PLAIN = ((16, 32, 64), 16)
# with 100 classes; He et al. (2016), table 6, rounds to 0.27, 0.46, 0.85, 1.7 M with 10 classes and
# shortcuts without parameters; 1.23 M and 7.43 M are the figures given for 8x4 and 32x4
COUNTS = {
    (8, PLAIN): 83_892,
    (20, PLAIN): 278_324,
    (32, PLAIN): 472_756,
    (56, PLAIN): 861_620,
    (110, PLAIN): 1_736_564,
    (8, X4): 1_233_540,
    (32, X4): 7_433_860,
}


@pytest.mark.parametrize(("depth", "shape"), COUNTS)
def test_parameters_are_the_published_ones(depth: int, shape: tuple) -> None:
    model = ResNet(depth, 100, *shape)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[depth, shape]


def test_parameters_follow_the_formula_of_section_4_2() -> None:
    """Stem, 2 n convolutions per stage, head; then what option B adds: two projections."""
    n = 3
    weights = 9 * 3 * 16 + 2 * n * 9 * 16**2
    weights += 9 * (16 * 32 + 32 * 64) + (2 * n - 1) * 9 * (32**2 + 64**2)
    norms = 2 * 16 + 2 * 2 * n * (16 + 32 + 64)
    option_a = weights + norms + 64 * 10 + 10
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert round(option_a / 1e6, 2) == 0.27
    assert sum(p.numel() for p in ResNet(20, 10).parameters()) == option_a + projections


def test_a_block_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    block = BasicBlock(4, 8, stride=2).eval()
    x = torch.randn(2, 4, 6, 6)

    def normed(y: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    hidden = relu(normed(conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1))
    residual = normed(conv2d(hidden, block.conv2.weight, padding=1), block.bn2)
    conv, norm = block.downsample
    shortcut = normed(conv2d(x, conv.weight, stride=2), norm)
    torch.testing.assert_close(block(x), relu(residual + shortcut))


def test_features_are_the_maps_after_each_stage() -> None:
    model = ResNet(8, 5).eval()
    model.tap(["layer1", "layer2", "layer3"])
    output = model(torch.randn(2, 3, 32, 32))
    maps = list(output.features.values())
    assert [f.shape[1:] for f in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    torch.testing.assert_close(output.embedding, maps[-1].mean((2, 3)))


def test_names_are_those_of_published_checkpoints() -> None:
    names = set(ResNet(8, 5).state_dict())
    assert {"conv1.weight", "layer2.0.downsample.1.running_mean", "layer3.0.bn2.bias"} <= names


def test_an_impossible_depth_names_the_possible_ones() -> None:
    with pytest.raises(ValueError, match=r"depth=18 is not 6 k \+ 2; choose 8, 14, 20"):
        ResNet(18)
