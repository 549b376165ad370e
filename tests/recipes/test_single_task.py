import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.coefficient import Scheduled
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.teachers.heads import SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from tests.recipes import definition
from tests.recipes.runs import batches, helper, moved, sgd, single_task, state
from tests.recipes.test_meta_gradient import TOLERANCE, relative_error
from tests.tiny import (
    N_WAY,
    Blobs,
    FixedRows,
    SmoothConv4,
    gate_and_temperature,
    separable,
    trainer,
)

PILOT_RATE = 0.5


def updated(hypergradient):
    """(theta, phi, their gradients, the two batches, the teacher's logits) of one outer update."""
    torch.manual_seed(3)
    names = [f"blob {c}" for c in range(N_WAY)]
    network, head = SmoothConv4(N_WAY, width=4).double(), SlicedHead(2.0).double()
    teacher = Teacher(network, head=head, classes=names)
    teacher.attach_source(Blobs())
    recipe = SingleTask(
        SmoothConv4().double(),
        gate_and_temperature(),
        [teacher],
        optimisation=sgd(lr=0.1, momentum=0.0),
        strategy_training=StrategyTraining(
            every=1, lr=0.1, hypergradient=hypergradient, pilot_lr=PILOT_RATE
        ),
    )
    train, judge = separable(9, (1, 8, 8)), separable(6, (1, 8, 8))
    logits = teacher.predict_batch(train, torch.arange(N_WAY)).logits
    parts = (recipe.student, recipe.loss)
    before = [{n: p.detach().clone() for n, p in m.named_parameters()} for m in parts]
    data = FixedRows([(train, judge)])
    trainer(max_steps=1, precision="64-true").fit(recipe, datamodule=data)
    slopes = [
        {n: (old[n] - p.detach()) / 0.1 for n, p in m.named_parameters()}
        for old, m in zip(before, parts, strict=True)
    ]
    return *before, *slopes, train, judge, logits


def student_logits(theta, x):
    e, _ = definition.embed(theta, x)
    return definition.linear(theta, e)


@pytest.mark.parametrize("hypergradient", ["tangent", "unrolled"])
def test_the_strategy_descends_the_quiz_after_a_virtual_step(hypergradient):
    theta, phi, theta_slope, phi_slope, train, judge, logits = updated(hypergradient)

    def pilot(phi):
        at = {name: p.detach().requires_grad_() for name, p in theta.items()}
        z = student_logits(at, train.x)
        loss = definition.teaching(phi, z, logits, train.y, 0.0)  # the first step: no progress
        grads = torch.autograd.grad(loss, list(at.values()))
        after = {
            n: p.detach() - PILOT_RATE * g for (n, p), g in zip(at.items(), grads, strict=True)
        }
        truth = student_logits(after, judge.x).softmax(-1).gather(1, judge.y[:, None])
        return ((1 - truth**0.7) / 0.7).mean()  # Zhang, Sabuncu 2018, eq. 6

    gates = definition.gate(phi, student_logits(theta, train.x), logits, train.y, 0.0)

    def student(theta):
        z = student_logits(theta, train.x)
        return definition.teaching(phi, z, logits, train.y, 0.0, gates=gates).item()

    assert relative_error(phi_slope, pilot, phi, random=2) < TOLERANCE
    assert relative_error(theta_slope, student, theta, random=2) < TOLERANCE


def test_a_schedule_is_judged_where_it_stands():
    # at the first step the gate is 1: the teacher has no say, so neither has its temperature
    loss = MatchGate(Scheduled(1.0, 0.0), gate_and_temperature().match).float()
    recipe = single_task(loss=loss, quiz=CrossEntropy())
    before = state(recipe.loss)
    trainer(max_steps=1).fit(recipe, datamodule=batches())
    assert not moved(before, state(recipe.loss))


def test_a_step_moves_what_is_trained_and_nothing_else():
    for strategy_lr in (0.0, 0.05):
        recipe = single_task(strategy_lr=strategy_lr, quiz=CrossEntropy())
        before = {n: p.detach().clone() for n, p in recipe.named_parameters()}
        virtual = state(recipe.virtual_students[0])
        trainer(max_steps=1).fit(recipe, datamodule=batches())
        actual = moved(before, dict(recipe.named_parameters()))
        strategy = {"loss.gate.raw", "loss.match.temperature.raw"}
        assert actual & strategy == (strategy if strategy_lr else set())
        assert all(name.startswith("student.") for name in actual - strategy)
        assert not moved(virtual, state(recipe.virtual_students[0]))


def test_the_quiz_leaves_the_student_and_its_statistics_alone():
    ends = []
    for strategy_lr in (0.0, 0.05):
        torch.manual_seed(1)
        recipe = single_task(strategy_lr=strategy_lr, quiz=CrossEntropy())
        trainer(max_steps=1).fit(recipe, datamodule=batches())
        ends.append(state(recipe.student))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-5, atol=1e-6)


def test_a_student_without_teachers_learns_the_task():
    torch.manual_seed(1)
    recipe = SingleTask(SmoothConv4(12, width=8), optimisation=sgd(lr=0.02, optimiser="adam"))
    data = batches(quiz_fraction=0.0, val_fraction=0.25, augment=False)
    recorded = []
    for _ in range(2):
        trainer().test(recipe, datamodule=data, verbose=False)
        recorded.append(recipe.record.result["nll"])
        if len(recorded) == 1:
            trainer(max_epochs=15).fit(recipe, datamodule=data)
    assert recorded[1] < 0.8 * recorded[0]


def test_a_test_counts_rows_once_and_in_double():
    recipe, data = single_task(), batches(val_fraction=0.25, batch_size=7)
    trainer().test(recipe, datamodule=data, verbose=False)
    index = data.parts["val"]
    views = torch.full_like(index, -1)
    x = data.source.inputs(data.images().x[index], index, views)
    logits, y = recipe.student.eval()(x).logits, data.images().y[index]
    accuracy = (logits.argmax(1) == y).double().mean().item()
    assert recipe.record.result["accuracy"] == pytest.approx(accuracy, rel=1e-6)
    assert recipe.record.result["nll"] == pytest.approx(cross_entropy(logits, y).item(), rel=1e-5)
    spread = (accuracy * (1 - accuracy) / len(y)) ** 0.5
    assert recipe.record.result["ci95"] == pytest.approx(1.96 * spread, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        (
            {"student": SmoothConv4(5)},
            {},
            "the student has 5 logits for the 12 classes of the data; set the n_classes",
        ),
        (
            {},
            {"quiz_fraction": 0.0},
            r"strategy_training\.lr=0\.05 and teacher_lr=0\.0 need rows to judge .* set data\.quiz_fraction",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_told(settings, data, message):
    with pytest.raises(ValueError, match=message):
        trainer(max_steps=1).fit(single_task(**settings), datamodule=batches(**data))


def test_with_a_cache_the_student_learns_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    ends = []
    for cache in (False, True):
        torch.manual_seed(1)
        recipe = single_task(teachers=[helper(12, cache=cache)], quiz=CrossEntropy())
        trainer(max_steps=3).fit(recipe, datamodule=batches(views=2))
        ends.append(state(recipe.student) | state(recipe.loss))
    stored = recipe.teachers[0].output_cache
    assert sorted(stored.tables) == [0, 1]
    assert stored.tables[0].present.nonzero()[:, 0].equal(batches().parts["train"])
    for name, tensor in ends[0].items():  # answers of other batch sizes round differently
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-4, atol=1e-5)


def test_a_cache_without_a_fixed_number_of_views_is_refused():
    with pytest.raises(ValueError, match=r"data\.views=null draws a new view each time"):
        trainer(max_steps=1).fit(
            single_task(teachers=[helper(12, cache=True)]), datamodule=batches()
        )


def test_a_teacher_that_needs_a_support_set_is_refused():
    with pytest.raises(ValueError, match="head=PrototypeHead is fitted on the support set"):
        single_task(teachers=[helper()])
