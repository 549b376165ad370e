"""The learned update rule beside torch's own cell, the paper's formula and differences of its outer loss."""

import math

import pytest
import torch
from torch import nn

from lightning_metakd.learners.lstm_optimizer import LSTMOptimizer, lstm_cell, readable
from tests.quadratic import SIZE, Weights, bowl, no_rows, on_quadratics

TASK, JUDGE = bowl(1), bowl(2)


def rule(**how):
    torch.manual_seed(3)
    return LSTMOptimizer(**({"inner_steps": 4, "units": 3, "recompute": False} | how)).double()


def test_the_cell_is_that_of_torch():
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 5).double()
    x, h, c = (torch.randn(7, n).double() for n in (2, 5, 5))
    weights = dict(cell.named_parameters())
    torch.testing.assert_close(lstm_cell(x, h, c, weights), cell(x, (h, c)), rtol=1e-12, atol=0)


def test_gradients_are_read_as_the_paper_says():
    edge = math.exp(-10)
    g = torch.tensor([1.0, -math.exp(-5), edge / 4, -edge / 2, 0.0], dtype=torch.float64)
    expected = [[0.0, 1.0], [-0.5, -1.0], [-1.0, 0.25], [-1.0, -0.5], [-1.0, 0.0]]
    torch.testing.assert_close(readable(g), torch.tensor(expected).double(), rtol=1e-12, atol=1e-15)


def difference(learner, name, index, size=1e-5):
    """Central difference of the outer loss in one weight of the rule."""
    weight = learner.get_parameter(name)
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.view(-1)[index] += sign * size
        losses.append(on_quadratics(learner, TASK, JUDGE).loss)
        with torch.no_grad():
            weight.view(-1)[index] -= sign * size
    return (losses[0] - losses[1]) / (2 * size)


@pytest.mark.parametrize("recompute", [False, True])
def test_to_second_order_its_meta_gradient_is_that_of_differences(recompute):
    learner = rule(first_order=False, recompute=recompute)
    slopes = on_quadratics(learner, TASK, JUDGE).of
    for name in ("cells.0.weight_ih", "cells.1.weight_hh", "write.weight"):
        for index in (0, 4 % learner.get_parameter(name).numel()):
            actual = slopes[f"learner.{name}"].view(-1)[index]
            expected = difference(learner, name, index)
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


class Replayed(LSTMOptimizer):
    """Reads gradients that were written down, whatever the student is."""

    def step(self, forward, meta, at, batch_loss, x, progress):
        recorded = self.recorded[round(float(progress) * self.inner_steps)]

        def constant(params, x):
            return forward({"w": recorded}, x)

        constant_at = at | {"student.w": recorded}
        after = super().step(forward, meta, constant_at, batch_loss, x, progress)
        return after | {"student.w": after["student.w"] - recorded + at["student.w"]}


def test_to_first_order_the_gradients_it_reads_are_constants():
    learner, replayed = rule(), Replayed(inner_steps=4, units=3, recompute=False).double()
    replayed.load_state_dict(learner.state_dict())
    net = Weights()
    meta = {"student.w": net.w, **dict(learner.named_parameters(prefix="learner"))}
    adapted = learner.adapt(net, meta, TASK.batch_loss(), no_rows(), 1)
    replayed.recorded = [point["w"].detach() for point in adapted.trajectory]
    actual = on_quadratics(learner, TASK, JUDGE)
    for name in ("cells.0.weight_ih", "write.weight"):
        expected = difference(replayed, name, 1)
        torch.testing.assert_close(
            actual.of[f"learner.{name}"].view(-1)[1], expected, rtol=1e-6, atol=1e-9
        )
    there = actual.there
    torch.testing.assert_close(actual.of["student.w"], JUDGE.slope(there), rtol=1e-10, atol=0)


def test_recomputed_steps_have_the_same_gradient():
    kept, again = (on_quadratics(rule(recompute=how), TASK, JUDGE) for how in (False, True))
    assert kept.loss == again.loss
    for name, slope in kept.of.items():
        torch.testing.assert_close(again.of[name], slope, rtol=1e-12, atol=1e-15)


def test_an_unroll_of_one_step_forgets_where_the_state_came_from():
    whole, cut = (on_quadratics(rule(unroll=n), TASK, JUDGE) for n in (4, 1))
    assert whole.loss == cut.loss
    assert not torch.allclose(
        whole.of["learner.cells.1.weight_hh"], cut.of["learner.cells.1.weight_hh"]
    )
    complete = on_quadratics(rule(), TASK, JUDGE)
    torch.testing.assert_close(whole.of, complete.of, rtol=0, atol=0)


@pytest.mark.thorough
def test_it_learns_to_descend_quadratics_it_never_saw():
    learner = rule(inner_steps=10, units=8)
    descent = torch.optim.Adam(learner.parameters(), 0.02)
    for k in range(150):
        task = bowl(k)
        slopes = on_quadratics(learner, task, task).of
        for name, p in learner.named_parameters():
            p.grad = slopes[f"learner.{name}"]
        descent.step()
    before = torch.ones(SIZE).double()
    unseen = [bowl(seed) for seed in range(1000, 1020)]
    after = sum(on_quadratics(learner, task, task).loss for task in unseen)
    assert after < 0.5 * sum(task.loss(before) for task in unseen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "inner_steps=0 must be 1 or more"),
        ({"scale": 0.0}, r"scale=0\.0 must be positive"),
        ({"units": 0}, "units=0 must be 1 or more"),
        ({"unroll": 0}, "unroll=0 must be 1 or more"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LSTMOptimizer(**settings)
