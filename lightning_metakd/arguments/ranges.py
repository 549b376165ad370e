"""Checks of arguments: each raises one line with the argument, its value and what is allowed.

An argument is named as on the command line, such as `data.n_way`, or as the constructor calls it.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Literal

MOST_CLASSES, MOST_CHANNELS, MOST_UNITS = 1_000_000, 4_096, 65_536
"""Of a classifier, of a convolution, of a linear layer: more would hardly fit into memory."""
MOST_LAYERS, MOST_STEPS, MOST_BINS = 1_000, 10_000, 1_000_000
LARGEST_SIDE = 4_096
"""Of an image, in pixels."""
LARGEST = 3.4e38
"""Larger numbers are infinite in 32 bits."""

Ends = Literal["()", "[)", "(]", "[]"]


def check_integer(
    path: str, value: object, low: int, high: int = 10**9, hint: str = "", *, optional: bool = False
) -> None:
    """Raise where an argument is no whole number between two bounds, which are allowed themselves.

    Args:
        hint: what else the message says, such as "for instance 5".
        optional: whether None is allowed.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        refuse(path, value, f"a whole number, {low:,} or more", hint)
    elif int(value) < low:
        refuse(path, value, f"{low:,} or more", hint)
    elif int(value) > high:
        refuse(path, value, f"{high:,} or less", hint)


def check_integers(path: str, values: object, count: int | None, low: int, high: int) -> None:
    """Raise where an argument is no list of whole numbers between two bounds.

    Args:
        count: of the numbers; None stands for any but 0.
    """
    listed = values if isinstance(values, Sequence) else ()
    counted = len(listed) == (count or max(1, len(listed)))
    whole = (isinstance(v, Integral) and not isinstance(v, bool) for v in listed)
    if not (counted and all(whole) and all(low <= v <= high for v in listed)):
        number = "" if count is None else f"{count} "
        refuse(path, values, f"a list of {number}whole numbers from {low:,} to {high:,}")


def check_choice(path: str, value: object, choices: Iterable[str]) -> None:
    """Raise where an argument is none of a few words."""
    words = tuple(choices)
    if value not in words:
        raise ValueError(f"{path}={value!r} is unknown; choose one of {', '.join(words)}.")


def check_number(
    path: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    ends: Ends = "()",
    hint: str = "",
    *,
    optional: bool = False,
) -> None:
    """Raise where an argument is no finite number of an interval.

    Args:
        ends: whether the bounds are allowed themselves.
        hint: what else the message says, such as "for instance 0.01".
        optional: whether None is allowed.
    """
    if optional and value is None:
        return
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    above = number >= low if ends[0] == "[" else number > low
    below = number <= high if ends[1] == "]" else number < high
    if not (above and below and abs(number) <= LARGEST):
        refuse(path, value, interval(low, high, ends), hint)


def check_positive(path: str, value: object, hint: str = "", *, optional: bool = False) -> None:
    """Raise where an argument is not a positive finite number."""
    check_number(path, value, 0.0, hint=hint, optional=optional)


def check_seed(path: str, value: object) -> None:
    """Raise where an argument is no seed: a whole number of 32 bits, as Lightning takes them."""
    check_integer(path, value, 0, 2**32 - 1)


def check_share(path: str, value: object, hint: str = "") -> None:
    """Raise where an argument is no share of a whole from which something is to be left."""
    check_number(path, value, 0.0, 1.0, "[)", hint)


def interval(low: float, high: float, ends: Ends) -> str:
    """An interval in words."""
    least = (
        f"at least {low:g}" if ends[0] == "[" else "positive" if low == 0 else f"more than {low:g}"
    )
    most = f"at most {high:g}" if ends[1] == "]" else f"less than {high:g}"
    bounds = [least] * math.isfinite(low) + [most if math.isfinite(high) else "finite"]
    return " and ".join(bounds)


def refuse(path: str, value: object, allowed: str, hint: str = "") -> None:
    """Say what an argument must be."""
    raise ValueError(f"{path}={value!r} must be {allowed}{hint and ', '}{hint}.")
