import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.losses.attention_transfer import AttentionTransfer
from lightning_metakd.losses.born_again import BornAgain
from lightning_metakd.losses.coefficient import Learned, LearnedPerClass, Scheduled
from lightning_metakd.losses.crd import CRD
from lightning_metakd.losses.dist import DIST
from lightning_metakd.losses.dkd import DKD
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.logit_standardisation import LogitStandardisation
from lightning_metakd.losses.loss import (
    CalibratedCrossEntropy,
    CrossEntropy,
    WeightedSum,
    batch_loss,
)
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.losses.multi_teacher import Heaviest, MultiTeacher, OfTeacher
from lightning_metakd.losses.pkt import PKT
from lightning_metakd.losses.prototype_matching import PrototypeMatching
from lightning_metakd.losses.rkd import RKD
from lightning_metakd.losses.similarity_preserving import SimilarityPreserving
from lightning_metakd.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from lightning_metakd.losses.what_where import LearnedPerChannel, LearnedPerMap, WhatWhere
from lightning_metakd.types import Context, Output
from tests.tiny import N_WAY, answered, batch, context, perturbed, student_answer

ROWS = 12


def everything():
    """A sum of all losses, with every kind of coefficient in it."""
    terms = {
        "gate": MatchGate(LearnedPerSample(), Hinton(Scheduled(4.0, 1.0))),
        "literal": LiteralMatchGate(Learned()),
        "hard": CrossEntropy(0.1),
    }
    return WeightedSum(terms, {"gate": LearnedPerClass(20), "hard": 0.7})


OF_LOGITS = {
    "Hinton": lambda: Hinton(Learned()),
    "LogitStandardisation": lambda: LogitStandardisation(LearnedPerSample()),
    "DKD": lambda: DKD(Learned(), LearnedPerClass(20), LearnedPerSample()),
    "DIST": lambda: DIST(LearnedPerSample(), Learned(), LearnedPerSample()),
    "BornAgain": BornAgain,
}
OF_EMBEDDINGS = {
    "RKD": lambda: RKD(Learned(), LearnedPerSample()),
    "PKT": PKT,
    "PrototypeMatching": lambda: PrototypeMatching(LearnedPerSample()),
}
CONTRASTS = {
    "CRD": lambda: CRD(LearnedPerSample()),
    "CRD, other classes": lambda: CRD(Learned(), same_class_negatives=False),
}
OF_LAYERS = {
    "FitNets": lambda: FitNets({"low": "low", "high": "low"}, LearnedPerMap(6)),
    "AttentionTransfer": lambda: AttentionTransfer(
        {"low": "low", "high": "high"}, weights=Learned()
    ),
    "SimilarityPreserving": lambda: SimilarityPreserving({"low": "high", "embedding": "embedding"}),
    "WhatWhere": lambda: WhatWhere(
        {"low": ["low", "high"], "high": ["high"]},
        {"low": LearnedPerMap(6), "high": LearnedPerSample()},
        {"low": LearnedPerChannel(6)},
    ),
}
OF_POOLS = {
    "MultiTeacher": lambda: MultiTeacher(Hinton(Learned()), [Learned(), LearnedPerSample()]),
    "MultiTeacher, one weight": lambda: MultiTeacher(FitNets({"low": "low"}), LearnedPerSample()),
    "MultiTeacher, the heavier": lambda: MultiTeacher(RKD(), LearnedPerSample(), Heaviest()),
    "OfTeacher": lambda: OfTeacher(1, MatchGate(LearnedPerSample(), Hinton(Learned()))),
}
LOSSES = {
    "CrossEntropy": CrossEntropy,
    "CrossEntropy, smoothed": lambda: CrossEntropy(0.1),
    "GeneralisedCrossEntropy": lambda: GeneralisedCrossEntropy(LearnedPerClass(20)),
    "SymmetricCrossEntropy": lambda: SymmetricCrossEntropy(Learned(), LearnedPerClass(20)),
    **OF_LOGITS,
    "BornAgain, confidence": lambda: BornAgain(confidence_weighted=True),
    **OF_EMBEDDINGS,
    **CONTRASTS,
    **OF_LAYERS,
    "MatchGate": lambda: MatchGate(LearnedPerSample(), Hinton(Learned())),
    "MatchGate, robust": lambda: MatchGate(Learned(), alone=GeneralisedCrossEntropy(Learned())),
    "MatchGate, literal": lambda: LiteralMatchGate(LearnedPerClass(20)),
    "CalibratedCrossEntropy": CalibratedCrossEntropy,
    "WeightedSum": everything,
    **OF_POOLS,
}
each_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def rows():
    return answered(batch(ROWS), teachers=2)


@pytest.fixture
def student(rows):
    return student_answer(rows)


def made(name):
    return perturbed(LOSSES[name]().double())


# --- promises of every loss ------------------------------------------------------------------------


@each_loss
def test_a_loss_is_one_number_a_row_in_their_order(name, rows, student):
    loss, order = made(name), torch.randperm(ROWS)
    actual = loss(student, rows, context(rows, student))
    moved, answer = tree_map(lambda t: t[order], (rows, student))
    assert actual.shape == (ROWS,)
    torch.testing.assert_close(
        loss(answer, moved, context(moved, answer)), actual[order], rtol=1e-9, atol=1e-12
    )


@each_loss
def test_a_loss_does_not_depend_on_the_order_of_the_classes(name, rows, student):
    loss, order = made(name), torch.randperm(N_WAY)
    row_context = context(rows, student)
    there = order.argsort()
    moved = rows._replace(
        y=there[rows.y],
        teacher_outputs=tuple(t._replace(logits=t.logits[:, order]) for t in rows.teacher_outputs),
    )
    answer = student._replace(logits=student.logits[:, order])
    torch.testing.assert_close(
        loss(answer, moved, row_context._replace(student_detached=answer)),
        loss(student, rows, row_context),
        rtol=1e-9,
        atol=1e-12,
    )


@each_loss
def test_a_loss_survives_saturated_answers(name, rows, student):
    """Logits and embeddings of +-1e4: probabilities of 0, rows that lie on each other."""
    loss = made(name)
    wild = tree_map(lambda t: 1e4 * t.sign(), student)
    teachers = tree_map(lambda t: 1e4 * t.sign(), rows.teacher_outputs)
    rows = rows._replace(teacher_outputs=(teachers[0]._replace(logits=-wild.logits), *teachers[1:]))
    answer = tree_map(lambda t: t.clone().requires_grad_(), wild)
    value = loss(answer, rows, context(rows, wild))
    leaves = [*tree_leaves(answer), *loss.parameters()]
    slopes = torch.autograd.grad(
        value.sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    again = sum(slope.square().sum() for slope in slopes)
    curvatures = torch.autograd.grad(again, leaves, allow_unused=True, materialize_grads=True)
    assert value.isfinite().all()
    assert all(actual.isfinite().all() for actual in (*slopes, *curvatures))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "CalibratedCrossEntropy"])
def test_both_derivatives_of_a_loss_are_those_of_differences(name, rows, student):
    """In the student's logits, embedding and hints; CalibratedCrossEntropy searches a scale."""
    loss, row_context = made(name), context(rows, student)
    leaves, shape = tree_flatten(student)

    def each_row(*leaves):
        return loss(tree_unflatten(leaves, shape), rows, row_context)

    inputs = [leaf.clone().requires_grad_() for leaf in leaves]
    assert gradcheck(each_row, inputs, fast_mode=True)
    assert gradgradcheck(each_row, inputs, fast_mode=True)


@pytest.mark.parametrize(
    "name", [name for name, make in LOSSES.items() if list(make().parameters())]
)
def test_a_loss_can_be_mapped_over_tasks_and_differentiated_in_the_strategy(name):
    loss = made(name)
    strategy = dict(loss.named_parameters())
    tasks = [answered(batch(ROWS), teachers=2) for _ in range(3)]
    answers = [student_answer(rows) for rows in tasks]

    def slope(rows, answer):
        return grad(lambda p: bind_loss(loss)(p, answer, rows, context(rows, answer)).mean())(
            strategy
        )

    stacked = [tree_map(lambda *leaves: torch.stack(leaves), *trees) for trees in (tasks, answers)]
    mapped = vmap(slope)(*stacked)
    for i in range(3):
        alone = slope(tasks[i], answers[i])
        for key, value in alone.items():
            torch.testing.assert_close(mapped[key][i], value, rtol=1e-9, atol=1e-12)


@each_loss
def test_a_loss_can_be_mapped_over_tasks_and_differentiated_in_the_student(name):
    loss = made(name)
    tasks = [answered(batch(ROWS), teachers=2) for _ in range(2)]
    answers = [student_answer(rows) for rows in tasks]

    def slope(rows, answer):
        return grad(lambda o: loss(o, rows, context(rows, answer)).mean())(answer)

    stacked = [tree_map(lambda *leaves: torch.stack(leaves), *trees) for trees in (tasks, answers)]
    mapped = tree_leaves(vmap(slope)(*stacked))
    alone = [tree_leaves(slope(*task)) for task in zip(tasks, answers, strict=True)]
    for actual, *expected in zip(mapped, *alone, strict=True):
        torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-9, atol=1e-12)


@each_loss
def test_a_loss_works_in_mixed_precision(name, rows, student):
    loss = LOSSES[name]()
    rows, student = rows._replace(x=rows.x.bfloat16()), tree_map(Tensor.bfloat16, student)
    rows = rows._replace(teacher_outputs=tree_map(Tensor.bfloat16, rows.teacher_outputs))
    with torch.autocast("cpu", torch.bfloat16):
        actual = loss(student, rows, context(rows, student))
    rows = rows._replace(teacher_outputs=tree_map(Tensor.float, rows.teacher_outputs))
    student = tree_map(Tensor.float, student)
    exact = loss(student, rows, context(rows, student))
    torch.testing.assert_close(actual.float(), exact, rtol=5e-2, atol=3e-2)  # bf16 keeps 8 bits


@each_loss
def test_a_loss_leaves_its_arguments_as_they_are(name, rows, student):
    inputs = tree_leaves((student, rows))
    before = [t.clone() for t in inputs]
    made(name)(student, rows, context(rows, student))
    assert all(map(torch.equal, before, inputs))


# --- promises of those that follow a teacher ---------------------------------------------------------


@pytest.mark.parametrize("name", [*OF_LOGITS, *OF_EMBEDDINGS])
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(name, rows):
    loss, same = made(name), rows.teacher_outputs[0]
    row_context = context(rows, same)
    value = loss(same, rows, row_context)
    slopes = grad(lambda answer: loss(answer, rows, row_context).sum())(same)
    assert all(slope.abs().max() < 1e-9 for slope in tree_leaves(slopes))
    if name != "BornAgain":  # the entropy of the teacher is left
        assert value.abs().max() < 1e-12


@pytest.mark.parametrize("name", OF_LOGITS)
@pytest.mark.parametrize(("n", "c"), [(ROWS, N_WAY + 1), (ROWS - 1, N_WAY)])
def test_a_teacher_of_other_classes_or_rows_is_refused(name, n, c, rows, student, as_users_run_it):
    other = Output(torch.randn(n, c).double(), torch.randn(n, 5).double())
    loss = type(LOSSES[name]())()  # without a coefficient that meets the teacher first
    with pytest.raises(ValueError, match=rf"teacher_logits \({n}, {c}\) must have the same"):
        loss(student, rows._replace(teacher_outputs=(other,)), context(rows, student))


@pytest.mark.parametrize("name", [*OF_EMBEDDINGS, *CONTRASTS])
def test_a_teacher_that_embeds_other_rows_is_refused(name, rows, student, as_users_run_it):
    other = rows.teacher_outputs[0]._replace(embedding=torch.randn(ROWS - 1, 5).double())
    rows = rows._replace(teacher_outputs=(other,))
    with pytest.raises(ValueError, match=r"teacher_embedding \(11, 5\) must embed the same rows"):
        made(name)(student, rows, context(rows, student))


# --- CrossEntropy -----------------------------------------------------------------------------------------


def test_smoothed_targets_spread_their_share_over_all_classes(rows, student):
    actual = CrossEntropy(0.3)(student, rows, context(rows, student))
    target = 0.7 * torch.eye(N_WAY)[rows.y] + 0.3 / N_WAY
    expected = -(target * student.logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)  # torch.eye is single


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_smoothing_outside_of_its_range_is_refused(value):
    with pytest.raises(
        ValueError, match=rf"label_smoothing={value} must be at least 0 and less than 1"
    ):
        CrossEntropy(value)


# --- WeightedSum ---------------------------------------------------------------------------------------


def test_a_weighted_sum_weighs_and_adds(rows, student):
    row_context = context(rows, student)
    actual = WeightedSum({"a": CrossEntropy(), "b": Hinton(2.0)}, {"b": 0.25})(
        student, rows, row_context
    )
    expected = CrossEntropy()(student, rows, row_context) + 0.25 * Hinton(2.0)(
        student, rows, row_context
    )
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_a_weight_of_a_term_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="weights name hard, kd, but terms has soft; rename"):
        WeightedSum({"soft": Hinton()}, {"kd": 1.0, "hard": 2.0})


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"weights.soft=-1.0 must be at least 0 and finite"):
        WeightedSum({"soft": Hinton()}, {"soft": -1.0})


def test_a_sum_needs_a_teacher_if_a_term_or_a_weight_does():
    assert not WeightedSum({"hard": CrossEntropy()}).needs_teacher
    assert WeightedSum({"hard": CrossEntropy(), "soft": Hinton()}).needs_teacher
    assert WeightedSum({"hard": CrossEntropy()}, {"hard": LearnedPerSample()}).needs_teacher


# --- the quiz at its best scale ------------------------------------------------------------------------


def test_a_calibrated_quiz_does_not_pay_for_confidence(rows, student):
    row_context = context(rows, student)
    clear = student._replace(logits=student.logits + 2 * torch.eye(N_WAY)[rows.y])
    louder = clear._replace(logits=1.7 * clear.logits)
    quiz = CalibratedCrossEntropy(max_scale=50.0)
    values = [quiz(answer, rows, row_context).mean() for answer in (clear, louder)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=0)


def test_the_gradient_of_the_calibrated_quiz_is_that_of_its_minimum(rows, student):
    z, row_context = student.logits + 2 * torch.eye(N_WAY)[rows.y], context(rows, student)

    def quiz(z):
        return CalibratedCrossEntropy()(student._replace(logits=z), rows, row_context).mean()

    slope, towards, eps = grad(quiz)(z), torch.randn_like(z), 1e-4
    difference = (quiz(z + eps * towards) - quiz(z - eps * towards)) / (2 * eps)
    torch.testing.assert_close((slope * towards).sum(), difference, rtol=1e-6, atol=0)


# --- the teaching loss ----------------------------------------------------------------------------------


def test_a_teaching_loss_closes_over_strategy_rows_and_dataset_classes(rows, student):
    loss, classes = made("WeightedSum"), torch.tensor([11, 3, 19])
    progress = torch.tensor(0.4, dtype=torch.float64)
    other = {name: p + 1 for name, p in loss.named_parameters()}
    result = batch_loss(bind_loss(loss), other, rows, classes)(student, student, progress)
    with torch.no_grad():
        for p in loss.parameters():
            p.add_(1)
    expected = loss(student, rows, Context(classes[rows.y], progress, student))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


def test_a_loss_that_is_a_mean_is_refused():
    rows = batch(ROWS)
    mean_of_rows = batch_loss(
        lambda *at: CrossEntropy()(*at[1:]).mean(), {}, rows, torch.arange(N_WAY)
    )
    student = student_answer(rows)
    with pytest.raises(
        ValueError, match=rf"shape \[\] for {len(rows.y)} rows; return one number a row"
    ):
        mean_of_rows(student, student, torch.ones(()))
