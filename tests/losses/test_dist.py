import numpy as np
import pytest
import torch

from lightning_metakd.losses.dist import DIST, dist_terms
from tests.tiny import answered, batch, context, student_answer

ROWS, CLASSES = 7, 4


def logits():
    return 2 * torch.randn(ROWS, CLASSES, dtype=torch.float64)


def at(temperature):
    return torch.tensor(temperature, dtype=torch.float64)


def softened(z, temperature):
    return (z / temperature).softmax(1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_rows_lose_what_their_correlation_over_classes_lacks(temperature):
    student, teacher = logits(), logits()
    actual, _ = dist_terms(student, teacher, at(temperature))
    single = zip(*(softened(z, temperature) for z in (student, teacher)), strict=True)
    expected = [temperature**2 * (1 - np.corrcoef(s, t)[0, 1]) for s, t in single]
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_mean_over_rows_is_what_correlations_over_rows_lack(temperature):
    student, teacher = logits(), logits()
    _, actual = dist_terms(student, teacher, at(temperature))
    single = zip(*(softened(z, temperature).T for z in (student, teacher)), strict=True)
    lacks = [temperature**2 * (1 - np.corrcoef(s, t)[0, 1]) for s, t in single]
    assert actual.mean().item() == pytest.approx(np.mean(lacks), rel=1e-9)
    assert (actual >= 0).all()


def test_a_probability_that_is_a_linear_function_of_the_teachers_loses_nothing():
    p = torch.rand(ROWS, CLASSES, dtype=torch.float64).log_softmax(1)
    flatter = (0.4 * p.exp() + 0.6 / CLASSES).log()
    for term in dist_terms(flatter, p, at(1.0)):
        assert term.abs().max() < 1e-12


def test_a_student_that_answers_the_same_for_all_can_learn():
    flat = torch.zeros(ROWS, CLASSES, requires_grad=True)  # single precision: softmax rounds
    terms = dist_terms(flat, logits().float(), torch.tensor(1.0))
    (slope,) = torch.autograd.grad(sum(terms).sum(), flat, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), flat)
    assert 1e-3 < slope.abs().max() < 10
    assert curvature.isfinite().all()
    for term in terms:
        assert term.mean().item() == pytest.approx(0.5, rel=1e-5)


def test_it_weighs_the_two_terms():
    rows = answered(batch(9))
    student = student_answer(rows)
    actual = DIST(0.5, 3.0, 2.0)(student, rows, context(rows, student))
    inter, intra = dist_terms(student.logits, rows.teacher_outputs[0].logits, at(2.0))
    torch.testing.assert_close(actual, 0.5 * inter + 3 * intra, rtol=1e-12, atol=0)
