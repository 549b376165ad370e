import pytest
import torch

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.reptile import Reptile
from tests.quadratic import SIZE, bowl, on_quadratics

LR = 0.1
START = torch.ones(SIZE, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_on_a_quadratic_the_gradient_is_the_way_back_from_where_adapting_led(steps):
    task = bowl(1)
    actual = on_quadratics(Reptile(LR, steps), task, bowl(2))
    there = task.after(START, LR, steps)
    torch.testing.assert_close(actual.there, there, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(actual.of["student.w"], START - there, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(actual.loss, (START - there).square().sum() / 2, rtol=1e-12, atol=0)


def test_to_second_order_in_the_rate_the_three_gradients_differ_as_theory_says():
    """Nichol 2018, section 5.1, with one bowl as both losses: for k steps in all, with g and H at the start,

    MAML = g - 2 (k-1) a H g, first-order MAML = g - (k-1) a H g, Reptile / a = k g - k (k-1) / 2 a H g.
    """
    task, k = bowl(1), 4
    g, h = task.slope(START), task.curvature
    errors = []
    for lr in (1e-3, 1e-4):
        slopes = [
            on_quadratics(learner, task, task).of["student.w"]
            for learner in (MAML(lr, k - 1), MAML(lr, k - 1, first_order=True), Reptile(lr, k))
        ]
        expected = [g - 2 * (k - 1) * lr * h @ g, g - (k - 1) * lr * h @ g]
        expected.append(lr * (k * g - k * (k - 1) / 2 * lr * h @ g))
        errors.append([(s - e).norm() / e.norm() for s, e in zip(slopes, expected, strict=True)])
    for coarse, fine in zip(*errors, strict=True):
        assert 80 < coarse / fine < 120  # what is left falls with the square of the rate


def test_its_adam_is_that_of_torch_without_momentum():
    task, steps = bowl(1), 5
    actual = on_quadratics(Reptile(LR, steps, inner_optimiser="adam"), task, bowl(2))
    w = START.clone().requires_grad_()
    optimiser = torch.optim.Adam([w], LR, betas=(0.0, 0.999))
    for _ in range(steps):
        optimiser.zero_grad()
        task.loss(w).backward()
        optimiser.step()
    torch.testing.assert_close(actual.there, w.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(actual.of["student.w"], START - w.detach(), rtol=1e-9, atol=1e-12)


def test_an_unknown_inner_optimiser_is_refused(as_users_run_it):
    with pytest.raises(
        ValueError, match="inner_optimiser='lion' is unknown; choose one of sgd, adam"
    ):
        Reptile(inner_optimiser="lion")
