"""The table of many coefficients says what was searched, and what choosing costs."""

import pytest

from experiments import many_coefficients
from experiments.gate_outcomes import Outcome
from experiments.gate_rivals import drawn_many
from experiments.many_coefficients import LEARNED, LONGEST, MANY_REGIMES, of_many, table_of_many


def test_a_longer_search_begins_with_a_shorter_one():
    assert list(drawn_many(64).items())[:24] == list(drawn_many(24).items())
    short, long = (set(of_many(regime)) for regime in MANY_REGIMES)
    assert short < long
    assert len(long - short) == LONGEST["rows30_rate20"] - LONGEST["clean"]


def test_what_was_not_searched_is_left_out_and_learning_costs_what_was_timed(monkeypatch):
    def outcomes(regime, names, choices):
        def outcome(name):
            return Outcome([0.5, 0.5, 0.5], [3.0 if name == LEARNED else 2.0] * 3)

        return {name: outcome(name) for name in ("teacher", *names, *choices)}

    monkeypatch.setattr(many_coefficients, "outcomes", outcomes)
    lines = table_of_many(MANY_REGIMES).splitlines()
    cells = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines
    }
    assert cells["random search of 64"] == ["-", "50.00 ± 0.00", "64.0"]
    assert cells["random search of 24"] == ["50.00 ± 0.00", "50.00 ± 0.00", "24.0"]
    assert float(cells["learned"][-1]) == pytest.approx(1.5)
    assert cells["uniform"][-1] == "-"
