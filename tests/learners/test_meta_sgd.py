import torch

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.meta_sgd import MetaSGD
from tests.quadratic import SIZE, Weights, bowl, on_quadratics

START = torch.ones(SIZE, dtype=torch.float64)


def test_after_one_step_on_a_quadratic_start_and_rates_have_the_gradients_of_the_closed_form():
    task, judge = bowl(1), bowl(2)
    actual = on_quadratics(MetaSGD(0.1, 1), task, judge)
    slope = judge.slope(START - 0.1 * task.slope(START))
    of_start = slope - task.curvature @ (0.1 * slope)
    torch.testing.assert_close(
        actual.of["student.w"], of_start, rtol=1e-6, atol=1e-9
    )  # float32 rate
    of_rates = -task.slope(START) * slope
    torch.testing.assert_close(actual.of["learner.rates.w"], of_rates, rtol=1e-6, atol=1e-9)


def test_with_equal_rates_it_is_maml():
    task, judge = bowl(1), bowl(2)
    ours, maml = (on_quadratics(kind(0.125, 3), task, judge) for kind in (MetaSGD, MAML))
    torch.testing.assert_close(ours.loss, maml.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.of["student.w"], maml.of["student.w"], rtol=1e-12, atol=1e-14)


def test_every_weight_has_a_rate_of_its_own():
    learner = MetaSGD(0.1)
    learner.init_student_state(Weights())
    assert {name: p.shape for name, p in learner.named_parameters()} == {"rates.w": (SIZE,)}
