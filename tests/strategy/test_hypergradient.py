from typing import NamedTuple

import pytest
import torch

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.inner_loop import inner_gradient, mean_loss
from lightning_metakd.losses.coefficient import Learned, LearnedPerClass
from lightning_metakd.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import (
    CalibratedCrossEntropy,
    CrossEntropy,
    WeightedSum,
    batch_loss,
)
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.losses.meta_weight_net import MetaWeightNet
from lightning_metakd.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.strategy.hypergradient import (
    HYPERGRADIENTS,
    PilotProblem,
    neumann,
    tangent,
    unrolled,
)
from lightning_metakd.types import BatchLoss
from tests.quadratic import Bowl, Weights, bowl, no_rows
from tests.tiny import SmoothConv4, answered, batch, perturbed

STRATEGIES = {
    "one number": lambda: MatchGate(Learned()),
    "temperature": lambda: Hinton(Learned()),
    "per class": lambda: MatchGate(LearnedPerClass(20)),
    "per sample": lambda: MatchGate(LearnedPerSample(student_signals=False)),
    "per sample, student signals": lambda: MatchGate(LearnedPerSample()),
    "per-sample temperature": lambda: Hinton(LearnedPerSample(init=3.0)),
    "by the loss": lambda: WeightedSum({"labels": CrossEntropy()}, {"labels": MetaWeightNet(5)}),
    "robust": lambda: GeneralisedCrossEntropy(Learned()),
    "symmetric": lambda: SymmetricCrossEntropy(Learned(), Learned()),
    "literal": lambda: LiteralMatchGate(LearnedPerSample()),
    "sum": lambda: WeightedSum(
        {"hard": CrossEntropy(), "gate": MatchGate(LearnedPerSample(), Hinton(Learned()))},
        {"hard": Learned(), "gate": LearnedPerClass(20)},
    ),
}
both = pytest.mark.parametrize("way", [tangent, unrolled], ids=["tangent", "unrolled"])
every = pytest.mark.parametrize(
    "way", [h.solve for h in HYPERGRADIENTS.values()], ids=HYPERGRADIENTS
)


def judging(net):
    """Six rows of which the network knows five, so that its logits have a best scale above 0."""
    rows = batch(6, (1, 8, 8))
    names = net(rows.x).logits.argmax(1)
    return rows._replace(y=torch.cat([(names[:1] + 1) % 3, names[1:]]))


def scene(loss, net, quiz=None):
    """(answer, teaching loss, quiz, theta): a convolutional network on nine rows, judged on six others."""
    torch.manual_seed(4)
    train, judge = answered(batch(9, (1, 8, 8))), judging(net)
    forward, classes = bind(net), torch.tensor([13, 2, 7])
    support_loss = batch_loss(bind_loss(loss), dict(loss.named_parameters()), train, classes)
    train_loss = batch_loss(bind_loss(quiz or CalibratedCrossEntropy()), {}, judge, classes)
    return (
        lambda theta: forward(theta, train.x),
        support_loss,
        lambda theta: mean_loss(train_loss, forward(theta, judge.x)),
        dict(net.named_parameters()),
    )


def pilot(way, loss, net, quiz=None):
    """One pilot step in that scene."""
    return way(PilotProblem(*scene(loss, net, quiz), 0.1))


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


@every
def test_the_quiz_reaches_the_strategy_and_nothing_else(way):
    loss, net = MatchGate(Learned()).double(), make_episodic(SmoothConv4().double(), "batch")
    actual = pilot(way, loss, net)
    actual.loss.backward()
    assert loss.gate.raw.grad.abs() > 0
    assert all(p.grad is None for p in net.parameters())
    assert not actual.gain.requires_grad


@both
def test_the_gain_is_what_the_step_took_off_the_quiz(way):
    net, quiz = make_episodic(SmoothConv4().double(), "batch"), CrossEntropy()
    loss = MatchGate(Learned()).double()
    actual = pilot(way, loss, net, quiz)
    torch.manual_seed(4)
    _, judge = answered(batch(9, (1, 8, 8))), judging(net)
    before = torch.nn.functional.cross_entropy(net(judge.x).logits, judge.y)
    torch.testing.assert_close(actual.gain, before - actual.loss.detach(), rtol=1e-9, atol=1e-12)


def quadratic(way, weight, lr, towards, w=None, steps=1):
    start = torch.ones(4, dtype=torch.float64) if w is None else w
    problem = PilotProblem(
        lambda theta: Weights()(theta, no_rows().x),
        bowl(1).batch_loss(weight),
        lambda theta: towards.loss(theta["w"]),
        {"w": start},
        lr,
        steps,
    )
    return way(problem)


@both
def test_on_a_quadratic_it_is_the_closed_form(way):
    task, quiz, w = bowl(1), bowl(2), torch.ones(4, dtype=torch.float64)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    actual = quadratic(way, weight, 0.3, quiz)
    moved = w - 0.3 * 0.7 * task.slope(w)
    (slope,) = torch.autograd.grad(actual.loss, weight)
    torch.testing.assert_close(actual.loss, quiz.loss(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, -0.3 * task.slope(w) @ quiz.slope(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(actual.gain, quiz.loss(w) - quiz.loss(moved), rtol=1e-12, atol=0)


@both
def test_the_gain_is_positive_where_the_teaching_loss_is_the_quiz_and_negative_where_it_is_its_opposite(
    way,
):
    task = bowl(1)
    weights = [torch.tensor(sign, dtype=torch.float64, requires_grad=True) for sign in (1.0, -1.0)]
    gains = [quadratic(way, weight, 0.1, task).gain for weight in weights]
    assert gains[0] > 0 > gains[1]


# --- several steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_unrolled_steps_on_a_quadratic_are_the_closed_form(steps):
    task, quiz, w = bowl(1), bowl(2), torch.ones(4, dtype=torch.float64)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    actual = quadratic(unrolled, weight, 0.3, quiz, steps=steps)
    moved = task.after(w, 0.3 * 0.7, steps)
    # d moved / d weight = -lr steps A shrink^(steps - 1) (w - centre)
    turned = task.curvature @ task.shrink(0.3 * 0.7, steps - 1) @ (w - task.centre)
    (slope,) = torch.autograd.grad(actual.loss, weight)
    torch.testing.assert_close(actual.loss, quiz.loss(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, -0.3 * steps * turned @ quiz.slope(moved), rtol=1e-11, atol=0)


class Shifted(NamedTuple):
    """1/2 |w - a|_A^2 + phi . w: a strategy that moves the minimum, to a - A^-1 phi."""

    task: Bowl

    def batch_loss(self, phi):
        def teach(strategy, student, batch, context):
            w = student.logits[0]
            return (self.task.loss(w) + strategy["phi"] @ w)[None]

        return BatchLoss(teach, {"phi": phi}, no_rows(), no_rows().y)

    def minimum(self, phi):
        return self.task.centre - torch.linalg.solve(self.task.curvature, phi)


def at_the_minimum(way, steps, lr=0.1):
    """The gradient of a quiz in phi, from the minimum of the teaching loss."""
    shifted, quiz = Shifted(bowl(1)), bowl(2)
    phi = torch.linspace(-1, 1, 4, dtype=torch.float64).requires_grad_()
    problem = PilotProblem(
        lambda theta: Weights()(theta, no_rows().x),
        shifted.batch_loss(phi),
        lambda theta: quiz.loss(theta["w"]),
        {"w": shifted.minimum(phi).detach()},
        lr,
        steps,
    )
    return torch.autograd.grad(way(problem).loss, phi)[0]


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_at_a_minimum_terms_of_the_series_are_unrolled_steps(steps):
    torch.testing.assert_close(
        at_the_minimum(neumann, steps), at_the_minimum(unrolled, steps), rtol=1e-10, atol=1e-13
    )


def test_many_terms_are_the_implicit_gradient():
    task, quiz = Shifted(bowl(1)), bowl(2)
    phi = torch.linspace(-1, 1, 4, dtype=torch.float64)
    # Q(w*(phi)), dw*/dphi = -A^-1
    exact = -torch.linalg.solve(task.task.curvature, quiz.slope(task.minimum(phi)))
    torch.testing.assert_close(at_the_minimum(neumann, 2000), exact, rtol=1e-6, atol=1e-9)


def of_unrolled(loss, net, steps):
    """The quiz after some steps, as a function of the strategy that `loss` holds when it is called."""
    answer, result, quiz, theta = scene(loss, net, CrossEntropy())

    def value():
        at = theta
        for _ in range(steps):
            slopes = inner_gradient(answer, at, result, torch.tensor(1.0).double())
            at = {name: (p - 0.1 * slopes[name]).detach() for name, p in at.items()}
        return quiz(at).item()

    return value


def of_neumann(loss, net, steps):
    """-lr <g(strategy), v_0 + .. + v_(K-1)>, v_(j+1) = v_j - lr (dg / dtheta)^T v_j at a fixed strategy."""
    answer, result, quiz, theta = scene(loss, net, CrossEntropy())
    leaves = list(theta.values())

    def gradient():
        return list(inner_gradient(answer, theta, result, torch.tensor(1.0).double()).values())

    v = torch.autograd.grad(quiz(theta), leaves)
    total = v
    for _ in range(steps - 1):
        inner = sum((g * p).sum() for g, p in zip(gradient(), v, strict=True))
        curved = torch.autograd.grad(inner, leaves)
        v = [p - 0.1 * c for p, c in zip(v, curved, strict=True)]
        total = [a + b for a, b in zip(total, v, strict=True)]
    return lambda: -0.1 * sum((g * p).sum() for g, p in zip(gradient(), total, strict=True)).item()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("way", "definition"), [(unrolled, of_unrolled), (neumann, of_neumann)])
def test_several_steps_agree_with_differences_of_their_own_definition(way, definition, steps):
    """A per-sample gate that looks at the student, and a learned temperature, through a network."""
    loss = perturbed(MatchGate(LearnedPerSample(), Hinton(Learned())).double())
    net = make_episodic(SmoothConv4().double(), "batch")
    strategy = list(loss.parameters())
    slopes = torch.autograd.grad(
        way(PilotProblem(*scene(loss, net, CrossEntropy()), 0.1, steps)).loss, strategy
    )
    value, towards = definition(loss, net, steps), [torch.randn_like(p) for p in strategy]

    def moved(by):
        with torch.no_grad():
            for p, t in zip(strategy, towards, strict=True):
                p.add_(by * t)
        return value()

    difference = (moved(1e-4) - moved(-2e-4)) / 2e-4
    along = sum((s * t).sum() for s, t in zip(slopes, towards, strict=True)).item()
    assert along == pytest.approx(difference, rel=1e-6)
