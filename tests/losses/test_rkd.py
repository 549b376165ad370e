import numpy as np
import pytest
import torch

from lightning_metakd.losses.coefficient import Scheduled
from lightning_metakd.losses.rkd import RKD, Relations, rkd_terms
from tests.tiny import answered, batch, context, student_answer

ROWS = 6


def embeddings():
    """Of a student and of a wider teacher."""
    return torch.randn(ROWS, 3, dtype=torch.float64), torch.randn(ROWS, 5, dtype=torch.float64)


def huber(x):
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


def by_loops(student, teacher):
    """(distance, angle) of each row, pair by pair and triplet by triplet; identical rows have none."""

    def distances(f):
        actual = np.array([[np.linalg.norm(a - b) for b in f] for a in f])
        return actual / actual[actual > 0].mean()

    def cosine(f, i, j, k):
        a, b = f[j] - f[i], f[k] - f[i]
        sizes = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / sizes if sizes > 0 else 0.0

    s, t, single = student.numpy(), teacher.numpy(), range(len(student))
    apart = distances(s) - distances(t)
    distance = [np.mean([huber(apart[i, j]) for j in single]) for i in single]
    angle = [
        np.mean([huber(cosine(s, i, j, k) - cosine(t, i, j, k)) for j in single for k in single])
        for i in single
    ]
    return np.array([distance, angle])


def test_its_terms_are_those_of_loops_over_pairs_and_triplets():
    student, teacher = embeddings()
    actual = torch.stack(rkd_terms(student, 4 * teacher)).numpy()
    np.testing.assert_allclose(actual, by_loops(student, teacher), rtol=1e-9, atol=1e-12)


def test_rows_that_lie_on_each_other_are_as_in_the_loops():
    student, teacher = embeddings()
    student[3], teacher[1], teacher[2] = student[0], teacher[5], teacher[5]
    actual = torch.stack(rkd_terms(student, teacher)).numpy()
    np.testing.assert_allclose(actual, by_loops(student, teacher), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_rows_that_lie_on_each_other_have_finite_derivatives_of_ordinary_size(scale):
    student, teacher = embeddings()
    student = scale * student
    student[3] = student[0]
    student.requires_grad_()
    value = sum(rkd_terms(student, teacher)).sum()
    (slope,) = torch.autograd.grad(value, student, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), student)
    assert slope.abs().max() < 10
    assert curvature.isfinite().all()


def test_turning_moving_and_stretching_an_embedding_changes_nothing():
    student, teacher = embeddings()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = rkd_terms(7 * student @ turn + 2, teacher)
    torch.testing.assert_close(moved, rkd_terms(student, teacher), rtol=1e-9, atol=1e-12)


def test_a_single_row_has_no_relations():
    for term in rkd_terms(torch.randn(1, 3), torch.randn(1, 5)):
        assert term.tolist() == [0.0]


def test_it_weighs_the_two_terms():
    rows = answered(batch(9))
    student = student_answer(rows)
    row_context = context(rows, student)
    distance, angle = rkd_terms(student.embedding, rows.teacher_outputs[0].embedding)
    actual = RKD(2.0, 3.0)(student, rows, row_context)
    torch.testing.assert_close(actual, 2 * distance + 3 * angle, rtol=1e-12, atol=0)
    published = RKD()(student, rows, row_context)
    torch.testing.assert_close(published, 25 * distance + 50 * angle, rtol=1e-12, atol=0)


def test_angles_that_do_not_count_are_not_computed(monkeypatch):
    rows = answered(batch(9))
    student = student_answer(rows)
    distance, _ = rkd_terms(student.embedding, rows.teacher_outputs[0].embedding)
    monkeypatch.setattr(Relations, "cosine", None)
    actual = RKD(25.0, 0.0)(student, rows, context(rows, student))
    torch.testing.assert_close(actual, 25 * distance, rtol=0, atol=0)


def test_angles_that_will_count_are_computed():
    rows = answered(batch(9))
    student = student_answer(rows)
    halfway = context(rows, student)._replace(progress=torch.tensor(0.5, dtype=torch.float64))
    actual = RKD(25.0, Scheduled(0.0, 50.0))(student, rows, halfway)
    torch.testing.assert_close(actual, RKD(25.0, 25.0)(student, rows, halfway))
