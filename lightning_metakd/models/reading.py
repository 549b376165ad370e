"""How a network's input is made of the rows of a source, as its checkpoint keeps it."""

from collections.abc import Sequence
from typing import Any

from lightning_metakd.arguments.ranges import check_integer, check_number, check_positive
from lightning_metakd.types import Normalisation, Reading, Vocabulary

MOST_TOKENS = 10_000_000
"""Numbers of tokens lie below it; vocabularies of many languages have some 250,000."""
LONGEST = 100_000
"""Most tokens of a text."""


def checked_normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """A normalisation of these numbers.

    Args:
        mean: of each channel, or one number for all of them.
        std: likewise.

    Raises:
        ValueError: if they are not finite, a deviation is not positive, or their number differs.
    """
    if not mean or len(std) != len(mean):
        raise ValueError(
            f"mean={list(mean)} and std={list(std)} must be numbers, one for each channel."
        )
    for value in mean:
        check_number("mean", value)
    for value in std:
        check_positive("std", value)
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def checked_vocabulary(tokeniser: str, size: int, max_tokens: int, pad: int) -> Vocabulary:
    """A vocabulary of these numbers; whether its tokeniser is one shows where it is used."""
    if not isinstance(tokeniser, str):
        raise TypeError(f"tokeniser={tokeniser!r} must be text.")
    check_integer("size", size, 1, MOST_TOKENS)
    check_integer("max_tokens", max_tokens, 1, LONGEST)
    check_integer("pad", pad, 0, size - 1)
    return Vocabulary(tokeniser, size, max_tokens, pad)


def as_record(reading: Reading | None) -> dict[str, Any] | None:
    """What a checkpoint keeps of a reading."""
    if reading is None:
        return None
    fields = reading._asdict().items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields}


def from_record(record: Any) -> Reading:
    """The reading that a checkpoint keeps.

    Raises:
        ValueError, TypeError, KeyError: if it is none.
    """
    if "tokeniser" in record:
        return checked_vocabulary(**record)
    return checked_normalisation(record["mean"], record["std"])


def in_words(reading: Reading | None) -> str:
    """A reading in a message."""
    if reading is None:
        return "no reading, being vectors"
    if isinstance(reading, Vocabulary):
        return f"a vocabulary of {reading.size:,} tokens"
    return f"mean={list(reading.mean)} and std={list(reading.std)}"
