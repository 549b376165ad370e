import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metakd.metrics.calibration_error import Calibration
from lightning_metakd.metrics.continual import forgetting
from lightning_metakd.metrics.episode_metrics import (
    EpisodeRows,
    accuracy,
    agreement,
    interval,
    nll,
    paired_difference,
)
from tests.processes import run_on

FRACTIONS = st.lists(st.floats(0, 1), min_size=2, max_size=50)


@given(FRACTIONS)
@settings(max_examples=50, deadline=None)
def test_interval_is_that_of_numpy(values):
    mean, half_width = interval(torch.tensor(values, dtype=torch.float64))
    assert mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-15)
    expected = 1.96 * np.std(values, ddof=1) / math.sqrt(len(values))
    assert half_width == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(FRACTIONS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_interval_does_not_depend_on_the_order_in_any_digit(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    doubles = [torch.tensor(v, dtype=torch.float64) for v in (values, shuffled)]
    assert interval(doubles[0]) == interval(doubles[1])


def test_interval_of_one_episode_has_no_width():
    mean, half_width = interval(torch.tensor([0.25]))
    assert mean == 0.25
    assert math.isnan(half_width)


def test_interval_of_no_episode_is_an_error():
    with pytest.raises(ValueError, match="0 episodes does not exist; evaluate at least 1 episode"):
        interval(torch.tensor([]))


def test_paired_difference_is_the_interval_of_the_differences():
    a, b = torch.tensor([0.5, 0.75, 1.0]), torch.tensor([0.25, 0.25, 1.0])
    mean, half_width = paired_difference(a, b)
    assert mean == 0.25
    assert half_width == pytest.approx(1.96 * 0.25 / math.sqrt(3), rel=1e-12)


def test_paired_difference_pairs_by_id():
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([30.0, 10.0, 20.0])
    ids = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    aligned = torch.tensor([10.0, 20.0, 30.0])
    assert paired_difference(a, b, ids=ids) == paired_difference(a, aligned)


def test_paired_difference_with_itself_is_zero():
    a = torch.rand(9, dtype=torch.float64)
    assert paired_difference(a, a) == (0.0, 0.0)


def test_paired_difference_names_the_counts_when_episodes_differ():
    a, b = torch.zeros(3), torch.zeros(2)
    with pytest.raises(ValueError, match=r"a has 3, b has 2; evaluate both with the same data"):
        paired_difference(a, b)
    ids = torch.tensor([0, 1, 2]), torch.tensor([1, 7])
    with pytest.raises(ValueError, match="a has 3, b has 2, 1 ids are in both; evaluate both"):
        paired_difference(a, b, ids=ids)
    with pytest.raises(ValueError, match="2 ids for 3 values; give one id per value"):
        paired_difference(a, a, ids=(torch.arange(2), torch.arange(3)))


def test_accuracy_agreement_and_nll_have_their_closed_forms():
    logits = torch.tensor([[0.0, 0.0, 5.0], [9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    other = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    y = torch.tensor([2, 0, 1, 0])
    assert accuracy(logits, y) == 0.75
    assert agreement(logits, other) == 0.5
    probs = np.exp(logits.double().numpy())
    expected = -np.log(probs[np.arange(4), y] / probs.sum(1)).mean()
    assert nll(logits, y) == pytest.approx(expected, rel=1e-12)
    assert nll(torch.zeros(4, 3), y) == pytest.approx(math.log(3), rel=1e-12)


def test_forgetting_is_best_minus_last():
    # task 0: 0.9, 0.95, then 0.5 -> 0.45; task 1: (0.99 before it was learned), 0.8, 0.7 -> 0.1
    after = torch.tensor([[0.9, 0.99, 0.0], [0.95, 0.8, 0.0], [0.5, 0.7, 0.6]])
    assert forgetting(after) == pytest.approx((0.45 + 0.1) / 2, rel=1e-6)
    with pytest.raises(ValueError, match="forgetting over 1 tasks does not exist; use at least 2"):
        forgetting(torch.ones(1, 1))


def test_rows_come_back_sorted_by_id_in_float64():
    rows = EpisodeRows(["student_accuracy", "nll"])
    rows.update(torch.tensor(3), student_accuracy=torch.tensor(0.25), nll=1.5)
    rows.update(torch.tensor([1, 0]), nll=torch.tensor([2.0, 3.0]), student_accuracy=torch.ones(2))
    table = rows.compute()
    assert list(table) == ["id", "student_accuracy", "nll"]
    assert table["id"].tolist() == [0, 1, 3]
    assert table["student_accuracy"].tolist() == [1, 1, 0.25]
    assert table["nll"].tolist() == [3, 2, 1.5]
    assert table["nll"].dtype == torch.float64


def test_rows_start_anew_after_reset():
    rows = EpisodeRows(["a"])
    for value in (1.0, 2.0):
        rows.reset()
        rows.update(0, a=value)
        assert rows.compute()["a"].tolist() == [value]


def test_rows_survive_a_move_to_half_precision():
    rows = EpisodeRows(["a"]).to(torch.bfloat16)
    rows.update(257, a=1 / 3)
    assert rows.compute()["id"].tolist() == [257]
    assert rows.compute()["a"].dtype == torch.float64


def test_rows_refuse_what_would_change_the_mean():
    rows = EpisodeRows(["a"])
    with pytest.raises(ValueError, match=r"no episode was evaluated; set data\.n_episodes"):
        rows.compute()
    with pytest.raises(ValueError, match=r"the columns \['b'\], expected \['a'\]; name the same"):
        rows.update(0, b=1.0)
    rows.update(4, a=1.0)
    rows.update(4, a=1.0)
    with pytest.raises(
        ValueError, match=r"episode 4 was evaluated twice .*use_distributed_sampler"
    ):
        rows.compute()
    with pytest.raises(ValueError, match="must not hold 'id'"):
        EpisodeRows(["id", "a"])


def evaluate(rank, world, n):
    rows, calibration = EpisodeRows(["a"]), Calibration()
    for i in range(rank, n, world):
        generator = torch.Generator().manual_seed(i)
        rows.update(i, a=torch.rand((), generator=generator))
        probs = torch.randn(20, 5, generator=generator).softmax(-1)
        calibration.update(probs, torch.randint(5, (20,), generator=generator))
    table = rows.compute()
    return table["id"].tolist(), *interval(table["a"]), calibration.compute()


@pytest.mark.thorough
@pytest.mark.ddp
@pytest.mark.parametrize("n", [7, 2])  # 2 episodes on 3 processes: the last one has no row at all
def test_one_two_and_three_processes_agree_to_the_last_digit(n, tmp_path):
    alone = evaluate(0, 1, n)
    assert alone[0] == list(range(n))
    for world in (2, 3):
        assert run_on(world, tmp_path, evaluate, n) == [alone] * world
