"""Texts as bytes, their views, and their tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_metakd.data.sources.text_rows import (
    decode,
    drop_tokens,
    drop_words,
    encode,
    tokens,
    trained_vocabulary,
)

TEXTS = [
    "how do I get to the station",
    "is there a bus to the airport",
    "book me a table for two",
    "a",
    "über  naïve\tcafés\n北京",
]


def views(n, view):
    return torch.arange(n), torch.full((n,), view)


# 64 characters are 256 bytes at most, which 8 words may have
UNCUT = st.text(st.characters(exclude_categories=("Cs",)), max_size=64)


@given(st.lists(UNCUT, min_size=1, max_size=5))
def test_bytes_are_the_words_of_a_text(texts):
    expected = [" ".join(text.replace("\0", " ").split()[:8]) for text in texts]
    assert decode(encode(texts, 8)) == expected


def test_a_very_long_word_is_cut_behind_a_whole_character():
    assert decode(encode(["é" * 300, "a" + "é" * 300], 8)) == ["é" * 128, "a" + "é" * 127]


def test_a_view_lacks_whole_words_in_their_order_and_never_all_of_them():
    x, share = encode(TEXTS * 100, 20), 0.5
    texts = decode(x)
    dropped = decode(drop_words(x, *views(len(texts), 3), share))
    for text, view in zip(texts, dropped, strict=True):
        left = iter(text.split())
        assert view.split()
        assert all(word in left for word in view.split())  # a subsequence
    long = [
        (len(v.split()), len(t.split())) for v, t in zip(dropped, texts, strict=True) if len(t) > 20
    ]
    left = sum((n_view - 1) / (n_text - 1) for n_view, n_text in long) / len(
        long
    )  # one always stays
    assert left == pytest.approx(1 - share, abs=0.05)
    assert decode(drop_words(x, *views(len(texts), -1), 1.0)) == texts
    assert all(len(t.split()) == 1 for t in decode(drop_words(x, *views(len(texts), 0), 1.0)))


def test_a_view_depends_on_the_number_of_the_text_and_not_on_its_company():
    x = encode(TEXTS, 20)
    index, view = views(len(TEXTS), 7)
    together = drop_words(x, index, view, 0.4)
    for row in range(len(TEXTS)):
        alone = encode(TEXTS[row : row + 1], 20)
        one = drop_words(alone, index[row : row + 1], view[row : row + 1], 0.4)
        assert decode(one) == decode(together[row : row + 1])
    assert decode(together) != decode(drop_words(x, index, view + 1, 0.4))


def test_a_vocabulary_does_not_depend_on_the_order_of_the_texts():
    many = [f"{a} {b}" for a in TEXTS for b in TEXTS]
    one = trained_vocabulary(many, 300, 16)
    assert one == trained_vocabulary(many[::-1], 300, 16)
    assert 257 < one.size <= 300


def test_tokens_are_below_the_size_and_filled_up_with_padding():
    vocabulary = trained_vocabulary(TEXTS, 280, 12)
    x = tokens(encode(TEXTS, 20), vocabulary)
    assert x.shape[1] == 12  # a multiple of 8, but for the limit
    assert x.max() < vocabulary.size
    lengths = (x != vocabulary.pad).sum(1)
    assert (lengths <= 12).all()
    assert (lengths > 0).all()
    for row, length in zip(x, lengths, strict=True):
        assert (row[:length] != vocabulary.pad).all()


def test_dropping_tokens_keeps_the_rest_in_order():
    x = torch.tensor([[5, 6, 7, 8, 9, 0, 0], [4, 0, 0, 0, 0, 0, 0]])
    view = drop_tokens(x, torch.arange(2), torch.zeros(2, dtype=torch.long), 0.5)
    kept = view[0][view[0] > 0].tolist()
    assert kept == sorted(kept)
    assert 0 < len(kept) < 5
    assert view[1].tolist() == x[1].tolist()


def test_a_damaged_vocabulary_is_told():
    vocabulary = trained_vocabulary(TEXTS, 280, 12)._replace(tokeniser="{}")
    with pytest.raises(ValueError, match="the vocabulary of 280 tokens cannot be read"):
        tokens(encode(TEXTS, 20), vocabulary)
