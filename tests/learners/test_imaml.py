import pytest
import torch

from lightning_metakd.learners.imaml import IMAML
from tests.quadratic import SIZE, bowl, on_quadratics

START = torch.ones(SIZE, dtype=torch.float64)
PULL = 0.5


def arrived(**settings):
    """One that takes as many steps as it needs; four products solve a system of four unknowns."""
    return IMAML(0.2, 300, pull=PULL, **{"solver_steps": SIZE, **settings})


def test_on_a_quadratic_the_meta_gradient_is_the_closed_form():
    task, judge = bowl(1), bowl(2)
    actual = on_quadratics(arrived(), task, judge)
    system = task.curvature + PULL * torch.eye(SIZE).double()
    there = torch.linalg.solve(system, task.curvature @ task.centre + PULL * START)
    expected = PULL * torch.linalg.solve(system, judge.slope(there))
    torch.testing.assert_close(actual.there, there, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(actual.of["student.w"], expected, rtol=1e-10, atol=1e-12)


def test_on_a_quadratic_so_is_the_gradient_of_a_weight_of_the_teaching_loss():
    task, judge = bowl(1), bowl(2)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    actual = on_quadratics(arrived(), task, judge, weight)
    system = 0.7 * task.curvature + PULL * torch.eye(SIZE).double()
    there = torch.linalg.solve(system, 0.7 * task.curvature @ task.centre + PULL * START)
    expected = -judge.slope(there) @ torch.linalg.solve(system, task.slope(there))
    torch.testing.assert_close(actual.of["weight"], expected, rtol=1e-10, atol=0)


def test_fewer_products_give_a_coarser_gradient():
    task, judge = bowl(1), bowl(2)
    exact = on_quadratics(arrived(), task, judge).of["student.w"]
    errors = [
        (on_quadratics(arrived(solver_steps=n), task, judge).of["student.w"] - exact).norm()
        for n in (1, 2, 3, 4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3


def test_a_rate_that_leads_away_is_refused():
    with pytest.raises(ValueError, match=r"inner_lr=1\.0 times pull=2\.0 is 2 and must be below 2"):
        IMAML(1.0, pull=2.0)


def test_a_start_that_does_not_pull_is_refused():
    with pytest.raises(ValueError, match=r"pull=0\.0 must be positive and finite, for instance 2"):
        IMAML(pull=0.0)
