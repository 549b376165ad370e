"""Photographs in folders: which there are, what each shows, and which cannot be read and why.

A picture that cannot be read is left out and named with its reason; the rest of its folder is used.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_metakd.storage.limits import check_size
from lightning_metakd.storage.picture import as_square, opened, readable

THUMBNAIL = 96
"""Side of what a contact sheet shows of a picture, in pixels."""


class Row(NamedTuple):
    """What is classified.

    Attributes:
        name: of it: a path from the folder of all on, or a text.
        label: its class; empty where that is not on record.
        x: as the student reads it.
        thumbnail: as a contact sheet shows it; None of a text.
    """

    name: str
    label: str
    x: np.ndarray
    thumbnail: Image.Image | None = None


class Gallery:
    """Reads pictures as one student does, and keeps what was left out.

    Args:
        size: side of the square that the student reads, in pixels.
        mode: RGB, or L for a student of grey pictures.

    Attributes:
        left_out: a line for each file that was left out, with the reason.
    """

    noun = "picture"

    def __init__(self, size: int, mode: str) -> None:
        self.size, self.mode = size, mode
        self.left_out: list[str] = []

    def support(self, folder: Path) -> dict[str, list[np.ndarray]]:
        """The pictures of each class; of a class without any that can be read, none.

        Args:
            folder: with a folder for each class.
        """
        classes = {}
        for name, paths in class_folders(folder, "support").items():
            images = (self.read(path) for path in paths)
            classes[name] = [as_square(i, self.size, self.mode) for i in images if i is not None]
        self.left_out += [f"{p}: it lies outside of a class folder" for p in loose_files(folder)]
        return classes

    def query(self, path: Path, classes: Sequence[str]) -> Iterator[Row]:
        """The pictures to be classified, one after another, with the class of the folder of each.

        Args:
            path: a folder, or a single picture.
            classes: names of folders that are labels.
        """
        if not path.is_file():
            check_folder(path, "query")
        folder = path.parent if path.is_file() else path
        for file in [path] if path.is_file() else files_in(path):
            top, *below = file.relative_to(folder).parts
            if (image := self.read(file)) is not None:
                yield Row(
                    file.relative_to(folder).as_posix(),
                    top if below and top in classes else "",
                    as_square(image, self.size, self.mode),
                    ImageOps.pad(image.convert("RGB"), (THUMBNAIL, THUMBNAIL), color="white"),
                )

    def read(self, path: Path) -> Image.Image | None:
        """A picture; None where it cannot be read, which is noted."""
        ending = path.suffix.lower()
        if ending not in readable():
            self.left_out.append(f"{path}: {reason_for(ending)}")
            return None
        try:
            check_size(path.stat().st_size, "it")
            return opened(path.read_bytes(), ending)
        except Exception as error:  # each format has errors of its own
            self.left_out.append(f"{path}: {said_of(error, path)}")
            return None


def reason_for(ending: str) -> str:
    """Why a file of this ending is no picture here."""
    if ending in (".heic", ".heif"):
        return f"{ending} needs the package pillow-heif; pip install pillow-heif"
    return f"{ending or 'a file without ending'} is no picture of a known format"


def said_of(error: Exception, path: Path) -> str:
    """What a library says of a file, in one line and without repeating its path."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture, whatever its ending says"
    text = " ".join(str(error).split()).replace(str(path), "it")
    return text or type(error).__name__


def files_in(folder: Path) -> list[Path]:
    """Every file below a folder but hidden ones, sorted."""
    inside = (path for path in folder.rglob("*") if path.is_file())
    parts = {path: path.relative_to(folder).parts for path in inside}
    return sorted(
        path for path, names in parts.items() if not any(n.startswith(".") for n in names)
    )


def class_folders(folder: Path, argument: str) -> dict[str, list[Path]]:
    """The files of each class, by the names of the folders right below; loose files are of none.

    Args:
        folder: with one folder for each class.
        argument: that names it, for messages.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is no folder.
    """
    check_folder(folder, argument)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return {path.name: files_in(path) for path in inside if not path.name.startswith(".")}


def check_folder(folder: Path, argument: str) -> None:
    """Raise where a folder is not there."""
    if not folder.exists():
        raise FileNotFoundError(f"{argument}={folder} does not exist; name a folder of pictures.")
    if not folder.is_dir():
        raise ValueError(
            f"{argument}={folder} is a file; name the folder in which the pictures lie."
        )


def loose_files(folder: Path) -> list[Path]:
    """The files right in a folder but hidden ones, sorted."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def printable(text: str) -> str:
    """The text with escapes for what cannot be printed, as parts of file names from another system."""
    return text.encode("utf-8", "backslashreplace").decode()
