"""CIFAR-100 divided by class lists of one's own."""

from functools import cached_property

from lightning_metakd.data.sources.cifar import ByClass, class_names
from lightning_metakd.data.sources.class_splits import check_splits, divided


class CIFAR100ByClass(ByClass):
    """CIFAR-100 divided by lists of classes, 600 images each.

    Args:
        splits: names of the classes of train, val and test; one that is left out has none, and a class that
            is in no list is not used.
        root: as of `CIFAR100`.
        download: as of `CIFAR100`.

    Raises:
        ValueError: if a name is no class of CIFAR-100, or is listed twice.

    Example:
        >>> from lightning_metakd.data.sources import CIFAR100ByClass
        >>> source = CIFAR100ByClass({"train": ["apple", "orange", "pear"], "test": ["lion", "tiger"]})
        >>> source.split_names["test"], source.split_names["val"]
        (['lion', 'tiger'], [])
    """

    def __init__(
        self, splits: dict[str, list[str]], root: str = "data", download: bool = False
    ) -> None:
        super().__init__(root, download)
        check_splits(splits)
        classes = class_names()
        if missing := [name for names in splits.values() for name in names if name not in classes]:
            raise ValueError(
                f"splits names the class {missing[0]!r}, which CIFAR-100 has not; its classes are "
                f"{', '.join(classes)}."
            )
        self.splits_by_name = splits

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split, as listed; some of the base classes are the strategy's."""
        return divided((), self.splits_by_name, None, 0)
