import numpy as np
import pytest
import torch
from torch.func import grad

from lightning_metakd.losses.coefficient import Learned, Scheduled
from lightning_metakd.losses.fitnets import FitNets, hint_loss
from lightning_metakd.losses.layer_pairs import hint_name
from lightning_metakd.losses.what_where import LearnedPerMap
from tests.tiny import answered, batch, context, perturbed, student_answer

ROWS = 6
PAIR = {"low": "low"}


@pytest.fixture
def rows():
    return answered(batch(ROWS))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def of(loss, student, rows):
    return loss(student, rows, context(rows, student))


def by_loops(hint, target):
    """Half the mean of squares; a map larger than the other is averaged over windows first."""
    n, ch, h, w = hint.shape
    actual = np.zeros(n)
    for i in range(n):
        for c in range(ch):
            for y in range(h):
                for x in range(w):
                    actual[i] += 0.5 * (hint[i, c, y, x] - target[i, c, y, x]) ** 2
    return actual / (ch * h * w)


def test_it_is_half_the_squared_difference_from_the_hint(rows, student):
    hint, target = (
        student.hints[hint_name(0, "low", "low")],
        rows.teacher_outputs[0].features["low"],
    )
    actual = of(FitNets(PAIR), student, rows)
    np.testing.assert_allclose(actual, by_loops(hint.numpy(), target.numpy()), rtol=1e-12)


def test_maps_meet_at_the_smaller_size(rows, student):
    hint, target = (
        student.hints[hint_name(0, "high", "low")],
        rows.teacher_outputs[0].features["low"],
    )
    windows = target.numpy().reshape(ROWS, 6, 2, 2, 2, 2).mean((3, 5))
    actual = of(FitNets({"high": "low"}), student, rows)
    np.testing.assert_allclose(actual, by_loops(hint.numpy(), windows), rtol=1e-12)


def test_embeddings_are_compared_too(rows, student):
    hint = student.hints[hint_name(0, "embedding", "embedding")]
    expected = (hint - rows.teacher_outputs[0].embedding).square().mean(1) / 2
    actual = of(FitNets({"embedding": "embedding"}), student, rows)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_its_gradient_is_the_difference_over_the_number_of_elements():
    hint, target = torch.randn(2, 2, 3, 4, 4).double()
    slope = grad(lambda h: hint_loss(h, target).sum())(hint)
    torch.testing.assert_close(slope, (hint - target) / (3 * 16), rtol=1e-12, atol=0)


def test_a_hint_that_is_the_target_has_nothing_to_learn():
    target = torch.randn(2, 3, 4, 4)
    assert not hint_loss(target, target).any()


def test_pairs_are_weighed_and_added(rows, student):
    low, high = (of(FitNets({name: name}), student, rows) for name in ("low", "high"))
    both = {"low": "low", "high": "high"}
    for weights, expected in (
        (1.0, low + high),
        ({"high": 0.25}, low + 0.25 * high),
        (Scheduled(1.0, 0.0), 0.7 * (low + high)),  # the context is at 0.3
    ):
        actual = of(FitNets(both, weights), student, rows)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_each_pair_learns_a_weight_of_its_own():
    loss = FitNets({"low": "low", "high": "low"}, Learned(0.5))
    assert [name for name, _ in loss.named_parameters()] == [
        "weights.low>low.raw",
        "weights.high>low.raw",
    ]
    assert len({id(p) for p in loss.parameters()}) == 2


def test_layers_with_dots_may_have_learned_weights():
    loss = FitNets({"layer1.0": "blocks.2"}, {"blocks.2": Learned()})
    assert [name for name, _ in loss.named_parameters()] == ["weights.layer1/0>blocks/2.raw"]


def test_a_weight_may_look_at_the_teachers_map(rows, student):
    strategies = perturbed(FitNets(PAIR, LearnedPerMap(6)).double())
    plain = of(FitNets(PAIR), student, rows)
    assert (of(strategies, student, rows) / plain).std() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitNets({}), "layers names no layers to compare; give the student's and"),
        (
            lambda: FitNets(PAIR, {"block3": 1.0}),
            "weights names block3, but the teacher's layers are low; rename or drop",
        ),
        (lambda: FitNets(PAIR, -1.0), r"weights.low>low=-1.0 must be at least 0 and finite"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_layer_that_was_not_tapped_is_told(rows, student):
    message = r"layer 'block3' is not in the answer, which has low, high; call tap\(\['block3'\]\)"
    hint = torch.zeros(ROWS, 6, 4, 4)
    with pytest.raises(ValueError, match=message):
        of(FitNets({"low": "block3"}), student._replace(hints={"0:low>block3": hint}), rows)


def test_a_hint_without_an_adapter_is_told(rows, student):
    with pytest.raises(ValueError, match=r"hint '0:low>low' is not in .*give .* the adapters"):
        of(FitNets(PAIR), student._replace(hints={}), rows)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 3)])
def test_a_hint_of_another_shape_is_refused(shape, as_users_run_it):
    with pytest.raises(ValueError, match=r"hint \(2, .*\) and target \(2, 3, 4, 4\) must have one"):
        hint_loss(torch.zeros(shape), torch.zeros(2, 3, 4, 4))
