"""The rows of a source as a frozen network embeds them.

Learners and losses then train on vectors, in seconds. Each row, and each of a few augmented views of it, is
embedded once, through the output cache, and kept on disk.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.output_cache import OutputCache, stored_under
from lightning_metakd.data.sources.source import Domain, Labelled, Source
from lightning_metakd.models.weights import load_origin, load_weights, weights_hash
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.storage.atomic_files import create_once
from lightning_metakd.storage.read_checkpoint import local_file, read_checkpoint, student_weights
from lightning_metakd.storage.tensor_file import Shapes, create_tensor_file, open_tensor_file
from lightning_metakd.types import Reading

MOST_VIEWS = 10_000
"""Each is stored for every row."""


class Embedded(Source):
    """Another source, embedded by a frozen network: the same rows, classes and splits, vectors for images.

    Args:
        source: the images.
        model: the network, built as it was trained.
        checkpoint: file of its weights, opened when the data are first used; null takes the network as it is.
        views: augmented views that are kept beside each image as it is; set data.views to the same number.

    Example:
        >>> from lightning_metakd.data.sources import Embedded, Synthetic
        >>> from lightning_metakd.models import Conv4
        >>> Embedded(Synthetic(per_class=2), Conv4(width=4), views=1).all_rows().x.shape
        torch.Size([200, 2, 16])
    """

    def __init__(
        self, source: Source, model: nn.Module, checkpoint: str | None = None, views: int = 4
    ) -> None:
        check_integer("data.source.views", views, 0, MOST_VIEWS)
        self.source, self.model, self.checkpoint = source, as_model(model), checkpoint
        self.views, self.splits = views, source.splits

    @property
    def name(self) -> str:
        """Names of the source of the images and of the network."""
        return f"{self.source.name} embedded by {type(self.model).__name__}"

    @property
    def image_source(self) -> Source:
        """The source of the images."""
        return self.source.image_source

    @property
    def external_data(self) -> tuple[str, ...]:
        """Names of other data on which the embedding network was trained."""
        return self.model.external_data

    @property
    def more_classes(self) -> str:
        return self.source.more_classes

    @property
    def row_title(self) -> str:  # type: ignore[override]
        """What the names of its rows are."""
        return self.image_source.row_title

    @property
    def row_names(self) -> Sequence[str]:
        """Path of each image, or each text."""
        return self.image_source.row_names

    @property
    def superclasses(self) -> Mapping[str, str]:
        return self.source.superclasses

    def true_labels(self) -> Int[Tensor, " n"]:
        return self.source.true_labels()

    def all_rows(self) -> Labelled:
        """All rows; `x` is the vector of the image as it is, then those of its views, [n, views + 1, d]."""
        return self._all_rows

    def select(self, split: str) -> Int[Tensor, " n"]:
        return self.source.select(split)

    def domains(self, split: str) -> list[Domain]:
        return self.source.domains(split)

    def reading(self, reading: Reading | None) -> None:
        """Vectors are read as they are; the embedding network read the images as it was trained."""

    def augmented(
        self,
        x: Float[Tensor, "n views d"],
        index: Int[Tensor, " n"],
        view: Int[Tensor, " n"],
    ) -> Float[Tensor, "n d"]:
        """The vector of each row's view.

        Raises:
            ValueError: if it was not stored.
        """
        if (view >= self.views).any():
            raise ValueError(
                f"data.views asks for view {int(view.max())} of {self.name}, which keeps {self.views}; set "
                f"data.views to {self.views}, or source.views to more."
            )
        return x[torch.arange(len(x), device=x.device), view + 1]

    def check_files(self) -> None:
        self.source.check_files()
        if self.checkpoint is not None:
            local_file(self.checkpoint)

    def check_views(self, views: int | None, argument: str = "data.views") -> None:
        if views is None or views > self.views:
            raise ValueError(
                f"{argument}={'null' if views is None else views} draws more views than the {self.views} "
                f"that {self.name} keeps; set {argument} to {self.views}, or "
                "data.source.views to more."
            )

    @cached_property
    def _all_rows(self) -> Labelled:
        examples, key = self.source.all_rows(), self.opened()
        place = image_cache.folder() / "embedded" / f"views{self.views}"
        path = place / f"{stored_under(self.model, key, self.source)}.safetensors"
        shape = (len(examples.y), self.views + 1, self.model.embedding_width)
        shapes = {"x": (torch.float32, shape)}
        create_once(
            path,
            there=lambda: open_tensor_file(path, shapes) is not None,
            make=lambda: self.embed(path, key, shapes),
        )
        table = open_tensor_file(path, shapes)
        assert table is not None  # it is there now
        return examples._replace(x=table["x"])

    def opened(self) -> str:
        """Load the checkpoint, freeze the network, and return the hash of its weights."""
        if self.checkpoint is not None:
            checkpoint = read_checkpoint(self.checkpoint)
            who = f"embedded by {self.checkpoint}"
            load_weights(self.model, student_weights(checkpoint), who)
            load_origin(self.model, checkpoint, who)
        self.model.requires_grad_(False).eval()
        return weights_hash(self.model)

    def embed(self, path: Path, key: str, shapes: Shapes) -> None:
        """Fill a cache view by view, interrupted or not, and lay its views side by side."""
        rows, steps = self.source.all_rows().index, path.with_suffix("")
        cache = OutputCache(self.model, key, self.source, steps)
        self.model.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        for view in range(-1, self.views):
            cache.fill(rows, view)
        self.model.cpu()
        with create_tensor_file(path, shapes) as table:
            for view in range(-1, self.views):
                table["x"][:, view + 1] = cache.tables[view].embedding
        shutil.rmtree(steps)
