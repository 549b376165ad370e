import weakref

import pytest
import torch
from torch.nn.functional import dropout

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.checkpointing import recomputed
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.maml import MAML
from lightning_metakd.losses.loss import batch_loss
from lightning_metakd.models.norm import make_episodic
from tests.tiny import N_WAY, SmoothConv4, answered, episode, gate_and_temperature


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("adapts", ["all", "body"])
def test_steps_computed_again_give_the_same_gradients(adapts, first_order):
    torch.manual_seed(2)
    net, loss = make_episodic(SmoothConv4().double(), "support"), gate_and_temperature()
    task = episode()
    support = answered(task.support)
    leaves = [*net.parameters(), *loss.parameters()]
    slopes = []
    for recompute in (False, True):
        learner = MAML(0.1, 4, first_order=first_order, adapts=adapts, recompute=recompute)
        meta = with_prefix("student", dict(net.named_parameters()))
        support_loss = batch_loss(
            bind_loss(loss), dict(loss.named_parameters()), support, torch.arange(N_WAY)
        )
        adapted = learner.adapt(bind(net), meta, support_loss, support, N_WAY)
        requested = adapted.predict(task.query.x).logits
        value = torch.nn.functional.cross_entropy(requested, task.query.y)
        slopes.append(torch.autograd.grad(value, leaves))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_without_a_graph_it_is_the_function():
    at = {"a": torch.ones(2), "b": torch.zeros(3)}
    with torch.no_grad():
        actual = recomputed(lambda p: {n: v + 1 for n, v in p.items()}, at, [])
    assert list(actual) == ["a", "b"]
    assert torch.equal(actual["a"], torch.full((2,), 2.0))


def test_nothing_but_the_arguments_lives_until_backward():
    middles = []

    def step(params):
        middle = params["w"].exp()
        middles.append(weakref.ref(middle))
        return {"w": middle.sin()}

    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    actual = recomputed(step, {"w": w}, [])
    assert middles[0]() is None
    (slope,) = torch.autograd.grad(actual["w"].sum(), w)
    expected = (w.exp().cos() * w.exp()).detach()
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=0)
    assert len(middles) == 2


def test_what_was_dropped_is_dropped_again():
    w = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    actual = recomputed(lambda p: {"w": dropout(p["w"], 0.5)}, {"w": w}, [])["w"]
    torch.rand(7)  # others draw in between
    state = torch.get_rng_state()
    (slope,) = torch.autograd.grad(actual.sum(), w)
    assert torch.equal(slope, actual.detach())
    assert torch.equal(torch.get_rng_state(), state)
