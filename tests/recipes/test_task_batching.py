import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm as bn

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import detach, with_prefix
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy
from lightning_metakd.models import norm
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.norm_contexts import fused_norms
from lightning_metakd.models.resnet import ResNet
from lightning_metakd.models.resnet12 import ResNet12
from lightning_metakd.models.wide_resnet import WideResNet
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.recipes.execution import Execution
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.task_batching import mean_over_tasks
from lightning_metakd.strategy.hypergradient import HYPERGRADIENTS
from lightning_metakd.strategy.quiz import split_query
from lightning_metakd.types import QuizEpisodes
from tests.learners.test_learners import LEARNERS
from tests.recipes.runs import episodes, meta_kd
from tests.tiny import N_WAY, SmoothConv4, answered, episode, gate_and_temperature, trainer

TOGETHER = [name for name in LEARNERS if LEARNERS[name]().vmap_compatible]


class Case:
    """An objective with leaves, and three tasks with teachers."""

    def __init__(self, name, inner_steps=None, form="support"):
        learner, loss = LEARNERS[name]().double(), gate_and_temperature()
        if inner_steps is not None:
            learner.inner_steps = inner_steps  # of those that take any
            learner.on_outer_step(0.0)
        net = make_episodic(SmoothConv4(N_WAY if learner.needs_head else 0).double(), form)
        self.net = net
        learner.init_student_state(net)
        self.objective = EpisodeObjective(
            learner, bind(net), bind_loss(loss), CalibratedCrossEntropy(), pilot_lr=0.1
        )
        theta = {
            **with_prefix("student", dict(net.named_parameters())),
            **with_prefix("learner", dict(learner.named_parameters())),
        }
        self.theta = {n: p.detach().double().requires_grad_() for n, p in theta.items()}
        self.strategy = {n: p.detach().requires_grad_() for n, p in loss.named_parameters()}
        self.tasks = []
        for i in range(3):
            task = episode(i)
            self.tasks.append(
                task._replace(support=answered(task.support), query=answered(task.query))
            )

    def student(self, *at):
        return (self.objective.student_loss(*at),)

    def slopes(self, losses, leaves):
        return torch.autograd.grad(losses[0], list(leaves.values()), allow_unused=True)


def by_hand(loss, theta, strategy, tasks):
    """One graph over all tasks."""
    actual = zip(*[loss(theta, strategy, task) for task in tasks], strict=True)
    return tuple(torch.stack(values).mean() for values in actual)


def check(actual, expected):
    assert [g is None for g in actual] == [g is None for g in expected]
    one, other = (
        torch.cat([g.flatten() for g in slopes if g is not None]) for slopes in (actual, expected)
    )
    assert (one - other).norm() < 1e-8 * other.norm()  # Adam divides rounding by 1e-8


@pytest.mark.thorough
@pytest.mark.parametrize("at_once", [1, 2])  # of three: two together, then one
@pytest.mark.parametrize("name", TOGETHER)
def test_all_ways_give_the_same_gradients(name, at_once):
    case = Case(name)
    quiet = detach(case.strategy)
    expected = by_hand(case.student, case.theta, quiet, case.tasks)
    actual = mean_over_tasks(case.student, case.theta, quiet, case.tasks, at_once)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-10, atol=0)
    check(case.slopes(actual, case.theta), case.slopes(expected, case.theta))

    adapts = case.objective.learner.uses_inner_loss
    judging = case.tasks if adapts else [split_query(task) for task in case.tasks]
    at = detach(case.theta), case.strategy, judging
    expected = by_hand(case.objective.strategy_loss, *at)
    actual = mean_over_tasks(case.objective.strategy_loss, *at, at_once)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-8, atol=1e-12)
    check(case.slopes(actual, case.strategy), case.slopes(expected, case.strategy))


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["support", "batch"])
@pytest.mark.parametrize("name", LEARNERS)
def test_norms_in_one_kernel_give_the_same_gradients(name, form, monkeypatch):
    case, in_one_kernel = Case(name, form=form), []
    monkeypatch.setattr(norm, "batch_norm", lambda x, *how: in_one_kernel.append(x) or bn(x, *how))
    at = case.theta, case.strategy, case.tasks
    expected = mean_over_tasks(case.student, *at)
    assert not in_one_kernel
    with fused_norms(case.net):
        actual = mean_over_tasks(case.student, *at)
    assert len(in_one_kernel) > 0 or form == "support"  # whose statistics are recorded, then fixed
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-10, atol=0)
    leaves = case.theta | case.strategy
    check(case.slopes(actual, leaves), case.slopes(expected, leaves))
    if case.objective.learner.uses_inner_loss:
        at = detach(case.theta), case.strategy, case.tasks
        expected = mean_over_tasks(case.objective.strategy_loss, *at)
        with fused_norms(case.net):
            actual = mean_over_tasks(case.objective.strategy_loss, *at)
        check(case.slopes(actual, case.strategy), case.slopes(expected, case.strategy))


@pytest.mark.parametrize(
    ("learner", "channels_last"),
    [
        (MAML(), False),
        (MAML(recompute=True), False),
        (MAML(first_order=True), True),
        (MAML(adapts="head"), True),
        (ProtoNet(), True),
    ],
)
def test_weights_lie_as_suits_their_derivatives(learner, channels_last):
    recipe = meta_kd(learner, optimisation=Optimisation(ema_decay=0.9))
    weights = [
        m.weight for net in recipe.students() for m in net.modules() if isinstance(m, nn.Conv2d)
    ]
    wide = [w for w in weights if w.shape[1] > 1]  # of one channel, both layouts are the same
    assert len(wide) > 0
    assert all(w.is_contiguous() != channels_last for w in wide)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in TOGETHER])
def test_a_learner_with_a_solver_runs_task_by_task(name):
    case = Case(name)
    expected = by_hand(case.student, case.theta, case.strategy, case.tasks)
    actual = mean_over_tasks(case.student, case.theta, case.strategy, case.tasks)
    check(case.slopes(actual, case.theta), case.slopes(expected, case.theta))
    with pytest.raises(
        ValueError,
        match=f"tasks_at_once=2 runs tasks together, and {type(case.objective.learner).__name__}",
    ):
        meta_kd(LEARNERS[name](), tasks_at_once=2)


def test_the_gradient_scales_and_adds_up_as_any_other():
    case = Case("FOMAML")
    at = case.theta, detach(case.strategy), case.tasks
    (loss,), (again,) = (mean_over_tasks(case.student, *at) for _ in range(2))
    whole = case.slopes((2 * loss + again,), case.theta)
    check(whole, [3 * g for g in case.slopes(mean_over_tasks(case.student, *at), case.theta)])


def test_a_recipe_trains_the_same_in_either_way():
    ends = []
    for inputs in (1, 2):
        torch.manual_seed(1)
        recipe = meta_kd(tasks_at_once=inputs)
        trainer(max_steps=1).fit(recipe, datamodule=episodes())
        ends.append(dict(recipe.named_parameters()))
    for name, p in ends[0].items():  # single precision, through two inner steps
        torch.testing.assert_close(p, ends[1][name], rtol=1e-4, atol=1e-5)


def test_on_a_cpu_tasks_run_one_by_one_unless_told_otherwise():
    tasks = [episode(i) for i in range(3)]
    assert Execution().tasks_per_call(tasks, torch.device("cpu"), True) == 1
    assert Execution(tasks_at_once=2).tasks_per_call(tasks, torch.device("cpu"), True) == 2


NETWORKS = {
    "Conv4": lambda: Conv4(8, N_WAY, image_size=16),
    "Conv4, average": lambda: Conv4(8, N_WAY, pooling="average", image_size=16),
    "ResNet": lambda: ResNet(8, n_classes=N_WAY),
    "ResNet12": lambda: ResNet12(widths=(4, 4, 8, 8), n_classes=N_WAY),
    "WideResNet": lambda: WideResNet(10, 1, n_classes=N_WAY),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_together_every_network_has_the_second_derivatives_that_it_has_alone(name):
    torch.manual_seed(4)
    net = make_episodic(NETWORKS[name]().double(), "support")
    objective = EpisodeObjective(MAML(0.05, 2), bind(net), bind_loss(CrossEntropy()), pilot_lr=0.1)
    theta = with_prefix("student", dict(net.named_parameters()))
    tasks = [episode(i, (3, 16, 16)) for i in range(2)]

    def loss(*at):
        return (objective.student_loss(*at),)

    alone, together = (
        torch.autograd.grad(mean_over_tasks(loss, theta, {}, tasks, n)[0], list(theta.values()))
        for n in (1, 2)
    )
    check(together, alone)


class Dropping(SmoothConv4):
    """One that drops a part of its embedding."""

    def body(self, x):
        embedding, features = super().body(x)
        return torch.nn.functional.dropout(embedding, 0.5, self.training), features


@pytest.mark.parametrize(
    "settings", [{"tasks_at_once": 2}, {"learner": MAML(0.05, 2, recompute=True)}]
)
def test_dropout_may_be_drawn_in_every_way(settings):
    recipe = meta_kd(student=Dropping(), **settings)
    trainer(max_steps=1).fit(recipe, datamodule=episodes())
    assert recipe.trainer.global_step == 1


def test_the_graph_of_a_task_is_gone_before_the_next_begins():
    alive, w = [], torch.ones(3, requires_grad=True)

    def loss(theta, strategy, task):
        assert all(middle() is None for middle in alive)
        middle = theta["w"].exp()
        alive.append(weakref.ref(middle))
        return (middle.sin().sum(),)

    mean_over_tasks(loss, {"w": w}, {}, [episode(i) for i in range(3)])
    assert len(alive) == 3


def test_a_loss_without_a_graph_has_no_gradient():
    w = torch.ones(3, requires_grad=True)
    constant = lambda theta, strategy, task: (torch.ones(()),)  # noqa: E731
    (actual,) = mean_over_tasks(constant, {"w": w}, {}, [episode()])
    assert actual == 1
    assert torch.autograd.grad(actual, w, allow_unused=True) == (None,)


def test_no_task_at_once_is_refused():
    with pytest.raises(ValueError, match="tasks_at_once=0 must be 1 or more"):
        meta_kd(tasks_at_once=0)


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["tangent", "unrolled"])
def test_a_quiz_of_other_classes_is_what_a_step_of_the_teaching_loss_leads_to(way):
    case = Case("ProtoNet")
    train, quiz, _ = case.tasks
    objective = replace(case.objective, hypergradient=HYPERGRADIENTS[way])
    plain = replace(objective, teach=bind_loss(CalibratedCrossEntropy()))

    def after_a_step(strategy):
        loss = objective.student_loss(case.theta, strategy, train)
        slopes = torch.autograd.grad(loss, list(case.theta.values()), allow_unused=True)
        moved = {
            name: p if slope is None else p - 0.1 * slope
            for (name, p), slope in zip(case.theta.items(), slopes, strict=True)
        }
        return plain.student_loss(detach(moved), {}, quiz).item()

    loss, gain = objective.strategy_loss(case.theta, case.strategy, QuizEpisodes(train, quiz))
    actual = case.slopes((loss,), case.strategy)
    assert loss.item() == pytest.approx(after_a_step(case.strategy), rel=1e-10)
    before = plain.student_loss(case.theta, {}, quiz).item()
    assert gain.item() == pytest.approx(before - loss.item(), rel=1e-8)
    for name, slope in zip(case.strategy, actual, strict=True):
        at = case.strategy[name].detach()
        for k in range(at.numel()):
            nudge = torch.zeros_like(at)
            nudge.view(-1)[k] = 1e-4
            ends = [after_a_step({**case.strategy, name: at + s * nudge}) for s in (1, -1)]
            difference = (ends[0] - ends[1]) / 2e-4
            assert slope.view(-1)[k].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)
