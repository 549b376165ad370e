import pytest
import torch
from torch.nn.functional import avg_pool2d, leaky_relu, max_pool2d, pad
from torch.utils.flop_counter import FlopCounterMode

from lightning_metakd.models.resnet12 import DropBlock, ResNet12

# published cost of the body at 32x32: millions of parameters, millions of multiply-adds
COSTS = {
    (64, 160, 320, 640): (12.4, 523),
    (64, 128, 256, 512): (8.0, 367),
    (32, 80, 160, 320): (3.1, 131),
}


@pytest.mark.parametrize("widths", COSTS)
def test_cost_is_the_published_one(widths: tuple[int, int, int, int]) -> None:
    with torch.device("meta"):
        model = ResNet12(widths).eval()
        x = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(x)
    parameters, macs = COSTS[widths]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == parameters
    assert round(flops.get_total_flops() / 2e6) == macs


def test_the_activation_after_the_pool_equals_that_before_it() -> None:
    torch.manual_seed(0)
    block = ResNet12((4, 4, 4, 4)).eval().layer1
    x = torch.randn(2, 3, 8, 8)
    hidden = leaky_relu(block.bn1(block.conv1(x)), 0.1)
    hidden = leaky_relu(block.bn2(block.conv2(hidden)), 0.1)
    hidden = block.bn3(block.conv3(hidden)) + block.downsample(x)
    torch.testing.assert_close(block(x), max_pool2d(leaky_relu(hidden, 0.1), 2))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_drop_block_drops_squares_at_its_rate(side: int) -> None:
    torch.manual_seed(0)
    answer = DropBlock(0.1, side)(torch.ones(64, 16, 8, 8))
    dropped = (answer == 0).float()
    # squares overlap, so a little less than the rate is dropped
    assert 0.09 < dropped.mean() < 0.105
    assert answer.mean() == pytest.approx(1, abs=1e-5)
    squares = (avg_pool2d(dropped, side, stride=1) == 1).float()
    covered = max_pool2d(pad(squares, [side - 1] * 4), side, stride=1)
    assert torch.equal(covered, dropped)


def test_drop_rates_act_in_training_only() -> None:
    torch.manual_seed(0)
    model = ResNet12((4, 4, 4, 4), drop_rate=0.3)
    x = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(x).embedding, model(x).embedding)
    model.eval()
    assert torch.equal(model(x).embedding, model(x).embedding)


def test_features_are_the_maps_after_each_block() -> None:
    model = ResNet12((4, 6, 8, 10)).eval()
    model.tap(["layer1", "layer2", "layer3", "layer4"])
    output = model(torch.randn(2, 3, 32, 32))
    maps = list(output.features.values())
    sizes = [(4, 16, 16), (6, 8, 8), (8, 4, 4), (10, 2, 2)]
    assert [f.shape[1:] for f in maps] == sizes
    torch.testing.assert_close(output.embedding, maps[-1].mean((2, 3)))


def test_images_that_the_pools_would_use_up_are_refused():
    with pytest.raises(
        ValueError, match="images of 8x8 are too small for ResNet12, which needs 16x16"
    ):
        ResNet12()(torch.rand(2, 3, 8, 8))
