import pytest
import torch

from lightning_metakd.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from tests.tiny import N_WAY, batch, context, student_answer

ROWS = batch(12)
STUDENT = student_answer(ROWS)


def test_it_is_the_two_sums_of_the_paper_with_a_number_for_the_logarithm_of_zero():
    p, label = STUDENT.logits.softmax(-1), torch.eye(N_WAY, dtype=torch.float64)[ROWS.y]
    of_label = torch.where(label > 0, 0.0, -4.0).to(p)
    expected = -0.3 * (label * p.log()).sum(-1) - 0.8 * (p * of_label).sum(-1)
    actual = SymmetricCrossEntropy(0.3, 0.8).double()(STUDENT, ROWS, context(ROWS, STUDENT))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"alpha": -1.0}, "alpha"), ({"log_zero": 0.0}, r"log_zero=0\.0 must be positive")],
)
def test_weights_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SymmetricCrossEntropy(**settings)
