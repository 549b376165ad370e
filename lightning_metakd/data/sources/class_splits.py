"""Splits of a source by class: lists of names, published or drawn, and the rows behind them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_seed
from lightning_metakd.data.sources.seeding import generator

Groups = Sequence[str] | Sequence[list[str]]
Fractions = tuple[float, float, float]
FRACTIONS: Fractions = (0.64, 0.16, 0.2)
"""Shares of CIFAR-FS and mini-ImageNet."""
WAYS = 5
"""Classes that every split has at least where there are enough: those of the usual episode."""


def rows_of(y: Int[Tensor, " n"], classes: Iterable[int]) -> Int[Tensor, " m"]:
    """Row numbers of the given dataset classes, ascending."""
    return torch.isin(y, torch.tensor(sorted(classes), dtype=y.dtype)).nonzero()[:, 0]


def few_shot_splits(
    train: Groups, val: Groups, test: Groups, every: int = 4
) -> dict[str, list[str]]:
    """Class names of all five few-shot splits.

    Args:
        train: base classes in their official order, as names or, where superclasses must stay whole, as
            lists of names.
        val: validation classes, likewise.
        test: novel classes, likewise.
        every: of the base classes, each `every`-th goes to `strategy`, the others to `teacher`.
    """

    def names(groups: Groups) -> list[str]:
        return [n for group in groups for n in ([group] if isinstance(group, str) else group)]

    strategy = names(train[every - 1 :: every])
    teacher = [name for name in names(train) if name not in set(strategy)]
    return {
        "train": names(train),
        "val": names(val),
        "test": names(test),
        "teacher": teacher,
        "strategy": strategy,
    }


@lru_cache
def packaged(name: str) -> dict[str, Any]:
    """A published list of classes, from `data/splits/<name>.json`."""
    return json.loads((files("lightning_metakd.data") / "splits" / f"{name}.json").read_text())


def class_ids(
    split: str, splits: Mapping[str, Sequence[str]], class_names: Sequence[str]
) -> list[int]:
    """Dataset classes of a split given by names.

    Raises:
        ValueError: if a name is not a class of the source.
    """
    numbers = {name: i for i, name in enumerate(class_names)}
    if missing := [name for name in splits[split] if name not in numbers]:
        raise ValueError(
            f"split {split!r} names the classes {', '.join(missing[:5])}, which are not among the "
            f"{len(numbers)} classes that were found; correct the list or add their images."
        )
    return [numbers[name] for name in splits[split]]


def divided(
    names: Sequence[str],
    splits: dict[str, list[str]] | None,
    fractions: Fractions | None,
    seed: int,
) -> dict[str, list[str]]:
    """Class names of all five few-shot splits, as listed, or drawn where nothing is.

    Of fewer than 20 base classes up to every second is the strategy's.
    """
    by_name = splits or divide(names, fractions, seed)
    train, val, test = (by_name.get(split, []) for split in ("train", "val", "test"))
    return few_shot_splits(train, val, test, every=min(4, max(2, len(train) // WAYS)))


def divide_otherwise(split_names: Mapping[str, Sequence[str]]) -> str:
    """Advice where a split of such classes is too small."""
    sizes = [f"{len(names)} {split}" for split, names in split_names.items()]
    n = sum(len(split_names[split]) for split in ("train", "val", "test"))
    return (
        f"lower data.n_way, or divide the {n} classes otherwise by "
        f"source.fractions or source.splits (now {', '.join(sizes)}; the last two are parts of train)"
    )


def check_division(
    splits: dict[str, list[str]] | None, fractions: Fractions | None, seed: int
) -> None:
    """Raise where lists, fractions or the seed of a division are none."""
    check_seed("data.source.split_seed", seed)
    if splits is not None:
        check_splits(splits)
    if fractions is not None:
        check_fractions(fractions)


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise where fractions are no division of a whole into train, val and test."""
    numbers = isinstance(fractions, Sequence) and all(isinstance(f, int | float) for f in fractions)
    whole = numbers and len(fractions) == 3 and abs(sum(fractions) - 1) <= 1e-6
    if not whole or not all(0 <= share <= 1 for share in fractions):
        raise ValueError(
            f"fractions={fractions} must be three numbers for train, val and test that are not negative and "
            "add up to 1."
        )


def check_splits(splits: dict[str, list[str]]) -> None:
    """Raise where a list of classes has an unknown name or two lists share a class."""
    if unknown := set(splits) - {"train", "val", "test"}:
        raise ValueError(f"splits has the key {unknown.pop()!r}; the keys are train, val and test.")
    counts = Counter(name for names in splits.values() for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(
            f"splits lists the class {twice[0]!r} twice; a class belongs to one split."
        )


def divide(
    class_names: Sequence[str], fractions: Fractions | None, seed: int
) -> dict[str, list[str]]:
    """Classes drawn for train, val and test; what rounding leaves over is trained on.

    Without fractions val and test have 5 classes at least where there are 15; with fewer a quarter, so that
    both parts of train are as large, but 2 where there are 6.
    """
    n = len(class_names)
    order = torch.randperm(n, generator=generator("folder", seed)).tolist()
    enough = WAYS if n >= 3 * WAYS else max(n // 4, min(2, n // 3))
    least = 0 if fractions else enough
    n_val, n_test = (max(least, round(share * n)) for share in (fractions or FRACTIONS)[1:])
    bounds = {
        "val": order[:n_val],
        "test": order[n_val : n_val + n_test],
        "train": order[n_val + n_test :],
    }
    return {split: [class_names[i] for i in sorted(places)] for split, places in bounds.items()}
