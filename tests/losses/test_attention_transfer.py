import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lightning_metakd.losses.attention_transfer import (
    AttentionTransfer,
    attention,
    attention_loss,
)
from tests.tiny import answered, batch, context, student_answer

ROWS = 5


@pytest.fixture
def rows():
    return answered(batch(ROWS))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def of(loss, student, rows):
    return loss(student, rows, context(rows, student))


def by_loops(student, teacher, power):
    recorded = []
    for one, other in zip(student.numpy(), teacher.numpy(), strict=True):
        q = [sum(np.abs(channel) ** power for channel in maps).ravel() for maps in (one, other)]
        q = [v / np.sqrt((v**2).sum()) for v in q]
        recorded.append(((q[0] - q[1]) ** 2).sum() / 2)
    return recorded


def maps(ch, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, ch, 3, 4, dtype=torch.float64, generator=draw)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_it_is_half_the_squared_distance_of_maps_of_length_one(power):
    student, teacher = maps(2), maps(5, seed=1)
    actual = attention_loss(student, teacher, power)
    np.testing.assert_allclose(actual, by_loops(student, teacher, power), rtol=1e-9)


def test_pairs_are_added_and_weighed_and_meet_at_the_smaller_size(rows, student):
    teacher = rows.teacher_outputs[0]
    low = by_loops(student.features["low"], teacher.features["low"], 2)
    large = student.features["low"].numpy()  # 4x4 by 3x3: windows 0-1, 1-2, 2-3
    windows = [slice(0, 2), slice(1, 3), slice(2, 4)]
    small = np.stack([[large[:, :, y, x].mean((2, 3)) for x in windows] for y in windows])
    resized = torch.from_numpy(small.transpose(2, 3, 0, 1))
    high = by_loops(resized, teacher.features["high"], 2)
    one = of(AttentionTransfer({"low": "low"}), student, rows)
    np.testing.assert_allclose(one, low, rtol=1e-9)
    other = of(AttentionTransfer({"low": "high"}, weights=3.0), student, rows)
    np.testing.assert_allclose(other, 3 * np.array(high), rtol=1e-9)
    both = AttentionTransfer({"low": "low", "high": "low"}, weights={"low": 2.0})
    alone = of(AttentionTransfer({"high": "low"}), student, rows)
    torch.testing.assert_close(of(both, student, rows), 2 * (one + alone), rtol=1e-12, atol=0)


def test_neither_scale_nor_order_nor_sign_of_channels_matters():
    student, teacher = maps(3), maps(3, seed=1)
    other = -2.5 * student[:, [2, 0, 1]]
    torch.testing.assert_close(
        attention_loss(other, teacher), attention_loss(student, teacher), rtol=1e-9, atol=0
    )


def test_a_student_that_looks_where_its_teacher_looks_has_nothing_to_learn():
    teacher = maps(3)
    student = (2 * teacher).requires_grad_()
    loss = attention_loss(student, teacher)
    assert loss.max() < 1e-20
    (slope,) = torch.autograd.grad(loss.sum(), student, create_graph=True)
    assert slope.abs().max() < 1e-9
    (curvature,) = torch.autograd.grad(slope.sum(), student)
    assert curvature.isfinite().all()


@pytest.mark.parametrize("power", [1, 2, 3])
def test_its_derivatives_are_those_of_differences(power):
    at = (maps(2).abs() + 0.1).requires_grad_()  # |x| has a kink at 0
    teacher = maps(3, seed=1)
    assert gradcheck(lambda x: attention_loss(x, teacher, power), at)
    assert gradgradcheck(lambda x: attention_loss(x, teacher, power), at)


def test_at_dead_units_it_has_the_derivatives_of_a_square():
    at = maps(2).relu().requires_grad_()  # half of them exactly 0
    assert gradcheck(lambda x: attention_loss(x, maps(3, seed=1)), at)
    assert gradgradcheck(lambda x: attention_loss(x, maps(3, seed=1)), at)


def test_a_dead_map_has_finite_derivatives():
    at = torch.zeros(ROWS, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    loss = attention_loss(at, maps(3))
    torch.testing.assert_close(loss, torch.full_like(loss, 0.5))  # no map at all: |q_T|^2 / 2
    (slope,) = torch.autograd.grad(loss.sum(), at, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum() + slope.sum(), at)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()


def test_vectors_have_no_attention(as_users_run_it):
    with pytest.raises(ValueError, match=r"features \(4, 8\) have no positions .* name layers"):
        attention(torch.zeros(4, 8))


def test_a_power_below_one_is_refused():
    with pytest.raises(ValueError, match="power=0 must be 1 or more, for instance 2"):
        AttentionTransfer({"low": "low"}, power=0)
