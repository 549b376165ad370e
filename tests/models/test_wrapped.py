from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torchvision.models import mobilenet_v3_small, resnet18, squeezenet1_0

from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.wrapped import Wrapped, as_model

X = torch.randn(2, 3, 32, 32)


def own_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 6),
        nn.ReLU(),
        nn.Linear(6, 5),
    )


NETWORKS = {
    "resnet18": (lambda: resnet18(num_classes=10), "fc", 512),
    "mobilenet_v3_small": (lambda: mobilenet_v3_small(num_classes=10), "classifier.3", 1024),
    "own": (own_network, "5", 6),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_classifier_is_found_and_the_answer_stays(name: str) -> None:
    build, classifier, width = NETWORKS[name]
    network = build().eval()
    expected = network(X)
    model = Wrapped(network)
    assert model.classifier == classifier
    assert model.embedding_width == width
    output = model(X)
    assert torch.equal(output.logits, expected)
    assert output.embedding.shape == (2, width)
    assert [n for n, _ in model.head.named_parameters(prefix="head")] == [
        "head.weight",
        "head.bias",
    ]
    assert torch.equal(network(X), expected)  # what was given stays whole


def test_functional_call_reaches_body_and_head() -> None:
    model = Wrapped(own_network())
    model.tap(["0"])
    params = {name: p.detach() for name, p in model.named_parameters()}
    zeroed = {**params, "head.weight": torch.zeros(5, 6), "head.bias": torch.arange(5.0)}
    assert torch.equal(functional_call(model, zeroed, (X,)).logits, torch.arange(5.0).expand(2, 5))
    moved = {**params, "module.0.bias": params["module.0.bias"] + 1}
    tapped = functional_call(model, moved, (X,)).features["0"]
    torch.testing.assert_close(tapped, model(X).features["0"] + 1)


def test_it_is_differentiated_under_vmap_as_in_a_loop() -> None:
    model = make_episodic(Wrapped(resnet18(num_classes=3)), "batch").double()
    model.tap(["layer1"])
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        output = functional_call(model, p, (x,))
        return output.logits.square().mean() + output.features["layer1"].mean()

    x = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64)
    batched = vmap(grad(loss), (None, 0))(params, x)
    single = grad(loss)(params, x[1])
    for name in ("module.conv1.weight", "head.weight"):
        torch.testing.assert_close(batched[name][1], single[name])


def test_copies_and_state_dicts_carry_all_rows() -> None:
    model = Wrapped(resnet18(num_classes=10)).eval()
    expected = model(X).logits
    assert torch.equal(deepcopy(model)(X).logits, expected)
    other = Wrapped(resnet18(num_classes=10)).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X).logits, expected)


def test_taps_become_the_features_in_their_order_and_leave_no_hooks() -> None:
    network = resnet18(num_classes=10).eval()
    model = Wrapped(network)
    model.tap(["layer3", "layer1"])
    third, first = model(X).features.values()
    assert (third.shape, first.shape) == ((2, 256, 2, 2), (2, 64, 8, 8))
    torch.testing.assert_close(
        first, network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(X)))))
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 1, 32, 32))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_n_classes_replaces_or_removes_the_head() -> None:
    assert Wrapped(own_network(), n_classes=7)(X).logits.shape == (2, 7)
    bare = Wrapped(own_network(), n_classes=0)
    assert not list(bare.head.parameters())
    assert torch.equal(bare(X).logits, bare(X).embedding)


def test_what_follows_the_classifier_is_not_part_of_the_logits() -> None:
    network = own_network()
    model = Wrapped(nn.Sequential(network, nn.LogSoftmax(-1)))
    assert torch.equal(model(X).logits, network(X))


class Auxiliary(nn.Module):
    """Its classifier is not the last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.classifier, self.auxiliary = (
            own_network()[:3],
            nn.Linear(256, 5),
            nn.Linear(256, 9),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x))


def test_a_classifier_that_is_not_the_last_linear_layer_is_named() -> None:
    network = Auxiliary()
    model = Wrapped(network, head="classifier")
    assert torch.equal(model(X).logits, network(X))
    assert (
        Wrapped(network).classifier == "classifier"
    )  # the one that runs, registered before another
    with pytest.raises(ValueError, match=r"'auxiliary' is called 0 times .* name another"):
        Wrapped(network, head="auxiliary")(X)


class Gated(nn.Module):
    """Its gate is registered after its classifier, and runs before it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc, self.gate = own_network()[:3], nn.Linear(256, 5), nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        return self.fc(hidden * self.gate(hidden).sigmoid())


def test_a_gate_that_is_registered_last_is_not_the_classifier(caplog) -> None:
    network = Gated()
    state = {name: p.clone() for name, p in network.state_dict().items()}
    before = torch.get_rng_state()
    model = Wrapped(network)
    assert model.classifier == "fc"
    assert torch.equal(model(X).logits, network(X))
    assert "Gated: its classifier is 'fc'." in caplog.text
    assert torch.equal(torch.get_rng_state(), before)  # trying it changed nothing
    assert network.training
    assert all(torch.equal(p, state[name]) for name, p in network.state_dict().items())


class Scaled(nn.Module):
    """Its logits are scaled after the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.network = own_network()

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.network(x)


def test_what_would_be_lost_behind_the_classifier_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Scaled returns something else .* is 'network\.5'\), and what"
    ):
        Wrapped(Scaled())


class Words(nn.Module):
    """It takes numbers of words, not images."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(10, 4)
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.table(x))


def test_a_network_that_cannot_be_tried_needs_a_head_by_name() -> None:
    assert Wrapped(Words(1)).classifier == "layers.0"
    with pytest.raises(ValueError, match=r"head=null does not say .* one of layers\.0, layers\.1"):
        Wrapped(Words(2))
    assert Wrapped(Words(2), head="layers.1").classifier == "layers.1"


def test_as_model_copies_a_model_and_wraps_what_is_none() -> None:
    model = Conv4(8)
    copied = as_model(model)
    assert type(copied) is Conv4
    assert all(a is not b for a, b in zip(copied.parameters(), model.parameters(), strict=True))
    assert isinstance(as_model(own_network()), Wrapped)


def test_networks_that_cannot_be_wrapped_are_told_why() -> None:
    with pytest.raises(ValueError, match=r"SqueezeNet has no nn\.Linear .* its classifier"):
        Wrapped(squeezenet1_0())
    with pytest.raises(ValueError, match=r"head='fc' is no module of Sequential.*choose from 3, 5"):
        Wrapped(own_network(), head="fc")
    with pytest.raises(ValueError, match=r"head='0' is a Conv2d of Sequential, but must be"):
        Wrapped(own_network(), head="0")
    with pytest.raises(ValueError, match="layer 'layer9' is no module; choose from 0, 1, 2"):
        Wrapped(own_network()).tap(["layer9"])
    with pytest.raises(ValueError, match=r"layer 'layer9' is no module; .* \(68 in all\)"):
        Wrapped(resnet18()).tap(["layer9"])


def test_ambiguous_answers_are_errors() -> None:
    twice = Wrapped(resnet18())
    twice.tap(["layer1.0.relu"])
    with pytest.raises(ValueError, match=r"'layer1\.0\.relu' is called 2 times in one pass"):
        twice(X)
    tokens = Wrapped(nn.Sequential(nn.Flatten(2), nn.Linear(1024, 5)))
    with pytest.raises(ValueError, match=r"'1' is fed with \[2, 3072\], not one vector of 1024"):
        tokens(X)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1024, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x.flatten(2))[0][:, -1])

    odd = Wrapped(Odd())
    odd.tap(["gru"])
    with pytest.raises(TypeError, match="'gru' returns a tuple, not a tensor; tap another"):
        odd(X)
    assert Wrapped(Odd())(X).logits.shape == (2, 3)
