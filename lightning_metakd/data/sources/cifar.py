"""CIFAR-100 and the few-shot sources made of it.

Krizhevsky (2009), "Learning multiple layers of features from tiny images": 100 classes of 500 training
and 100 test images, 32 x 32. CIFAR-FS: Bertinetto, Henriques, Torr, Vedaldi (2019), "Meta-learning with
differentiable closed-form solvers", arXiv:1805.08136, 64/16/20 classes. FC100: Oreshkin, Rodriguez, Lacoste
(2018), "TADAM", arXiv:1805.10123, 60/20/20 classes that share no superclass. Both use all 600 images of
a class.

Row numbers are the same in all three, and for every form of the data: training images before test images,
then by class, then by original file name.
"""

import pickle
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor, arange
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from lightning_metakd.data.sources import image_cache, images
from lightning_metakd.data.sources.class_splits import class_ids, few_shot_splits, packaged, rows_of
from lightning_metakd.data.sources.source import FEW_SHOT_SPLITS, Labelled, Source
from lightning_metakd.types import Normalisation

TRAIN_STATISTICS = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
"""Over the 50,000 training images."""

PARTS = ("train", "test")
ARCHIVE = datasets.CIFAR100.base_folder
ARRAYS = {
    ("numpy", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy", "_frombuffer"),
    ("_codecs", "encode"),
}
"""Packages and names that the pickle of an array calls."""


class CIFAR100(Source):
    """CIFAR-100 with its ordinary split: 50,000 training and 10,000 test images of the same 100 classes.

    Args:
        root: directory with cifar-100-python (as torchvision leaves it), cifar100*.zip, or
            {train,test}/<class>/<image>.
        download: fetch the archive (169 MB) into root if nothing is there.

    Example:
        >>> from lightning_metakd.data.sources import CIFAR100
        >>> source = CIFAR100(root="data")  # reads its files where rows are first needed
        >>> source.splits, source.normalisation().mean
        (('train', 'test'), (0.5071, 0.4865, 0.4409))
    """

    splits: tuple[str, ...] = PARTS

    def __init__(self, root: str = "data", download: bool = False) -> None:
        self.root, self.download = root, download

    def all_rows(self) -> Labelled:
        return load(self.root, self.download)

    def select(self, split: str) -> Int[Tensor, " n"]:
        return arange(50_000) if split == "train" else arange(50_000, 60_000)

    def normalisation(self) -> Normalisation:
        return TRAIN_STATISTICS

    @property
    def superclasses(self) -> dict[str, str]:
        """The twenty of five classes each."""
        groups = packaged("cifar100_superclasses")
        return {name: group for group, names in groups.items() for name in names}


class ByClass(CIFAR100):
    """All 600 images of each class of CIFAR-100, the classes divided by a published list."""

    splits = FEW_SHOT_SPLITS

    @property
    @abstractmethod
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split."""

    def select(self, split: str) -> Int[Tensor, " n"]:
        labelled = self.all_rows()
        return rows_of(labelled.y, class_ids(split, self.split_names, labelled.class_names))


class CIFARFS(ByClass):
    """CIFAR-FS: 64 base, 16 validation and 20 novel classes of CIFAR-100, 600 images each.

    Example:
        >>> from lightning_metakd.data.sources import CIFARFS
        >>> source = CIFARFS(root="data")  # reads its files where rows are first needed
        >>> {split: len(names) for split, names in source.split_names.items()}
        {'train': 64, 'val': 16, 'test': 20, 'teacher': 48, 'strategy': 16}
    """

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split; every fourth base class is the strategy's."""
        return few_shot_splits(**packaged("cifar_fs"))


class FC100(ByClass):
    """FC100: 60 base, 20 validation and 20 novel classes of CIFAR-100 that share no superclass.

    Example:
        >>> from lightning_metakd.data.sources import FC100
        >>> source = FC100(root="data")  # reads its files where rows are first needed
        >>> len(source.split_names["train"]), source.split_names["strategy"][:3]
        (60, ['apple', 'mushroom', 'orange'])
    """

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split; every fourth base superclass is the strategy's."""
        fine = packaged("cifar100_superclasses")
        groups = {
            split: [fine[name] for name in names] for split, names in packaged("fc100").items()
        }
        return few_shot_splits(groups["train"], groups["val"], groups["test"])


def class_names() -> tuple[str, ...]:
    """The 100 classes in the order of their ids, which is alphabetical."""
    return tuple(
        sorted(name for fine in packaged("cifar100_superclasses").values() for name in fine)
    )


@lru_cache
def load(root: str, download: bool) -> Labelled:
    """All 60,000 images below `root`, whatever their form.

    Raises:
        FileNotFoundError: if they are not there and `download` is off.
    """
    place = Path(root).expanduser()
    forms = locate(place)
    if not forms and download:
        datasets.CIFAR100(str(place), download=True)
        forms = locate(place)
    if not forms:
        raise FileNotFoundError(
            f"CIFAR-100 is not in data.source.root={root}; give download: true to fetch it (169 MB), or put "
            f"there {ARCHIVE}, cifar100*.zip or {{train,test}}/<class>/<image>."
        )
    if forms[0].name == ARCHIVE:
        verify(forms[0])
        return image_cache.cached(
            images.fingerprint(forms, "cifar100"), lambda: complete(from_archive(forms[0]), place)
        )
    return image_cache.cached(
        images.fingerprint(forms, "cifar100"), lambda: complete(from_folders(forms), place)
    )


def locate(root: Path) -> list[Path]:
    """The directory or the archives that hold CIFAR-100 below `root`; empty if there are none."""
    if (root / ARCHIVE).is_dir():
        return [root / ARCHIVE]
    if archives := sorted(root.glob("cifar100*.zip")):
        return archives
    return [
        place
        for place in (root / "cifar100", root)
        if all((place / part).is_dir() for part in PARTS)
    ][:1]


def verify(place: Path) -> None:
    """Compare torchvision's files with its MD5 sums: they are pickles, which run code when they are loaded.

    MD5 finds a damaged file, not a forged one; the class folders need no such trust.
    """
    for name, md5 in (*datasets.CIFAR100.train_list, *datasets.CIFAR100.test_list):
        if not check_integrity(str(place / name), md5):
            raise ValueError(
                f"{place / name} is damaged or not the official file; delete {place} and give download: true."
            )


def from_archive(place: Path) -> image_cache.Plan:
    """The form of torchvision: one pickle of pixels, labels and file names for each part."""
    y: list[int] = []
    orders = []
    for part in PARTS:
        content = unpickle(place / part)
        labels, names = content["fine_labels"], content["filenames"]
        keys = [(label, Path(name).stem) for label, name in zip(labels, names, strict=True)]
        orders.append(sorted(range(len(keys)), key=keys.__getitem__))
        y += sorted(labels)

    def pieces() -> Iterator[np.ndarray]:
        for part, order in zip(PARTS, orders, strict=True):
            pixels = unpickle(place / part)["data"].reshape(-1, 3, 32, 32)
            for start in range(0, len(order), 1000):
                yield pixels[order[start : start + 1000]]

    return image_cache.Plan(y, class_names(), (3, 32, 32), pieces())


def unpickle(path: Path) -> dict[str, Any]:
    """One of torchvision's files; `verify` it first."""
    with path.open("rb") as file:
        content: dict[str, Any] = Arrays(file, encoding="latin1").load()
        return content


class Arrays(pickle.Unpickler):
    """Reads arrays and plain values, and calls nothing else by its name."""

    def find_class(self, module: str, name: str) -> Any:
        """The parts of an array.

        Raises:
            pickle.UnpicklingError: for every other name.
        """
        if (module.split(".")[0], name) not in ARRAYS:
            raise pickle.UnpicklingError(
                f"the file names {module}.{name}, which is no part of an array"
            )
        return super().find_class(module, name)


def from_folders(places: list[Path]) -> image_cache.Plan:
    """The form of class folders: `{train,test}/<class>/<name>`, in a directory or in archives."""
    paths = sorted(
        (image for image in images.scan(places) if len(image.member.parts) > 2),
        key=lambda image: (
            PARTS.index(image.member.parts[-3]),
            image.class_name,
            image.member.stem,
        ),
    )
    ids = {name: i for i, name in enumerate(class_names())}
    y = [ids.get(image.class_name, -1) for image in paths]
    return image_cache.Plan(y, class_names(), (3, 32, 32), images.decode(paths, 32))


def complete(plan: image_cache.Plan, root: Path) -> image_cache.Plan:
    """The plan, if it has all images in the order that row numbers rest on.

    Raises:
        ValueError: if images are missing or there are others.
    """
    expected = [c for count in (500, 100) for c in range(100) for _ in range(count)]
    if plan.y != expected:
        whole = sum(count == 600 for c, count in Counter(plan.y).items() if c >= 0)
        raise ValueError(
            f"root={root} holds {len(plan.y):,} images and {whole} whole classes of CIFAR-100, "
            "which has 60,000 and 100; is an archive missing?"
        )
    return plan
