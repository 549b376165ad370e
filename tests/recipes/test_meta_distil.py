"""Teachers that learn to teach: the quiz after the student's pilot step moves them, and then they teach."""

import itertools
from functools import partial
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy

from lightning_metakd.callbacks.replicas import FrozenParameterCheck, ReplicaConsistency
from lightning_metakd.learners.imaml import IMAML
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import OfTeacher
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.teachers.heads import PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from tests.recipes import definition
from tests.recipes.runs import (
    batches,
    episodes,
    grouped,
    helper,
    meta_kd,
    moved,
    sgd,
    single_task,
    state,
    watch,
)
from tests.recipes.test_meta_gradient import (
    CASES,
    RATE,
    TOLERANCE,
    Case,
    relative_error,
    together,
    trained,
    values,
)
from tests.recipes.test_single_task import PILOT_RATE, student_logits
from tests.tiny import (
    N_WAY,
    Blobs,
    Fixed,
    FixedRows,
    SmoothConv4,
    episode,
    gate_and_temperature,
    separable,
    teacher,
    trainer,
)

FIXED = [(torch.zeros(4).double(), torch.ones(4).double())] * 4
"""The statistics with which a batch norm is born."""
RUNS = {
    "MAML": (partial(meta_kd, MAML(0.05, 2)), episodes),
    "ProtoNet": (partial(meta_kd, ProtoNet()), episodes),
    "SingleTask": (single_task, batches),
}


def learning(make, **options):
    """A recipe whose teachers learn, and no coefficient."""
    loss = MatchGate(0.5, Hinton(2.0))
    settings = {"loss": loss, "strategy_lr": 0.0, "teacher_lr": 0.05, "quiz": CrossEntropy()}
    return make(**{**settings, **options})


def each_run(test):
    return pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)(test)


def fit(recipe, data, **settings):
    run = trainer(**{"max_steps": 2, **settings})
    run.fit(recipe, datamodule=data)
    return run


# --- what it descends: the quiz after the pilot step, and then the teaching loss of what was learned -----


class Step(NamedTuple):
    """What one outer step started from, where it led, and on which data."""

    theta: dict
    phi: dict
    teacher: dict
    after: tuple
    train: list
    quiz: list

    def slopes(self):
        starts = (self.theta, self.phi, self.teacher)
        return [
            {n: (old[n] - new[n]) / RATE for n in old}
            for old, new in zip(starts, self.after, strict=True)
        ]


def step(case: Case, **settings) -> Step:
    torch.manual_seed(3)
    student, helper = SmoothConv4(N_WAY if case.learner().needs_head else 0).double(), teacher()
    recipe = MetaKD(
        student,
        case.learner().double(),
        gate_and_temperature(),
        [helper],
        optimisation=sgd(lr=RATE, momentum=0.0),
        norm=case.form,
        **grouped({"strategy_lr": RATE, "teacher_lr": RATE, **case.settings, **settings}),
    )
    train, quiz = ([episode(i), episode(i + 1)] for i in (0, 2))
    batch = (together(train), together(quiz)) if case.separate else together(train)
    before = (*trained(recipe), values(recipe.teachers[0].model))
    run = trainer(max_steps=1, precision="64-true")
    run.fit(recipe, datamodule=Fixed([batch]))
    assert run.global_step == 1
    after = (*trained(recipe), values(recipe.teachers[0].model))
    return Step(*before, after, train, quiz if case.separate else train)


NAMES = ("MAML", "MAML, strategy on its own episodes", "ProtoNet, tangent", "ProtoNet, unrolled")


@pytest.mark.parametrize("name", NAMES)
def test_in_episodes_teachers_descend_the_quiz_and_the_student_what_they_then_teach(name):
    case = CASES[name]
    actual = step(case)
    of_student, of_strategy, of_teacher = actual.slopes()
    _, phi, helper = actual.after

    def tasks(episodes, teacher):
        return [definition.task(e, teacher, 5.0) for e in episodes]

    def quiz(teacher, phi=actual.phi):
        result = tasks(actual.quiz, teacher)
        return case.strategy(actual.theta, phi, result)(actual.theta, phi)

    assert relative_error(of_teacher, quiz, actual.teacher, random=2) < TOLERANCE
    assert relative_error(of_strategy, partial(quiz, actual.teacher), actual.phi, 1) < TOLERANCE
    loss_of = case.student(actual.theta, phi, tasks(actual.train, helper))
    error = relative_error(of_student, lambda theta: loss_of(theta, phi), actual.theta, random=2)
    assert error < TOLERANCE
    before = case.student(actual.theta, actual.phi, tasks(actual.train, actual.teacher))
    wrong = relative_error(of_student, lambda theta: before(theta, actual.phi), actual.theta, 0)
    assert wrong > 100 * TOLERANCE  # by what they taught before, it would be another step


def test_on_a_single_task_too():
    torch.manual_seed(3)
    names = [f"blob {c}" for c in range(N_WAY)]
    network, head = SmoothConv4(N_WAY, width=4).double(), SlicedHead(2.0).double()
    helper = Teacher(network, head=head, classes=names)
    helper.attach_source(Blobs())
    recipe = SingleTask(
        SmoothConv4().double(),
        gate_and_temperature(),
        [helper],
        optimisation=sgd(lr=RATE, momentum=0.0),
        strategy_training=StrategyTraining(
            **{"lr": 0.0, "teacher_lr": RATE, "quiz": CrossEntropy()},
            **{"hypergradient": "unrolled", "pilot_lr": PILOT_RATE},
        ),
    )
    train, judge = separable(9, (1, 8, 8)), separable(6, (1, 8, 8))
    present = recipe.teachers[0].model
    theta, start, phi = values(recipe.student), values(present), values(recipe.loss)
    run = trainer(max_steps=1, precision="64-true")
    run.fit(recipe, datamodule=FixedRows([(train, judge)]))
    assert run.global_step == 1
    end = values(present)

    def says(teacher):
        return 2 * definition.linear(teacher, definition.embed(teacher, train.x, FIXED)[0])

    def quiz(teacher):
        at = {n: p.clone().requires_grad_() for n, p in theta.items()}
        loss = definition.teaching(phi, student_logits(at, train.x), says(teacher), train.y, 0.0)
        grads = torch.autograd.grad(loss, list(at.values()))
        moved = {n: p - PILOT_RATE * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        return cross_entropy(student_logits(moved, judge.x), judge.y)

    def student(theta):
        z = student_logits(theta, train.x)
        return definition.teaching(phi, z, says(end), train.y, 0.0, gates=gates).item()

    gates = definition.gate(phi, student_logits(theta, train.x), says(end), train.y, 0.0)
    slope = {n: (start[n] - end[n]) / RATE for n in start}
    assert relative_error(slope, quiz, start, random=2) < TOLERANCE
    slope = {n: (theta[n] - p) / RATE for n, p in values(recipe.student).items()}
    assert relative_error(slope, student, theta, random=2) < TOLERANCE


@pytest.mark.parametrize("name", ["MAML", "ProtoNet, tangent"])
def test_tasks_that_run_together_teach_the_teacher_the_same(name):
    alone, both = (step(CASES[name], tasks_at_once=n) for n in (1, 2))
    for one, other in zip(alone.after, both.after, strict=True):
        for key, tensor in one.items():
            torch.testing.assert_close(other[key], tensor, rtol=1e-9, atol=1e-11)


# --- what moves ------------------------------------------------------------------------------------------


@each_run
def test_virtual_steps_leave_no_statistics_behind(make, data):
    ends = []
    for rate in (0.0, 0.05):
        torch.manual_seed(1)
        recipe = learning(make, teacher_lr=rate)
        before = state(recipe.teachers)
        fit(recipe, data(), max_steps=1)
        ends.append({n: b.clone() for n, b in recipe.student.named_buffers()})
        actual = moved(before, state(recipe.teachers))
        weights = {n for n, _ in recipe.teachers.named_parameters()}
        assert actual <= weights
        assert bool(actual) == (rate > 0)
        assert not any(m.training for teacher in recipe.teachers for m in teacher.modules())
    assert not moved(*ends)


@each_run
def test_guards_against_what_moves_by_mistake_let_teachers_learn(make, data):
    recipe = learning(make)
    before = state(recipe.teachers)
    run = fit(recipe, data(), callbacks=[FrozenParameterCheck(), ReplicaConsistency()])
    assert run.global_step == 2
    assert moved(before, state(recipe.teachers))


@each_run
def test_between_its_updates_a_teacher_stays(make, data):
    recipe = learning(make, strategy_every=2)
    teachers, update = [state(recipe.teachers)], recipe.outer_update

    def watched(scalar, moves):
        update(scalar, moves)
        teachers.append(state(recipe.teachers))
        recorded.append(moves)

    watch(recipe, watched)
    recorded = []
    fit(recipe, data(), max_steps=3, max_epochs=3)
    assert recorded == [("strategy",), ("student",), ("student",), ("strategy",), ("student",)]
    changes = [bool(moved(*pair)) for pair in itertools.pairwise(teachers)]
    assert changes == [True, False, False, True, False]


def test_a_teacher_that_no_loss_follows_stays():
    loss = MatchGate(0.5, OfTeacher(1, Hinton()))
    recipe = learning(RUNS["ProtoNet"][0], loss=loss, teachers=[helper(), helper()])
    before = [state(teacher) for teacher in recipe.teachers]
    fit(recipe, episodes())
    actual = [bool(moved(*pair)) for pair in zip(before, map(state, recipe.teachers), strict=True)]
    assert actual == [False, True]


def test_in_one_shot_episodes_a_teacher_learns_from_both_views():
    recipe = learning(RUNS["ProtoNet"][0])
    before = state(recipe.teachers)
    fit(recipe, episodes(k_shot=1))
    assert moved(before, state(recipe.teachers))


def test_over_a_cache_the_top_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    top = MLP(4, [5], residual=True)
    model = SmoothConv4(0, width=4)
    made = Teacher(model, head=PrototypeHead(scale=5.0), cache=True, top=top)
    recipe = learning(RUNS["ProtoNet"][0], teachers=[made], tasks_at_once=2)
    present = recipe.teachers[0]
    before = state(present)
    run = fit(recipe, episodes(views=2))
    assert {name.partition(".")[0] for name in moved(before, state(present))} == {"top"}
    run.save_checkpoint(tmp_path / "run.ckpt")
    names = list(read_checkpoint(tmp_path / "run.ckpt")["state_dict"])
    assert any(name.startswith("teachers.0.top.") for name in names)
    assert not any(name.startswith("teachers.0.model.") for name in names)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@each_run
def test_teachers_that_learn_are_saved_and_go_on_to_the_last_bit(make, data, tmp_path):
    start = state(helper(12 if data is batches else 0))

    def recipe():
        made = helper(12 if data is batches else 0)
        made.load_state_dict(start)
        return learning(make, teachers=[made])

    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    torch.manual_seed(1)
    through = recipe()
    torch.manual_seed(1)
    resumed = recipe()
    whole = {"max_steps": -1, "max_epochs": 2, "enable_checkpointing": True}
    first = fit(through, data(), callbacks=[keep], **whole)
    second = trainer(**whole, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)])
    second.fit(resumed, datamodule=data(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert first.global_step == second.global_step > 2
    assert not moved(state(through), state(resumed))
    kept = read_checkpoint(tmp_path / "epoch=1.ckpt")["state_dict"]
    present = state(through.teachers[0].model)
    assert not moved(present, {n: kept[f"teachers.0.model.{n}"] for n in present})
    # counts add up
    assert through.training_cost() == resumed.training_cost()
    assert through.training_cost()["strategy"] == "teachers.0"


def test_frozen_teachers_stay_out_of_checkpoints(tmp_path):
    recipe = learning(RUNS["MAML"][0], teacher_lr=0.0)
    fit(recipe, episodes()).save_checkpoint(tmp_path / "run.ckpt")
    names = read_checkpoint(tmp_path / "run.ckpt")["state_dict"]
    assert not any(".model." in name for name in names)


def test_a_test_that_follows_judges_by_the_teacher_that_has_learned(tmp_path):
    torch.save(SmoothConv4(0, width=4).state_dict(), tmp_path / "teacher.ckpt")
    made = helper(checkpoint=str(tmp_path / "teacher.ckpt"))
    recipe = learning(RUNS["ProtoNet"][0], teachers=[made])
    fit(recipe, episodes())
    strategies, file = state(made), made.sha256
    trainer().test(recipe, datamodule=episodes(), verbose=False)
    assert not moved(strategies, state(made))
    assert made.sha256 == file != weights_hash(made.model)


# --- what is refused -------------------------------------------------------------------------------------


def test_a_cache_of_a_teacher_that_learns_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    recipe = learning(RUNS["ProtoNet"][0], teachers=[helper(cache=True)])
    with pytest.raises(ValueError, match=r"cache=true keeps a teacher's answers, .* give it a top"):
        fit(recipe, episodes(views=2))


@pytest.mark.parametrize(
    "learner",
    [IMAML(0.08, 2, pull=8.0), Logistic(), MAML(0.05, 2, recompute=True)],
    ids=["iMAML", "logistic", "recomputed"],
)
def test_learners_through_which_nothing_is_differentiated_are_refused(learner):
    message = r"teacher_lr=0\.05 cannot be differentiated through \w+ with a solver or recomputed"
    with pytest.raises(ValueError, match=message):
        learning(partial(meta_kd, learner))


@each_run
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_lr": -1.0}, r"teacher_lr=-1\.0 must be at least 0 and finite"),
    ],
)
def test_rates_that_train_nothing_are_refused(make, data, settings, message):
    with pytest.raises(ValueError, match=message):
        learning(make, **settings)


def test_a_quiz_without_rows_is_refused():
    with pytest.raises(ValueError, match=r"teacher_lr=0\.05 need rows to judge"):
        fit(learning(single_task), batches(quiz_fraction=0.0))
    with pytest.raises(ValueError, match=r"n_query=1 leaves no rows .* or lr and teacher"):
        fit(learning(RUNS["ProtoNet"][0]), episodes(n_query=1))
