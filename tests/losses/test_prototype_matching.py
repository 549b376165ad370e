import numpy as np
import pytest
import torch

from lightning_metakd.losses.prototype_matching import PrototypeMatching, prototype_matching_loss
from tests.tiny import answered, batch, context, student_answer


def at(temperature):
    return torch.tensor(temperature, dtype=torch.float64)


def by_loops(student, teacher, y, temperature):
    """Class by class over those that are there; a row leaves its class mean unless it is the only one."""

    def chances(f, i):
        cosines = []
        for c in np.unique(y):
            kept = [j for j in range(len(y)) if y[j] == c and (j != i or (y == c).sum() == 1)]
            mean = f[kept].mean(0)
            cosines.append(f[i] @ mean / np.linalg.norm(f[i]) / np.linalg.norm(mean))
        e = np.exp(np.array(cosines) / temperature)
        return e / e.sum()

    recorded = []
    for i in range(len(y)):
        q, p = chances(student.numpy(), i), chances(teacher.numpy(), i)
        recorded.append(temperature**2 * np.sum(p * np.log(p / q)))
    return np.array(recorded)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize(
    "y", [[0, 1, 2, 0, 1, 2], [0, 0, 0, 0, 1, 2], [3, 0, 3, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
)
def test_it_is_the_divergence_of_similarities_to_class_means(y, temperature):
    """Balanced; with classes of one row; with a class that is not there; of one row each."""
    y, n_way = torch.tensor(y), 6
    student, teacher = torch.randn(6, 3).double(), torch.randn(6, 5).double()
    actual = prototype_matching_loss(student, teacher, y, n_way, at(temperature))
    expected = by_loops(student, teacher, y.numpy(), temperature)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("y", [[0, 0, 1, 2], [0, 0, 0, 0]])
def test_lonely_rows_dead_rows_and_missing_classes_have_finite_derivatives(y):
    student, teacher = torch.randn(4, 3), torch.randn(4, 5)
    student[0] = 0
    student.requires_grad_()
    value = prototype_matching_loss(student, teacher, torch.tensor(y), 3, torch.tensor(0.1))
    (slope,) = torch.autograd.grad(value.sum(), student, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), student)
    assert all(actual.isfinite().all() for actual in (value, slope, curvature))


def test_turning_and_stretching_a_space_changes_nothing():
    rows = answered(batch(9))
    student, teacher = student_answer(rows).embedding, rows.teacher_outputs[0].embedding
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    loss = [
        prototype_matching_loss(e, teacher, rows.y, 3, at(0.1))
        for e in (student, 3 * student @ turn)
    ]
    torch.testing.assert_close(loss[1], loss[0], rtol=1e-9, atol=1e-12)


def test_it_has_as_many_classes_as_the_student_has_logits():
    rows = answered(batch(9))
    student = student_answer(rows)
    actual = PrototypeMatching(0.2)(student, rows, context(rows, student))
    teacher = rows.teacher_outputs[0].embedding
    expected = prototype_matching_loss(student.embedding, teacher, rows.y, 3, at(0.2))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
