"""The contract of a source: labelled examples in named classes, divided by class or by row.

A few-shot source divides its classes: `train` (base classes), `val` and `test` (novel classes), and
`train` once more into `teacher` and `strategy`, so that a strategy can be learned on classes on which
the teacher was not trained. An ordinary source divides its rows: `train` and `test` over the same
classes. `all` is every row of either.

All rows of a source lie in one tensor, usually a memory-mapped file; a split is a set of row numbers
into it. A row has the same number whatever split it is reached through, so that a
teacher's outputs can be stored once and looked up by number.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.data.sources.augment import augment, normalise, renormalise
from lightning_metakd.models.reading import in_words
from lightning_metakd.types import Normalisation, Reading

FEW_SHOT_SPLITS = ("train", "val", "test", "teacher", "strategy")
SAMPLED = 64
"""Rows that stand for the content of a source."""


class Labelled(NamedTuple):
    """Examples with their classes.

    Attributes:
        x: images, uint8, or whatever else `Source.inputs` makes a network's input of.
        y: dataset class of each row, global over splits.
        index: number of each row, over all splits of the source.
        class_names: names of all dataset classes, by id.
    """

    x: Shaped[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    index: Int[Tensor, " n"]  # type: ignore[assignment]  # hides tuple.index
    class_names: tuple[str, ...]


class Domain(NamedTuple):
    """A part of a source from which whole episodes are drawn.

    Attributes:
        name: of the domain; empty where it is the whole source.
        source: name of its source in results.
        weight: how often it is drawn in training, beside others.
        rows: its row numbers in the split.
    """

    name: str
    source: str
    weight: float
    rows: Int[Tensor, " n"]


class Source(ABC, Configured):
    """Labelled examples in splits. A member returns all rows, and the row numbers of each split.

    Attributes:
        splits: names of its splits.
    """

    splits: tuple[str, ...] = FEW_SHOT_SPLITS

    @property
    def name(self) -> str:
        """Its name in messages, manifests and results."""
        return type(self).__name__

    def __deepcopy__(self, memo: dict[int, Any]) -> "Source":
        """Itself: its rows never change, and copies would fill memory."""
        return self

    @property
    def image_source(self) -> "Source":
        """The source of the images behind these rows: itself, where the rows are the images."""
        return self

    @property
    def external_data(self) -> tuple[str, ...]:
        """Names of other data on which the network that made the rows was trained; none for images."""
        return ()

    @property
    def more_classes(self) -> str:
        """Advice for a message: what to do where a split has fewer classes than an episode."""
        return "lower data.n_way, or choose another split or data.source"

    @cached_property
    def identity(self) -> str:
        """Name, number of rows, and a hash of the labels and of a view of a few rows."""
        x, y, index, _ = self.all_rows()
        few = index[:: -(-len(index) // SAMPLED)]
        view = self.augmented(x[few], few, torch.zeros_like(few))
        digest = hashlib.sha256(y.numpy().tobytes() + view.contiguous().numpy().tobytes())
        return f"{self.name}-{len(y)}-{digest.hexdigest()[:12]}"

    row_title = "file"
    """What `row_names` are."""

    @property
    def row_names(self) -> Sequence[str]:
        """Path of the file of each row, or its text; empty where rows have neither."""
        return ()

    @cached_property
    def content(self) -> str:
        """Hash of classes, labels and a few images; paths and networks make no difference."""
        x, y, index, names = self.image_source.all_rows()
        few = x[index[:: -(-len(index) // SAMPLED)]].contiguous()
        digest = hashlib.sha256(json.dumps(names).encode() + y.numpy().tobytes())
        digest.update(few.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def superclasses(self) -> Mapping[str, str]:
        """Superclass of each class, by name; nothing where classes have none."""
        return {}

    def true_labels(self) -> Int[Tensor, " n"]:
        """Class of each row, for those that judge; `all_rows` has the labels that are trained on."""
        return self.all_rows().y

    @abstractmethod
    def all_rows(self) -> Labelled:
        """All rows, in the order of their numbers; repeated calls return the same tensors."""

    @abstractmethod
    def select(self, split: str) -> Int[Tensor, " n"]:
        """Row numbers of one of `splits`, ascending."""

    def rows(self, split: str) -> Int[Tensor, " n"]:
        """Row numbers of a split, ascending; `all` is every row.

        Raises:
            ValueError: if the source has no such split, or its rows do not ascend.
        """
        self.check_split(split)
        if split == "all":
            return self.all_rows().index
        rows = self.select(split)
        if (rows[1:] <= rows[:-1]).any():
            raise ValueError(
                f"data.source={self.name} cannot be used: rows of {split!r} do not ascend."
            )
        return rows

    def domains(self, split: str) -> list[Domain]:
        """The parts of a split whose classes occur together in an episode: all, but for a mixture."""
        return [Domain("", self.name, 1.0, self.rows(split))]

    def check_split(self, split: str, argument: str = "split") -> None:
        """Raise where a split does not exist, naming the argument that names it."""
        if split not in (*self.splits, "all"):
            raise ValueError(
                f"{argument}={split!r} is not a split of {self.name}; "
                f"choose one of {', '.join(self.splits)} or all, or another data.source."
            )

    def check_rows(self) -> None:
        """Raise a ValueError where `all_rows` is not what samplers, caches and networks count on."""
        x, y, index, names = self.all_rows()
        images = type(self).reading is Source.reading and type(self).inputs is Source.inputs
        named = y.dtype == torch.int64 and bool(((y >= 0) & (y < len(names))).all())
        numbered = torch.equal(index, torch.arange(len(y)))
        faults = {
            f"x is {x.dtype}, and images are uint8 of 0 to 255": images and x.dtype != torch.uint8,
            f"x has {len(x)} rows and y {len(y)}": len(x) != len(y),
            f"y is not int64, the place of a row's class among {len(names)} class_names": not named,
            f"index is not 0 to {len(y) - 1}, in this order": not numbered,
        }
        wrong = [fault for fault, is_there in faults.items() if is_there]
        if wrong:
            raise ValueError(f"data.source={self.name} cannot be used: {'; '.join(wrong)}.")

    def check_files(self) -> None:
        """Raise where a checkpoint that embeds the rows is not there; opens none."""

    def check_views(self, views: int | None, argument: str = "data.views") -> None:
        """Raise where the source cannot make so many augmented views of a row; None stands for any number."""

    def load(self, split: str) -> Labelled:
        """The examples of a split: a copy, except of `all`. `rows` returns their numbers alone."""
        labelled = self.all_rows()
        if split == "all":
            return labelled
        rows = self.rows(split)
        return labelled._replace(x=labelled.x[rows], y=labelled.y[rows], index=rows)

    def inputs(
        self,
        x: Shaped[Tensor, "n ..."],
        index: Int[Tensor, " n"],
        view: Int[Tensor, " n"],
        reading: Reading | None = None,
    ) -> Shaped[Tensor, "n ..."]:
        """The input of a network for these views of these rows, computed on their device.

        Args:
            x: the rows, as in `all_rows`.
            index: their numbers.
            view: seed of the augmentation of each; -1 is a row as it is.
            reading: of the rows on which the network was trained; None takes the source's own.
        """
        return self.read(self.augmented(x, index, view), self.reading(reading))

    def read(self, views: Shaped[Tensor, "n ..."], reading: Any) -> Shaped[Tensor, "n ..."]:
        """What a network reads of these views; `reading` as that method returns it."""
        return views if reading is None else normalise(views, *reading)

    def augmented(
        self, x: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        """These views of these rows, before they are read: the same for every network."""
        return augment(x, index, view)

    def augmented_inputs(
        self, inputs: Shaped[Tensor, "n ..."], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Shaped[Tensor, "n ..."]:
        """Another view of rows of which only the inputs of a network are at hand."""
        return augment(inputs, index, view)

    def read_again(
        self, inputs: Shaped[Tensor, "n ..."], before: Any, after: Any
    ) -> Shaped[Tensor, "n ..."]:
        """Inputs of a network by one reading, as another reading would have made them."""
        return renormalise(inputs, before, after)

    def check_live(self, student: Reading | None, teacher: Reading | None) -> None:
        """Raise where a teacher cannot read what was made for a student; images it reads again."""

    def reading(self, reading: Reading | None) -> Any:
        """By what rows are made a network's input; None where they are read as they are.

        Args:
            reading: of the rows on which the network was trained; None takes the source's own.

        Raises:
            ValueError: if it does not fit the rows, or the source has none of its own.
        """
        if reading is None:
            return self.normalisation()
        if not isinstance(reading, Normalisation):
            raise ValueError(
                f"{in_words(reading)}, by which a network was trained, reads texts, and rows of {self.name} "
                "are images; take another network, or another data.source."
            )
        channels, n = self.all_rows().x.shape[1], len(reading.mean)
        if n not in (1, channels):
            raise ValueError(
                f"mean={list(reading.mean)}, by which a network was trained, is of {n} channels, and "
                f"images of {self.name} have {channels}; read them with {n}, or take another network."
            )
        return reading

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel over the rows of `train`, in units of [0, 1].

        Raises:
            ValueError: if there are no such rows.
        """
        return self._moments

    @cached_property
    def _moments(self) -> Normalisation:
        rows = self.rows("train")
        if not len(rows):
            raise ValueError(
                f"split 'train' of {self.name} has no images to take mean and standard deviation from; name "
                "a checkpoint, which knows those of its training, or give them by Preprocessed."
            )
        return channel_moments(self.all_rows().x, rows)


def channel_moments(
    x: UInt8[Tensor, "n ch h w"], rows: Int[Tensor, " m"], chunk: int = 4096
) -> Normalisation:
    """Mean and standard deviation of each channel over some rows, in units of [0, 1]; sums are exact."""
    total = squares = torch.zeros(x.shape[1], dtype=torch.int64)
    pixels = 0
    for part in torch.split(rows, chunk):
        values = x[part].to(torch.int32)
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
        pixels += values[:, 0].numel()
    mean = total.double() / pixels
    std = (squares.double() / pixels - mean.square()).clamp(min=1e-6).sqrt()
    return Normalisation(tuple((mean / 255).tolist()), tuple((std / 255).tolist()))
