"""Images in class folders: a directory, or zip archives read in place, several together.

A class is the folder that holds the images directly. Folders of the same name are one class where no other
folder tells them apart (`train/cat` and `test/cat`, or `cat` in two archives); see `class_paths`. Images are
decoded once and kept (see `image_cache`).
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_metakd.arguments.ranges import LARGEST_SIDE, check_integer
from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.class_splits import (
    Fractions,
    check_division,
    class_ids,
    divide_otherwise,
    divided,
    rows_of,
)
from lightning_metakd.data.sources.images import (
    Found,
    decode,
    fingerprint,
    is_image,
    left_out,
    scan,
    visible,
)
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.storage.picture import FORMATS, readable

SPLIT_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
)


class Folder(Source):
    """One folder per class, in directories or zip archives, with its classes divided for few-shot learning.

    A class has the name of its folder; where folders of one name have different folders above them
    (`greek/alpha` and `latin/alpha`), as its path. `train`, `val`, `test` and the like do not count there.

    Args:
        path: a directory or a zip archive, or a list of them that belong together.
        splits: names of the classes of train, val and test; without it they are drawn by the fractions.
        fractions: shares of the classes for train, val and test; null for 0.64, 0.16 and 0.2, but for val and
            test 5 classes at least, or a quarter of all where they are fewer than 15.
        split_seed: of that draw.
        size: side in pixels; images are scaled to cover the square and cropped to its middle.

    Raises:
        ValueError: if a path is listed twice, or splits, fractions or a number are out of range.

    Example:
        >>> from lightning_metakd.data.sources import Folder
        >>> source = Folder("pictures", fractions=(0.5, 0.25, 0.25), size=8)  # pictures/<class>/<image>
        >>> source.all_rows().x.shape, sorted(source.split_names["train"])
        (torch.Size([8, 3, 8, 8]), ['bee', 'cat'])
    """

    def __init__(
        self,
        path: str | list[str],
        splits: dict[str, list[str]] | None = None,
        fractions: Fractions | None = None,
        split_seed: int = 0,
        size: int = 32,
    ) -> None:
        self.paths = [Path(p).expanduser() for p in ([path] if isinstance(path, str) else path)]
        self.splits_by_name, self.fractions, self.split_seed = splits, fractions, split_seed
        self.size = size
        check_paths(self.paths)
        check_integer("data.source.size", size, 1, LARGEST_SIDE)
        check_division(splits, fractions, split_seed)

    @property
    def name(self) -> str:
        return f"Folder({', '.join(path.name for path in self.paths)})"

    def all_rows(self) -> Labelled:
        return self._all_rows

    @cached_property
    def _all_rows(self) -> Labelled:
        key = fingerprint(self.paths, self.size, *readable())
        return image_cache.cached(key, lambda: plan(self.paths, self.size))

    @property
    def row_names(self) -> Sequence[str]:
        """Path of each image; in an archive behind that of the archive."""
        images = [image for _, image in in_order(list(scan(self.paths)))]
        return [str(image.container / image.member) for image in images]

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split, as listed or drawn."""
        names = self.all_rows().class_names
        return divided(names, self.splits_by_name, self.fractions, self.split_seed)

    @property
    def more_classes(self) -> str:
        return divide_otherwise(self.split_names)

    def select(self, split: str) -> Int[Tensor, " n"]:
        labelled = self.all_rows()
        return rows_of(labelled.y, class_ids(split, self.split_names, labelled.class_names))


def check_paths(paths: Sequence[Path]) -> None:
    """Raise where there are no paths, or an image would be read twice."""
    if not paths:
        raise ValueError("path=[] names no images; give a directory or a zip archive.")
    places = [path.resolve() for path in paths]
    for i, place in enumerate(places):
        if any(place.is_relative_to(other) for other in places[:i] + places[i + 1 :]):
            raise ValueError(
                f"path={paths[i]} is listed twice or lies in another path; name every image once."
            )


def plan(paths: Sequence[Path], size: int) -> image_cache.Plan:
    """All images of some containers, sorted by class and name.

    Raises:
        ValueError: if there are no classes, or a class has a single image.
    """
    files = list(visible(paths))
    images = [file for file in files if is_image(file)]
    where, others = ", ".join(map(str, paths)), left_out(files)
    if not images:
        raise ValueError(
            f"no class folders with images in path={where}; expected <class>/<image> "
            f"with one of {', '.join(FORMATS)}{f', but there are {others}' if others else ''}."
        )
    if others:
        rank_zero_warn(f"path={where} holds files that are left out: {others}.")
    classes = class_paths(images)
    if by_path := sorted({name for name in classes if "/" in name}):
        rank_zero_warn(
            f"path={where} has {len(by_path)} class folders whose name occurs below several folders; they "
            f"are classes of their own, called by their path: {', '.join(by_path[:3])}, ..."
        )
    named = in_order(images)
    counts = Counter(classes)
    if single := [name for name, count in counts.items() if count < 2]:
        raise ValueError(
            f"class folder {single[0]!r} in path={where} holds 1 image, and a class needs 2 at least, one "
            "for support and one for query; add images or remove the folder."
        )
    names = tuple(sorted(counts))
    ids = {name: i for i, name in enumerate(names)}
    y = [ids[name] for name, _ in named]
    return image_cache.Plan(y, names, (3, size, size), decode([image for _, image in named], size))


def in_order(images: Sequence[Found]) -> list[tuple[str, Found]]:
    """The images with their classes, in the order of the rows."""
    return sorted(
        zip(class_paths(images), images, strict=True),
        key=lambda pair: (pair[0], pair[1].member, pair[1].container.name),
    )


def class_paths(images: Sequence[Found]) -> list[str]:
    """The class of each image: its folder's name, or its path where folders of that name differ above.

    What does not count above a class: folders that split a data set (`train`, `val`, `test` and the like),
    the folder of an archive that is called as the archive, and the folders that all images have in common.
    """
    folders = []
    for image in images:
        *above, name = image.member.parts[:-1]
        if above and above[0] == image.container.stem:
            above = above[1:]
        folders.append((*(part for part in above if part.lower() not in SPLIT_FOLDERS), name))
    above_all = zip(
        *(folder[:-1] for folder in folders), strict=False
    )  # as deep as the least deep class
    shared = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, above_all))
    paths = {folder[shared:] for folder in folders}
    counts = Counter(path[-1] for path in paths)
    return [
        folder[-1] if counts[folder[-1]] == 1 else "/".join(folder[shared:]) for folder in folders
    ]
