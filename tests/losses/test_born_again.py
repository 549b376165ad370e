import numpy as np
import pytest
import torch
from torch.func import grad
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.born_again import (
    BornAgain,
    confidence_weights,
    soft_cross_entropy,
)
from lightning_metakd.losses.hinton import kd_loss
from tests.tiny import answered, batch, context, student_answer


@pytest.fixture
def rows():
    return answered(batch(9))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def test_it_is_cross_entropy_with_the_teachers_distribution(rows, student):
    actual = BornAgain()(student, rows, context(rows, student))
    p, q = (softmax(z.numpy()) for z in (rows.teacher_outputs[0].logits, student.logits))
    np.testing.assert_allclose(actual.numpy(), -(p * np.log(q)).sum(1), rtol=1e-12)


def test_its_gradient_is_hintons_at_temperature_one(rows, student):
    teacher, one = rows.teacher_outputs[0].logits, student.logits.new_ones(())
    actual = grad(lambda z: soft_cross_entropy(z, teacher).sum())(student.logits)
    expected = grad(lambda z: kd_loss(z, teacher, one).sum())(student.logits)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_a_student_that_answers_as_its_teacher_is_left_with_its_entropy(rows):
    teacher = rows.teacher_outputs[0].logits
    expected = torch.distributions.Categorical(logits=teacher).entropy()
    torch.testing.assert_close(soft_cross_entropy(teacher, teacher), expected, rtol=1e-12, atol=0)


def test_by_confidence_it_is_the_loss_of_the_labels_weighted_by_the_teachers_maximum(rows, student):
    actual = BornAgain(confidence_weighted=True)(student, rows, context(rows, student))
    confidence = softmax(rows.teacher_outputs[0].logits.numpy()).max(1)
    hard = cross_entropy(student.logits, rows.y, reduction="none").numpy()
    expected = np.sum(confidence / confidence.sum() * hard)  # eq. 10
    assert actual.mean().item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(actual.numpy(), 9 * confidence / confidence.sum() * hard, rtol=1e-12)


def test_weights_have_mean_one_and_are_equal_where_the_teacher_is_equally_sure(rows):
    assert confidence_weights(rows.teacher_outputs[0].logits).mean().item() == pytest.approx(
        1, rel=1e-12
    )
    torch.testing.assert_close(confidence_weights(3 * torch.eye(4)), torch.ones(4))
