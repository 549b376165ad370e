"""What a gate says is compared with what is true of the labels."""

import itertools

import pytest
import torch

from experiments.gate_reading import ASKED, GATES, KEYS, Reading, table
from experiments.gate_runs import SEEDS
from experiments.kept_answers import answer


def reading(gate):
    """Four rows, of which the first two have right labels."""
    wrong = torch.tensor([False, False, True, True])
    return Reading(
        torch.tensor(gate), torch.tensor([0.9, 0.1, 0.5, 0.2]), torch.full((4,), 0.5), wrong
    )


def test_a_gate_that_ranks_right_labels_first_has_the_whole_area():
    row = reading([0.9, 0.8, 0.3, 0.1]).row()
    assert row["gate, right labels"] == pytest.approx(0.85)
    assert row["gate, wrong labels"] == pytest.approx(0.2)
    assert row["AUROC of the gate"] == 1.0
    assert row["AUROC of the teacher"] == 0.5  # above both wrong ones, and above neither
    assert reading([0.1, 0.2, 0.8, 0.9]).row()["AUROC of the gate"] == 0.0


def test_a_regime_stands_in_the_table_once_all_its_gates_were_asked():
    assert table({}) == ""
    first, second = ASKED[:2]
    values = reading([0.9, 0.8, 0.3, 0.1]).row()
    pairs = [
        *itertools.product([first], SEEDS, GATES),
        *itertools.product([second], SEEDS[:1], GATES),
    ]
    keys = [(regime.name, str(seed), name) for regime, seed, name in pairs]
    text = table({key: answer(KEYS, key, values) for key in keys})
    assert first.title in text
    assert second.title not in text
    assert text.count("1.00 ± 0.00") == len(GATES)
