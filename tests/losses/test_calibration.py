"""The likeliest scale of logits, against searches and the condition that it solves."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.calibration import likeliest_scale

ROWS, N_WAY = 12, 3
ENDS = math.exp(9), math.exp(-9)
"""Those of the heads."""


@pytest.mark.parametrize("seed", range(5))
def test_the_likeliest_scale_minimises_the_mean_loss(seed):
    torch.manual_seed(seed)
    y = torch.arange(ROWS) % N_WAY
    z = 3 * torch.randn(ROWS, N_WAY, dtype=torch.float64) + 2 * torch.eye(N_WAY)[y]
    by_search = minimize_scalar(
        lambda s: cross_entropy(s * z, y).item(), bounds=(0, 8), method="bounded"
    )
    # the argmin of a flat valley: its depth is what the two must agree on
    actual = likeliest_scale(z, y, 8.0)
    assert actual.item() == pytest.approx(by_search.x, abs=1e-3)
    assert cross_entropy(actual * z, y).item() <= by_search.fun + 1e-12


def test_the_likeliest_scale_stays_in_its_range():
    y = torch.arange(ROWS) % N_WAY
    separable = torch.eye(N_WAY, dtype=torch.float64)[y]
    assert likeliest_scale(separable, y, 8.0).item() == pytest.approx(8.0, rel=1e-9)
    assert likeliest_scale(-separable, y, 8.0).item() == 0.0
    assert likeliest_scale(-separable, y, 8.0, 0.5).item() == 0.5


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_a_search_in_the_logarithm_finds_the_scale_of_a_grid(spread):
    y = torch.arange(N_WAY).repeat(30)
    z = 3 * spread * torch.randn(len(y), N_WAY, dtype=torch.float64) + 2 * torch.eye(N_WAY)[y]
    grid = torch.linspace(-6, 6, 4001).double().exp()
    losses = torch.stack([cross_entropy(s * z, y) for s in grid])
    actual = likeliest_scale(z, y, *ENDS)
    assert actual.item() == pytest.approx(grid[losses.argmin()].item(), rel=4e-3)  # spacing 3e-3
    assert cross_entropy(actual * z, y) <= losses.min()


def test_calibrated_confidence_is_accuracy_on_easy_and_on_hard_rows():
    # at the likeliest scale the expected logit is that of the truth, on average
    y = torch.arange(N_WAY).repeat(50)
    z = torch.randn(len(y), N_WAY, dtype=torch.float64) + torch.eye(N_WAY)[y]
    s = likeliest_scale(z, y, *ENDS)
    expected = ((s * z).softmax(1) * z).sum(1).mean()
    assert math.isclose(expected, z.gather(1, y[:, None]).mean(), rel_tol=1e-9)
