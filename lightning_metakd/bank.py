"""A teacher's answers, computed once.

For every image of some rows, and for each of a few fixed augmented views, the bank keeps what the teacher
says: its embedding, and its logits where its head is used. Views are pure functions of (image, view), so
the student sees exactly what the teacher saw. About one row in a hundred is asked again of the live
teacher, and a difference is an error.
"""

from pathlib import Path

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_metakd.data import cache
from lightning_metakd.data.augment import mix
from lightning_metakd.data.datamodules import SourceData
from lightning_metakd.files import written_whole
from lightning_metakd.models.model import Model
from lightning_metakd.types import Batch, Output

CHUNK = 500
CHECKED = 100
"""One row in this many is compared with the live teacher."""
TOLERANCE = 1e-3
"""Largest relative distance of a stored embedding; batches of another size round differently (1e-6)."""


class Bank:
    """Stored answers of one frozen network for the images of one source.

    Args:
        model: the network, frozen and in evaluation mode.
        key: what identifies its weights, a hash.
        data: whose images and views.
        folder: where the answers are kept between runs.
    """

    def __init__(
        self, model: Model, key: str, data: SourceData, folder: Path | None = None
    ) -> None:
        self.model, self.data = model, data
        self.images = data.images()
        self.folder = (
            folder or cache.folder() / "bank"
        ) / f"{data.source.name}-{len(self.images.y)}-{key[:16]}"
        self.stored: dict[int, Output] = {}  # view -> answers by row number
        self.known: dict[int, Tensor] = {}  # view -> whether a row is stored

    @torch.no_grad()
    def fill(self, rows: Int[Tensor, " n"], view: int) -> None:
        """Compute what is missing of these rows in this view, or read it from disk."""
        path = self.folder / f"view{view}.pt"
        if view not in self.stored and path.is_file():
            kept = torch.load(path, weights_only=True, mmap=True)
            self.known[view] = kept["known"]
            self.stored[view] = Output(kept["logits"], kept["embedding"])
        known = self.known.get(view, torch.zeros(len(self.images.y), dtype=torch.bool))
        missing = rows[~known[rows]]
        if not len(missing):
            return
        rank_zero_info(f"Storing the teacher's answers for view {view} of {len(missing)} images.")
        answers = [self.live(chunk, torch.full_like(chunk, view)) for chunk in missing.split(CHUNK)]
        embedding, logits = (torch.cat(parts) for parts in zip(*answers, strict=True))
        whole = self.stored.get(view)
        kept = [
            new.new_zeros(len(known), new.shape[1]) if old is None else old.clone()
            for new, old in zip(
                (logits, embedding), whole[:2] if whole else (None, None), strict=True
            )
        ]
        for into, new in zip(kept, (logits, embedding), strict=True):
            into[missing] = new
        self.known[view] = known.index_fill(0, missing, True)
        self.stored[view] = Output(*kept)
        with written_whole(path) as part:
            torch.save({"known": self.known[view], "logits": kept[0], "embedding": kept[1]}, part)

    def live(self, rows: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """(embedding, logits) of the network itself; no logits where it has no head of its own."""
        device = next(self.model.parameters()).device
        x = self.data.normalise(self.images.x[rows].to(device), rows.to(device), views.to(device))
        answer = self.model(x)
        logits = answer.logits if len(self.model.head.state_dict()) else answer.logits[:, :0]
        return answer.embedding.cpu(), logits.cpu()

    def __call__(self, batch: Batch) -> Output:
        """The stored answers for a batch.

        Raises:
            KeyError: if a view was not stored.
            RuntimeError: if the live network answers otherwise.
        """
        index, view = batch.index.cpu(), batch.view.cpu()
        logits, embedding = (self.look_up(index, view, field) for field in ("logits", "embedding"))
        again = mix(index ^ mix(view)) % CHECKED == 0
        if again.any():
            self.compare(index[again], view[again], embedding[again])
        return Output(logits.to(batch.x.device), embedding.to(batch.x.device))

    def look_up(self, index: Tensor, view: Tensor, field: str) -> Tensor:
        """One field of the answers, row by row."""
        views = view.unique().tolist()
        if missing := [v for v in views if not self.has(index[view == v], v)]:
            raise KeyError(
                f"no answers are stored for some images in view {missing[0]}; set data.views to the number "
                "of views that the bank keeps, or teacher.bank to false."
            )
        stored: dict[int, Tensor] = {v: getattr(self.stored[v], field) for v in views}
        first = stored[views[0]]
        found = first.new_empty(len(index), first.shape[1])
        for v, answers in stored.items():
            found[view == v] = answers[index[view == v]]
        return found

    def has(self, rows: Tensor, view: int) -> bool:
        """Whether these rows are stored in this view."""
        return view in self.known and bool(self.known[view][rows].all())

    def compare(self, index: Tensor, view: Tensor, embedding: Tensor) -> None:
        """Ask the live network again."""
        with torch.no_grad():
            live, _ = self.live(index, view)
        distance = (live - embedding).norm() / live.norm().clamp(min=1e-12)
        if distance > TOLERANCE:
            raise RuntimeError(
                f"the stored answers in {self.folder} are not those of this teacher (relative distance "
                f"{distance:.1e} over {len(index)} images); delete that folder to have them made again."
            )
