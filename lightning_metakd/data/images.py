"""Image files in directories and zip archives: which there are, and their pixels."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


class Found(NamedTuple):
    """One image: a member of a container, which is a directory or an archive."""

    container: Path
    member: PurePosixPath

    @property
    def class_name(self) -> str:
        return self.member.parent.name


def scan(paths: Sequence[Path]) -> Iterator[Found]:
    """Every image in some directories and archives.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if it is neither a directory nor a readable archive.
    """
    for path in paths:
        for member in members(path):
            parts = member.parts
            hidden = parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)
            if member.suffix.lower() in FORMATS and len(parts) > 1 and not hidden:
                yield Found(path, member)


def members(path: Path) -> list[PurePosixPath]:
    """Names of the files in a directory or an archive."""
    if path.is_dir():
        return [PurePosixPath(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    with open_archive(path) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip archive, or an error that says what is wrong with it."""
    if not path.exists():
        raise FileNotFoundError(f"path={path} does not exist; give a directory or a zip archive.")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"path={path} is neither a directory nor a whole zip archive ({error}); "
            "copy or download it again."
        ) from error


def decode(
    found: Sequence[Found], size: int, mode: str = "RGB", piece: int = 1000
) -> Iterator[np.ndarray]:
    """The images as uint8 arrays `[n, ch, size, size]`, in pieces.

    Args:
        mode: RGB for three channels, L for a grey one.

    Raises:
        ValueError: if an image cannot be read, naming it.
    """
    archives = {
        path: open_archive(path) for path in {image.container for image in found} if path.is_file()
    }
    for start in range(0, len(found), piece):
        part = found[start : start + piece]
        yield np.stack([picture(image, archives, size, mode) for image in part])


def picture(
    image: Found, archives: dict[Path, zipfile.ZipFile], size: int, mode: str
) -> np.ndarray:
    """One image `[ch, size, size]`."""
    try:
        if image.container in archives:
            content = archives[image.container].read(str(image.member))
        else:
            content = (image.container / image.member).read_bytes()
        suffix = (
            image.member.suffix.lower()
        )  # naming the format spares a search through all of them
        with Image.open(io.BytesIO(content), formats=(FORMATS[suffix],)) as opened:
            colours = opened.convert(mode)
        if colours.size != (size, size):
            colours = ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(colours).reshape(size, size, -1).transpose(2, 0, 1)
    except Exception as error:  # each format and each compression has errors of its own
        raise ValueError(
            f"cannot read the image {image.member} in {image.container} ({error}); "
            "remove it, or copy the data again."
        ) from error


def fingerprint(paths: Sequence[Path], *settings: object) -> str:
    """Key of the decoded images: names, sizes and times of the files they come from."""
    files = [file for path in paths for file in (path, *(path.rglob("*") if path.is_dir() else ()))]
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for file in sorted(files):
        if not file.exists():
            raise FileNotFoundError(
                f"path={file} does not exist; give a directory or a zip archive."
            )
        about = file.stat()
        digest.update(repr((file.name, about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()
