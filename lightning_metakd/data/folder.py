"""Images in class folders: a directory, or zip archives read in place, several together.

A class is the folder that holds the images directly; folders of the same name are one class
(`train/cat` and `test/cat`, or `cat` in two archives). Images are decoded once and kept (see `cache`).
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.data import cache
from lightning_metakd.data.episodes import generator
from lightning_metakd.data.images import FORMATS, decode, fingerprint, scan
from lightning_metakd.data.source import Labelled, Source, class_ids, few_shot_splits, rows_of

Fractions = tuple[float, float, float]


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
