import pytest
import torch
from torch.func import grad
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.coefficient import Constant, Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.types import Output
from tests.tiny import N_WAY, answered, batch, context, perturbed


@pytest.fixture
def rows():
    return answered(batch(9))


@pytest.fixture
def student(rows):
    return Output(torch.randn(9, N_WAY).double(), torch.randn(9, 4).double())


def slope(loss, rows, student):
    """Gradient of the rows' sum in the student's logits, coefficients looking on."""
    row_context = context(rows, student)
    return grad(lambda z: loss(student._replace(logits=z), rows, row_context).sum())(student.logits)


def test_a_gate_of_one_is_cross_entropy(rows, student):
    actual = MatchGate(1.0)(student, rows, context(rows, student))
    expected = cross_entropy(student.logits, rows.y, reduction="none")
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("match", [Hinton(2.0), CrossEntropy(0.2)])
def test_a_gate_of_zero_is_what_it_matches(rows, student, match):
    row_context = context(rows, student)
    actual = MatchGate(0.0, match)(student, rows, row_context)
    torch.testing.assert_close(actual, match(student, rows, row_context), rtol=0, atol=0)


def test_it_is_linear_in_the_gate(rows, student):
    row_context = context(rows, student)
    alone, follow, between = (MatchGate(g)(student, rows, row_context) for g in (1.0, 0.0, 0.3))
    torch.testing.assert_close(between, 0.3 * alone + 0.7 * follow, rtol=1e-12, atol=0)


def test_its_gate_is_a_half_unless_told_otherwise(rows, student):
    row_context = context(rows, student)
    gates = (0.5, Learned(), LearnedPerSample())
    actual = [MatchGate(gate).double()(student, rows, row_context) for gate in gates]
    for other in (MatchGate()(student, rows, row_context), *actual):
        torch.testing.assert_close(other, actual[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("gate", [0.3, Learned(0.4), LearnedPerSample()])
def test_the_literal_form_only_rescales_the_step_of_each_row(rows, student, gate):
    loss = perturbed(LiteralMatchGate(gate)).double()
    g = loss.gate(rows, context(rows, student)).expand(9)
    alone = slope(CrossEntropy(), rows, student)
    torch.testing.assert_close(slope(loss, rows, student), g[:, None] * alone, rtol=1e-12, atol=0)


def test_the_literal_form_adds_the_loss_of_the_teacher(rows, student):
    actual = LiteralMatchGate(0.25)(student, rows, context(rows, student))
    truth = torch.arange(9), rows.y
    s, f = (z.softmax(1)[truth] for z in (student.logits, rows.teacher_outputs[0].logits))
    torch.testing.assert_close(actual, -0.25 * s.log() - 0.75 * f.log(), rtol=1e-12, atol=0)


def test_in_the_other_form_the_teacher_turns_the_step(rows, student):
    alone, gated = slope(CrossEntropy(), rows, student), slope(MatchGate(0.3), rows, student)
    turned = torch.cosine_similarity(alone, gated, dim=1)
    assert (turned < 0.999).all()


@pytest.mark.parametrize("form", [MatchGate, LiteralMatchGate])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_gate_outside_of_its_interval_is_refused(form, value):
    with pytest.raises(
        ValueError, match=r"gate=.* must be at least 0 and at most 1, for instance 0.5"
    ):
        form(value)


@pytest.mark.parametrize("form", [MatchGate, LiteralMatchGate])
def test_it_needs_a_teacher(form):
    assert form().needs_teacher


def test_a_constant_may_be_given_as_a_coefficient(rows, student):
    row_context = context(rows, student)
    actual = MatchGate(Constant(0.2))(student, rows, row_context)
    torch.testing.assert_close(actual, MatchGate(0.2)(student, rows, row_context), rtol=0, atol=0)
