"""Weights of rows by their loss, beside the formula of the paper."""

import torch

from lightning_metakd.losses.loss import CrossEntropy, WeightedSum
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.meta_weight_net import MetaWeightNet
from tests.tiny import answered, batch, context, perturbed, student_answer

ROWS = answered(batch(12))
STUDENT = student_answer(ROWS)


def test_a_weight_is_the_perceptron_of_the_loss():
    loss = perturbed(WeightedSum({"labels": CrossEntropy()}, {"labels": MetaWeightNet(7)})).double()
    losses = -STUDENT.logits.log_softmax(-1)[torch.arange(12), ROWS.y]
    w1, b1, w2, b2 = (p.detach() for p in loss.parameters())
    expected = torch.stack(
        [1 / (1 + (-(w2[0] @ (w1[:, 0] * x + b1).clamp(min=0) + b2[0])).exp()) for x in losses]
    )
    actual = loss(STUDENT, ROWS, context(ROWS, STUDENT))
    torch.testing.assert_close(actual, expected * losses, rtol=1e-10, atol=1e-12)
    assert expected.std() > 1e-3


def test_it_starts_alike_for_every_row_and_reads_no_teacher():
    gate = MatchGate(MetaWeightNet(init=0.3)).double()
    assert not gate.gate.needs_teacher
    rows = batch(4)
    values = gate.gate(rows, context(rows, student_answer(rows)))
    torch.testing.assert_close(values, torch.full((4,), 0.3).to(values), rtol=1e-6, atol=0)
