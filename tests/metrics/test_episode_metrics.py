import math

import numpy as np
import pytest
import torch

from lightning_metakd.metrics.calibration_error import Calibration
from lightning_metakd.metrics.continual import forgetting
from lightning_metakd.metrics.episode_metrics import (
    EpisodeRows,
    accuracy,
    agreement,
    nll,
)
from lightning_metakd.metrics.intervals import interval
from tests.processes import run_on


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
    return table["id"].tolist(), *interval(table["a"].tolist()), calibration.compute()


@pytest.mark.thorough
@pytest.mark.ddp
@pytest.mark.parametrize("n", [7, 2])  # 2 episodes on 3 processes: the last one has no row at all
def test_one_two_and_three_processes_agree_to_the_last_digit(n, tmp_path):
    alone = evaluate(0, 1, n)
    assert alone[0] == list(range(n))
    for world in (2, 3):
        assert run_on(world, tmp_path, evaluate, n) == [alone] * world
