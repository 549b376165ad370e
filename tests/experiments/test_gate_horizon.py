"""What a raised gate does is measured on a student of its own, by the loss that the training has."""

import pytest
import torch

from experiments import gate_horizon
from experiments.gate_horizon import FOLLOW, LR, WEIGHT_DECAY, Gates, Rows, judge, raised, train
from lightning_metakd.losses import MatchGate
from lightning_metakd.models import MLP
from lightning_metakd.types import Batch, Context, Output

N_CLASSES = 5


@pytest.fixture
def student():
    torch.manual_seed(0)
    return MLP(width_in=4, widths=[6], n_classes=N_CLASSES)


@pytest.fixture
def rows():
    x, logits = torch.randn(8, 4), torch.randn(8, N_CLASSES)
    index = torch.arange(8)
    batch = Batch(x, index % N_CLASSES, index, index, (Output(logits, logits),))
    return Rows(batch, index < 3)


def match_gate(student, rows, gate):
    output = student(rows.batch.x)
    context = Context(torch.arange(N_CLASSES), torch.ones(()), output)
    return MatchGate(gate=gate, match=FOLLOW)(output, rows.batch, context)


def test_the_loss_is_that_of_match_gate_on_each_group(student, rows):
    low, high = match_gate(student, rows, 0.3), match_gate(student, rows, 0.7)
    expected = torch.where(rows.wrong, high, low).mean()
    actual = gate_horizon.teaching_loss(student, rows, Gates(right=0.3, wrong=0.7))
    torch.testing.assert_close(actual, expected)


def test_a_step_is_of_a_copy_and_down_the_gradient(student, rows):
    before = [p.detach().clone() for p in student.parameters()]
    after = train(student, [rows], Gates(), momentum=0.9)
    loss = match_gate(student, rows, 0.5).mean()
    slopes = torch.autograd.grad(loss, list(student.parameters()))
    for start, slope, end, kept in zip(
        before, slopes, after.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(end.detach(), start - LR * (slope + WEIGHT_DECAY * start))
        torch.testing.assert_close(kept.detach(), start, rtol=0.0, atol=0.0)


def test_an_effect_is_what_the_high_gate_adds(student, rows):
    low, high = raised("wrong")
    assert low.right == high.right == 0.5
    effect = gate_horizon.effect(student, [rows], "wrong", rows.batch, momentum=0.0)
    ends = [judge(train(student, [rows], gates, 0.0), rows.batch) for gates in (low, high)]
    assert effect == pytest.approx(tuple(b - a for a, b in zip(*ends, strict=True)))
    assert effect.plain < 0.0  # judged by the rows themselves, whose labels are then followed more


def test_without_rows_there_is_no_table():
    assert gate_horizon.table({}) == ""
