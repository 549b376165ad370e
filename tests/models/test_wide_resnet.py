import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from lightning_metakd.models.wide_resnet import PreActivationBlock, WideResNet

# with 100 classes; the paper rounds to 0.6 and 36.5 M for 40-1 and 28-10, later ones to 0.7 and 2.3 M
COUNTS = {(16, 2): 703_284, (40, 1): 569_780, (40, 2): 2_255_156, (28, 10): 36_536_884}


@pytest.mark.parametrize(("depth", "width"), COUNTS)
def test_parameters_are_the_published_ones(depth: int, width: int) -> None:
    with torch.device("meta"):
        model = WideResNet(depth, width, 100)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[depth, width]


def test_the_shortcut_of_a_widening_block_starts_after_the_activation() -> None:
    torch.manual_seed(0)
    block = PreActivationBlock(4, 8, 2, 0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), block.convShortcut(relu(block.bn1(x))))


def test_the_shortcut_of_other_blocks_is_the_input() -> None:
    block = PreActivationBlock(4, 4, 1, 0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = WideResNet(10, 1, drop_rate=0.5)
    x = torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(x).embedding, model(x).embedding)
    model.eval()
    assert torch.equal(model(x).embedding, model(x).embedding)


def test_features_are_the_maps_after_each_stage() -> None:
    model = WideResNet(10, 2).eval()
    model.tap(["block1", "block2", "block3"])
    output = model(torch.randn(2, 3, 32, 32))
    assert [f.shape[1:] for f in output.features.values()] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
    ]


def test_an_impossible_depth_names_the_possible_ones() -> None:
    with pytest.raises(ValueError, match=r"depth=18 is not 6 k \+ 4; choose 10, 16"):
        WideResNet(18)
