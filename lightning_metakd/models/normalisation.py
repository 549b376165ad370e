"""The numbers by which a network's input is normalised, checked."""

from collections.abc import Sequence

from lightning_metakd.arguments.ranges import check_number, check_positive
from lightning_metakd.types import Normalisation


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
