"""Rules beside what they say in words, and Bayes' rule beside counting."""

import pytest
import torch

from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.losses.rules import Confidence, Posterior, Threshold
from lightning_metakd.types import Output
from tests.tiny import answered, batch, context, student_answer

ROWS = answered(batch(12))
STUDENT = student_answer(ROWS)


def gate(rule, rows=ROWS, student=STUDENT):
    return MatchGate(rule).gate(rows, context(rows, student))


def of_label(output):
    return output.logits.softmax(-1)[torch.arange(len(ROWS.y)), ROWS.y]


@pytest.mark.parametrize("judge", ["teacher", "student"])
def test_a_threshold_parts_rows_by_the_probability_of_their_label(judge):
    p = of_label(ROWS.teacher_outputs[0] if judge == "teacher" else STUDENT)
    middle = float(p.median())
    actual = gate(Threshold(middle, above=0.9, below=0.2, judge=judge))
    assert actual.tolist() == [0.9 if x >= middle else 0.2 for x in p.tolist()]
    assert Threshold(judge=judge).needs_teacher == (judge == "teacher")


def test_a_posterior_is_how_often_such_a_label_is_right():
    rate, n_classes, n = 0.4, 4, 400_000
    draw = torch.Generator().manual_seed(0)
    p = torch.tensor([0.55, 0.25, 0.15, 0.05], dtype=torch.float64)
    true = torch.multinomial(p, n, replacement=True, generator=draw)
    other = (true + torch.randint(1, n_classes, (n,), generator=draw)) % n_classes
    is_wrong = torch.rand(n, generator=draw) < rate
    labels = torch.where(is_wrong, other, true)
    expected = [(~is_wrong)[labels == c].double().mean() for c in range(n_classes)]
    rows = batch(n_classes)._replace(y=torch.arange(n_classes))
    output = Output(p.log().expand(n_classes, -1), torch.zeros(n_classes, 1))
    actual = gate(Posterior(rate), rows._replace(teacher_outputs=(output,)), output)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=0.01)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_a_label_that_cannot_be_is_wrong_and_no_number_is_missing(rate):
    logits = torch.tensor([[0.0, -1e4], [-1e4, 0.0]], dtype=torch.float64)
    rows = batch(2)._replace(y=torch.tensor([0, 0]))
    output = Output(logits, torch.zeros(2, 1))
    actual = gate(Posterior(rate), rows._replace(teacher_outputs=(output,)), output)
    assert actual.tolist() == [1.0, 0.0]


def test_who_is_sure_counts_by_how_sure():
    sure, unsure = ROWS.teacher_outputs[0], STUDENT
    pool = ROWS._replace(teacher_outputs=(sure, unsure))
    powers = [o.logits.softmax(-1).amax(-1) ** 3 for o in pool.teacher_outputs]
    share = powers[0] / sum(powers)
    alone = [
        Hinton()(STUDENT, one, context(one, STUDENT))
        for one in (ROWS, ROWS._replace(teacher_outputs=(unsure,)))
    ]
    loss = MultiTeacher(Hinton(), weights=Confidence(power=3.0))
    actual = loss(STUDENT, pool, context(pool, STUDENT))
    torch.testing.assert_close(actual, share * alone[0] + (1 - share) * alone[1])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: Threshold(1.5), r"threshold=1\.5 must be at least 0 and at most 1"),
        (lambda: Confidence(-1.0), r"power=-1\.0 must be at least 0 and at most 100"),
        (lambda: Posterior(1.0), r"rate=1\.0"),
        (lambda: MatchGate(Threshold(above=2.0)), r"gate\.above=2\.0"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        rule()


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("rule", [Threshold, Posterior])
def test_an_unknown_judge_is_refused(rule):
    with pytest.raises(
        ValueError, match="judge='oracle' is unknown; choose one of teacher, student"
    ):
        rule(judge="oracle")
