"""Words of docs/glossary.md are where it says, and have a source."""

import re
from pathlib import Path

import pytest

import lightning_metakd

PAGE = Path(__file__).parents[2] / "docs" / "glossary.md"
PACKAGE = Path(lightning_metakd.__file__).parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| word ")
]


def test_the_words_that_need_saying_are_there_once():
    words = [word for word, *_ in ROWS]
    assert len(words) == len(set(words)) >= 20
    assert {"support", "query", "strategy", "coefficient", "gate", "quiz", "pilot"} <= set(words)


@pytest.mark.parametrize(("word", "meaning", "source", "where"), ROWS, ids=[row[0] for row in ROWS])
def test_a_word_is_where_the_page_says_and_has_a_source(word, meaning, source, where):
    file, name = re.fullmatch(r"`([\w/]+\.py)` \(`(.+)`\)", where).groups()
    assert name in (PACKAGE / file).read_text()
    assert meaning.endswith(".")
    assert source in ("this project", "the same") or re.search(
        r"arXiv:\d{4}\.\d{4,5}|\d{4}", source
    )
