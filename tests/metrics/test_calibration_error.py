import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_metakd.metrics.calibration_error import Calibration, expected_calibration_error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_torchmetrics(bins):
    generator = torch.Generator().manual_seed(bins)
    probs = torch.randn(500, 5, generator=generator).mul(2).softmax(-1).double()
    y = torch.randint(5, (500,), generator=generator)
    expected = multiclass_calibration_error(probs, y, num_classes=5, n_bins=bins)
    assert expected_calibration_error(probs, y, bins) == pytest.approx(float(expected), rel=1e-6)


def test_calibration_error_of_a_sure_and_wrong_network_is_one():
    probs = torch.eye(3)
    assert expected_calibration_error(probs, torch.tensor([1, 2, 0])) == 1
    assert expected_calibration_error(probs, torch.tensor([0, 1, 2])) == 0


def test_calibration_error_refuses_logits_and_empty_input():
    with pytest.raises(ValueError, match="probs takes probabilities, apply softmax to logits"):
        expected_calibration_error(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
    with pytest.raises(
        ValueError, match="probs has values that are not finite; look at the weights"
    ):
        expected_calibration_error(torch.full((1, 2), math.nan), torch.tensor([0]))
    with pytest.raises(ValueError, match="bins=0 must be 1 or more, for instance 15"):
        expected_calibration_error(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), 0)
    with pytest.raises(ValueError, match="calibration of 0 rows does not exist"):
        expected_calibration_error(torch.empty(0, 2), torch.empty(0, dtype=torch.long))


def test_calibration_over_episodes_is_that_of_all_rows_at_once():
    probs, y = torch.rand(60, 4).softmax(-1), torch.randint(4, (60,))
    pooled = Calibration()
    for part in (slice(0, 7), slice(7, 41), slice(41, 60)):
        pooled.update(probs[part], y[part])
    assert pooled.compute() == expected_calibration_error(probs, y)
