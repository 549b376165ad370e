"""A gate of images stands in its table once it was asked in all seeds."""

import itertools

from experiments.carried_gates import GATES, KEYS, SEEDS, table
from experiments.kept_answers import answer


def test_a_gate_stands_in_the_table_once_it_was_asked_in_all_seeds():
    assert table({}) == ""
    keys = [*itertools.product(GATES[:1], map(str, SEEDS)), (GATES[1], str(SEEDS[0]))]
    rows = {
        key: answer(KEYS, key, {"gate, right labels": 0.1 * number})
        for number, key in enumerate(keys)
    }
    text = table(rows)
    assert f"| {GATES[0]} | " in text
    assert "0.20 ± 0.20" in text  # of 0, 0.1 to 0.4: 2.776 times 0.158 by the root of five
    assert all(name not in text.replace(f"| {GATES[0]} |", "") for name in GATES[1:])
