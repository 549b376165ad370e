import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_metakd.losses.coefficient import (
    Constant,
    Interval,
    Learned,
    LearnedPerClass,
    Scheduled,
    coefficient,
)
from lightning_metakd.losses.learned_per_sample import LearnedPerSample, signals
from lightning_metakd.types import Context, Output
from tests.tiny import N_WAY, answered, batch, context, perturbed

GATE, TEMPERATURE, FREE = Interval(0.0, 1.0), Interval(0.0, math.inf), Interval()


@pytest.fixture
def rows():
    return answered(batch(9))


@pytest.fixture
def row_context(rows):
    student = Output(torch.randn(9, N_WAY).double(), torch.randn(9, 4).double())
    return context(rows, student)


def gate(value, default=0.5, closed=False):
    return coefficient(value, "gate", default, low=0.0, high=1.0, closed=closed)


# --- intervals -----------------------------------------------------------------------------------


@given(raw=st.floats(-15, 15))
@pytest.mark.parametrize("interval", [GATE, TEMPERATURE, FREE, Interval(2.0, 5.0)])
def test_squashed_values_lie_inside_and_come_back(interval, raw):
    value = interval.squash(torch.tensor(raw, dtype=torch.float64)).item()
    assert interval.low < value < interval.high
    assert interval.unsquash(value) == pytest.approx(
        raw, rel=1e-6, abs=1e-6
    )  # 1 - 1e-7 loses digits


@given(value=st.floats(1e-3, 1 - 1e-3))
def test_unsquashed_values_come_back(value):
    raw = torch.tensor(GATE.unsquash(value), dtype=torch.float64)
    assert GATE.squash(raw).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("value", [-0.1, 0.0, 1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("make", [float, Constant, lambda v: Scheduled(0.5, v), Learned])
def test_a_value_outside_of_an_open_interval_is_refused(value, make):
    gates = r"gate\S*=\S+ must be positive and less than 1, for instance 0.5"
    result = (
        gates if math.isfinite(value) else rf"(gate|value|end|init)={value} must be .*(finite|1)"
    )
    with pytest.raises(ValueError, match=result):
        gate(make(value))


@pytest.mark.parametrize("border", [0.0, 1.0])
def test_a_constant_may_lie_on_a_closed_border(border, rows, row_context):
    assert gate(border, closed=True)(rows, row_context) == border
    assert gate(Scheduled(border, 0.5), closed=True)(rows, row_context) != 0.5


@pytest.mark.parametrize("border", [0.0, 1.0])
@pytest.mark.parametrize("make", [Learned, lambda v: LearnedPerSample(init=v)])
def test_a_learned_one_may_not_start_on_a_border(border, make):
    with pytest.raises(ValueError, match=r"gate.init=[01].0 must be positive and less than 1"):
        gate(make(border), closed=True)


def test_a_weight_is_finite():
    with pytest.raises(ValueError, match="weight=inf must be at least 0 and finite"):
        coefficient(math.inf, "weight", 1.0, low=0.0, closed=True)


# --- the kinds -----------------------------------------------------------------------------------


def test_a_number_becomes_a_constant_without_parameters(rows, row_context):
    constant = gate(0.25)
    assert constant(rows, row_context) == 0.25
    assert not list(constant.parameters())


def test_a_scheduled_one_is_linear_from_begin_to_end(rows, row_context):
    scheduled = coefficient(Scheduled(8.0, 2.0), "temperature", 4.0, low=0.0)
    at = [
        scheduled(rows, row_context._replace(progress=torch.tensor(p, dtype=torch.float64))).item()
        for p in (0.0, 0.25, 1.0)
    ]
    assert at == [8.0, 6.5, 2.0]


@pytest.mark.parametrize(
    "make",
    [
        Learned,
        lambda init=None: LearnedPerClass(9, init),
        lambda init=None: LearnedPerSample(8, init),
    ],
)
def test_a_learned_one_starts_at_its_init_or_the_default_of_the_loss(make, rows, row_context):
    for init, expected in ((None, 0.3), (0.8, 0.8)):
        start = gate(make(init), default=0.3).double()(rows, row_context)
        assert start.detach().flatten().tolist() == pytest.approx(
            [expected] * start.numel(), rel=1e-6
        )  # raw values are born in float32


def test_a_learned_one_is_one_number_of_its_own(rows, row_context):
    strategies = gate(Learned()).double()
    (slope,) = torch.autograd.grad(strategies(rows, row_context), strategies.raw)
    assert slope.item() == pytest.approx(0.25, rel=1e-9)  # the slope of a sigmoid at 0


def test_one_per_class_is_looked_up_by_dataset_class(rows, row_context):
    per_class = coefficient(LearnedPerClass(30), "weight", 1.0)
    with torch.no_grad():
        per_class.raw.copy_(torch.arange(30))
    classes = torch.tensor([17, 4, 29])[rows.y]
    actual = per_class(rows, row_context._replace(class_id=classes))
    assert actual.tolist() == classes.tolist()


def test_one_per_sample_starts_the_same_for_every_row_and_can_come_to_differ(rows, row_context):
    per_sample = gate(LearnedPerSample()).double()
    assert per_sample(rows, row_context).shape == (9,)
    assert per_sample(rows, row_context).std() == 0
    assert perturbed(per_sample)(rows, row_context).std() > 1e-3


def test_one_per_sample_looks_at_the_student_unless_told_not_to(rows, row_context):
    other = row_context._replace(
        student_detached=row_context.student_detached._replace(
            logits=row_context.student_detached.logits.flip(0)
        )
    )
    looks, does_not = (
        perturbed(gate(LearnedPerSample(student_signals=s))).double() for s in (True, False)
    )
    assert not torch.equal(looks(rows, row_context), looks(rows, other))
    assert torch.equal(does_not(rows, row_context), does_not(rows, other))


def test_a_learned_one_is_trained_through_its_parameters_alone():
    assert len(list(Learned().parameters())) == 1
    assert {name for name, _ in LearnedPerSample().named_parameters()} == {
        f"net.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }


# --- signals -------------------------------------------------------------------------------------


def test_signals_are_entropy_loss_margin_agreement_and_progress():
    z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    rows = batch(1)._replace(teacher_outputs=(Output(z, z),))
    student = Output(z.flip(1), z)
    actual = signals(rows, Context(rows.y, z.new_tensor(0.75), student), student_signals=True)[0]
    p, rest = math.exp(2) / (math.exp(2) + 2), 1 / (math.exp(2) + 2)
    entropy = -(p * math.log(p) + 2 * rest * math.log(rest)) / math.log(3)
    expected = [
        *(entropy, -math.log(p) / math.log(3), p - rest),
        *(entropy, -math.log(rest) / math.log(3), rest - p),
        *(2 * p * rest + rest**2, 0.75),
    ]
    assert actual.tolist() == pytest.approx(expected, rel=1e-12)


def test_signals_do_not_depend_on_the_order_of_the_other_classes(rows, row_context):
    order = torch.tensor([2, 0, 1])
    there = order.argsort()
    moved = rows._replace(
        y=there[rows.y],
        teacher_outputs=tuple(t._replace(logits=t.logits[:, order]) for t in rows.teacher_outputs),
    )
    answer = row_context.student_detached._replace(
        logits=row_context.student_detached.logits[:, order]
    )
    torch.testing.assert_close(
        signals(moved, row_context._replace(student_detached=answer), True),
        signals(rows, row_context, True),
        rtol=1e-12,
        atol=0,
    )


def test_uniform_answers_have_the_same_signals_for_any_number_of_classes():
    recorded = []
    for c in (2, 5, 50):
        flat = Output(torch.zeros(4, c), torch.zeros(4, 1))
        rows = batch(4, n_way=2)._replace(teacher_outputs=(flat,))
        recorded.append(signals(rows, context(rows, flat), True)[0, :6])
    torch.testing.assert_close(recorded[0], recorded[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(recorded[0], recorded[2], rtol=0, atol=1e-6)


def test_saturated_answers_have_finite_signals_and_gradients(rows, row_context):
    wild = torch.full((9, N_WAY), -1e4)
    wild[:, 0] = 1e4
    rows = rows._replace(teacher_outputs=(Output(wild, wild),))
    per_sample = perturbed(gate(LearnedPerSample()))
    value = per_sample(rows, context(rows, Output(wild.flip(1), wild)))
    slopes = torch.autograd.grad(value.sum(), list(per_sample.parameters()))
    assert value.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_per_sample_works_in_half_precision(dtype):
    rows = answered(batch(6))
    rows = rows._replace(
        teacher_outputs=tuple(
            Output(t.logits.to(dtype), t.embedding.to(dtype)) for t in rows.teacher_outputs
        )
    )
    student = Output(torch.randn(6, N_WAY, dtype=dtype), torch.randn(6, 2, dtype=dtype))
    module: nn.Module = gate(LearnedPerSample())
    mixed = dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        actual = module(rows, context(rows, student))
    assert actual.tolist() == pytest.approx([0.5] * 6, abs=1e-2)  # bf16 keeps 8 bits
    pure = module.to(dtype)(rows, context(rows, student))
    assert pure.tolist() == pytest.approx([0.5] * 6, abs=1e-2)
