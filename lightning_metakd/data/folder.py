"""Images in class folders: a directory, or zip archives read in place, several together.

A class is the folder that holds the images directly; folders of the same name are one class
(`train/cat` and `test/cat`, or `cat` in two archives). Images are decoded once and kept (see `cache`).
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, ImageOps
from torch import Tensor

from lightning_metakd.data import cache
from lightning_metakd.data.episodes import generator
from lightning_metakd.data.source import Labelled, Source, class_ids, few_shot_splits, rows_of

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
Fractions = tuple[float, float, float]


class Found(NamedTuple):
    """One image: a member of a container, which is a directory or an archive."""

    container: Path
    member: PurePosixPath

    @property
    def class_name(self) -> str:
        return self.member.parent.name


class Folder(Source):
    """One folder per class, in directories or zip archives, with its classes divided for few-shot learning.

    Args:
        path: a directory or a zip archive, or a list of them that belong together.
        splits: names of the classes of train, val and test; without it they are drawn by the fractions.
        fractions: shares of the classes for train, val and test.
        split_seed: of that draw.
        size: side in pixels; images are scaled to cover the square and cropped to its middle.
    """

    def __init__(
        self,
        path: str | list[str],
        splits: dict[str, list[str]] | None = None,
        fractions: Fractions = (0.64, 0.16, 0.2),
        split_seed: int = 0,
        size: int = 32,
    ) -> None:
        self.paths = [Path(p).expanduser() for p in ([path] if isinstance(path, str) else path)]
        self.given, self.fractions, self.split_seed = splits, fractions, split_seed
        self.size = size
        if splits is not None:
            check_splits(splits)
        elif min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions={fractions} must not be negative and must add up to 1.")

    @property
    def name(self) -> str:
        return f"Folder({', '.join(path.name for path in self.paths)})"

    def everything(self) -> Labelled:
        return self._everything

    @cached_property
    def _everything(self) -> Labelled:
        return cache.cached(fingerprint(self.paths, self.size), lambda: plan(self.paths, self.size))

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split."""
        given = self.given or divide(self.everything().class_names, self.fractions, self.split_seed)
        parts = {split: given.get(split, []) for split in ("train", "val", "test")}
        return few_shot_splits(**parts)

    def select(self, split: str) -> Int[Tensor, " n"]:
        everything = self.everything()
        return rows_of(everything.y, class_ids(split, self.split_names, everything.class_names))


def check_splits(splits: dict[str, list[str]]) -> None:
    """Raise where a list of classes has an unknown name or two lists share a class."""
    if unknown := set(splits) - {"train", "val", "test"}:
        raise ValueError(f"splits has the key {unknown.pop()!r}; the keys are train, val and test.")
    counts = Counter(name for names in splits.values() for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(
            f"splits lists the class {twice[0]!r} twice; a class belongs to one split."
        )


def divide(class_names: Sequence[str], fractions: Fractions, seed: int) -> dict[str, list[str]]:
    """Classes drawn for train, val and test; what rounding leaves over is trained on."""
    n = len(class_names)
    order = torch.randperm(n, generator=generator("folder", seed)).tolist()
    n_val, n_test = round(fractions[1] * n), round(fractions[2] * n)
    bounds = {
        "val": order[:n_val],
        "test": order[n_val : n_val + n_test],
        "train": order[n_val + n_test :],
    }
    return {split: [class_names[i] for i in sorted(places)] for split, places in bounds.items()}


def plan(paths: Sequence[Path], size: int) -> cache.Plan:
    """All images of some containers, sorted by class and name.

    Raises:
        ValueError: if there are no classes, or a class has a single image.
    """
    found = sorted(scan(paths), key=lambda image: (image.class_name, image.member))
    counts = Counter(image.class_name for image in found)
    where = ", ".join(map(str, paths))
    if not counts:
        raise ValueError(
            f"no class folders with images in path={where}; expected <class>/<image> "
            f"with one of {', '.join(FORMATS)}."
        )
    if single := [name for name, count in counts.items() if count < 2]:
        raise ValueError(
            f"class folder {single[0]!r} in path={where} holds 1 image, and a class needs 2 at least, one "
            "to learn from and one to be asked; add images or remove the folder."
        )
    names = tuple(sorted(counts))
    ids = {name: i for i, name in enumerate(names)}
    y = [ids[image.class_name] for image in found]
    return cache.Plan(y, names, (3, size, size), decode(found, size))


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
