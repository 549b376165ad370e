"""The contract of a network: a body and a head.

A body turns inputs into one vector per row; a head turns vectors into logits. Learners, teachers
and export need the two apart, and everything that is worth transferring lies in the body.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import MOST_CLASSES, check_integer
from lightning_metakd.types import Output, Reading

Maps = dict[str, Tensor]
EMBEDDING = "embedding"
"""Path of the embedding, where a tap names a layer."""


class Model(nn.Module, ABC, Configured):
    """A network as body and head; the parameters of the head are named `head.*`.

    `embedding_width` is the `d` of its embeddings `[n, d]`; `maps` are names of what `body` returns beside
    them and no module does. What else belongs to its weights is kept beside them, in checkpoints too:

    Attributes:
        reading: normalisation of the images, or vocabulary of the texts, of its training; None before that.
        external_data: names of data beside the experiment's on which it, or a teacher of it, was trained.
        input_size: side to which it scales its images; None takes them as they are.
        reads_vectors: whether its inputs are vectors, as an embedded source has them, and no images or texts.
        head_fits_task: whether recipes bring its head to the size of their task: that of a network which
            was written elsewhere, and has no n_classes.
    """

    head: nn.Module
    embedding_width: int
    maps: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    reading: Reading | None = None
    external_data: tuple[str, ...] = ()
    input_size: int | None = None
    reads_vectors: bool = False
    head_fits_task: bool = False

    @abstractmethod
    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """Embedding [n, d], and maps that no module returns, by their names in `maps`.

        Args:
            x: inputs [n, ...].
        """

    def resize_head(self, n_classes: int) -> None:
        """Take a new head of this size in place of the old one; 0 takes it away."""
        new = linear_head(self.embedding_width, n_classes)
        self.head = new.to(next(self.head.parameters(), torch.empty(0)))

    def read_as(self, reading: Reading | None, who: str) -> None:
        """Read images or texts from now on as in the training of the weights; None reads rows as they are.

        Args:
            who: whose weights these are, for messages.
        """
        self.reading = reading

    @property
    def tapped(self) -> nn.Module:
        """The module from which paths of taps start."""
        return self

    def own_name(self, name: str) -> str:
        """The name here of a tensor that has this name in the network which was wrapped."""
        return name

    def tap(self, paths: Sequence[str]) -> None:
        """Return the outputs of these modules as features from now on.

        Args:
            paths: of modules, or names among `maps`, or `embedding`.

        Raises:
            ValueError: if one does not exist.
        """
        tappable = [
            *self.maps,
            *(name for name, _ in self.tapped.named_modules() if name),
            EMBEDDING,
        ]
        for path in paths:
            if path not in tappable:
                raise ValueError(f"layer {path!r} is no module; choose from {listed(tappable)}.")
        self.taps = tuple(paths)

    def forward(self, x: Tensor) -> Output:
        with recording(self.tapped, [path for path in self.taps if path != EMBEDDING]) as recorded:
            embedding, maps = self.body(x)
        maps = {**maps, EMBEDDING: embedding}
        features = {p: maps[p] if p in maps else the_tensor(p, recorded[p]) for p in self.taps}
        return Output(self.head(embedding), embedding, features)


def check_width(network: nn.Module, x: Tensor, argument: str, width: int) -> None:
    """Raise where the rows' channels, or numbers, are not those of the network's argument."""
    if x.shape[1] != width:
        raise ValueError(
            f"rows of shape {list(x.shape[1:])} do not fit {argument}={width} of {type(network).__name__}; "
            f"change {argument}, or choose another data.source."
        )


def check_side(network: nn.Module, x: Tensor, least: int) -> None:
    """Raise where images are so small that a network pools them away."""
    if min(x.shape[-2:]) < least:
        raise ValueError(
            f"images of {x.shape[-2]}x{x.shape[-1]} are too small for {type(network).__name__}, which needs "
            f"{least}x{least}; raise data.source.size or choose a network with less pooling."
        )


def head_width(model: Model) -> int:
    """Logits of a model's head; 0 where it has none of its own."""
    if not model.head.state_dict():
        return 0
    like = next(model.head.parameters())
    with torch.no_grad():
        return model.head(like.new_zeros(1, model.embedding_width)).shape[-1]


@contextmanager
def recording(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Outputs of the modules at these paths inside the context, by path; empty where there is no module."""
    modules = dict(module.named_modules()) if paths else {}
    outputs: dict[str, list[Any]] = {path: [] for path in paths}
    with ExitStack() as hooks:
        for path, into in outputs.items():
            if path in modules:
                hooks.callback(modules[path].register_forward_hook(recorder(into)).remove)
        yield outputs


def recorder(into: list[Any]) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook that keeps each output."""

    def hook(layer: nn.Module, args: Any, output: Any) -> None:
        into.append(output)

    return hook


def the_tensor(path: str, outputs: list[Any]) -> Tensor:
    """The one tensor which a module returned in one forward pass."""
    if len(outputs) != 1:
        raise ValueError(
            f"{path!r} is called {len(outputs)} times in one pass, not once; "
            "name another module, or the one around it."
        )
    if not isinstance(outputs[0], Tensor):
        raise TypeError(
            f"{path!r} returns a {type(outputs[0]).__name__}, not a tensor; tap another."
        )
    return outputs[0]


def listed(names: Sequence[str], most: int = 30) -> str:
    """The names, or the first of them."""
    return ", ".join(names[:most]) + (f" .. ({len(names)} in all)" if len(names) > most else "")


def as_key(name: str) -> str:
    """A dotted name of a layer or parameter as a key of `nn.ModuleDict` and `nn.ParameterDict`."""
    return name.replace(".", "/")


def linear_head(width: int, n_classes: int) -> nn.Module:
    """A linear classifier, or nothing where the learner brings its own (n_classes = 0).

    A head that no loss reaches would be a parameter without gradient, an error on several
    processes.

    Raises:
        ValueError: if the number of classes is out of range.
    """
    check_integer("n_classes", n_classes, 0, MOST_CLASSES, "where 0 is no head")
    return nn.Linear(width, n_classes) if n_classes else nn.Identity()
