import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lightning_metakd.reporting.seed_intervals import (
    between_seeds,
    central_probability,
    over_seeds,
    t_quantile,
)

ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=9)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 200, 1001])
def test_probability_and_quantile_are_those_of_scipy(degrees):
    for t in (0.0, 0.1, 1.0, 4.0, 50.0):
        expected = 2 * student.cdf(t, degrees) - 1
        assert central_probability(t, degrees) == pytest.approx(expected, rel=1e-11, abs=1e-14)
    assert t_quantile(degrees) == pytest.approx(student.ppf(0.975, degrees), rel=1e-9)


def test_a_quantile_without_degrees_of_freedom_is_an_error():
    with pytest.raises(ValueError, match="degrees=0 of freedom must be at least 1; use at least 2"):
        t_quantile(0)


@given(ACCURACIES)
@settings(max_examples=30, deadline=None)
def test_the_interval_over_seeds_is_that_of_scipy(values):
    mean, half_width = over_seeds(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-15)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    expected = student.ppf(0.975, len(values) - 1) * error
    assert half_width == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_a_single_seed_has_no_width():
    mean, half_width = over_seeds([0.25])
    assert mean == 0.25
    assert math.isnan(half_width)


def test_identical_trainings_are_apart_by_exactly_nothing():
    assert between_seeds([0.61, 0.61, 0.61]) == (0.0, 0.0)


def test_seeds_are_apart_by_the_mean_over_all_pairs():
    apart, half_width = between_seeds([0.0, 0.25, 1.0])
    assert apart == (0.25 + 1.0 + 0.75) / 3
    root_mean_square = math.sqrt((0.25**2 + 1.0 + 0.75**2) / 3)
    expected = student.ppf(0.975, 2) * root_mean_square / math.sqrt(3)
    assert half_width == pytest.approx(expected, rel=1e-9)


def test_a_second_training_of_all_seeds_lies_in_the_a_a_interval_19_times_of_20():
    draws = np.random.default_rng(0).normal(size=(500, 2, 3))
    inside = [
        abs(np.mean(first) - np.mean(second)) < between_seeds(first.tolist())[1]
        for first, second in draws
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)  # three standard errors
