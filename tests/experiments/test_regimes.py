"""Regrets and choices are what their definitions say."""

import csv
import json

import pytest

from experiments import gate_rivals, regimes
from experiments.gate_outcomes import Outcome, is_complete, outcomes
from experiments.gate_rivals import ROWS
from experiments.gate_runs import BASE, SEEDS, Regime, as_word, place
from experiments.regimes import below_best, in_hindsight

REGIME = Regime("clean", "right labels")
NAMES = ["alone", "constant 0.1", "constant 0.5"]
CHOICES = {"best constant": ["constant 0.1", "constant 0.5"]}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Accuracies that differ by row and seed; validation prefers the first constant, and then the second."""
    monkeypatch.chdir(tmp_path)
    for seed in SEEDS:
        for number, name in enumerate(["teacher", *NAMES]):
            fit = tmp_path / "runs" / place(BASE, REGIME, seed, name)
            test = tmp_path / "runs" / place(BASE, REGIME, seed, name).replace("/fit/", "/test/")
            for folder in (fit, test):
                (folder / "0").mkdir(parents=True)
                (folder / "latest").symlink_to("0")
            (fit / "0" / "checkpoints").mkdir()
            (fit / "0" / "checkpoints" / "final.ckpt").touch()
            value = 0.5 if (number == 2) == (seed == 0) else 0.4
            with (fit / "0" / "metrics.csv").open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerows([["step", "val/student_accuracy"], [1, 0.9], [2, value], [3, ""]])
            line = {"accuracy": (10 * seed + number) / 100, "wall_s": number + 1.0}
            (test / "0" / "results.jsonl").write_text(json.dumps(line) + "\n")


@pytest.mark.usefixtures("results")
def test_a_choice_is_made_by_the_last_validation_and_costs_all_its_candidates():
    assert is_complete(REGIME, NAMES)
    table = outcomes(REGIME, NAMES, CHOICES)
    assert table["teacher"].accuracy == [0.0, 0.1, 0.2]
    assert table["best constant"].accuracy == [0.02, 0.13, 0.23]
    assert table["best constant"].seconds == [7.0] * 3
    assert not is_complete(REGIME, [*NAMES, "constant 0.9"])


def test_regret_is_to_the_best_row_of_each_seed():
    table = {"a": Outcome([0.5, 0.6], [1.0] * 2), "b": Outcome([0.7, 0.5], [1.0] * 2)}
    regrets = below_best(table | {"teacher": Outcome([0.9, 0.9], [1.0] * 2)}, ["a", "b"])
    assert regrets["a"] == pytest.approx([0.2, 0.0])
    assert regrets["b"] == pytest.approx([0.0, 0.1])


def test_hindsight_is_of_the_other_seeds():
    table = {"a": Outcome([0.9, 0.5, 0.5], []), "b": Outcome([0.6, 0.6, 0.6], [])}
    assert in_hindsight(table, ["a", "b"]).accuracy == [0.6, 0.5, 0.5]


def test_rows_have_folders_of_their_own():
    assert len({as_word(name) for name in ROWS}) == len(ROWS)
    assert set(regimes.TRAINED) <= set(ROWS)
    assert all(set(names) <= set(regimes.TRAINED) for names in regimes.CHOSEN.values())


def test_a_random_search_is_the_same_every_time():
    assert gate_rivals.drawn(8) == gate_rivals.SEARCHED
    assert list(gate_rivals.drawn_many(24).items())[:8] == list(gate_rivals.drawn_many(8).items())
