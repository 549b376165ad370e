"""A teacher: a frozen network and a head that makes it answer for this episode's classes.

A teacher trained on base classes cannot name five new ones. Its head, fitted on its own embeddings of
the support set, can. On the support rows themselves it answers leave-one-out, and for one shot on an
augmented view, because a row that sits inside its own prototype is answered with near-certainty.

A teacher answers too well for classes that it was trained on, and whoever learned there how far to
trust it would trust it too much. So it remembers which they were (`trained_on`).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lightning_metakd.bank import Bank
from lightning_metakd.checkpoint import read_checkpoint, student_weights
from lightning_metakd.data import cache
from lightning_metakd.data.augment import augment
from lightning_metakd.data.datamodules import SourceData
from lightning_metakd.heads import Head, PrototypeHead
from lightning_metakd.models.model import EMBEDDING
from lightning_metakd.models.weights import load_weights
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.types import Batch, Output


class Teacher(nn.Module):
    """A frozen network with a head.

    Args:
        model: the network, built as it was trained.
        checkpoint: file of its weights, opened when training or testing begins; null takes the network
            as it is.
        head: how it answers for an episode's classes, by default from class means of its embeddings.
        bank: compute its answers for all images (and each of data.views augmented views) once and keep
            them; then teaching costs next to nothing. Losses that read its layers ask it live all the same.
    """

    trained_on: Tensor

    def __init__(
        self,
        model: nn.Module,
        checkpoint: str | None = None,
        head: Head | None = None,
        bank: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.checkpoint, self.keeps_bank = as_model(model), checkpoint, bank
        self.head = PrototypeHead() if head is None else head
        self.bank: Bank | None = None
        self.sha256 = ""
        self.register_buffer("trained_on", torch.empty(0, dtype=torch.long), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in evaluation mode whatever is asked."""
        return super().train(False)

    def open(self) -> None:
        """Load the checkpoint and freeze.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no checkpoint, or does not fit the network.
        """
        if self.checkpoint is not None:
            found = read_checkpoint(Path(self.checkpoint))
            who = f"teacher {self.checkpoint}"
            left_out = load_weights(self.model, student_weights(found), who)
            if left_out and not self.head.needs_support:
                raise ValueError(
                    f"head={type(self.head).__name__} answers with the network's own logits, and they are "
                    f"not there: {left_out[0]} Give the teacher's model the n_classes of its training."
                )
            self.trained_on = torch.tensor(found.get("classes", []), device=self.trained_on.device)
            self.head.knows(self.trained_on)
        self.requires_grad_(False)
        self.sha256 = weights_hash(self.model)

    @property
    def asks_bank(self) -> bool:
        """Whether it answers from its bank, which keeps no layers but the embedding."""
        return self.keeps_bank and all(layer == EMBEDDING for layer in self.model.taps)

    def store(self, data: SourceData, rows: Int[Tensor, " n"], views: range) -> None:
        """Compute the answers for these images and views now, where the teacher keeps a bank."""
        if self.asks_bank:
            self.bank = self.bank or Bank(self.model, self.sha256, data, cache.folder() / "bank")
            for view in views:
                self.bank.fill(rows, view)

    def embed(self, batch: Batch) -> Output:
        """What the network itself says, live or from the bank."""
        if self.bank is None or not self.asks_bank:
            return self.model(batch.x)
        return self.bank(batch)

    @torch.no_grad()
    def answer(
        self, support: Batch, query: Batch, classes: Int[Tensor, " c"]
    ) -> tuple[Output, Output]:
        """Its answers for the support rows (held out of what it was fitted on) and the query rows."""
        seen, asked = self.embed(support), self.embed(query)
        one_shot = len(support.y) == len(classes)
        other = self.model(another_view(support)) if one_shot else seen
        held_out = self.head.held_out(seen, support.y, classes, other)
        classifier = self.head.fit(seen, support.y, classes)
        scale = self.head.scale
        return (
            seen._replace(logits=scale * held_out),
            asked._replace(logits=scale * classifier(asked)),
        )

    @torch.no_grad()
    def answer_rows(self, batch: Batch, classes: Int[Tensor, " c"]) -> Output:
        """Its answers for rows without a support set, by a head that needs none."""
        asked = self.embed(batch)
        classifier = self.head.fit(asked, batch.y, classes)
        return asked._replace(logits=self.head.scale * classifier(asked))


class Pool(nn.ModuleList):
    """Teachers, in the order of the configuration."""

    def __iter__(self) -> Iterator[Teacher]:
        return super().__iter__()  # type: ignore[return-value]


def another_view(batch: Batch) -> Tensor:
    """The same images, augmented another way."""
    return augment(batch.x, batch.index, batch.view + 1)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
