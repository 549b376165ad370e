"""Folders that come with the package: inside of it where it is installed, beside it in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped(name: str) -> Path:
    """The folder of a name: `configs`, `zoo`."""
    places = (PACKAGE / name, PACKAGE.parent / name)
    return next((place for place in places if place.is_dir()), places[0])
