"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov, Tenenbaum (2015), "Human-level concept learning through probabilistic program
induction". Used for few-shot learning at 28 x 28 pixels, with each character turned by 90, 180 and 270
degrees as three more classes: Vinyals et al. (2016), "Matching Networks for One Shot Learning",
arXiv:1606.04080; Snell, Swersky, Zemel (2017), "Prototypical Networks", arXiv:1703.05175.

They train on 1,200 characters and test on 423, by a list of their own. Here whole alphabets are divided, as
in Triantafillou et al. (2020), "Meta-Dataset", arXiv:1903.03096: the official evaluation set is `test`
(20 alphabets, 659 characters), the five smallest alphabets of the official background set are `val` (81),
its other 25 are `train` (883). There is less to learn from, so results cannot be compared with those under
the list of 2016.

Row and class numbers are the same with and without rotations: all upright drawings by class and file name,
then all of them turned by 90 degrees, and so on.
"""

from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torchvision import datasets

from lightning_metakd.arguments.ranges import LARGEST_SIDE, check_integer, refuse
from lightning_metakd.data.sources import image_cache, images
from lightning_metakd.data.sources.class_splits import class_ids, few_shot_splits, packaged, rows_of
from lightning_metakd.data.sources.source import Labelled, Source

PARTS = ("images_background", "images_evaluation")
TURNS = ("", "/rot090", "/rot180", "/rot270")  # anticlockwise, as published
DRAWINGS = 20  # of each character


class Omniglot(Source):
    """Omniglot: 883 base, 81 validation and 659 novel characters of other alphabets, white on black.

    Train on it without augmentation: a mirrored character may be another.

    Args:
        root: directory with omniglot.zip or the official images_{background,evaluation}.zip, or with these
            unpacked; they may lie in omniglot or, as torchvision leaves them, in omniglot-py.
        download: fetch the two archives (16 MB) into root if nothing is there.
        size: side in pixels.
        rotations: each character turned by 90, 180 and 270 degrees is a class too; four times as many.
        channels: 1, or 3 equal ones for networks that take colour images.

    Example:
        >>> from lightning_metakd.data.sources import Omniglot
        >>> source = Omniglot(root="data", rotations=False)  # reads its files where rows are first needed
        >>> {split: len(names) for split, names in source.split_names.items()}
        {'train': 883, 'val': 81, 'test': 659, 'teacher': 651, 'strategy': 232}
    """

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        size: int = 28,
        rotations: bool = True,
        channels: int = 1,
    ) -> None:
        hint = "or 3 for networks that take colour images"
        check_integer("data.source.channels", channels, 1, 3, hint)
        if channels == 2:
            refuse("data.source.channels", channels, "1", hint)
        check_integer("data.source.size", size, 1, LARGEST_SIDE)
        self.root, self.download, self.size = root, download, size
        self.rotations, self.channels = rotations, channels

    def all_rows(self) -> Labelled:
        return self._all_rows

    @cached_property
    def _all_rows(self) -> Labelled:
        grey = load(self.root, self.download, self.size, self.rotations)
        return grey._replace(x=grey.x.expand(-1, self.channels, -1, -1))  # takes no memory

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split; every fourth base alphabet is the strategy's."""
        names = class_names(TURNS if self.rotations else TURNS[:1])
        groups = {
            split: [[n for n in names if n.startswith(f"{alphabet}/")] for alphabet in alphabets]
            for split, alphabets in packaged("omniglot").items()
        }
        return few_shot_splits(groups["train"], groups["val"], groups["test"])

    def select(self, split: str) -> Int[Tensor, " n"]:
        labelled = self.all_rows()
        return rows_of(labelled.y, class_ids(split, self.split_names, labelled.class_names))


def class_names(turns: tuple[str, ...] = TURNS[:1]) -> tuple[str, ...]:
    """All classes in the order of their ids: alphabetical, the upright ones first."""
    upright = sorted(
        f"{alphabet}/character{i + 1:02d}"
        for alphabets in packaged("omniglot").values()
        for alphabet, n in alphabets.items()
        for i in range(n)
    )
    return tuple(name + turn for turn in turns for name in upright)


@lru_cache
def load(root: str, download: bool, size: int, rotations: bool) -> Labelled:
    """All drawings below `root`, whatever their form.

    Raises:
        FileNotFoundError: if they are not there and `download` is off.
    """
    place = Path(root).expanduser()
    forms = locate(place)
    if not forms and download:
        for background in (True, False):
            datasets.Omniglot(str(place), background, download=True)
        forms = locate(place)
    if not forms:
        raise FileNotFoundError(
            f"Omniglot is not in data.source.root={root}, nor in omniglot or omniglot-py there; give "
            f"download: true to fetch it (16 MB), or put there omniglot.zip, or "
            f"{' and '.join(PARTS)}, as folders or .zip."
        )
    key = images.fingerprint(forms, "omniglot", size)
    upright = image_cache.cached(key, lambda: complete(plan(forms, size), place))
    return image_cache.cached(f"{key}-turned", lambda: turned(upright)) if rotations else upright


def locate(root: Path) -> list[Path]:
    """The archives or the directories that hold Omniglot below `root`; empty if there are none."""
    if (root / "omniglot.zip").is_file():
        return [root / "omniglot.zip"]
    for place in (root, root / "omniglot", root / datasets.Omniglot.folder):
        for suffix in (".zip", ""):
            forms = [place / f"{part}{suffix}" for part in PARTS]
            if all(form.exists() for form in forms):
                return forms
    return []


def plan(places: list[Path], size: int) -> image_cache.Plan:
    """The upright drawings of some directories and archives, by class and file name."""
    paths = sorted(
        (character(image), image.member.name, image)
        for image in images.scan(places)
        if any((image.container / image.member).match(f"{part}/*/*/*.png") for part in PARTS)
    )
    ids = {name: i for i, name in enumerate(class_names())}
    y = [ids.get(name, -1) for name, _, _ in paths]
    on_white = images.decode([image for _, _, image in paths], size, mode="L")
    return image_cache.Plan(y, class_names(), (1, size, size), (255 - piece for piece in on_white))


def character(image: images.Found) -> str:
    """The class of a drawing: its alphabet and its number there."""
    return "/".join(image.member.parts[-3:-1])


def complete(upright: image_cache.Plan, root: Path) -> image_cache.Plan:
    """The plan, if it has all drawings of all characters.

    Raises:
        ValueError: if drawings are missing or there are others.
    """
    classes = len(upright.class_names)
    if upright.y != [c for c in range(classes) for _ in range(DRAWINGS)]:
        raise ValueError(
            f"root={root} holds {len(upright.y):,} drawings of {len(set(upright.y) - {-1}):,} characters of "
            f"Omniglot, which has {classes * DRAWINGS:,} and {classes:,}; delete them and copy them again."
        )
    return upright


def turned(upright: Labelled) -> image_cache.Plan:
    """The drawings and, behind them, the same turned by 90, 180 and 270 degrees, as other classes."""
    classes = len(upright.class_names)
    y = [c + turn * classes for turn in range(len(TURNS)) for c in upright.y.tolist()]
    x = upright.x.numpy()
    pieces = (np.rot90(x, turn, (2, 3)) for turn in range(len(TURNS)))
    return image_cache.Plan(y, class_names(TURNS), x.shape[1:], pieces)
