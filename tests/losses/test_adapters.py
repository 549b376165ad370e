import pytest
import torch
from torch.func import functional_call

from lightning_metakd.functional.bind import bind
from lightning_metakd.losses.adapters import (
    Adapters,
    WithAdapters,
    make_adapters,
    of_each_teacher,
    probe_shapes,
    tap_layers,
)
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.layer_pairs import LayerPair, hint_name
from lightning_metakd.losses.multi_teacher import MultiTeacher, OfTeacher
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.vit import ViT
from tests.tiny import SmoothConv4, batch

MAP = LayerPair(0, "norms.1", "norms.2", True)
VECTOR = LayerPair(0, "embedding", "embedding", True)


def nets(width=5):
    """(student, teacher), tapped."""
    student, teacher = SmoothConv4().double(), SmoothConv4(width=width).double()
    tap_layers(student, ["norms.1", "embedding"])
    tap_layers(teacher, ["norms.2", "embedding"])
    return student, teacher


@pytest.fixture
def x():
    return batch(2, (1, 8, 8)).x


def named(module):
    return {name: p.detach() for name, p in module.named_parameters()}


def test_an_adapter_projects_position_by_position(x):
    student, teacher = nets()
    adapters = make_adapters([MAP, VECTOR], student, [teacher], x, x)
    answer = adapters(student(x))
    weight, bias = (
        named(adapters)[f"projections.0:norms/1>norms/2.{n}"] for n in ("weight", "bias")
    )
    expected = torch.einsum("oc,nchw->nohw", weight, answer.features["norms.1"])
    actual = answer.hints[hint_name(0, "norms.1", "norms.2")]
    torch.testing.assert_close(actual, expected + bias[:, None, None], rtol=1e-9, atol=1e-12)
    linear = adapters.projections["0:embedding>embedding"]
    expected = answer.embedding @ linear.weight.T + linear.bias
    torch.testing.assert_close(answer.hints["0:embedding>embedding"], expected)


def test_equal_widths_need_no_parameters(x):
    student, teacher = nets(width=3)
    adapters = make_adapters([MAP], student, [teacher], x, x)
    answer = adapters(student(x))
    assert not named(adapters)
    assert torch.equal(answer.hints[hint_name(0, "norms.1", "norms.2")], answer.features["norms.1"])


def test_a_loss_without_hints_changes_nothing(x):
    student, teacher = nets()
    adapters = make_adapters([MAP._replace(adapted=False)], student, [teacher], x, x)
    forward, answer = bind(make_episodic(student, "support")), student(x)
    assert adapters.layer_pairs == ()
    assert adapters.beside(forward, {}) is forward
    assert adapters(answer) is answer


def test_to_look_at_widths_leaves_the_networks_as_they_were(x):
    student, _ = nets()
    student.norms[0].eval()
    before = {name: t.clone() for name, t in student.state_dict().items()}
    modes = [m.training for m in student.modules()]
    probe_shapes(student, x.float())  # in another precision than the network's
    assert all(torch.equal(before[name], t) for name, t in student.state_dict().items())
    assert [m.training for m in student.modules()] == modes


def test_their_start_depends_on_the_seed_alone(x):
    student, teacher = nets()
    before = torch.get_rng_state()
    one, other = (named(make_adapters([MAP], student, [teacher], x, x, seed)) for seed in (1, 2))
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(1)
    again = named(make_adapters([MAP], student, [teacher], x, x, 1))
    weight = "projections.0:norms/1>norms/2.weight"
    assert torch.equal(one[weight], again[weight])
    assert not torch.equal(one[weight], other[weight])


def test_a_student_with_adapters_is_a_function_of_both_parameters(x):
    student, teacher = nets()
    adapters = make_adapters([MAP], student, [teacher], x, x)
    forward = bind(make_episodic(student, "support"))
    theta, present = named(student), {n: p + 1 for n, p in named(adapters).items()}
    hinting = adapters.beside(forward, present)
    assert isinstance(hinting, WithAdapters)
    plain = forward(theta, x)
    expected = functional_call(adapters, present, (plain,)).hints
    observed, statistics = hinting.observe(theta, x)
    for answer in (hinting(theta, x), observed):
        torch.testing.assert_close(answer.hints, expected)
        torch.testing.assert_close(answer.logits, plain.logits)
    torch.testing.assert_close(hinting.statistics(theta, x), statistics)
    torch.testing.assert_close(hinting.classify(theta, plain.embedding), plain.logits)


def test_reads_of_every_teacher_are_told_apart():
    hints = FitNets({"a": "b"})
    every = of_each_teacher(MultiTeacher(hints).layer_pairs(), 2)
    assert every == [LayerPair(0, "a", "b", True), LayerPair(1, "a", "b", True)]
    assert of_each_teacher(
        [*OfTeacher(1, hints).layer_pairs(), *MultiTeacher(hints).layer_pairs()], 2
    ) == [
        every[1],
        every[0],
    ]


def test_a_teacher_that_is_not_there_is_told():
    with pytest.raises(ValueError, match=r"teacher=2 is not among the 2 of model\.teachers; they"):
        of_each_teacher(OfTeacher(2, FitNets({"a": "b"})).layer_pairs(), 2)


def test_layers_of_different_kinds_are_refused(x):
    student, teacher = nets()
    read = LayerPair(0, "norms.1", "embedding", True)
    message = r"layer 'norms.1' of the student is \[3, 4, 4\] .* of teacher 0 is \[5\]; name layers of one"
    with pytest.raises(ValueError, match=message):
        make_adapters([read], student, [teacher], x, x)


def test_a_transformer_shows_its_tokens_as_a_map(x):
    student, _ = nets()
    teacher = ViT(8, depth=1, n_heads=2, image_size=8, in_channels=1)
    tap_layers(teacher, ["blocks.0"])
    read = LayerPair(0, "norms.1", "blocks.0", True)
    adapters = make_adapters([read], student, [teacher], x, x)
    assert named(adapters)["projections.0:norms/1>blocks/0.weight"].shape == (8, 3)


def test_a_layer_that_was_not_tapped_is_told(x):
    student, teacher = nets()
    student.tap([])
    with pytest.raises(ValueError, match=r"layer 'norms.1' is not in the answer, .* no features"):
        make_adapters([MAP], student, [teacher], x, x)


def test_there_may_be_none():
    assert Adapters().layer_pairs == ()
    assert not Adapters().state_dict()
