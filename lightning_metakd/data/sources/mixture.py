"""Several sources as one: tasks of several domains, each episode of one of them.

Triantafillou et al. (2020), "Meta-Dataset", arXiv:1903.03096. There the size of an episode varies with its
domain; here it is that of the data module.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor

from lightning_metakd.arguments.ranges import check_number
from lightning_metakd.data.sources.source import Domain, Labelled, Source
from lightning_metakd.types import Reading

EVALUATED = "test"
"""The one split that a held-out domain has."""


class Mixture(Source):
    """Sources of images of one size, or of texts, from which episodes are drawn one domain at a time.

    A training episode is of one source, drawn by the weights. Validation and test have data.n_episodes of
    each source, the same as with that source alone, and a result row for each. Networks read all rows as they
    read those of the first source. Classes of the same name are one class.

    Args:
        sources: by the name of the domain.
        weights: how often each source is drawn in training, by name; null draws all alike.
        held_out: names of sources that are tested on alone, and on which nothing is trained or chosen.

    Raises:
        ValueError: if names are unknown, a weight is not positive, or nothing is left to train on.

    Example:
        >>> from lightning_metakd.data.sources import Mixture, Synthetic
        >>> mixture = Mixture({"shapes": Synthetic(per_class=2)})
        >>> [(domain.name, len(domain.rows)) for domain in mixture.domains("test")]
        [('shapes', 40)]
    """

    def __init__(
        self,
        sources: dict[str, Source],
        weights: dict[str, float] | None = None,
        held_out: Sequence[str] = (),
    ) -> None:
        check_names(sources, weights or {}, held_out)
        self.sources, self.held_out = dict(sources), tuple(held_out)
        self.weights = {name: 1.0 if weights is None else weights[name] for name in sources}
        self.splits = self.first.splits

    @property
    def first(self) -> Source:
        """By which rows are read: the first source that is trained on."""
        return next(s for name, s in self.sources.items() if name not in self.held_out)

    @property
    def name(self) -> str:
        return f"Mixture({', '.join(source.name for source in self.sources.values())})"

    @property
    def more_classes(self) -> str:
        return self.first.more_classes

    @property
    def external_data(self) -> tuple[str, ...]:
        names = chain.from_iterable(source.external_data for source in self.sources.values())
        return tuple(sorted(set(names)))

    @property
    def row_title(self) -> str:  # type: ignore[override]
        """What the names of its rows are."""
        return self.first.row_title

    @property
    def row_names(self) -> Sequence[str]:
        """Those of all sources, where they all have them."""
        names = [source.row_names for source in self.sources.values()]
        return list(chain.from_iterable(names)) if all(names) else ()

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Number of the first row of each source."""
        sizes = [len(source.all_rows().y) for source in self.sources.values()]
        return dict(zip(self.sources, accumulate([0, *sizes[:-1]]), strict=True))

    def all_rows(self) -> Labelled:
        return self._all_rows

    @cached_property
    def _all_rows(self) -> Labelled:
        parts = [source.all_rows() for source in self.sources.values()]
        check_shapes({name: part.x for name, part in zip(self.sources, parts, strict=True)})
        if len(parts) == 1:
            return parts[0]
        check_apart(self.sources, self.held_out)
        names = tuple(dict.fromkeys(chain.from_iterable(part.class_names for part in parts)))
        y = joined([part.y for part in parts], parts, names)
        width = max(part.x.shape[-1] for part in parts)
        x = torch.cat([F.pad(part.x, (0, width - part.x.shape[-1])) for part in parts])
        return Labelled(x, y, torch.arange(len(y)), names)

    @property
    def superclasses(self) -> dict[str, str]:
        """Those of the sources."""
        groups = [source.superclasses for source in self.sources.values()]
        return {name: group for of_source in groups for name, group in of_source.items()}

    def true_labels(self) -> Int[Tensor, " n"]:
        parts = [source.all_rows() for source in self.sources.values()]
        labels = [source.true_labels() for source in self.sources.values()]
        return joined(labels, parts, self.all_rows().class_names)

    def select(self, split: str) -> Int[Tensor, " n"]:
        return torch.cat([domain.rows for domain in self.domains(split)])

    def domains(self, split: str) -> list[Domain]:
        """The sources that have the split."""
        return [
            Domain(name, source.name, self.weights[name], source.rows(split) + self.offsets[name])
            for name, source in self.sources.items()
            if split in (EVALUATED, "all") or name not in self.held_out
        ]

    def augmented(
        self, x: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        """The views that each source makes of its rows."""
        if len(self.sources) == 1:
            return self.first.augmented(x, index, view)
        views, ends = x.clone(), [*list(self.offsets.values())[1:], len(self.all_rows().y)]
        for (name, source), end in zip(self.sources.items(), ends, strict=True):
            of_source = ((index >= self.offsets[name]) & (index < end)).nonzero()[:, 0]
            own_index = index[of_source] - self.offsets[name]
            views[of_source] = source.augmented(x[of_source], own_index, view[of_source])
        return views

    def augmented_inputs(
        self, inputs: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        return self.first.augmented_inputs(inputs, index, view)

    def read(self, views: Shaped[Tensor, "n ..."], reading: Any) -> Shaped[Tensor, "n ..."]:
        return self.first.read(views, reading)

    def reading(self, reading: Reading | None) -> Any:
        return self.first.reading(reading)

    def check_live(self, student: Reading | None, teacher: Reading | None) -> None:
        self.first.check_live(student, teacher)

    def check_files(self) -> None:
        for source in self.sources.values():
            source.check_files()

    def check_views(self, views: int | None, argument: str = "data.views") -> None:
        for source in self.sources.values():
            source.check_views(views, argument)


def joined(
    labels: Sequence[Int[Tensor, " _"]], parts: Sequence[Labelled], names: Sequence[str]
) -> Int[Tensor, " n"]:
    """Labels of sources one after another, as places among all names."""
    ids = {name: i for i, name in enumerate(names)}
    places = [torch.tensor([ids[name] for name in part.class_names]) for part in parts]
    return torch.cat([place[y] for place, y in zip(places, labels, strict=True)])


def check_names(
    sources: Mapping[str, Source], weights: Mapping[str, float], held_out: Sequence[str]
) -> None:
    """Raise where names, weights or splits of sources are no mixture."""
    listed = ", ".join(sources)
    if not sources or set(sources) <= set(held_out):
        raise ValueError(
            f"held_out={list(held_out)} leaves none of the sources ({listed or 'none'}) to train on; "
            "name fewer."
        )
    if unknown := sorted({*held_out, *weights} - set(sources)):
        raise ValueError(f"{unknown[0]!r} is none of the sources; choose from {listed}.")
    if weights and (missing := sorted(set(sources) - set(weights))):
        raise ValueError(f"weights has none for {missing[0]!r}; give one for each source, or null.")
    for weight in weights.values():
        check_number("data.source.weights", weight, 0.0, ends="()", hint="a part of the episodes")
    for name, source in sources.items():
        if source.splits != next(iter(sources.values())).splits:
            raise ValueError(
                f"source {name!r} has the splits {', '.join(source.splits)}, and the first one others; mix "
                "sources that are all divided by class, or all by row."
            )
        if source.image_source is not source:
            raise ValueError(
                f"source {name!r} holds vectors; mix the sources of the images, and embed the mixture."
            )


def check_shapes(rows: Mapping[str, Tensor]) -> None:
    """Raise where images are of several shapes; texts may be of several lengths."""
    shapes = {name: list(x.shape[1:]) for name, x in rows.items()}
    first_name, first = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if shape != first and not len(shape) == len(first) == 1:
            raise ValueError(
                f"rows of {name!r} are {shape} and those of {first_name!r} {first}; bring them to one shape, "
                "for instance by size: 32 and channels: 3 of the sources."
            )


def check_apart(sources: Mapping[str, Source], held_out: Sequence[str]) -> None:
    """Raise where a class that one source trains on is evaluated in another."""
    splits = next(iter(sources.values())).splits
    if "val" not in splits:  # divided by row: the classes of all splits are the same
        return
    trained: set[str] = set()
    evaluated: set[str] = set()
    for name, source in sources.items():
        _, y, _, class_names = source.all_rows()
        for split in ("train", "val", "test"):
            if split == EVALUATED or name not in held_out:
                classes = {class_names[c] for c in y[source.rows(split)].unique().tolist()}
                (trained if split == "train" else evaluated).update(classes)
    if both := sorted(trained & evaluated):
        raise ValueError(
            f"class {both[0]!r} is in split 'train' of one source and in 'val' or 'test' of another, and "
            "classes of the same name are one class; divide one of the sources otherwise, or rename it."
        )
