"""The problems on which update rules are compared, and the ways that are compared there."""

import pytest
import torch

from experiments import learned_optimiser
from experiments.learned_optimiser import (
    STEPS,
    Classifiers,
    by_optimiser,
    by_rule,
    compare,
    quadratic,
    small_pictures,
    trained_rule,
)
from lightning_metakd.data.sources.synthetic import Synthetic


def test_sgd_on_quadratics_is_the_closed_form():
    problem = quadratic(1)
    draw = torch.Generator().manual_seed(1)
    matrices = torch.randn(128, 10, 10, generator=draw)
    y, w = (torch.randn(128, 10, generator=draw) for _ in range(2))
    assert torch.equal(w, problem.start["w"])
    losses = by_optimiser("SGD", 0.01, problem)
    for k in range(3):
        away = torch.einsum("bij,bj->bi", matrices, w) - y
        w = w - 0.02 * torch.einsum("bij,bi->bj", matrices, away)
        expected = (torch.einsum("bij,bj->bi", matrices, w) - y).square().sum()
        torch.testing.assert_close(losses[k], expected, rtol=1e-4, atol=0)


def test_classifiers_learn_and_have_the_same_batches_for_every_way():
    x, y = small_pictures(Synthetic(per_class=20), "train")
    assert x.shape == (len(y), 64)
    problem, again = (Classifiers(x, y, hidden=20)(3) for _ in range(2))
    start = [problem.loss(problem.start, k) for k in (0, STEPS)]
    assert start == [again.loss(again.start, k) for k in (0, STEPS)]
    assert by_optimiser("Adam", 0.02, problem)[-1] < 0.9 * start[-1]


@pytest.mark.thorough
def test_a_rule_gets_better_and_is_compared_on_problems_that_no_way_has_seen(monkeypatch):
    monkeypatch.setattr(learned_optimiser, "GRID", [0.001, 0.01])
    rules = [trained_rule(quadratic, updates) for updates in (0, 15)]
    before, after = (by_rule(rule, quadratic(10**7)).mean() for rule in rules)
    assert after < before
    rows = compare("quadratics", rules[1], quadratic, 2)
    assert [row["way"] for row in rows] == ["learned", "SGD", "Adam"]
    assert [row["lr"] is None for row in rows] == [True, False, False]
    rival = next(row for row in rows if row["way"] == row["rival"])
    assert rival["ahead"] == 0
    expected = rows[0]["mean"] - rival["mean"]
    torch.testing.assert_close(rows[0]["ahead"], expected, rtol=1e-4, atol=1e-6)
