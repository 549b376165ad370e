"""Texts as rows of bytes, their augmented views, and their tokens.

A text is its words with one space between, in UTF-8; shorter ones are filled up with zeros. It is augmented
before it is read, so that a student and a teacher of other tokens see the same view: some words are left out
(word dropout, Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text
Classification"). Which ones follows from the number of the row and that of the view.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from lightning_metakd.data.sources.seeding import hash64
from lightning_metakd.types import Vocabulary

SPACE = ord(" ")
LONGEST_WORD = 32
"""Bytes of a word, on average over a text; what is longer is no language."""
MULTIPLE = 8
"""Rows of tokens are filled up to a multiple of it, so that there are few shapes."""
PAD = "[PAD]"
FEWEST_TOKENS = 257
"""Of a vocabulary over bytes."""
DEPTH = 2**20


def encode(texts: Sequence[str], max_words: int) -> UInt8[Tensor, "n bytes"]:
    """Texts as rows of bytes; words beyond the first `max_words` are left out, and very long words cut."""
    rows = [shortened(text, max_words).encode() for text in texts]
    table = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.uint8)
    for row, text in zip(table, rows, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    return torch.from_numpy(table)


def shortened(text: str, max_words: int) -> str:
    """The first words of a text, with one space between, of `LONGEST_WORD` bytes on average at most."""
    words = " ".join(text.replace("\0", " ").split()[:max_words])
    return words.encode()[: LONGEST_WORD * max_words].decode(errors="ignore")


def decode(x: UInt8[Tensor, "n bytes"]) -> list[str]:
    """The texts of rows of bytes."""
    return [row.tobytes().rstrip(b"\0").decode() for row in x.cpu().numpy()]


def drop_words(
    x: UInt8[Tensor, "n bytes"], index: Int[Tensor, " n"], view: Int[Tensor, " n"], share: float
) -> UInt8[Tensor, "n bytes"]:
    """These views of texts: each word is left out with probability `share`, but one word always stays.

    Args:
        index: number of the text.
        view: which of its views; -1 is the text as it is.
    """
    return drop(x, (x == SPACE).cumsum(1), x > 0, index, view, share)


def drop_tokens(
    x: Int[Tensor, "n l"],
    index: Int[Tensor, " n"],
    view: Int[Tensor, " n"],
    share: float,
    pad: int = 0,
) -> Int[Tensor, "n l"]:
    """The same for tokens, of texts whose words are not at hand."""
    return drop(
        x, torch.arange(x.shape[1], device=x.device).expand_as(x), x != pad, index, view, share, pad
    )


def drop(
    x: Tensor,
    word: Int[Tensor, "n l"],
    present: Bool[Tensor, "n l"],
    index: Int[Tensor, " n"],
    view: Int[Tensor, " n"],
    share: float,
    pad: int = 0,
) -> Tensor:
    """Rows without some of their words, the rest moved together.

    Args:
        word: to which word of its row a place belongs, ascending.
        present: whether a place is filled; the filled ones come first.
    """
    bits = hash64(hash64(index) ^ view)[:, None]
    last = torch.where(present, word, 0).amax(1, keepdim=True)
    stays = (bits & (DEPTH - 1)) % (last + 1)
    dropped = (hash64(bits ^ word) & (DEPTH - 1)) < int(share * DEPTH)
    kept = present & (~dropped | (word == stays) | (view < 0)[:, None])
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    moved = x.gather(1, order)
    return torch.where(kept.gather(1, order), moved, torch.full_like(moved, pad))


def tokens(x: UInt8[Tensor, "n bytes"], vocabulary: Vocabulary) -> Int[Tensor, "n l"]:
    """Numbers of the tokens of each text, filled up to the longest. Made on the host.

    Raises:
        ValueError: if the vocabulary is none.
    """
    tokeniser = opened(vocabulary)
    encodings = tokeniser.encode_batch_fast(decode(x))
    ids = np.array([e.ids for e in encodings], dtype=np.int64)
    return torch.from_numpy(ids[:, : vocabulary.max_tokens]).to(x.device)  # no padding beyond it


@lru_cache(maxsize=8)
def opened(vocabulary: Vocabulary) -> Any:
    """The tokeniser, set to cut and fill up."""
    tokenizers = library()
    try:
        tokeniser = tokenizers.Tokenizer.from_str(vocabulary.tokeniser)
    except Exception as error:  # the library has no exceptions of its own
        raise ValueError(
            f"the vocabulary of {vocabulary.size:,} tokens cannot be read ({error}); take it from a "
            "checkpoint that is whole, or train again."
        ) from error
    tokeniser.enable_truncation(vocabulary.max_tokens)
    tokeniser.enable_padding(pad_id=vocabulary.pad, pad_to_multiple_of=MULTIPLE)
    return tokeniser


def trained_vocabulary(texts: Iterable[str], n_tokens: int, max_tokens: int) -> Vocabulary:
    """Byte-pair tokens of these texts in lower case: the same whatever their order, on every machine.

    Sennrich, Haddow, Birch (2016), arXiv:1508.07909, over bytes, so that no text has an unknown character.

    Args:
        texts: those that are trained on, and no others.
        n_tokens: at most; 256 bytes, one that fills up, and what occurs most.
        max_tokens: of a text.
    """
    tokenizers = library()
    tokeniser = tokenizers.Tokenizer(tokenizers.models.BPE())
    steps = tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()
    tokeniser.normalizer = tokenizers.normalizers.Sequence(list(steps))
    tokeniser.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=[PAD],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokeniser.train_from_iterator(texts, trainer)
    return Vocabulary(tokeniser.to_str(), tokeniser.get_vocab_size(), max_tokens)


def library() -> Any:
    """The library of tokenisers.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return import_module("tokenizers")
    except ImportError as error:
        raise ValueError(
            "texts are divided into tokens by the package tokenizers; install lightning_metakd[text]."
        ) from error
