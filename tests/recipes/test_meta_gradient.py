"""Every gradient of MetaKD's own outer update against central differences of its definition, in float64.

The gradient is read off what one step of SGD did to the leaves, so the whole way is tested: teachers asked,
adaptation, one scalar, `manual_backward`, clip, step. The definition is that of `definition.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch.func import grad, vjp
from torch.utils._pytree import tree_map

from lightning_metakd.functional import inner_loop
from lightning_metakd.functional.params import detach, detach_tree, with_prefix
from lightning_metakd.learners.imaml import IMAML
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.learners.ridge import Ridge
from lightning_metakd.losses import hinton
from lightning_metakd.recipes import episode_objective, meta_step
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from tests.recipes.definition import (
    Metric,
    Params,
    Procedure,
    Task,
    by_angle,
    by_logistic_regression,
    by_means,
    by_ridge,
    task,
)
from tests.recipes.runs import grouped
from tests.tiny import (
    N_WAY,
    Fixed,
    SmoothConv4,
    episode,
    gate_and_temperature,
    teacher,
    trainer,
)

TOLERANCE = 1e-6
EPSILON = 2e-4  # of the fourth-order stencil, between truncation and rounding
INNER_RATE = (
    0.05  # small enough that five steps through batch norms of six rows stay smooth at this scale
)
RATE = 0.1  # of SGD without momentum, for both groups: gradient = (before - after) / RATE
STUDENT, LEARNER, GATE, TEMPERATURE = "student", "learner", "gate", "temperature"
Objective = Callable[[Params, Params], float]


class Update(NamedTuple):
    """What one outer update started from and what it took as gradients."""

    theta: Params
    phi: Params
    theta_slope: Params
    phi_slope: Params
    tasks: list[Task]
    judges: list[Task]


@dataclass
class Case:
    """A learner, and the definition of what its student and its strategy minimise."""

    learner: Callable[[], Learner]
    student: Callable[[Params, Params, list[Task]], Objective]
    strategy: Callable[[Params, Params, list[Task]], Objective]
    form: str
    separate: bool = False
    settings: dict = field(default_factory=dict)


def values(module: torch.nn.Module) -> Params:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def trained(recipe: MetaKD) -> tuple[Params, Params]:
    """(theta, phi): what the outer loop trains but the strategy, and the strategy."""
    theta = {**values(recipe.student), **with_prefix("learner", values(recipe.learner))}
    return theta, values(recipe.loss)


def together(episodes: list) -> Any:
    """A meta-batch as a loader gives it."""
    return tree_map(lambda *leaves: torch.stack(leaves), *episodes)


def update(case: Case) -> Update:
    """One outer update by a Trainer."""
    torch.manual_seed(3)
    n_classes = N_WAY if case.learner().needs_head else 0
    student, helper = SmoothConv4(n_classes).double(), teacher()
    loss = gate_and_temperature()
    recipe = MetaKD(
        student,
        case.learner().double(),
        loss,
        [helper],
        optimisation=Optimisation(lr=RATE, optimiser="sgd", strategy_optimiser="sgd", momentum=0.0),
        norm=case.form,
        **grouped({"strategy_lr": RATE, **case.settings}),
    )
    train, quiz = ([episode(i), episode(i + 1)] for i in (0, 2))
    batch = (together(train), together(quiz)) if case.separate else together(train)
    before = trained(recipe)
    trainer(max_steps=1, precision="64-true").fit(recipe, datamodule=Fixed([batch]))
    slopes = [
        {name: (old[name] - p) / RATE for name, p in new.items()}
        for old, new in zip(before, trained(recipe), strict=True)
    ]
    scale = float(helper.head.scale)
    as_tasks = [[task(e, values(helper.model), scale) for e in es] for es in (train, quiz)]
    return Update(*before, *slopes, as_tasks[0], as_tasks[1] if case.separate else as_tasks[0])


def relative_error(slope: Params, of: Callable[[Params], float], at: Params, random: int) -> float:
    """Worst over the slope's own direction and random ones, all of length one."""
    draw = torch.Generator().manual_seed(7)
    directions = [slope] + [
        {n: torch.randn(p.shape, generator=draw, dtype=p.dtype) for n, p in slope.items()}
        for _ in range(random)
    ]
    worst = 0.0
    for towards in directions:
        length = torch.stack([d.square().sum() for d in towards.values()]).sum().sqrt()
        if not length:
            return math.inf  # nothing was taken for a gradient
        unit = {name: d / length for name, d in towards.items()}

        def moved(s: float, unit: Params = unit) -> float:
            return of({**at, **{n: at[n] + s * EPSILON * u for n, u in unit.items()}})

        expected = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * EPSILON)
        actual = sum((slope[n] * u).sum().item() for n, u in unit.items())
        worst = max(worst, abs(actual - expected) / abs(expected))
    return worst


def errors(case: Case, random: int = 1) -> dict[str, float]:
    """Relative error of the student's, the learner's, the gate's and the temperature's gradient."""
    got = update(case)
    of_student = case.student(got.theta, got.phi, got.tasks)
    of_strategy = case.strategy(got.theta, got.phi, got.judges)
    settings = {}
    for name, theta_slope in parts(got.theta_slope).items():
        settings[name] = relative_error(
            theta_slope, lambda theta: of_student(theta, got.phi), got.theta, random
        )
    for name, prefix in ((GATE, "gate."), (TEMPERATURE, "match.temperature")):
        slope = {n: g for n, g in got.phi_slope.items() if n.startswith(prefix)}
        settings[name] = relative_error(
            slope,
            lambda phi: of_strategy(got.theta, phi),
            got.phi,
            random if name == GATE else 0,
        )
    return settings


def parts(slope: Params) -> dict[str, Params]:
    """What belongs to the student, and what to the learner, if it learns anything."""
    present = {n: g for n, g in slope.items() if n.startswith("learner.")}
    settings = {STUDENT: {n: g for n, g in slope.items() if n not in present}, LEARNER: present}
    return {name: slopes for name, slopes in settings.items() if slopes}


def mean(objective: Callable[..., float], tasks: list[Task], *extra: list) -> Objective:
    """Mean over tasks; `extra` has something of each task's own in front."""

    def of(theta: Params, phi: Params) -> float:
        single = [objective(*(e[i] for e in extra), theta, phi, t) for i, t in enumerate(tasks)]
        return sum(single) / len(single)

    return of


def second(procedure: Procedure) -> Callable[[Params, Params, list[Task]], Objective]:
    return lambda theta, phi, tasks: mean(procedure.second_order, tasks)


def first(procedure: Procedure) -> Callable[[Params, Params, list[Task]], Objective]:
    def frozen(theta: Params, phi: Params, tasks: list[Task]) -> Objective:
        bars = [procedure.trajectory(theta, phi, t) for t in tasks]
        return mean(procedure.first_order, tasks, bars)

    return frozen


def descent(
    learner: Callable[..., Learner],
    form: str,
    order: Callable = second,
    separate: bool = False,
    **settings,
) -> Case:
    """A learner that adapts by loss: student and strategy minimise the query loss after adapting."""
    objective = order(Procedure(form, lr=INNER_RATE, **settings))
    build = partial(learner, inner_lr=INNER_RATE, inner_steps=5, first_order=order is first)
    return Case(build, objective, objective, form, separate)


def metric(
    learner: Callable[[], Learner], answer: Callable, form: str, hypergradient: str, lr: float = 0.5
) -> Case:
    """The student minimises the teaching loss, the strategy the quiz after a pilot step."""
    defined = Metric(form, lr, answer)

    def student(theta: Params, phi: Params, tasks: list[Task]) -> Objective:
        return mean(defined.student, tasks, [defined.gates(theta, phi, t) for t in tasks])

    settings = {"hypergradient": hypergradient, "pilot_lr": lr}
    return Case(learner, student, lambda *at: mean(defined.pilot, at[2]), form, settings=settings)


def meta_sgd(form: str, order: Callable = second) -> Case:
    objective = order(Procedure(form, 0.0, rates=lambda theta, name, k: theta[rate_of(name)]))
    learner = partial(MetaSGD, INNER_RATE, 5, first_order=order is first)
    return Case(learner, objective, objective, form)


def maml_plus_plus(form: str) -> Case:
    defined = Procedure(form, 0.0, rates=lambda theta, name, k: theta[rate_of(name)][k])

    def student(theta: Params, phi: Params, tasks: list[Task]) -> Objective:
        return mean(defined.after_every_step, tasks)

    return Case(lambda: MAMLPlusPlus(INNER_RATE, 5), student, second(defined), form)


def rate_of(name: str) -> str:
    return "learner.rates." + name.replace(".", "/")


def reptile(form: str, optimiser: str, lr: float) -> Case:
    plain = Procedure(form, lr)

    def way(theta: Params, phi: Params, t: Task) -> Procedure:
        return plain.with_rates_of_adam(theta, phi, t) if optimiser == "adam" else plain

    def objective(name: str) -> Callable[[Params, Params, list[Task]], Objective]:
        def frozen(theta: Params, phi: Params, tasks: list[Task]) -> Objective:
            ways = [way(theta, phi, t) for t in tasks]
            bars = [w.trajectory(theta, phi, t) for w, t in zip(ways, tasks, strict=True)]
            return mean(lambda w, b, *at: getattr(w, name)(b, *at), tasks, ways, bars)

        return frozen

    learner = partial(Reptile, lr, 5, inner_optimiser=optimiser)
    return Case(learner, objective("distance"), objective("first_order"), form)


def imaml(form: str) -> Case:
    pull, steps = 8.0, 80
    defined = Procedure(form, lr=0.08, steps=steps)
    objective = lambda *at: mean(partial(defined.at_rest, pull=pull), at[2])  # noqa: E731
    learner = partial(IMAML, defined.lr, steps, pull=pull, solver_steps=30)
    return Case(learner, objective, objective, form)


def logistic() -> Case:
    objective = lambda *at: mean(partial(by_logistic_regression, penalty=0.5), at[2])  # noqa: E731
    learner = partial(Logistic, penalty=0.5, max_steps=500, solver_steps=30)
    return Case(learner, objective, objective, "support")


def cosine_proto_net() -> Learner:
    return ProtoNet("cosine", 10.0, learn_scale=True)


def proto_maml(**settings) -> Learner:
    return ProtoMAML(metric="cosine", scale=10.0, **settings)


CASES = {
    "MAML": descent(MAML, "support"),
    "MAML, batch statistics": descent(MAML, "batch"),
    "MAML, first order": descent(MAML, "support", first),
    "MAML, first order, batch statistics": descent(MAML, "batch", first),
    "MAML, strategy on its own episodes": descent(MAML, "support", separate=True),
    "ANIL": descent(partial(MAML, adapts="head"), "support", adapts="head."),
    "ANIL, first order": descent(partial(MAML, adapts="head"), "batch", first, adapts="head."),
    "BOIL": descent(partial(MAML, adapts="body"), "support", adapts="-head"),
    "BOIL, first order": descent(partial(MAML, adapts="body"), "batch", first, adapts="-head"),
    "ProtoMAML": descent(proto_maml, "support", prototypes=True),
    "ProtoMAML, first order": descent(proto_maml, "support", first, prototypes=True),
    "MAML, recomputed": descent(partial(MAML, recompute=True), "support", separate=True),
    "Meta-SGD": meta_sgd("support"),
    "Meta-SGD, first order": meta_sgd("support", first),
    "MAML++": maml_plus_plus("support"),
    "MAML++, batch statistics": maml_plus_plus("batch"),
    "Reptile": reptile("support", "sgd", INNER_RATE),
    "Reptile, Adam": reptile("support", "adam", 0.01),
    "iMAML": imaml("support"),
    "logistic": logistic(),
    "ProtoNet, tangent": metric(ProtoNet, by_means, "support", "tangent"),
    "ProtoNet, tangent, batch statistics": metric(ProtoNet, by_means, "batch", "tangent"),
    "ProtoNet, unrolled": metric(ProtoNet, by_means, "support", "unrolled"),
    "ProtoNet, cosine": metric(cosine_proto_net, by_angle, "support", "tangent"),
    "ridge, tangent": metric(Ridge, by_ridge, "support", "tangent", lr=0.05),
    "ridge, unrolled": metric(Ridge, by_ridge, "support", "unrolled", lr=0.05),
}


SOLVERS = ("iMAML", "logistic")
"""Central differences through a solver take twenty seconds; quicker tests of both lie in tests/learners, and
of their implicit gradient in tests/functional."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SOLVERS else n for n in CASES]
)
def test_the_outer_update_descends_the_gradient_of_its_definition(name):
    actual = errors(CASES[name])
    assert all(error < TOLERANCE for error in actual.values()), actual


# --- the check itself is checked: each of these mistakes must be seen ------------------------------------


def without_strategy(monkeypatch):
    """The strategy detached where it teaches."""
    result = episode_objective.EpisodeObjective.teaching_loss
    wrong = lambda self, strategy, *rest: result(self, detach(strategy), *rest)  # noqa: E731
    monkeypatch.setattr(episode_objective.EpisodeObjective, "teaching_loss", wrong)


def averaged_over_classes(monkeypatch):
    """KL divergence averaged over classes, as `reduction="mean"` does, not summed."""
    right = hinton.kd_loss
    monkeypatch.setattr(hinton, "kd_loss", lambda s, t, at: right(s, t, at) / s.shape[1])


def without_square(monkeypatch):
    """The factor T^2 left out."""
    right = hinton.kd_loss
    monkeypatch.setattr(hinton, "kd_loss", lambda s, t, at: right(s, t, at) / at**2)


def square_held_fixed(monkeypatch):
    """The factor T^2 there, its derivative left out."""
    right = hinton.kd_loss
    fixed = lambda s, t, at: right(s, t, at) / at**2 * at.detach() ** 2  # noqa: E731
    monkeypatch.setattr(hinton, "kd_loss", fixed)


def detached_inside_grad(monkeypatch):
    """Student signals by `.detach()` inside `func.grad`, as one would write it at first."""

    def wrong(forward, params, batch_loss, progress, first_order=False):
        def loss(p):
            output = forward(p)
            return batch_loss(output, detach_tree(output), progress).mean()

        return grad(loss)(dict(params))

    monkeypatch.setattr(inner_loop, "inner_gradient", wrong)


def signals_differentiated(monkeypatch):
    """The inner step differentiated through what the gate sees of the student."""

    def wrong(forward, params, batch_loss, progress, first_order=False):
        recorded, pull_back = vjp(forward, dict(params))
        return pull_back(
            grad(lambda output: batch_loss(output, output, progress).mean())(recorded)
        )[0]

    monkeypatch.setattr(inner_loop, "inner_gradient", wrong)


def trajectory_not_frozen(monkeypatch):
    """First order with the second derivatives left in."""
    monkeypatch.setattr(inner_loop, "detach", dict)


def strategy_in_the_outer_loss(monkeypatch):
    """The strategy trained by the loss that it parametrises, beside the quiz."""
    monkeypatch.setattr(meta_step, "detach", dict)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("mistake", "case", "seen_in"),
    [
        (without_strategy, "MAML", {GATE, TEMPERATURE}),
        (without_strategy, "ProtoNet, unrolled", {GATE, TEMPERATURE}),
        (averaged_over_classes, "MAML", {STUDENT, GATE, TEMPERATURE}),
        (without_square, "MAML", {STUDENT, GATE, TEMPERATURE}),
        (square_held_fixed, "MAML", {TEMPERATURE}),
        (square_held_fixed, "ProtoNet, tangent", {TEMPERATURE}),
        (detached_inside_grad, "MAML", {STUDENT, GATE, TEMPERATURE}),
        (signals_differentiated, "MAML", {STUDENT, GATE, TEMPERATURE}),
        (trajectory_not_frozen, "MAML, first order", {STUDENT, GATE, TEMPERATURE}),
        (strategy_in_the_outer_loss, "ProtoNet, tangent", {GATE, TEMPERATURE}),
    ],
)
def test_a_mistake_in_the_mathematics_does_not_pass(mistake, case, seen_in, monkeypatch):
    mistake(monkeypatch)
    actual = errors(CASES[case], random=0)
    off = {name for name, error in actual.items() if error > 1e-4}  # TOLERANCE is a hundredth of it
    assert off == seen_in, actual


def test_a_detached_strategy_gets_no_gradient(monkeypatch):
    without_strategy(monkeypatch)
    assert all(not slope.any() for slope in update(CASES["MAML"]).phi_slope.values())
