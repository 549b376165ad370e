"""Checks of numeric arguments: each raises one line with the argument, its value and what is allowed.

An argument is named by its path on the command line, such as `data.n_way`.
"""

from numbers import Integral, Real


def check_integer(path: str, value: object, low: int, high: int = 10**9) -> None:
    """Raise where an argument is no whole number between two bounds, which are allowed themselves."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        refuse(path, value, f"a whole number, {low:,} or more")
    elif int(value) < low:
        refuse(path, value, f"{low:,} or more")
    elif int(value) > high:
        refuse(path, value, f"{high:,} or less")


def check_seed(path: str, value: object) -> None:
    """Raise where an argument is no seed: a whole number of 32 bits, as Lightning takes them."""
    check_integer(path, value, 0, 2**32 - 1)


def check_share(path: str, value: object) -> None:
    """Raise where an argument is no share of a whole from which something is to be left."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        refuse(path, value, "at least 0 and less than 1")


def refuse(path: str, value: object, allowed: str) -> None:
    """Say what an argument must be."""
    raise ValueError(f"{path.rpartition('.')[2]}={value} must be {allowed}; correct {path}.")
