"""Texts of one's own, and those that are refused."""

import json
from itertools import chain

import pytest

from lightning_metakd.data.sources import Texts

WORDS = (
    "bill",
    "card",
    "loan",
    "rate",
    "visa",
    "cash",
    "fund",
    "debt",
    "bond",
    "fee",
    "tax",
    "sum",
)
ROWS = [
    (f"my {word} is {how} {n}", word)
    for word in WORDS
    for n, how in enumerate(("late", "lost", "high", "low, and wrong", "gone"))
]


def table(path, rows=ROWS, head="text,label", encoding="utf-8"):
    lines = [head, *(f'"{text}","{label}"' for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture
def csv_file(tmp_path):
    return table(tmp_path / "tickets.csv")


def test_a_table_is_read_and_its_classes_divided(csv_file):
    source = Texts(str(csv_file), n_tokens=300)
    x, y, _, names = source.all_rows()
    assert names == tuple(sorted(WORDS))
    assert source.row_names[3] == "my bill is low, and wrong 3"
    assert [names[c] for c in y.tolist()] == [label for _, label in ROWS]
    assert len(x) == len(ROWS)
    divided = [source.split_names[split] for split in ("train", "val", "test")]
    assert sorted(chain(*divided)) == sorted(WORDS)
    source.check_rows()


def test_json_lines_say_the_same(csv_file, tmp_path):
    file = tmp_path / "tickets.jsonl"
    file.write_text("\n\n".join(json.dumps({"message": t, "team": c}) for t, c in ROWS))
    lines = Texts(str(file), text="message", label="team")
    assert lines.content == Texts(str(csv_file)).content


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*ROWS, ("no label", "")],
            r"column 'label' of line 62 of .*tickets.csv is empty; fill it",
        ),
        (
            [*ROWS[:2], ("  ", "bill")],
            r"column 'text' of line 4 of .* is empty; fill it, or remove",
        ),
        ([*ROWS, ("once", "rare")], r"label 'rare' in .* has 1 text, and a class needs 2"),
        ([], "holds no texts"),
    ],
    ids=["no label", "no text", "single", "nothing"],
)
def test_a_row_that_cannot_be_used_is_named(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Texts(str(table(tmp_path / "tickets.csv", rows))).all_rows()


def test_a_missing_column_is_named(csv_file):
    with pytest.raises(ValueError, match=r"source\.label='team' is no column .* has text, label"):
        Texts(str(csv_file), label="team").all_rows()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of .* is no JSON"),
        ("3", "is '3', and must be an object"),
        ('{"text": ["a"], "label": "b"}', r"is \['a'\], no text"),
    ],
)
def test_a_line_that_is_no_object_is_named(line, message, tmp_path):
    file = tmp_path / "it.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=message):
        Texts(str(file)).all_rows()


def test_another_encoding_is_told_and_can_be_named(tmp_path):
    rows = [(f"café {text}", label) for text, label in ROWS]
    file = table(tmp_path / "it.csv", rows, encoding="cp1252")
    with pytest.raises(
        ValueError, match=r"cannot be read as encoding=utf-8-sig .*cp1252 or utf-16"
    ):
        Texts(str(file)).all_rows()
    with pytest.raises(ValueError, match="cannot be read as encoding=klingon"):
        Texts(str(file), encoding="klingon").all_rows()
    assert Texts(str(file), encoding="cp1252").row_names[0].startswith("café")


def test_a_text_of_ten_thousand_words_is_cut_and_it_is_said(tmp_path):
    long = " ".join(str(n) for n in range(10_000))
    source = Texts(str(table(tmp_path / "it.csv", [*ROWS, (long, "bill")])), max_tokens=16)
    with pytest.warns(UserWarning, match="1 of the 61 texts .* more than 16 words and are cut"):
        x = source.all_rows().x
    assert x.shape[1] <= 16 * 32


@pytest.mark.parametrize("name", ["it.xlsx", "it"])
def test_another_format_is_refused(name):
    with pytest.raises(
        ValueError, match=r"path=.* is no table of texts; give a file that ends in .csv"
    ):
        Texts(name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*it.csv for data.source.path"):
        Texts(str(tmp_path / "it.csv")).all_rows()
