"""What a few training seeds say: intervals by Student's t, and how far seeds are from one another.

Episodes of one run say how well that run does; only several trainings say what the method does.
Student (1908), "The Probable Error of a Mean", Biometrika 6. The quantile is found from the finite sum
for whole degrees of freedom: Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, mean, stdev

SEEDS_OF_A_CLAIM = 3
"""With fewer training seeds no difference is called a gain."""


def central_probability(t: float, degrees: int) -> float:
    """Probability that a Student variable lies between -t and t.

    Args:
        t: bound, not negative.
        degrees: of freedom, a whole number from 1.
    """
    cos2 = degrees / (degrees + t * t)
    term, total = math.sqrt(cos2) ** (degrees % 2), 0.0
    for power in range(degrees % 2, degrees - 1, 2):
        total += term
        term *= cos2 * (power + 1) / (power + 2)
    total *= math.sqrt(1 - cos2)
    odd = degrees % 2 == 1
    return 2 / math.pi * (math.atan(t / math.sqrt(degrees)) + total) if odd else total


def t_quantile(degrees: int) -> float:
    """The t between whose negative and itself a Student variable lies with probability 0.95.

    >>> round(t_quantile(2), 3)
    4.303

    Raises:
        ValueError: if there is no degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"degrees={degrees} of freedom must be at least 1; use at least 2 seeds.")
    low, high = 1.9, 13.0  # 1.96 without end, 12.71 for one degree
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if central_probability(middle, degrees) < 0.95 else (low, middle)
    return high


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half-width of its 95 % interval, t * std / sqrt(n) with n - 1 degrees.

    Args:
        values: one number per seed, at least one.

    Returns:
        (mean, half-width); the half-width of a single seed is nan.
    """
    n = len(values)
    return mean(values), t_quantile(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else math.nan


def between_seeds(values: Sequence[float]) -> tuple[float, float]:
    """A method against itself (A/A): what a difference looks like when only the seeds differ.

    Were the method trained once more with n other seeds, the difference of the two means would have
    the mean 0 and twice the variance of one of them. So with a probability of 95 % (over both sets of
    seeds, for normal noise) it lies within t * std * sqrt(2 / n), n - 1 degrees: a prediction
    interval. All seeds serve, where pairs of them would leave half of the degrees of freedom. It is
    of unpaired seeds: a difference paired by seed is as wide where pairing does not help, and
    narrower where it does.

    Args:
        values: one number per seed, at least two.

    Returns:
        (mean absolute difference of two seeds over all pairs, half-width around 0).
    """
    apart = fmean(abs(a - b) for a, b in combinations(values, 2))
    return apart, math.sqrt(2) * over_seeds(values)[1]
