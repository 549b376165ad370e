import pytest
import torch
from torch.func import functional_call

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import detach_tree, with_prefix
from lightning_metakd.learners.maml import MAML
from lightning_metakd.losses.loss import batch_loss
from lightning_metakd.models.norm import make_episodic
from tests.quadratic import SIZE, bowl, on_quadratics
from tests.tiny import N_WAY, SmoothConv4, answered, episode, gate_and_temperature

LR, STEPS = 0.1, 5
START = torch.ones(SIZE, dtype=torch.float64)


@pytest.fixture
def net():
    return make_episodic(SmoothConv4().double(), "support")


@pytest.fixture
def support():
    return answered(episode().support)


def told_by(loss, support):
    return batch_loss(bind_loss(loss), dict(loss.named_parameters()), support, torch.arange(N_WAY))


def adapted(net, support, result, **settings):
    meta = with_prefix("student", dict(net.named_parameters()))
    return MAML(LR, STEPS, **settings).adapt(bind(net), meta, result, support, N_WAY)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("first_order", [False, True])
def test_on_a_quadratic_the_meta_gradient_is_the_closed_form(steps, first_order):
    task, judge = bowl(1), bowl(2)
    actual = on_quadratics(MAML(LR, steps, first_order=first_order), task, judge)
    there = task.after(START, LR, steps)
    expected = judge.slope(there)
    if not first_order:
        expected = task.shrink(LR, steps) @ expected
    torch.testing.assert_close(actual.there, there, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(actual.of["student.w"], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 5])
def test_on_a_quadratic_so_is_the_gradient_of_a_weight_of_the_teaching_loss(steps):
    task, judge = bowl(1), bowl(2)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    actual = on_quadratics(MAML(LR, steps), task, judge, weight)
    # d/dw (1 - lr w A)^K = -K lr A (1 - lr w A)^(K - 1)
    change = -steps * LR * task.curvature @ task.shrink(0.7 * LR, steps - 1)
    change = change @ (START - task.centre)
    expected = judge.slope(task.after(START, 0.7 * LR, steps)) @ change
    torch.testing.assert_close(actual.of["weight"], expected, rtol=1e-12, atol=0)


def by_hand(net, support, result, moves):
    """The loop that one would write with torch.autograd.grad, graph kept."""
    params = dict(net.named_parameters())
    trajectory = [params]
    for k in range(STEPS):
        output = functional_call(net, params, (support.x,))
        progress = torch.tensor(k / STEPS, dtype=torch.float64)
        loss = result(output, detach_tree(output), progress).mean()
        names = [name for name in params if moves(name)]
        grads = torch.autograd.grad(loss, [params[n] for n in names], create_graph=True)
        params = {**params, **{n: params[n] - LR * g for n, g in zip(names, grads, strict=True)}}
        trajectory.append(params)
    return trajectory


WAYS = {
    "all": lambda name: True,
    "head": lambda name: name.startswith("head."),
    "body": lambda name: not name.startswith("head."),
}


@pytest.mark.parametrize("adapts", WAYS)
@pytest.mark.parametrize("first_order", [False, True])
def test_the_trajectory_is_that_of_a_loop_by_hand(net, support, adapts, first_order):
    support_loss = told_by(gate_and_temperature(), support)
    actual = adapted(net, support, support_loss, adapts=adapts, first_order=first_order).trajectory
    expected = by_hand(net, support, support_loss, WAYS[adapts])
    for one, other in zip(actual, expected, strict=True):
        for name in other:
            torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("adapts", WAYS)
def test_only_what_adapts_moves(net, support, adapts):
    support_loss = told_by(gate_and_temperature(), support)
    start, *_, end = adapted(net, support, support_loss, adapts=adapts).trajectory
    for name in start:
        if not WAYS[adapts](name):
            assert torch.equal(end[name], start[name]), name
        elif not name.startswith("convs.") or name.endswith("weight"):
            # a bias in front of a batch norm has no gradient but rounding
            assert not torch.equal(end[name], start[name]), name


def test_computing_a_small_step_again_is_refused():
    with pytest.raises(ValueError, match="recompute=true saves nothing with adapts='head'"):
        MAML(adapts="head", recompute=True)


def test_an_unknown_part_to_adapt_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match="adapts='tail' is unknown; choose one of all, head"):
        MAML(adapts="tail")
