import pytest
import torch
from torch.func import grad

from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from lightning_metakd.losses.loss import CrossEntropy
from tests.tiny import batch, context, student_answer

ROWS = batch(12)
STUDENT = student_answer(ROWS)


def loss(q, logits=STUDENT.logits):
    student = STUDENT._replace(logits=logits)
    return GeneralisedCrossEntropy(q).double()(student, ROWS, context(ROWS, student))


def true_class(logits):
    return logits.softmax(-1)[torch.arange(len(ROWS.y)), ROWS.y]


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_it_is_the_formula_of_the_paper(q):
    expected = (1 - true_class(STUDENT.logits) ** q) / q
    torch.testing.assert_close(loss(q), expected, rtol=1e-9, atol=1e-12)


def test_it_goes_to_cross_entropy_as_q_goes_to_zero():
    expected = CrossEntropy()(STUDENT, ROWS, context(ROWS, STUDENT))
    torch.testing.assert_close(loss(0.0), expected, rtol=1e-5, atol=1e-9)


def test_its_slope_is_that_of_cross_entropy_times_a_power_of_the_probability():
    actual = grad(lambda z: loss(0.7, z).sum())(STUDENT.logits)
    plain = grad(lambda z: torch.nn.functional.cross_entropy(z, ROWS.y, reduction="sum"))
    expected = true_class(STUDENT.logits)[:, None] ** 0.7 * plain(STUDENT.logits)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_a_learned_q_has_the_slope_of_differences():
    made = GeneralisedCrossEntropy(Learned(0.4)).double()

    def mean():
        return made(STUDENT, ROWS, context(ROWS, STUDENT)).mean()

    (actual,) = torch.autograd.grad(mean(), made.q.raw)
    ends = []
    for size in (1e-5, -2e-5):
        made.q.raw.data += size
        ends.append(mean().detach())
    torch.testing.assert_close(actual, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_q_outside_of_zero_and_one_is_refused(q):
    with pytest.raises(ValueError, match=f"q={q} must be at least 0 and at most 1"):
        GeneralisedCrossEntropy(q)
