"""Image files in directories and zip archives: their paths and their pixels."""

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from lightning_metakd.storage.limits import check_size, open_zip
from lightning_metakd.storage.picture import FORMATS, as_square, opened, readable

DECODER = 2
"""Raised when the same files give other pixels: what was decoded before is then decoded anew."""
PIECE = 2**26
"""Bytes of decoded images that lie in memory at once."""


class Found(NamedTuple):
    """One image: a member of a container, which is a directory or an archive."""

    container: Path
    member: PurePosixPath

    @property
    def class_name(self) -> str:
        return self.member.parent.name

    @property
    def ending(self) -> str:
        """The ending of its name in lower case, with the point."""
        return self.member.suffix.lower()


def scan(paths: Sequence[Path]) -> Iterator[Found]:
    """Every image in the folders of some directories and archives.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if it is neither a directory nor a readable archive.
    """
    return (image for image in visible(paths) if is_image(image))


def is_image(file: Found) -> bool:
    """Whether a file is an image that can be read, and lies in a folder of its container."""
    return file.ending in readable() and len(file.member.parts) > 1


def visible(paths: Sequence[Path]) -> Iterator[Found]:
    """Every file of some directories and archives but hidden ones."""
    for path in paths:
        for member in members(path):
            parts = member.parts
            if parts[0] != "__MACOSX" and not any(part.startswith(".") for part in parts):
                yield Found(path, member)


def left_out(files: Sequence[Found]) -> str:
    """How many of these files are no images, by ending, and what can be done; empty where there are none."""
    others = Counter(
        file.ending or "without ending" for file in files if file.ending not in readable()
    )
    loose = sum(file.ending in readable() and len(file.member.parts) == 1 for file in files)
    parts = [f"{count} {ending}" for ending, count in sorted(others.items())]
    parts += [f"{loose} images outside of a class folder"] if loose else []
    missing = sorted(set(others) & set(FORMATS))
    way_out = "; for {} install pillow-heif (the extra 'pictures')".format(" and ".join(missing))
    return ", ".join(parts) + (way_out if missing else "")


def members(path: Path) -> list[PurePosixPath]:
    """Names of the files in a directory or an archive."""
    if path.is_dir():
        return [PurePosixPath(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    with open_archive(path) as archive:
        return [PurePosixPath(info.filename) for info in archive.infolist() if not info.is_dir()]


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip archive, or an error that says what is wrong with it."""
    if not path.exists():
        raise FileNotFoundError(f"path={path} does not exist; give a directory or a zip archive.")
    try:
        return open_zip(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"path={path} is neither a directory nor a whole zip archive ({error}); "
            "copy or download it again."
        ) from error


def decode(files: Sequence[Found], size: int, mode: str = "RGB") -> Iterator[np.ndarray]:
    """The images as uint8 arrays `[n, ch, size, size]`, in pieces.

    Args:
        mode: RGB for three channels, L for a grey one.

    Raises:
        ValueError: if an image cannot be read, naming it.
    """
    archives = {
        path: open_archive(path) for path in {image.container for image in files} if path.is_file()
    }
    piece = max(1, PIECE // (len(mode) * size * size))
    for start in range(0, len(files), piece):
        part = files[start : start + piece]
        yield np.stack([picture(image, archives, size, mode) for image in part])


def picture(
    image: Found, archives: dict[Path, zipfile.ZipFile], size: int, mode: str
) -> np.ndarray:
    """One image `[ch, size, size]`."""
    try:
        if image.container in archives:
            member = archives[image.container].getinfo(str(image.member))
            check_size(member.file_size, "it")
            content = unpacked(archives[image.container], member)
        else:
            check_size((image.container / image.member).stat().st_size, "it")
            content = (image.container / image.member).read_bytes()
        return as_square(opened(content, image.ending), size, mode)
    except Exception as error:  # each format and each compression has errors of its own
        raise ValueError(
            f"cannot read the image {image.member} in {image.container} ({error}); "
            "remove it, or copy the data again."
        ) from error


def unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, no more of them than its header announces.

    Raises:
        ValueError: if it is compressed in a way that is unpacked without a limit.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            "it is neither stored nor deflated; pack the archive with zip's usual method"
        )
    with archive.open(member) as file:
        return file.read(member.file_size + 1)  # the one more has the checksum compared


def fingerprint(paths: Sequence[Path], *settings: object) -> str:
    """Key of the decoded images: how they are decoded, and names, sizes and times of their files."""
    files = [file for path in paths for file in (path, *(path.rglob("*") if path.is_dir() else ()))]
    digest = hashlib.blake2b(repr((DECODER, *settings)).encode(), digest_size=16)
    for file in sorted(files):
        if not file.exists():
            raise FileNotFoundError(
                f"path={file} does not exist; give a directory or a zip archive."
            )
        about = file.stat()
        digest.update(repr((file.name, about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()
