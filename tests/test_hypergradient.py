import pytest
import torch

from lightning_metakd.functional import bind, bind_loss, lesson_mean
from lightning_metakd.hypergradient import PILOTS, tangent, unrolled
from lightning_metakd.losses.coefficient import (
    Learned,
    LearnedPerClass,
    LearnedPerSample,
)
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CalibratedTargets, Targets, WeightedSum, lesson
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.models.norm import make_episodic
from tests.quadratic import Weights, bowl, no_rows
from tests.tiny import SmoothConv4, answered, batch, perturbed

STRATEGIES = {
    "one number": lambda: MatchGate(Learned()),
    "temperature": lambda: Hinton(Learned()),
    "per class": lambda: MatchGate(LearnedPerClass(20)),
    "per sample": lambda: MatchGate(LearnedPerSample(student_signals=False)),
    "per sample, student signals": lambda: MatchGate(LearnedPerSample()),
    "per-sample temperature": lambda: Hinton(LearnedPerSample(init=3.0)),
    "literal": lambda: LiteralMatchGate(LearnedPerSample()),
    "sum": lambda: WeightedSum(
        {"hard": Targets(), "gate": MatchGate(LearnedPerSample(), Hinton(Learned()))},
        {"hard": Learned(), "gate": LearnedPerClass(20)},
    ),
}
both = pytest.mark.parametrize("way", PILOTS.values(), ids=PILOTS)


def judging(net):
    """Six rows of which the network knows five, so that its logits have a best scale above 0."""
    rows = batch(6, (1, 8, 8))
    known = net(rows.x).logits.argmax(1)
    return rows._replace(y=torch.cat([(known[:1] + 1) % 3, known[1:]]))


def pilot(way, loss, net, quiz=None):
    """A pilot step of a convolutional network on nine rows, judged on six others."""
    torch.manual_seed(4)
    taught, judge = answered(batch(9, (1, 8, 8))), judging(net)
    forward, classes = bind(net), torch.tensor([13, 2, 7])
    told = lesson(bind_loss(loss), dict(loss.named_parameters()), taught, classes)
    asked = lesson(bind_loss(quiz or CalibratedTargets()), {}, judge, classes)
    return way(
        lambda theta: forward(theta, taught.x),
        told,
        lambda theta: lesson_mean(asked, forward(theta, judge.x)),
        dict(net.named_parameters()),
        0.1,
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_tangent_and_unrolled_are_the_same_gradient(name):
    loss = perturbed(STRATEGIES[name]().double())
    net = make_episodic(SmoothConv4().double(), "batch")
    pilots = [pilot(way, loss, net) for way in (tangent, unrolled)]
    strategy = list(loss.parameters())
    slopes = [
        torch.cat([g.flatten() for g in torch.autograd.grad(p.loss, strategy)]) for p in pilots
    ]
    assert slopes[1].norm() > 1e-8
    assert (slopes[0] - slopes[1]).norm() < 1e-9 * slopes[1].norm()
    for one, other in zip(*pilots, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@both
def test_the_quiz_reaches_the_strategy_and_nothing_else(way):
    loss, net = MatchGate(Learned()).double(), make_episodic(SmoothConv4().double(), "batch")
    found = pilot(way, loss, net)
    found.loss.backward()
    assert loss.gate.raw.grad.abs() > 0
    assert all(p.grad is None for p in net.parameters())
    assert not found.gain.requires_grad


@both
def test_the_gain_is_what_the_step_took_off_the_quiz(way):
    net, quiz = make_episodic(SmoothConv4().double(), "batch"), Targets()
    loss = MatchGate(Learned()).double()
    found = pilot(way, loss, net, quiz)
    torch.manual_seed(4)
    _, judge = answered(batch(9, (1, 8, 8))), judging(net)
    before = torch.nn.functional.cross_entropy(net(judge.x).logits, judge.y)
    torch.testing.assert_close(found.gain, before - found.loss.detach(), rtol=1e-9, atol=1e-12)


def quadratic(way, weight, lr, towards):
    task, w = bowl(1), torch.ones(4, dtype=torch.float64)
    return way(
        lambda theta: Weights()(theta, no_rows().x),
        task.lesson(weight),
        lambda theta: towards.loss(theta["w"]),
        {"w": w},
        lr,
    )


@both
def test_on_a_quadratic_it_is_the_closed_form(way):
    task, quiz, w = bowl(1), bowl(2), torch.ones(4, dtype=torch.float64)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = quadratic(way, weight, 0.3, quiz)
    moved = w - 0.3 * 0.7 * task.slope(w)
    (slope,) = torch.autograd.grad(found.loss, weight)
    torch.testing.assert_close(found.loss, quiz.loss(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, -0.3 * task.slope(w) @ quiz.slope(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.gain, quiz.loss(w) - quiz.loss(moved), rtol=1e-12, atol=0)


@both
def test_the_gain_is_positive_where_the_lesson_is_the_quiz_and_negative_where_it_is_its_opposite(
    way,
):
    task = bowl(1)
    weights = [torch.tensor(sign, dtype=torch.float64, requires_grad=True) for sign in (1.0, -1.0)]
    gains = [quadratic(way, weight, 0.1, task).gain for weight in weights]
    assert gains[0] > 0 > gains[1]
