"""Labels of which some are wrong, as they are where nobody has checked them.

Symmetric noise goes to any other class alike, noise within superclasses to a class that looks alike (Patrini
et al. 2017, "Making Deep Neural Networks Robust to Label Noise", arXiv:1609.03683, has both).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from lightning_metakd.arguments.ranges import check_seed, check_share
from lightning_metakd.data.sources.seeding import hash64
from lightning_metakd.data.sources.source import Domain, Labelled, Source
from lightning_metakd.types import Reading

BITS = 2**53
"""Values of a uniform number."""


class LabelNoise(Source):
    """A source some of whose training labels are wrong: which, and how, is a function of seed and row alone.

    A wrong label is of another class of the same split. The rows that judge keep their right labels: those of
    other splits, and the quiz, validation and test of `SupervisedData`. Rows, views and splits are those of
    the source, and so are the answers that teachers have stored.

    Args:
        source: whose labels.
        rate: share of the rows whose label is wrong, in [0, 1).
        kind: `symmetric` (any other class), `superclass` (another class of the same superclass), or the
            class that each class is taken for, by name; a class without an entry keeps its labels.
        split: split whose labels are wrong; null is `teacher` where classes are divided (so that those of
            `strategy` are right), otherwise `train`.
        seed: of which rows, and of their wrong labels.
        trusted: whether the rows of the split that judge on plain batches have right labels.

    Raises:
        ValueError: if a class that is named does not exist, or the source knows no superclasses.

    Example:
        >>> from lightning_metakd.data.sources import LabelNoise, Synthetic
        >>> source = LabelNoise(Synthetic(per_class=100), rate=0.4)
        >>> round(source.wrong[source.rows("teacher")].float().mean().item(), 1)
        0.4
    """

    def __init__(
        self,
        source: Source,
        rate: float,
        kind: Literal["symmetric", "superclass"] | dict[str, str] = "symmetric",
        split: str | None = None,
        seed: int = 0,
        trusted: bool = True,
    ) -> None:
        check_share("data.source.rate", rate, "a part of the rows")
        check_seed("data.source.seed", seed)
        self.source, self.rate, self.kind, self.seed = source, rate, kind, seed
        self.splits = source.splits
        self.split = split or ("teacher" if "teacher" in source.splits else "train")
        source.check_split(self.split, "data.source.split")
        self.trusted = trusted
        self.others = self.targets()

    @property
    def name(self) -> str:
        """The source, and how many of its labels are wrong."""
        kind = self.kind if isinstance(self.kind, str) else "confused"
        return f"{self.source.name} with {100 * self.rate:g} % {kind} noise"

    def targets(self) -> Mapping[str, str] | None:
        """Groups or classes by the name of a class; None where any class may follow any."""
        if isinstance(self.kind, Mapping):
            return dict(self.kind)
        if self.kind == "symmetric":
            return None
        if not self.source.superclasses:
            raise ValueError(
                f"kind='superclass' needs superclasses, and {self.source.name} has none; take 'symmetric', "
                "or name the class that each class is taken for."
            )
        return self.source.superclasses

    def all_rows(self) -> Labelled:
        return self.source.all_rows()._replace(y=self.noisy)

    def true_labels(self) -> Int[Tensor, " n"]:
        return self.source.true_labels() if self.trusted else self.noisy

    @property
    def wrong(self) -> Bool[Tensor, " n"]:
        """Whether the label of each row is wrong."""
        return self.noisy != self.source.all_rows().y

    @cached_property
    def noisy(self) -> Int[Tensor, " n"]:
        """The labels."""
        _, y, _, names = self.source.all_rows()
        rows = self.source.rows(self.split)
        random = hash64(rows ^ hash64(torch.full_like(rows, self.seed)))
        drawn = (random & (BITS - 1)).double() / BITS < self.rate
        hit, chosen = rows[drawn], hash64(random[drawn]) & (BITS - 1)
        result = y.clone()
        classes = y[rows].unique().tolist()
        for c in y[hit].unique().tolist():
            at = y[hit] == c
            if others := self.alternatives(c, classes, names):
                result[hit[at]] = torch.tensor(others)[chosen[at] % len(others)]
        return result

    def alternatives(self, c: int, classes: Sequence[int], names: Sequence[str]) -> list[int]:
        """The classes for which a class is taken."""
        if isinstance(self.kind, Mapping):
            self.check_names([names[d] for d in classes])
            return [d for d in classes if names[d] == self.kind.get(names[c])]
        groups = self.others or {}
        return [d for d in classes if d != c and groups.get(names[d]) == groups.get(names[c])]

    def check_names(self, names: Sequence[str]) -> None:
        """Raise where a class that is confused is none of the split."""
        listed = {*self.others, *self.others.values()} if self.others else set()
        if missing := sorted(listed - set(names)):
            raise ValueError(
                f"kind names the class {missing[0]!r}, which is none of the {len(names)} of split "
                f"{self.split!r} of {self.source.name}; correct it, or set data.source.split."
            )

    @cached_property
    def identity(self) -> str:
        """That of the source: what is stored of its rows does not depend on their labels."""
        return self.source.identity

    @cached_property
    def content(self) -> str:
        """Hash of the source's and of the labels."""
        return hashlib.sha256(
            self.source.content.encode() + self.noisy.numpy().tobytes()
        ).hexdigest()[:16]

    # what follows is the source's

    @property
    def image_source(self) -> Source:
        """The source of the images, with these labels where they are its own."""
        images = self.source.image_source
        return self if images is self.source else images

    @property
    def external_data(self) -> tuple[str, ...]:
        return self.source.external_data

    @property
    def more_classes(self) -> str:
        return self.source.more_classes

    @property
    def superclasses(self) -> Mapping[str, str]:
        return self.source.superclasses

    @property
    def row_title(self) -> str:  # type: ignore[override]
        """What the names of its rows are."""
        return self.source.row_title

    @property
    def row_names(self) -> Sequence[str]:
        return self.source.row_names

    def select(self, split: str) -> Int[Tensor, " n"]:
        return self.source.select(split)

    def domains(self, split: str) -> list[Domain]:
        return self.source.domains(split)

    def check_rows(self) -> None:
        self.source.check_rows()

    def check_files(self) -> None:
        self.source.check_files()

    def check_views(self, views: int | None, argument: str = "data.views") -> None:
        self.source.check_views(views, argument)

    def inputs(
        self,
        x: Shaped[Tensor, "n ..."],
        index: Int[Tensor, " n"],
        view: Int[Tensor, " n"],
        reading: Reading | None = None,
    ) -> Shaped[Tensor, "n ..."]:
        return self.source.inputs(x, index, view, reading)

    def augmented(
        self, x: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        return self.source.augmented(x, index, view)

    def augmented_inputs(
        self, inputs: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        return self.source.augmented_inputs(inputs, index, view)

    def read(self, views: Shaped[Tensor, "n ..."], reading: Any) -> Shaped[Tensor, "n ..."]:
        return self.source.read(views, reading)

    def read_again(
        self, inputs: Shaped[Tensor, "n ..."], before: Any, after: Any
    ) -> Shaped[Tensor, "n ..."]:
        return self.source.read_again(inputs, before, after)

    def check_live(self, student: Reading | None, teacher: Reading | None) -> None:
        self.source.check_live(student, teacher)

    def reading(self, reading: Reading | None) -> Any:
        return self.source.reading(reading)
