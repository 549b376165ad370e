import json
import math
import re

from lightning_metakd.reporting.page_elements import (
    PALETTE,
    Cell,
    Figure,
    figure_html,
    in_script,
    picture_html,
    rounded,
    shortened,
    style,
    table_html,
)

EVIL = "</script><img src=x onerror=alert(1)>"


def luminance(colour):
    """Relative luminance of the WCAG."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_lines_stand_out_on_both_themes():
    for colour in PALETTE:
        assert contrast(colour, "#f6f7f9") >= 3, colour
        assert contrast(colour, "#1d2127") >= 3, colour


def test_eighteen_lines_differ():
    looks = {(s["line"]["color"], s["line"]["dash"]) for s in map(style, range(18))}
    assert len(looks) == 18


def test_what_stands_in_a_script_cannot_end_it():
    text = in_script({"name": EVIL, "y": [1.23456789, math.nan, math.inf]})
    assert "<" not in text
    assert json.loads(text) == {"name": EVIL, "y": [1.2346, None, None]}


def test_numbers_have_as_many_digits_as_a_figure_shows():
    assert rounded({"a": [1 / 3, (2, True)]}) == {"a": [0.33333, [2, True]]}


def test_a_long_text_loses_its_middle():
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("abc", 7) == "abc"
    assert len(shortened("x" * 50, 8)) == 8


def test_a_figure_says_in_words_what_it_shows():
    text = figure_html(Figure("<T>", [{"x": [1]}], {}, EVIL), "f-0")
    assert 'tabindex="0"' in text
    assert 'aria-describedby="f-0-words"' in text
    assert "&lt;T&gt;" in text
    assert EVIL not in text


def test_a_table_sorts_by_numbers_behind_its_texts():
    rows = [
        {"name": Cell(EVIL), "accuracy": Cell("50.00 ± 1.00", 0.5), "none": Cell("-", math.nan)},
        {"name": Cell("b"), "accuracy": Cell("-", math.nan), "none": Cell("-", math.nan)},
    ]
    text = table_html("all", rows)
    assert EVIL not in text
    assert "none</button>" not in text
    assert '<td data-v="0.5">50.00 ± 1.00</td>' in text
    assert "<td>-</td>" in text
    assert text.count('<th scope="col" aria-sort="none"') == 2
    assert 'class="more"' not in text
    many = table_html("all", rows * 20)
    assert "Show all 40 rows" in many


def test_a_picture_stands_in_the_page():
    assert re.fullmatch(
        r'<img src="data:image/webp;base64,AAE=" alt="&lt;b&gt;">', picture_html(b"\0\1", "<b>")
    )
