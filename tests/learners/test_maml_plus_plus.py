import pytest
import torch

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus, step_weights
from tests.quadratic import SIZE, bowl, on_quadratics

START = torch.ones(SIZE, dtype=torch.float64)


def late(*args, **settings):
    """One whose training is so far that the last step alone counts."""
    learner = MAMLPlusPlus(*args, **settings)
    learner.on_outer_step(1.0)
    return learner


def test_with_equal_rates_and_the_last_loss_alone_it_is_maml():
    task, judge = bowl(1), bowl(2)
    ours, maml = (on_quadratics(kind(0.125, 3), task, judge) for kind in (late, MAML))
    torch.testing.assert_close(ours.loss, maml.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.of["student.w"], maml.of["student.w"], rtol=1e-12, atol=1e-14)


def test_the_rate_of_each_step_has_the_gradient_of_the_closed_form():
    task, judge, lr = bowl(1), bowl(2), 0.125
    actual = on_quadratics(late(lr, 2), task, judge).of["learner.rates.w"]
    first, slope = task.after(START, lr, 1), judge.slope(task.after(START, lr, 2))
    expected = torch.stack(
        [-(task.shrink(lr, 1) @ task.slope(START)) @ slope, -task.slope(first) @ slope]
    )
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("progress", "weights"),
    [
        (0.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.1, [1 / 6, 1 / 6, 2 / 3]),
        (0.2, [0.0, 0.0, 1.0]),
        (0.9, [0.0, 0.0, 1.0]),
    ],
)
def test_it_is_asked_after_every_step_and_ever_more_after_the_last(progress, weights):
    task, judge, learner = bowl(1), bowl(2), MAMLPlusPlus(0.125, 3, multi_step_until=0.2)
    learner.on_outer_step(progress)
    actual = on_quadratics(learner, task, judge)
    losses = torch.stack([judge.loss(task.after(START, 0.125, k)) for k in (1, 2, 3)])
    expected = losses @ torch.tensor(weights).double()
    torch.testing.assert_close(actual.loss, expected, rtol=1e-6, atol=0)  # float32 weights


def test_in_evaluation_it_is_asked_at_the_end_and_goes_on_at_the_last_rate():
    task, judge = bowl(1), bowl(2)
    learner = MAMLPlusPlus(0.125, 2, test_steps=4).eval()
    actual = on_quadratics(learner, task, judge)
    torch.testing.assert_close(actual.there, task.after(START, 0.125, 4), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(actual.loss, judge.loss(actual.there), rtol=1e-12, atol=0)


@pytest.mark.parametrize("done", [0.0, 0.3, 1.0])
def test_the_weights_of_the_steps_sum_to_one(done):
    assert step_weights(5, done).sum() == pytest.approx(1.0)
    assert (step_weights(5, done) >= 0).all()


def test_a_part_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"multi_step_until=1\.5 must be at least 0 and at most 1"):
        MAMLPlusPlus(multi_step_until=1.5)
