import math

import pytest

from lightning_metakd.reporting.markdown import (
    between_markers,
    count,
    duration,
    markdown,
    nonempty_columns,
    percent,
)


def test_missing_markers_are_an_error():
    with pytest.raises(ValueError, match="section='a' is there 0 times, not once; put the lines"):
        between_markers("# A\n<!-- results:begin b -->\n<!-- results:end -->", "a", "table")


def test_numbers_are_written_for_people():
    assert [count(v) for v in (None, 12, 999, 1500, 2.5e6, 3e9)] == [
        *("-", "12", "999", "1.5 k", "2.5 M", "3 G"),
    ]
    assert [duration(v) for v in (None, 5.4, 65, 7260)] == ["-", "5 s", "1 min 05 s", "2 h 01 min"]
    assert percent(0.5, None) == "50.00"
    assert percent(-0.015, 0.001, "+") == "-1.50 ± 0.10"
    assert percent(0.5, math.nan) == "50.00"


def test_a_table_aligns_names_left_and_numbers_right():
    assert markdown([{"name": "a", "n": "10"}, {"name": "long", "n": "5"}]) == (
        "| name |  n |\n| ---- | -: |\n| a    | 10 |\n| long |  5 |"
    )


def test_columns_of_which_nothing_is_known_are_left_out():
    rows = [{"name": "a", "n": "-", "m": "-"}, {"name": "b", "n": "5", "m": "-"}]
    assert nonempty_columns(rows) == [{"name": "a", "n": "-"}, {"name": "b", "n": "5"}]
