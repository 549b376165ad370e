import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, max_pool2d, relu
from torch.utils.flop_counter import FlopCounterMode

from lightning_metakd.models.conv4 import Conv4

# published cost of the body at 32x32: parameters, and multiply-adds in millions
PUBLISHED = {32: (28_896, 4.0), 48: (64_080, 8.3), 64: (113_088, 14.2), 128: (447_360, 53.1)}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("width", PUBLISHED)
@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_cost_is_the_published_one(width: int, pooling: str) -> None:
    model = Conv4(width, pooling=pooling).eval()
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    parameters, macs = PUBLISHED[width]
    assert count(model) == parameters
    assert flops.get_total_flops() / 2e6 == pytest.approx(macs, abs=0.06)


def test_relu_after_the_pool_equals_relu_before_it() -> None:
    torch.manual_seed(0)
    model = Conv4(8).eval()
    x = torch.randn(4, 3, 32, 32)

    def published(x: Tensor) -> Tensor:
        for conv, norm in zip(model.convs, model.norms, strict=True):
            x = max_pool2d(relu(norm(conv(x))), 2)
        return x.flatten(1)

    assert torch.equal(model(x).embedding, published(x))


@pytest.mark.parametrize(
    ("pooling", "size", "d"), [("flatten", 32, 256), ("flatten", 28, 64), ("average", 84, 64)]
)
def test_embedding_width_is_told(pooling: str, size: int, d: int) -> None:
    model = Conv4(64, pooling=pooling, image_size=size)
    model.tap(model.maps)
    output = model.eval()(torch.zeros(2, 3, size, size))
    assert output.embedding.shape == (2, d)
    assert model.embedding_width == d
    assert [f.shape[1] for f in output.features.values()] == [64] * 4


def test_pooling_average_averages_the_unpooled_fourth_map() -> None:
    model = Conv4(8, pooling="average").eval()
    model.tap(["block4"])
    output = model(torch.randn(2, 3, 32, 32))
    assert output.features["block4"].shape == (2, 8, 4, 4)
    torch.testing.assert_close(output.embedding, output.features["block4"].mean((2, 3)))


def test_instance_norm_is_that_of_torch() -> None:
    x = torch.randn(2, 8, 6, 6)
    norm = Conv4(8, norm="instance").norms[0]
    torch.testing.assert_close(norm(x), instance_norm(x))


@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_other_norms_answer_each_row_alone(norm: str) -> None:
    torch.manual_seed(0)
    model = Conv4(16, n_classes=5, norm=norm).double()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    alone = torch.cat([model(row[None]).logits for row in x])
    torch.testing.assert_close(model(x).logits, alone)


def test_grey_images_have_one_channel() -> None:
    assert Conv4(8, in_channels=1)(torch.zeros(2, 1, 32, 32)).embedding.shape == (2, 32)


@pytest.mark.usefixtures("as_users_run_it")
def test_unknown_options_name_the_choices() -> None:
    with pytest.raises(ValueError, match="norm='layer' is unknown; choose one of batch, group"):
        Conv4(norm="layer")
    with pytest.raises(ValueError, match="pooling='max' is unknown; choose one of flatten"):
        Conv4(pooling="max")
    with pytest.raises(ValueError, match="image_size=8 must be 16 or more, as there are four"):
        Conv4(image_size=8)


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_images_that_the_pools_would_use_up_are_refused(pooling):
    least = 16 if pooling == "flatten" else 8
    model = Conv4(4, pooling=pooling, image_size=16)
    assert model(torch.rand(2, 3, least, least)).embedding.shape == (2, model.embedding_width)
    message = rf"images of 32x{least - 1} are too small for Conv4, which needs {least}x{least}; raise data"
    with pytest.raises(ValueError, match=message):
        model(torch.rand(2, 3, 32, least - 1))


def test_images_of_another_size_than_the_embedding_is_for_are_refused():
    with pytest.raises(ValueError, match=r"images of 48x48 do not fit image_size=32, on which"):
        Conv4(4)(torch.rand(2, 3, 48, 48))
