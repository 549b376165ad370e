import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch.func import vmap
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from lightning_metakd.data.sources.augment import normalise, renormalise
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.model import EMBEDDING, Model
from lightning_metakd.models.preprocessed import IMAGENET, Preprocessed
from lightning_metakd.models.weights import load_weights
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.types import Normalisation

X = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def net():
    return Conv4(width=4, n_classes=5, pooling="average").eval()


def test_it_reads_what_torchvision_would_hand_to_the_network(net):
    wrapped = Preprocessed(net, size=48, mean="imagenet", std="imagenet").eval()
    scaled = resize(X.float() / 255, [48, 48], InterpolationMode.BICUBIC, antialias=True)
    expected = net(normalize(scaled, *IMAGENET))
    actual = wrapped(normalise(X, *wrapped.reading))
    torch.testing.assert_close(actual.embedding, expected.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_it_is_configured_by_words_and_numbers():
    parser = ArgumentParser()
    parser.add_argument("--model", type=Model)
    settings = {"model": {"class_path": "lightning_metakd.models.conv4.Conv4"}, "size": 48}
    for moments, expected in (
        ({"mean": "imagenet", "std": "imagenet"}, IMAGENET),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, Normalisation((0.1, 0.2, 0.3), (1, 2, 3))),
        ({"mean": 0.5, "std": 0.25}, Normalisation((0.5,), (0.25,))),
        ({}, None),
    ):
        path = "lightning_metakd.models.preprocessed.Preprocessed"
        options = {"model": {"class_path": path, "init_args": {**settings, **moments}}}
        model = parser.instantiate(parser.parse_object(options)).model
        assert model.reading == expected
        assert model.input_size == 48


def test_images_of_its_size_are_left_alone(net):
    x = normalise(X, *IMAGENET)
    expected = as_model(net).eval()(x).embedding
    assert Preprocessed(net, size=32).eval()(x).embedding.equal(expected)
    assert Preprocessed(net).eval()(x).embedding.equal(expected)


def test_the_network_that_was_given_stays_as_it_was(net):
    before = {name: p.clone() for name, p in net.state_dict().items()}
    wrapped = Preprocessed(net, size=48, mean=0.5, std=0.5)
    with torch.no_grad():
        for p in wrapped.parameters():
            p.add_(1)
    assert net.reading is None
    assert before.keys() == net.state_dict().keys()
    assert all(net.state_dict()[name].equal(p) for name, p in before.items())


def test_its_head_and_layers_are_those_of_the_network(net):
    wrapped = Preprocessed(net, size=48)
    assert {n for n, _ in wrapped.named_parameters() if n.startswith("head.")} == {
        "head.weight",
        "head.bias",
    }
    assert not any(name.startswith("model.head") for name in wrapped.state_dict())
    net.tap(["block2", EMBEDDING])
    wrapped.tap(["block2", EMBEDDING])
    assert wrapped(X.float()).features["block2"].shape[-1] == 12  # of 48
    assert net(X.float()).features["block2"].shape[-1] == 8


@pytest.mark.parametrize("file", ["preprocessed", "bare", "bare of another origin"])
def test_it_takes_the_weights_of_the_network_with_or_without_it(net, file):
    if file == "bare of another origin":
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6), nn.ReLU(), nn.Linear(6, 7))
    trained, wrapped = Preprocessed(net), Preprocessed(net, size=32)
    state = {name: p + 1 for name, p in (net if "bare" in file else trained).state_dict().items()}
    load_weights(wrapped, state, "it.ckpt")
    assert all(wrapped.state_dict()[name].equal(p + 1) for name, p in trained.state_dict().items())


def test_it_wraps_any_network():
    wrapped = Preprocessed(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 7)), size=16)
    assert wrapped(X.float()).logits.shape == (4, 7)


def test_tasks_run_together(net):
    wrapped = Preprocessed(net, size=48).eval()
    x = X.float()[None].repeat(2, 1, 1, 1, 1)
    x[1] += 1
    together = vmap(lambda x: wrapped(x).embedding)(x)
    torch.testing.assert_close(together, torch.stack([wrapped(task).embedding for task in x]))


def test_what_is_normalised_in_one_way_becomes_what_it_is_in_another():
    for other in (Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), Normalisation((0.5,), (0.1,))):
        actual = renormalise(normalise(X, *other), other, IMAGENET)
        torch.testing.assert_close(actual, normalise(X, *IMAGENET), rtol=1e-5, atol=1e-5)


def test_its_checkpoint_may_say_how_it_reads_but_not_something_else(net):
    left_out, inputs = Preprocessed(net), Preprocessed(net, mean="imagenet", std="imagenet")
    other = Normalisation((0.5,), (0.25,))
    left_out.read_as(other, "teacher it.ckpt")
    assert left_out.reading == other
    inputs.read_as(IMAGENET, "teacher it.ckpt")
    message = r"teacher it\.ckpt: its weights were trained with mean=\[0\.5\] .*; leave mean and std .* out"
    with pytest.raises(ValueError, match=message):
        inputs.read_as(other, "teacher it.ckpt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"size=0 must be 1 or more, or left out to keep"),
        ({"mean": 0.5}, r"mean=0\.5 and std=None belong together; give both, or neither"),
        ({"mean": 0.5, "std": 0.0}, r"std=0\.0 must be positive and finite"),
        ({"mean": float("nan"), "std": 1.0}, r"mean=nan must be finite"),
        (
            {"mean": [0.5, 0.5, 0.5], "std": 0.5},
            r"mean=.* and std=\[0\.5\] must be numbers, one for each channel",
        ),
        ({"mean": [], "std": []}, r"mean=\[\] and std=\[\] must be numbers, one for each channel"),
        ({"mean": 0.5, "std": float("inf")}, r"std=inf must be positive and finite"),
    ],
)
def test_what_is_no_preprocessing_is_refused(net, settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessed(net, **settings)
