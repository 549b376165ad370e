"""A teacher's outputs, computed once.

For each image of some rows, and each of a few fixed augmented views, the cache keeps the teacher's
embedding, and its logits where its head is used. Views are pure functions of (image, view), so student and
teacher read the same pixels. About one row in a thousand, or fifty of a small source, are computed again by
the live teacher, and a difference is an error.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from lightning_metakd.data.sources.seeding import hash64
from lightning_metakd.data.sources.source import Source
from lightning_metakd.models.model import Model
from lightning_metakd.storage.atomic_files import create_once
from lightning_metakd.storage.tensor_file import Shapes, create_tensor_file, open_tensor_file
from lightning_metakd.types import Batch, Output

CHUNK = 500
TYPICAL = 32
"""Rows that stand for the shape of all."""
CHECKED, FEWEST_CHECKED = 1000, 50
"""One row in so many is compared with the live teacher, and so many rows of a small source."""
TOLERANCE = 1e-3
"""Largest relative distance of a stored embedding; batches of another size round differently (1e-6)."""


class CachedView(NamedTuple):
    """The stored outputs of one view.

    Attributes:
        embedding: by row number.
        logits: of the network's own head, without columns where it has none.
        present: whether a row is stored.
    """

    embedding: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]
    present: Bool[Tensor, " n"]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32, in which convolutions of other batch sizes would differ by 2e-4."""
    cudnn: Any = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    with torch.autocast(device.type, enabled=False), cudnn.flags(**kept, allow_tf32=False):
        yield


def stored_under(model: Model, key: str, source: Source) -> str:
    """The name of what is stored: of the rows and their views, the weights, and how they read images."""
    reading = (source.reading(model.reading), model.input_size)
    return f"{source.identity}-{key[:16]}-{hashlib.sha256(repr(reading).encode()).hexdigest()[:8]}"


class OutputCache:
    """Stored outputs of one frozen network for the rows of one source.

    Args:
        model: the network, frozen and in evaluation mode.
        key: what identifies its weights, a hash.
        source: whose rows and views.
        folder: where the outputs are kept between runs, a file for each view; None keeps them in memory.
    """

    def __init__(self, model: Model, key: str, source: Source, folder: Path | None = None) -> None:
        self.model, self.key, self.source = model, key, source
        self.examples = source.all_rows()
        self.folder = None if folder is None else folder / stored_under(model, key, source)
        self.tables: dict[int, CachedView] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "OutputCache":
        """The same outputs and images for a copy of the network, as neither ever changes."""
        other = copy(self)
        other.model, other.tables = deepcopy(self.model, memo), dict(self.tables)
        return other

    def fill(self, rows: Int[Tensor, " n"], view: int) -> None:
        """Have these rows in this view: from memory, from disk, or from the network.

        Of several processes one computes the outputs, and the others wait and read.
        """
        if self.has(rows, view):
            return
        if self.folder is None:
            shapes = self.shapes(self.weight.dtype)
            empty = {name: torch.zeros(shape, dtype=kind) for name, (kind, shape) in shapes.items()}
            self.tables[view] = self.extend(CachedView(**empty), rows, view)
            return
        path = self.folder / f"view{view}.safetensors"

        def there() -> bool:
            table = open_tensor_file(path, self.shapes(torch.float32))
            if table is not None:
                self.tables[view] = CachedView(**table)
            return self.has(rows, view)

        def make() -> None:
            with create_tensor_file(path, self.shapes(torch.float32)) as empty:
                self.extend(CachedView(**empty), rows, view)
            there()

        create_once(path, there, make)

    def shapes(self, dtype: torch.dtype) -> Shapes:
        """Types and shapes of a table."""
        n, width, classes = len(self.examples.y), self.model.embedding_width, 0
        if self.has_head:
            classes = self.model.head(self.weight.new_zeros(1, width)).shape[1]
        return {
            "embedding": (dtype, (n, width)),
            "logits": (dtype, (n, classes)),
            "present": (torch.bool, (n,)),
        }

    @property
    def weight(self) -> Tensor:
        """A parameter of the network, for its device and precision."""
        return next(self.model.parameters())

    @property
    def has_head(self) -> bool:
        """Whether the network has logits of its own."""
        return len(self.model.head.state_dict()) > 0

    def inputs(self, rows: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> Tensor:
        """What the network reads of these rows in these views, on its device and in its precision."""
        device, dtype = self.weight.device, self.weight.dtype
        x = self.examples.x[rows.cpu()].to(device)
        x = self.source.inputs(x, rows.to(device), views.to(device), self.model.reading)
        return x.to(dtype) if x.is_floating_point() else x

    def typical_inputs(self) -> Tensor:
        """What the network reads of a row: of a few that are spread over all, that of median length."""
        n = len(self.examples.y)
        rows = self.examples.index[:: -(-n // TYPICAL)].split(1)
        inputs = [self.inputs(row, torch.full_like(row, -1)) for row in rows]
        return sorted(inputs, key=lambda x: x.shape[-1])[len(inputs) // 2]

    @torch.no_grad()
    def extend(self, table: CachedView, rows: Int[Tensor, " n"], view: int) -> CachedView:
        """Fill an empty table with what is stored and these rows, in pieces, under a progress bar."""
        if (old := self.tables.get(view)) is not None:
            rows = rows[~old.present[rows]]
            for new, kept in zip(table, old, strict=True):
                new.copy_(kept)
        pieces = rows.split(CHUNK)
        progress = tqdm(
            pieces, f"Embedding view {view}", disable=not sys.stderr.isatty(), leave=False
        )
        for piece in progress:
            answer = self.live(piece, torch.full_like(piece, view))
            table.embedding[piece] = answer.embedding.to(table.embedding)
            table.logits[piece] = answer.logits.to(table.logits)
            table.present[piece] = True
        return table

    def live(self, rows: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> Output:
        """The output of the network itself, in full precision; no logits where it has no head of its own."""
        with full_precision(self.weight.device):
            answer = self.model(self.inputs(rows, views))
        return answer if self.has_head else answer._replace(logits=answer.logits[:, :0])

    def __call__(self, batch: Batch) -> Output:
        """The stored outputs for a batch.

        Raises:
            ValueError: if a view was not stored, or the live network's embedding differs.
        """
        index, view = batch.index.cpu(), batch.view.cpu()
        answer = self.look_up(index, view)
        one_in = min(CHECKED, max(1, len(self.examples.y) // FEWEST_CHECKED))
        again = hash64(index ^ hash64(view)) % one_in == 0
        if again.any():
            self.compare(index[again], view[again], answer.embedding[again])
        return self.for_batch(answer, batch)

    def for_batch(self, answer: Output, batch: Batch) -> Output:
        """An output on the device of a batch, in the network's precision."""
        device, dtype = batch.x.device, self.weight.dtype
        return Output(answer.logits.to(device, dtype), answer.embedding.to(device, dtype))

    def other_view(self, batch: Batch) -> Output:
        """The outputs for another view of each row: the next that is stored, or else a live one."""
        index, view = batch.index.cpu(), batch.view.cpu()
        stored = sorted(view for view in self.tables if view >= 0)
        following = dict(zip(stored, [*stored[1:], *stored[:1]], strict=True))
        other = torch.tensor([following.get(v, v) for v in view.tolist()])
        numbers = other.unique().tolist()
        if (other == view).any() or not all(self.has(index[other == v], v) for v in numbers):
            return self.live(batch.index, batch.view + 1)
        return self.for_batch(self.look_up(index, other), batch)

    def look_up(self, index: Tensor, view: Tensor) -> Output:
        """The stored output of each row in its view."""
        views = view.unique().tolist()
        if missing := [v for v in views if not self.has(index[view == v], v)]:
            raise ValueError(
                f"no answers are stored for some images in view {missing[0]}; set data.views to the number "
                "of views that the cache keeps, or teacher.output_cache to false."
            )
        if len(views) == 1:
            table = self.tables[views[0]]
            return Output(table.logits[index], table.embedding[index])
        like = self.tables[views[0]]
        logits, embedding = (
            a.new_empty(len(index), a.shape[1]) for a in (like.logits, like.embedding)
        )
        for v in views:
            of_view, table = view == v, self.tables[v]
            logits[of_view] = table.logits[index[of_view]]
            embedding[of_view] = table.embedding[index[of_view]]
        return Output(logits, embedding)

    def has(self, rows: Tensor, view: int) -> bool:
        """Whether these rows are stored in this view."""
        return view in self.tables and bool(self.tables[view].present[rows].all())

    def compare(self, index: Tensor, view: Tensor, embedding: Tensor) -> None:
        """Raise where the live network's embedding differs from the stored one."""
        with torch.no_grad():
            live = self.live(index, view).embedding.to(embedding)
        distance = (live - embedding).norm() / live.norm().clamp(min=1e-12)
        if not distance <= TOLERANCE:  # nor is it where an answer is no number
            raise ValueError(
                f"the stored answers in {self.folder} are not those of this teacher (relative distance "
                f"{distance:.1e} over {len(index)} images); delete that folder to have them made again."
            )
