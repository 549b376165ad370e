"""A teacher's answers, computed once.

For every image of some rows, and for each of a few fixed augmented views, the bank keeps what the teacher
says: its embedding, and its logits where its head is used. Views are pure functions of (image, view), so
the student sees exactly what the teacher saw. About one row in a hundred is asked again of the live
teacher, and a difference is an error.
"""

import sys
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.func import functional_call
from tqdm import tqdm

from lightning_metakd.data.augment import mix
from lightning_metakd.data.source import Source
from lightning_metakd.files import written_whole
from lightning_metakd.functional import part
from lightning_metakd.models.model import Model
from lightning_metakd.types import Batch, Output, Params

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
        source: whose rows and views.
        folder: where the answers are kept between runs; None keeps them in memory alone.
    """

    def __init__(self, model: Model, key: str, source: Source, folder: Path | None = None) -> None:
        self.model, self.source = model, source
        self.images = source.everything()
        name = f"{source.name}-{len(self.images.y)}-{key[:16]}"
        self.folder = None if folder is None else folder / name
        self.stored: dict[int, Output] = {}  # view -> answers by row number
        self.known: dict[int, Tensor] = {}  # view -> whether a row is stored

    def fill(self, rows: Int[Tensor, " n"], view: int) -> None:
        """Compute what is missing of these rows in this view, or read it from disk."""
        path = None if self.folder is None else self.folder / f"view{view}.pt"
        if path is not None and view not in self.stored and path.is_file():
            kept = torch.load(path, weights_only=True, mmap=True)
            self.known[view] = kept["known"]
            self.stored[view] = Output(kept["logits"], kept["embedding"])
        known = self.known.get(view, torch.zeros(len(self.images.y), dtype=torch.bool))
        missing = rows[~known[rows]]
        if not len(missing):
            return
        self.stored[view] = self.joined(view, missing, self.ask(missing, view))
        self.known[view] = known.index_fill(0, missing, True)
        if path is not None:
            logits, embedding, *_ = self.stored[view]
            kept = {"known": self.known[view], "logits": logits, "embedding": embedding}
            with written_whole(path) as part:
                torch.save(kept, part)

    @torch.no_grad()
    def ask(self, rows: Int[Tensor, " n"], view: int) -> Output:
        """The network's answers for some rows in one view, in pieces, under a progress bar."""
        pieces = rows.split(CHUNK)
        shown = tqdm(pieces, f"Embedding view {view}", disable=not sys.stderr.isatty(), leave=False)
        answers = [self.live(piece, torch.full_like(piece, view)) for piece in shown]
        embedding, logits = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return Output(logits, embedding)

    def joined(self, view: int, rows: Int[Tensor, " n"], answers: Output) -> Output:
        """What is stored of a view, with the answers for further rows."""
        whole = self.stored.get(view)
        if whole is None:
            n = len(self.images.y)
            wide = [a.new_zeros(n, a.shape[1]) for a in (answers.logits, answers.embedding)]
        else:
            wide = [whole.logits.clone(), whole.embedding.clone()]
        wide[0][rows], wide[1][rows] = answers.logits, answers.embedding
        return Output(wide[0], wide[1])

    def live(self, rows: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """(embedding, logits) of the network itself; no logits where it has no head of its own."""
        device = next(self.model.parameters()).device
        x = self.source.inputs(self.images.x[rows].to(device), rows.to(device), views.to(device))
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
        answer = self.look_up(index, view)
        again = mix(index ^ mix(view)) % CHECKED == 0
        if again.any():
            self.compare(index[again], view[again], answer.embedding[again])
        return Output(answer.logits.to(batch.x.device), answer.embedding.to(batch.x.device))

    def look_up(self, index: Tensor, view: Tensor) -> Output:
        """What is stored, row by row."""
        views = view.unique().tolist()
        if missing := [v for v in views if not self.has(index[view == v], v)]:
            raise KeyError(
                f"no answers are stored for some images in view {missing[0]}; set data.views to the number "
                "of views that the bank keeps, or teacher.bank to false."
            )
        if len(views) == 1:
            whole = self.stored[views[0]]
            return Output(whole.logits[index], whole.embedding[index])
        first = self.stored[views[0]]
        found = [a.new_empty(len(index), a.shape[1]) for a in (first.logits, first.embedding)]
        for v in views:
            of_view, whole = view == v, self.stored[v]
            found[0][of_view] = whole.logits[index[of_view]]
            found[1][of_view] = whole.embedding[index[of_view]]
        return Output(found[0], found[1])

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


class Recall:
    """A network that does not change between episodes, as a `Forward` over image numbers.

    In place of pixels it is given the numbers of images as they are (view -1), and looks up their
    embeddings; a head may adapt.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def __call__(self, params: Params, x: Int[Tensor, " n"]) -> Output:
        index = x.cpu()
        embedding = self.bank.look_up(index, torch.full_like(index, -1)).embedding.to(x.device)
        return Output(self.classify(params, embedding), embedding)

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        """The answer; no norm of such a network depends on the batch."""
        return self(params, x), {}

    def statistics(self, params: Params, x: Tensor) -> Params:
        """None."""
        return {}

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        """The logits of the network's own head."""
        return functional_call(self.bank.model.head, part(params, "head"), (embedding,))


def by_number(batch: Batch) -> Batch:
    """The batch as `Recall` reads it."""
    return batch._replace(x=batch.index)
