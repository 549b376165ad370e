"""Means over episodes with their 95 % intervals: plain numbers, exactly rounded sums."""

import math
from collections.abc import Sequence


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95% interval, 1.96 * std / sqrt(n) with n - 1 in std.

    Args:
        values: one number per episode.

    Returns:
        (mean, half-width). The half-width of a single value is nan, as one episode has no spread; JSON
        and tables show it as missing.

    Raises:
        ValueError: if there are no values.
    """
    numbers = [float(v) for v in values]  # of a tensor too, in double precision
    n = len(numbers)
    if n == 0:
        raise ValueError("an interval over 0 episodes does not exist; evaluate at least 1 episode.")
    mean = math.fsum(numbers) / n
    if n == 1:
        return mean, math.nan
    variance = math.fsum((v - mean) ** 2 for v in numbers) / (n - 1)
    return mean, 1.96 * math.sqrt(variance / n)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    ids: tuple[Sequence[int], Sequence[int]] | None = None,
) -> tuple[float, float]:
    """Mean of a - b over the same episodes and the half-width of its 95% interval.

    Args:
        a: one number per episode.
        b: the same of the other side.
        ids: episode ids of `a` and of `b`, in any order; without them both come from one table.

    Raises:
        ValueError: if the two were not evaluated on the same episodes.
    """
    same = len(a) == len(b)
    if ids is not None:
        a, b = in_order_of(ids[0], a), in_order_of(ids[1], b)
        same = sorted(ids[0]) == sorted(ids[1])
    if not same:
        raise ValueError(
            f"a paired difference needs the same episodes on both sides: a has {len(a)}, "
            f"b has {len(b)}{overlap(ids)}; evaluate both with the same data.n_episodes, split and "
            "data.eval_seed."
        )
    return interval([float(x) - float(y) for x, y in zip(a, b, strict=True)])


def in_order_of(ids: Sequence[int], values: Sequence[float]) -> Sequence[float]:
    """The values sorted by their id."""
    if len(ids) != len(values):
        raise ValueError(f"{len(ids)} ids for {len(values)} values; give one id per value.")
    return [value for _, value in sorted(zip(ids, values, strict=True))]


def overlap(ids: tuple[Sequence[int], Sequence[int]] | None) -> str:
    """The number of ids that two sides share, for a message."""
    return "" if ids is None else f", {len(set(ids[0]) & set(ids[1]))} ids are in both"
