import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from lightning_metakd.functional import bind_loss
from lightning_metakd.functional import rows as some_rows
from lightning_metakd.losses.coefficient import (
    Learned,
    LearnedPerClass,
    LearnedPerSample,
    Scheduled,
)
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import (
    CalibratedTargets,
    Targets,
    WeightedSum,
    best_scale,
    lesson,
)
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.types import Context, Output
from tests.tiny import N_WAY, answered, batch, context, perturbed

ROWS = 12


def everything():
    """A sum of all losses, with every kind of coefficient in it."""
    terms = {
        "gate": MatchGate(LearnedPerSample(), Hinton(Scheduled(4.0, 1.0))),
        "literal": LiteralMatchGate(Learned()),
        "hard": Targets(0.1),
    }
    return WeightedSum(terms, {"gate": LearnedPerClass(20), "hard": 0.7})


LOSSES = {
    "Targets": Targets,
    "Targets, smoothed": lambda: Targets(0.1),
    "Hinton": lambda: Hinton(Learned()),
    "MatchGate": lambda: MatchGate(LearnedPerSample(), Hinton(Learned())),
    "MatchGate, literal": lambda: LiteralMatchGate(LearnedPerClass(20)),
    "CalibratedTargets": CalibratedTargets,
    "WeightedSum": everything,
}
each_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def rows():
    return answered(batch(ROWS))


@pytest.fixture
def student():
    return Output(2 * torch.randn(ROWS, N_WAY).double(), torch.randn(ROWS, 4).double())


def made(name):
    return perturbed(LOSSES[name]().double())


# --- promises of every loss ------------------------------------------------------------------------


@each_loss
def test_a_loss_is_one_number_a_row_in_their_order(name, rows, student):
    loss, order = made(name), torch.randperm(ROWS)
    found = loss(student, rows, context(rows, student))
    moved, answer = some_rows(rows, order), Output(*(t[order] for t in student[:2]))
    assert found.shape == (ROWS,)
    torch.testing.assert_close(
        loss(answer, moved, context(moved, answer)), found[order], rtol=1e-9, atol=1e-12
    )


@each_loss
def test_a_loss_does_not_depend_on_the_order_of_the_classes(name, rows, student):
    loss, order = made(name), torch.randperm(N_WAY)
    told = context(rows, student)
    there = order.argsort()
    moved = rows._replace(
        y=there[rows.y],
        teachers=tuple(t._replace(logits=t.logits[:, order]) for t in rows.teachers),
    )
    answer = student._replace(logits=student.logits[:, order])
    torch.testing.assert_close(
        loss(answer, moved, told._replace(seen=answer)),
        loss(student, rows, told),
        rtol=1e-9,
        atol=1e-12,
    )


@each_loss
def test_a_loss_survives_saturated_logits(name, rows, student):
    loss = made(name)
    wild = 1e4 * student.logits.sign()
    rows = rows._replace(teachers=(Output(-wild, wild),))
    leaves = [wild.clone().requires_grad_(), *loss.parameters()]
    answer = student._replace(logits=leaves[0])
    value = loss(answer, rows, context(rows, student._replace(logits=wild)))
    slopes = torch.autograd.grad(value.sum(), leaves)
    assert value.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", [n for n, make in LOSSES.items() if list(make().parameters())])
def test_a_loss_can_be_mapped_over_tasks_and_differentiated_in_the_strategy(name, student):
    loss = made(name)
    strategy = dict(loss.named_parameters())
    rows, tasks = batch(ROWS), [answered(batch(ROWS)) for _ in range(3)]
    z = torch.randn(3, ROWS, N_WAY, dtype=torch.float64)

    def slope(x, y, index, view, teacher, logits):
        told = rows._replace(x=x, y=y, index=index, view=view)
        told = told._replace(teachers=(Output(teacher, logits),))
        answer = Output(logits, logits)
        return grad(lambda p: bind_loss(loss)(p, answer, told, context(told, answer)).mean())(
            strategy
        )

    parts = [
        torch.stack(p) for p in zip(*[(*t[:4], t.teachers[0].logits) for t in tasks], strict=True)
    ]
    mapped = vmap(slope)(*parts, z)
    for i in range(3):
        alone = slope(*(p[i] for p in parts), z[i])
        for key, value in alone.items():
            torch.testing.assert_close(mapped[key][i], value, rtol=1e-9, atol=1e-12)


@each_loss
def test_a_loss_works_in_mixed_precision(name, rows, student):
    loss = LOSSES[name]()
    half = lambda o: Output(o.logits.bfloat16(), o.embedding.bfloat16())  # noqa: E731
    rows = rows._replace(teachers=tuple(half(t) for t in rows.teachers))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(half(student), rows, context(rows, half(student)))
    single = lambda o: Output(o.logits.float(), o.embedding.float())  # noqa: E731
    rows = rows._replace(teachers=tuple(single(t) for t in rows.teachers))
    exact = loss(single(half(student)), rows, context(rows, single(half(student))))
    torch.testing.assert_close(found.float(), exact, rtol=3e-2, atol=3e-2)  # bf16 keeps 8 bits


@each_loss
def test_a_loss_leaves_its_arguments_as_they_are(name, rows, student):
    before = [t.clone() for t in (student.logits, rows.y, rows.teachers[0].logits)]
    made(name)(student, rows, context(rows, student))
    after = (student.logits, rows.y, rows.teachers[0].logits)
    assert all(map(torch.equal, before, after))


# --- Targets -----------------------------------------------------------------------------------------


def test_smoothed_targets_spread_their_share_over_all_classes(rows, student):
    found = Targets(0.3)(student, rows, context(rows, student))
    target = 0.7 * torch.eye(N_WAY)[rows.y] + 0.3 / N_WAY
    expected = -(target * student.logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # torch.eye is single


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_smoothing_outside_of_its_range_is_refused(value):
    with pytest.raises(ValueError, match=rf"label_smoothing={value} is outside of \[0, 1\)"):
        Targets(value)


# --- WeightedSum ---------------------------------------------------------------------------------------


def test_a_weighted_sum_weighs_and_adds(rows, student):
    told = context(rows, student)
    found = WeightedSum({"a": Targets(), "b": Hinton(2.0)}, {"b": 0.25})(student, rows, told)
    expected = Targets()(student, rows, told) + 0.25 * Hinton(2.0)(student, rows, told)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_weight_of_a_term_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="weights name hard, kd, but terms has soft; rename"):
        WeightedSum({"soft": Hinton()}, {"kd": 1.0, "hard": 2.0})


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"weights.soft=-1.0 is outside of \[0.0, inf\]"):
        WeightedSum({"soft": Hinton()}, {"soft": -1.0})


def test_a_sum_needs_a_teacher_if_a_term_or_a_weight_does():
    assert not WeightedSum({"hard": Targets()}).needs_teacher
    assert WeightedSum({"hard": Targets(), "soft": Hinton()}).needs_teacher
    assert WeightedSum({"hard": Targets()}, {"hard": LearnedPerSample()}).needs_teacher


# --- the quiz at its best scale ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_best_scale_minimises_the_mean_loss(seed):
    torch.manual_seed(seed)
    y = torch.arange(ROWS) % N_WAY
    z = 3 * torch.randn(ROWS, N_WAY, dtype=torch.float64) + 2 * torch.eye(N_WAY)[y]
    by_search = minimize_scalar(
        lambda s: cross_entropy(s * z, y).item(), bounds=(0, 8), method="bounded"
    )
    # the argmin of a flat valley: its depth is what the two must agree on
    found = best_scale(z, y, 8.0)
    assert found.item() == pytest.approx(by_search.x, abs=1e-3)
    assert cross_entropy(found * z, y).item() <= by_search.fun + 1e-12


def test_the_best_scale_stays_in_its_range():
    y = torch.arange(ROWS) % N_WAY
    separable = torch.eye(N_WAY, dtype=torch.float64)[y]
    assert best_scale(separable, y, 8.0).item() == pytest.approx(8.0, rel=1e-9)
    assert best_scale(-separable, y, 8.0).item() == 0.0


def test_a_calibrated_quiz_does_not_pay_for_confidence(rows, student):
    told = context(rows, student)
    clear = student._replace(logits=student.logits + 2 * torch.eye(N_WAY)[rows.y])
    louder = clear._replace(logits=1.7 * clear.logits)
    quiz = CalibratedTargets(max_scale=50.0)
    values = [quiz(answer, rows, told).mean() for answer in (clear, louder)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=0)


def test_the_gradient_of_the_calibrated_quiz_is_that_of_its_minimum(rows, student):
    z, told = student.logits + 2 * torch.eye(N_WAY)[rows.y], context(rows, student)

    def quiz(z):
        return CalibratedTargets()(student._replace(logits=z), rows, told).mean()

    slope, towards, eps = grad(quiz)(z), torch.randn_like(z), 1e-4
    difference = (quiz(z + eps * towards) - quiz(z - eps * towards)) / (2 * eps)
    torch.testing.assert_close((slope * towards).sum(), difference, rtol=1e-6, atol=0)


# --- the lesson ----------------------------------------------------------------------------------------


def test_a_lesson_closes_over_strategy_rows_and_dataset_classes(rows, student):
    loss, classes = made("WeightedSum"), torch.tensor([11, 3, 19])
    progress = torch.tensor(0.4, dtype=torch.float64)
    other = {name: p + 1 for name, p in loss.named_parameters()}
    told = lesson(bind_loss(loss), other, rows, classes)(student, student, progress)
    with torch.no_grad():
        for p in loss.parameters():
            p.add_(1)
    expected = loss(student, rows, Context(classes[rows.y], progress, student))
    torch.testing.assert_close(told, expected, rtol=1e-12, atol=0)
