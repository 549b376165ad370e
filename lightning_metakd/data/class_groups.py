"""The classes of a stream, task by task."""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.data.sources.source import Source

Tasks = int | list[list[str]] | Literal["domains"]
Groups = list[Int[Tensor, " _"]]


def class_groups(source: Source, split: str, tasks: Tasks, class_seed: int | None) -> Groups:
    """Dataset classes of each task, ascending.

    Args:
        tasks: how many, or the names of the classes of each, or `domains` of a mixture.
        class_seed: of the order of the classes that are divided; None keeps that of the source.

    Raises:
        ValueError: if there are no such classes, or two tasks share one.
    """
    y, rows = source.all_rows().y, source.rows(split)
    classes = torch.unique(y[rows])
    if tasks == "domains":
        groups = [torch.unique(y[domain.rows]) for domain in source.domains(split)]
    elif isinstance(tasks, int):
        groups = divided(classes, tasks, class_seed, f"split {split!r} in {source.name}")
    else:
        groups = [named(source, split, classes, names) for names in tasks]
    if len(torch.cat(groups).unique()) < sum(map(len, groups)):
        raise ValueError("tasks lists a class twice; name each class in one task.")
    return groups


def divided(classes: Int[Tensor, " c"], n: int, seed: int | None, where: str) -> Groups:
    """Classes in `n` groups of equal size, or nearly."""
    if n > len(classes):
        raise ValueError(
            f"tasks={n} exceeds the {len(classes)} classes of {where}; lower data.tasks."
        )
    if seed is not None:
        classes = classes[torch.randperm(len(classes), generator=generator("class order", seed))]
    return [group.sort().values for group in classes.tensor_split(n)]


def named(
    source: Source, split: str, classes: Int[Tensor, " c"], names: list[str]
) -> Int[Tensor, " k"]:
    """The dataset classes of these names, ascending."""
    numbers = {name: i for i, name in enumerate(source.all_rows().class_names)}
    there = set(classes.tolist())
    if missing := [name for name in names if numbers.get(name) not in there]:
        raise ValueError(
            f"tasks names {missing[0]!r}, which is no class of split {split!r} in {source.name}; correct it, "
            "or choose another data.split."
        )
    return torch.tensor(sorted(numbers[name] for name in names))
