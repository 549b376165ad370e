import pytest
import torch
from torch.func import grad, vmap
from torch.nn.functional import kl_div
from torch.utils._pytree import tree_map

from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.losses.coefficient import Constant, Learned, LearnedPerClass, Scheduled
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.layer_pairs import LayerPair
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import CrossEntropy, WeightedSum, batch_loss, held_out_accuracy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import (
    Heaviest,
    MostAccurate,
    MultiTeacher,
    OfTeacher,
    largest,
)
from lightning_metakd.strategy.strategy_file import coefficient_values, load_strategy, save_strategy
from lightning_metakd.types import Output
from tests.tiny import N_WAY, answered, batch, context, perturbed, student_answer

ROWS, TEACHERS = 9, 3
CONSTANTS = [0.5, 1.5, 2.0]
HINTS = {"embedding": "embedding"}


@pytest.fixture
def rows():
    return answered(batch(ROWS), TEACHERS)


@pytest.fixture
def student(rows):
    return student_answer(rows)


def of_each(loss, student, rows):
    """The loss of each teacher alone [k, n]."""
    row_context = context(rows, student)
    alone = [rows._replace(teacher_outputs=(teacher,)) for teacher in rows.teacher_outputs]
    return torch.stack([loss(student, view, row_context) for view in alone])


def shares(loss, student, rows, result=None):
    """What the weights say [k, n]."""
    recorded = []
    hook = loss.weights.register_forward_hook(lambda module, args, value: recorded.append(value))
    loss(student, rows, context(rows, student) if result is None else result)
    hook.remove()
    return recorded[0]


def shared():
    return perturbed(MultiTeacher(Hinton(4.0), LearnedPerSample()).double())


# --- weights -----------------------------------------------------------------------------------------


def test_constant_weights_are_made_to_add_up_to_one(rows, student):
    actual = MultiTeacher(Hinton(2.0), CONSTANTS)(student, rows, context(rows, student))
    expected = torch.tensor(CONSTANTS).double() / 4 @ of_each(Hinton(2.0), student, rows)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_by_default_every_teacher_has_the_same_weight(rows, student):
    actual = MultiTeacher(Hinton())(student, rows, context(rows, student))
    expected = of_each(Hinton(), student, rows).mean(0)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "weights",
    [
        lambda: [Learned(), 0.3, Scheduled(1.0, 0.0)],
        lambda: [LearnedPerClass(20), Learned(2.0), LearnedPerSample()],
        LearnedPerSample,
    ],
)
def test_weights_are_not_negative_and_add_up_to_one_in_every_row(weights, rows, student):
    loss = perturbed(MultiTeacher(Hinton(), weights()).double())
    actual = shares(loss, student, rows)
    assert actual.shape == (TEACHERS, ROWS)
    assert (actual >= 0).all()
    torch.testing.assert_close(actual.sum(0), torch.ones(ROWS).double(), rtol=1e-12, atol=0)


def test_a_weight_looks_at_its_own_teacher(rows, student):
    loss = perturbed(MultiTeacher(Hinton(), [LearnedPerSample() for _ in range(3)]).double())
    before = loss.weights.of_teacher[2](
        rows._replace(teacher_outputs=rows.teacher_outputs[2:]), context(rows, student)
    )
    views = [rows._replace(teacher_outputs=(t,)) for t in rows.teacher_outputs]
    raw = [
        w(v, context(rows, student)) for w, v in zip(loss.weights.of_teacher, views, strict=True)
    ]
    torch.testing.assert_close(raw[2], before)
    expected = torch.stack(raw) / torch.stack(raw).sum(0)
    torch.testing.assert_close(shares(loss, student, rows), expected, rtol=1e-12, atol=0)


def test_a_shared_weight_goes_with_its_teacher_whatever_the_order_of_the_pool(rows, student):
    loss, order = shared(), torch.tensor([2, 0, 1])
    other = rows._replace(teacher_outputs=tuple(rows.teacher_outputs[k] for k in order))
    actual, moved = (shares(loss, student, sample) for sample in (rows, other))
    assert actual.std(0).max() > 1e-3
    torch.testing.assert_close(moved, actual[order], rtol=1e-12, atol=0)
    torch.testing.assert_close(
        loss(student, other, context(other, student)),
        loss(student, rows, context(rows, student)),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("n_teachers", [1, 2, 5])
def test_a_shared_weight_suits_any_number_of_teachers(n_teachers):
    loss, rows = shared(), answered(batch(ROWS), n_teachers)
    actual = shares(loss, student_answer(rows), rows)
    assert actual.shape == (n_teachers, ROWS)
    torch.testing.assert_close(actual.sum(0), torch.ones(ROWS).double(), rtol=1e-12, atol=0)


# --- the identity: sum_k w_k KL(p_k | q) = KL(p | q) + sum_k w_k KL(p_k | p), p = sum_k w_k p_k --------


def test_the_mean_of_divergences_is_that_to_the_mean_and_a_part_of_the_weights_alone(rows, student):
    w = torch.tensor(CONSTANTS).double() / 4
    p = torch.stack([teacher.logits.softmax(1) for teacher in rows.teacher_outputs])  # [k n c]
    mean, row_context = torch.einsum("k,knc->nc", w, p), context(rows, student)
    loss = MultiTeacher(Hinton(1.0), CONSTANTS)

    def to_the_mean(logits):
        return kl_div(logits.log_softmax(1), mean, reduction="none").sum(1)

    apart = (w[:, None] * (p * (p / mean).log()).sum(2)).sum(0)
    actual = loss(student, rows, row_context)
    torch.testing.assert_close(actual, to_the_mean(student.logits) + apart, rtol=1e-10, atol=0)
    slope = grad(lambda z: loss(student._replace(logits=z), rows, row_context).sum())(
        student.logits
    )
    expected = grad(lambda z: to_the_mean(z).sum())(student.logits)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-12)


def test_the_mean_of_logits_is_another_teacher(rows, student):
    logits = torch.stack([teacher.logits for teacher in rows.teacher_outputs]).mean(0)
    geometric = rows._replace(teacher_outputs=(Output(logits, rows.teacher_outputs[0].embedding),))
    row_context = context(rows, student)

    def slope(loss, rows):
        return grad(lambda z: loss(student._replace(logits=z), rows, row_context).sum())(
            student.logits
        )

    actual = slope(MultiTeacher(Hinton(1.0)), rows) - slope(Hinton(1.0), geometric)
    assert actual.abs().max() > 1e-2


# --- choices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "count", "expected"),
    [
        ([0.1, 0.7, 0.2], 1, [0, 1, 0]),
        ([0.1, 0.7, 0.2], 2, [0, 1, 1]),
        ([0.4, 0.4, 0.2], 1, [1, 0, 0]),  # of equal ones the first
        ([0.2, 0.4, 0.4], 2, [0, 1, 1]),
        ([0.3, 0.3, 0.3], 2, [1, 1, 0]),
        ([0.3, 0.3, 0.3], 5, [1, 1, 1]),
    ],
)
def test_the_largest_are_chosen_and_of_equal_ones_the_first(scores, count, expected):
    assert largest(torch.tensor(scores), count).tolist() == [bool(e) for e in expected]


def test_the_largest_are_chosen_under_vmap_as_one_by_one():
    scores = torch.randint(4, (20, 5)).double()
    mapped = vmap(lambda s: largest(s, 2))(scores)
    assert torch.equal(mapped, torch.stack([largest(s, 2) for s in scores]))
    assert (mapped.sum(1) == 2).all()


def test_the_heaviest_teachers_share_the_weight_among_them(rows, student):
    actual = shares(MultiTeacher(Hinton(), CONSTANTS, Heaviest(2)), student, rows)
    assert actual[:, 0].tolist() == pytest.approx([0.0, 1.5 / 3.5, 2.0 / 3.5])


def test_the_heaviest_of_weights_by_row_is_that_of_the_largest_mean(rows, student):
    free, chosen = shared(), shared()
    chosen.weights.choose = Heaviest()
    chosen.load_state_dict(free.state_dict())
    views = [rows._replace(teacher_outputs=(t,)) for t in rows.teacher_outputs]
    raw = [free.weights.of_teacher[0](v, context(rows, student)).mean() for v in views]
    best = torch.stack(raw).argmax()
    actual = shares(chosen, student, rows)
    assert torch.equal(actual.argmax(0), best.expand(ROWS))
    assert (actual[best] == 1).all()


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 1, 0]), (2, [0, 0.6, 0.4])])
def test_those_teach_that_are_right_on_the_support_set(count, expected, rows, student):
    loss = MultiTeacher(Hinton(), [5.0, 0.6, 0.4], MostAccurate(count))
    row_context = context(rows, student)._replace(
        teacher_support_accuracy=torch.tensor([0.2, 0.9, 0.5]).double()
    )
    assert shares(loss, student, rows, row_context)[:, 4].tolist() == pytest.approx(expected)


def test_a_teacher_without_weight_is_not_chosen_however_accurate(rows, student):
    loss = MultiTeacher(Hinton(), [0.0, 1.0, 1.0], MostAccurate())
    row_context = context(rows, student)._replace(
        teacher_support_accuracy=torch.tensor([0.9, 0.2, 0.5]).double()
    )
    assert shares(loss, student, rows, row_context)[:, 0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("choose", [Heaviest, MostAccurate])
def test_a_choice_can_be_mapped_over_episodes(choose):
    loss = perturbed(MultiTeacher(Hinton(), LearnedPerSample(), choose()).double())
    tasks = [answered(batch(ROWS), TEACHERS) for _ in range(4)]
    answers = [student_answer(rows) for rows in tasks]

    def of(rows, answer):
        row_context = context(rows, answer)._replace(
            teacher_support_accuracy=held_out_accuracy(rows)
        )
        slope = grad(lambda o: loss(o, rows, row_context).mean())(answer)
        return loss(answer, rows, row_context), slope.logits

    stacked = [tree_map(lambda *leaves: torch.stack(leaves), *trees) for trees in (tasks, answers)]
    for mapped, alone in zip(
        vmap(of)(*stacked), zip(*map(of, tasks, answers), strict=True), strict=True
    ):
        torch.testing.assert_close(mapped, torch.stack(alone), rtol=1e-9, atol=1e-12)


def test_a_teacher_that_does_not_teach_leaves_no_gradient_in_its_weight(rows, student):
    loss = MultiTeacher(Hinton(), [Learned(w) for w in CONSTANTS], Heaviest(2)).double()
    value = loss(student, rows, context(rows, student)).sum()
    slopes = torch.autograd.grad(value, list(loss.parameters()))
    assert [bool(slope) for slope in slopes] == [False, True, True]


# --- trust -------------------------------------------------------------------------------------------


def test_trust_is_the_part_of_the_support_rows_that_a_teacher_names(rows):
    named = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1, 2], [0, 1, 1, 0, 1, 1, 0, 1, 1], [2] * 9])
    support = rows._replace(
        teacher_outputs=tuple(
            t._replace(logits=torch.eye(N_WAY).double()[n])
            for t, n in zip(rows.teacher_outputs, named, strict=True)
        )
    )
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, rows, torch.arange(N_WAY), support)
    assert support_loss.teacher_support_accuracy.tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert held_out_accuracy(batch(ROWS)) == ()
    assert (
        batch_loss(
            bind_loss(CrossEntropy()), {}, rows, torch.arange(N_WAY)
        ).teacher_support_accuracy
        == ()
    )


def test_trust_of_one_teacher_is_its_own(rows, student):
    inner = MultiTeacher(Hinton(), 1.0, MostAccurate())
    row_context = context(rows, student)._replace(
        teacher_support_accuracy=torch.tensor([0.2, 0.9, 0.5]).double()
    )
    actual = OfTeacher(1, inner)(student, rows, row_context)
    torch.testing.assert_close(actual, of_each(Hinton(), student, rows)[1], rtol=1e-12, atol=0)


# --- one of the pool, and layers -----------------------------------------------------------------------


@pytest.mark.parametrize("k", range(TEACHERS))
def test_a_loss_of_one_teacher_reads_that_one(k, rows, student):
    actual = OfTeacher(k, Hinton(3.0))(student, rows, context(rows, student))
    expected = of_each(Hinton(3.0), student, rows)[k]
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_hints_of_each_teacher_reach_the_loss_as_those_of_the_first(rows, student):
    actual = MultiTeacher(FitNets(HINTS), CONSTANTS)(student, rows, context(rows, student))
    single = [
        (student.hints[f"{k}:embedding>embedding"] - teacher.embedding).square().mean(1)
        for k, teacher in enumerate(rows.teacher_outputs)
    ]
    expected = torch.tensor(CONSTANTS).double() / 4 @ torch.stack(single)
    alone = OfTeacher(2, FitNets(HINTS))(student, rows, context(rows, student))
    factor = alone / single[2]  # FitNets's own
    torch.testing.assert_close(factor, factor[:1].expand(ROWS), rtol=1e-10, atol=0)
    torch.testing.assert_close(actual, factor[0] * expected, rtol=1e-10, atol=0)


def test_layers_are_read_of_every_teacher_or_of_the_one_that_is_named():
    hints = FitNets(HINTS)
    loss = WeightedSum({"all": MultiTeacher(hints), "one": OfTeacher(2, hints), "first": hints})
    assert list(loss.layer_pairs()) == [
        LayerPair(k, "embedding", "embedding", adapted=True) for k in (None, 2, 0)
    ]


# --- what is refused -----------------------------------------------------------------------------------


def test_weights_for_another_number_of_teachers_are_refused(rows, student):
    with pytest.raises(ValueError, match="weights has 2 entries for 3 teachers; give one for each"):
        MultiTeacher(Hinton(), [1.0, 2.0])(student, rows, context(rows, student))


@pytest.mark.parametrize(
    "weights",
    [
        0.0,
        [0.0, 0.0],
        [Constant(0.0), Scheduled(1.0, 0.0)],
        [Scheduled(0.0, 1.0), 0.0],
        Scheduled(0.0, 1.0),
    ],
)
def test_weights_that_are_all_zero_at_some_time_are_refused(weights):
    with pytest.raises(ValueError, match="weights are all 0, and no teacher would teach; make one"):
        MultiTeacher(Hinton(), weights)


def test_schedules_may_cross():
    MultiTeacher(Hinton(), [Scheduled(0.0, 1.0), Scheduled(1.0, 0.0)])


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"weights\.1=-1\.0 must be at least 0 and finite"):
        MultiTeacher(Hinton(), [1.0, -1.0])


@pytest.mark.parametrize("one", [Learned(), LearnedPerClass(4), [Learned()]])
def test_one_learned_weight_that_no_teacher_changes_is_refused(one):
    with pytest.raises(
        ValueError, match=r"weights=Learned\w* is the same for every teacher, which"
    ):
        MultiTeacher(Hinton(), one)


@pytest.mark.parametrize("choice", [Heaviest, MostAccurate])
def test_a_choice_of_none_is_refused(choice):
    with pytest.raises(ValueError, match="count=0 must be 1 or more, or nobody teaches"):
        choice(0)


def test_the_most_accurate_on_no_support_set_is_refused(rows, student):
    loss = MultiTeacher(Hinton(), 1.0, MostAccurate())
    with pytest.raises(ValueError, match=r"choose=MostAccurate needs the .* take Heaviest"):
        loss(student, rows, context(rows, student))


def test_a_teacher_that_is_not_in_the_pool_is_refused(rows, student):
    with pytest.raises(ValueError, match=r"teacher=-1 must be 0 or more"):
        OfTeacher(-1, Hinton())
    with pytest.raises(ValueError, match=r"teacher=3 is not among the 3 of model\.teachers"):
        OfTeacher(3, Hinton())(student, rows, context(rows, student))


# --- as a strategy -------------------------------------------------------------------------------------


def test_shares_are_described_by_number(rows, student):
    loss = shared()
    actual, w = (
        coefficient_values(loss, student, rows, context(rows, student)),
        shares(loss, student, rows),
    )
    expected = {}
    for k in range(TEACHERS):
        for name, value in (("mean", w[k].mean()), ("min", w[k].min()), ("max", w[k].max())):
            expected[f"weights.{k}_{name}"] = pytest.approx(value.item())
    assert actual == expected | {"loss.temperature_mean": pytest.approx(4.0)}


def test_what_is_asked_of_several_teachers_is_described_over_all(rows, student):
    loss = perturbed(MultiTeacher(MatchGate(LearnedPerSample()), 1.0).double())
    actual = coefficient_values(loss, student, rows, context(rows, student))
    views = [rows._replace(teacher_outputs=(t,)) for t in rows.teacher_outputs]
    text = torch.stack([loss.loss.gate(view, context(rows, student)) for view in views])
    assert actual["loss.gate_mean"] == pytest.approx(text.mean().item())
    assert actual["loss.gate_max"] == pytest.approx(text.max().item())


@pytest.mark.parametrize(
    "weights", [LearnedPerSample, lambda: [Learned(), LearnedPerSample(), 0.5]]
)
def test_a_strategy_of_several_teachers_comes_back_as_it_was(weights, tmp_path):
    strategies, other = (MultiTeacher(MatchGate(Learned()), weights()) for _ in range(2))
    save_strategy(perturbed(strategies), tmp_path / "strategy", ["PrototypeHead"] * 3, [1.0] * 3)
    load_strategy(other, tmp_path / "strategy", ["PrototypeHead"] * 3)
    assert strategies.state_dict().keys() == other.state_dict().keys()
    assert all(map(torch.equal, strategies.state_dict().values(), other.state_dict().values()))


def test_a_shared_weight_can_be_carried_to_a_pool_of_another_size(tmp_path):
    save_strategy(shared().float(), tmp_path / "strategy", ["PrototypeHead"] * 2, [1.0] * 2)
    load_strategy(shared().float(), tmp_path / "strategy", ["PrototypeHead"] * 3)
    with pytest.raises(ValueError, match=r"answer by \['PrototypeHead', 'PrototypeHead'\], and"):
        load_strategy(shared().float(), tmp_path / "strategy", ["SlicedHead"] * 3)


def test_replaced_weights_weigh_from_then_on(rows, student):
    loss = MultiTeacher(Hinton(), LearnedPerSample())
    loss.weights.replace(CONSTANTS)
    actual = shares(loss, student, rows)[:, 0]
    assert actual.tolist() == pytest.approx([w / 4 for w in CONSTANTS])
