import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metakd.metrics.intervals import interval, paired_difference

FRACTIONS = st.lists(st.floats(0, 1), min_size=2, max_size=50)


@given(FRACTIONS)
@settings(max_examples=50, deadline=None)
def test_interval_is_that_of_numpy(values):
    mean, half_width = interval(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-15)
    expected = 1.96 * np.std(values, ddof=1) / math.sqrt(len(values))
    assert half_width == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(FRACTIONS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_interval_does_not_depend_on_the_order_in_any_digit(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert interval(values) == interval(shuffled)


def test_interval_of_one_episode_has_no_width():
    mean, half_width = interval([0.25])
    assert mean == 0.25
    assert math.isnan(half_width)


def test_interval_of_no_episode_is_an_error():
    with pytest.raises(ValueError, match="0 episodes does not exist; evaluate at least 1 episode"):
        interval([])


def test_paired_difference_is_the_interval_of_the_differences():
    a, b = [0.5, 0.75, 1.0], [0.25, 0.25, 1.0]
    mean, half_width = paired_difference(a, b)
    assert mean == 0.25
    assert half_width == pytest.approx(1.96 * 0.25 / math.sqrt(3), rel=1e-12)


def test_paired_difference_pairs_by_id():
    a, b = [1.0, 2.0, 3.0], [30.0, 10.0, 20.0]
    ids = [0, 1, 2], [2, 0, 1]
    aligned = [10.0, 20.0, 30.0]
    assert paired_difference(a, b, ids=ids) == paired_difference(a, aligned)


def test_paired_difference_with_itself_is_zero():
    a = torch.rand(9, dtype=torch.float64).tolist()
    assert paired_difference(a, a) == (0.0, 0.0)


def test_paired_difference_names_the_counts_when_episodes_differ():
    a, b = [0.0] * 3, [0.0] * 2
    with pytest.raises(ValueError, match=r"a has 3, b has 2; evaluate both with the same data"):
        paired_difference(a, b)
    ids = [0, 1, 2], [1, 7]
    with pytest.raises(ValueError, match="a has 3, b has 2, 1 ids are in both; evaluate both"):
        paired_difference(a, b, ids=ids)
    with pytest.raises(ValueError, match="2 ids for 3 values; give one id per value"):
        paired_difference(a, a, ids=([0, 1], [0, 1, 2]))


@pytest.mark.usefixtures("as_users_run_it")
def test_interval_of_a_tensor_is_that_of_its_numbers():
    values = torch.rand(50)
    assert interval(values) == interval(values.tolist())
