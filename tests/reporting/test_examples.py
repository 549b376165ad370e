import re

import pytest

from lightning_metakd.reporting.answers import answered
from lightning_metakd.reporting.examples import episodes_html, extremes_html
from lightning_metakd.reporting.result_rows import read_results, rows_of
from lightning_metakd.storage.answer_table import read_answers, write_answers
from tests.left_results import leave_answers


@pytest.fixture
def replies(tmp_path):
    leave_answers(tmp_path / "0")
    return answered(rows_of(read_results(tmp_path)))


def test_an_episode_shows_its_rows_and_who_was_right(replies):
    text = episodes_html(replies)
    assert re.findall(r"<summary>(.*?)</summary>", text) == [
        f"Episode {i}: 2 of 4 right, teacher 4" for i in range(3)
    ]
    assert text.count("<details open>") == 1
    assert text.count("Learned from") == 2  # the third has no support rows on record
    assert text.count('<li class="wrong">') == 6
    assert "<q>a &lt;b&gt; sentence</q>" in text
    assert text.count("<img ") == 15
    assert 'alt="ant"' in text
    assert '<span class="hidden"> (wrong)</span>' in text


def test_the_rows_that_a_gate_tells_apart_are_shown_at_both_ends(replies):
    text = extremes_html(replies)
    lowest, highest = text.split("Trusted least (highest gate)")
    assert re.findall(r"gate (0\.\d+)<", lowest) == ["0.100", "0.173", "0.245", "0.318"]
    assert re.findall(r"gate (0\.\d+)<", highest) == ["0.318", "0.245", "0.173", "0.100"]
    assert "Of 4 rows of test classes the lowest value is 0.100" in text


def test_without_pictures_and_texts_there_is_nothing_to_show(tmp_path):
    leave_answers(tmp_path / "0")
    path = tmp_path / "0" / "answers.test.npz"
    write_answers(path, read_answers(path)._replace(pictures={}, texts={}))
    bare = answered(rows_of(read_results(tmp_path)))
    assert episodes_html(bare) == extremes_html(bare) == ""
