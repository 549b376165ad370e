"""Rows that were asked come back as they were written, beside earlier ones."""

from experiments.kept_answers import answer, read_answers, write_answers

KEYS = ("regime", "seed")


def test_what_is_written_is_read_in_the_order_of_its_keys(tmp_path):
    file = tmp_path / "rows.csv"
    assert read_answers(file, KEYS) == {}
    rows = {
        key: answer(KEYS, key, {"loss": n / 3}) for n, key in enumerate([("b", "0"), ("a", "1")])
    }
    write_answers(file, rows)
    back = read_answers(file, KEYS)
    assert list(back) == [("a", "1"), ("b", "0")]
    assert back == rows
    assert back["a", "1"] == {"regime": "a", "seed": "1", "loss": "0.3333"}
