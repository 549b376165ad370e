"""Any network as a Model: a user's own, or torchvision's.

The classifier is the linear layer whose output is that of the network, or becomes it by a softmax or
log-softmax: the network is run once on random inputs to see which. It is taken out and becomes the head;
its input becomes the embedding. A softmax behind it still runs, on the embedding, but is not
part of the logits, which it would not change as scores.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CLASSES, check_integer
from lightning_metakd.models.model import Maps, Model, linear_head, recording, the_tensor

SIDES = (32, 64, 224, 28, 84, 96, 105, 128, 16, 256, 299, 384)
"""Sides of the square images on which a network is tried, in pixels."""

log = logging.getLogger(__name__)


class Wrapped(Model):
    """A network of any origin as body and head; a copy is taken.

    Args:
        module: the network, called with the images alone.
        head: path of its classifier, an nn.Linear, as in 'classifier.3'; the default is the one whose
            output the network returns.
        n_classes: size of a new head; 0 for learners that bring their own, none keeps the
            network's classifier.

    Raises:
        ValueError: if no classifier is found, or its path does not exist, or what the network returns is
            neither the output of a linear layer nor its softmax.
    """

    head_fits_task = True

    def __init__(
        self,
        module: nn.Module,
        head: str | None = None,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_integer("n_classes", n_classes, 0, MOST_CLASSES, optional=True)
        self.module = deepcopy(module)
        self.classifier = find_classifier(module) if head is None else head
        linear = linear_at(self.module, self.classifier)
        self.embedding_width = linear.in_features
        self.module.set_submodule(self.classifier, nn.Identity())
        self.head = linear if n_classes is None else linear_head(linear.in_features, n_classes)

    @property
    def tapped(self) -> nn.Module:
        return self.module

    def own_name(self, name: str) -> str:
        of_head = name.startswith(f"{self.classifier}.")
        return f"head.{name.removeprefix(f'{self.classifier}.')}" if of_head else f"module.{name}"

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """The input of the classifier, as embedding."""
        with recording(self.module, [self.classifier]) as recorded:
            self.module(x)
        embedding = the_tensor(self.classifier, recorded[self.classifier]).flatten(1)
        if embedding.shape != (len(x), self.embedding_width):
            raise ValueError(
                f"the classifier {self.classifier!r} is fed with {list(embedding.shape)}, not one "
                f"vector of {self.embedding_width} per row; give another path as head."
            )
        return embedding, {}


def as_model(module: nn.Module, argument: str = "model") -> Model:
    """A copy of a Model; any other network copied and wrapped as one, with its classifier as head.

    Its convolutions have their weights in channels-last: on a CPU, ResNet-12 trains 1.2 and Conv4 1.4 times
    as fast then.

    Args:
        argument: that names the network, for messages.
    """
    try:
        model = deepcopy(module) if isinstance(module, Model) else Wrapped(module)
        return model.to(memory_format=torch.channels_last)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def find_classifier(module: nn.Module) -> str:
    """Path of the linear layer whose output the network returns; it is logged.

    Raises:
        ValueError: if there is none, if something else follows it than a softmax, or if none of several
            can be tried because the network takes none of the inputs.
    """
    kind = type(module).__name__
    linears = [name for name, layer in module.named_modules() if name and type(layer) is nn.Linear]
    if not linears:
        raise ValueError(
            f"{kind} has no nn.Linear that could be its classifier; "
            "add one, or write the network as a models.model.Model."
        )
    run = trial_run(module, linears)
    if run is None:
        if len(linears) > 1:
            raise ValueError(
                f"head=null does not say which linear layer of {kind} is its classifier, and it takes none "
                f"of the inputs on which it could be tried; set head to one of {', '.join(linears)}."
            )
        path = linears[0]
    else:
        path = returned_layer(kind, *run)
    log.warning("%s: its classifier is %r.", kind, path)
    return path


def returned_layer(kind: str, output: Any, layers: list[tuple[str, Tensor]]) -> str:
    """The layer whose output is the network's, or becomes it by a softmax; the last one of several.

    Args:
        output: of the network.
        layers: (path, output) of each linear layer, in the order of execution.

    Raises:
        ValueError: if there is none.
    """
    for path, value in reversed(layers):
        if isinstance(output, Tensor) and any(same(output, f(value)) for f in RETURNED_AS):
            return path
    last = layers[-1][0] if layers else "none"
    raise ValueError(
        f"{kind} returns something else than the output of a linear layer or its softmax (the last one that "
        f"runs is {last!r}), and what follows would be lost; give the network without it, or name its "
        "classifier as head of models.wrapped.Wrapped."
    )


RETURNED_AS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda logits: logits,
    lambda logits: logits.log_softmax(-1),
    lambda logits: logits.softmax(-1),
)
"""What a network may make of its logits."""


def same(output: Tensor, value: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    return output.shape == value.shape and torch.allclose(output, value, rtol=1e-4, atol=1e-6)


def trial_run(module: nn.Module, linears: list[str]) -> tuple[Any, list[tuple[str, Tensor]]] | None:
    """(output, outputs of linear layers as they ran) for the first random input that the network takes.

    A copy runs, in evaluation mode; the random state stays.
    """
    network = deepcopy(module).eval()
    for x in trial_inputs(network):
        layers: list[tuple[str, Tensor]] = []
        with ExitStack() as hooks, torch.no_grad():
            for path in linears:
                hook = keep_output(path, layers)
                hooks.callback(network.get_submodule(path).register_forward_hook(hook).remove)
            try:
                return network(x), layers
            except Exception:  # any network, which says in its own way that it takes no such input
                continue
    return None


def keep_output(
    path: str, layers: list[tuple[str, Tensor]]
) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook that keeps a layer's output under its path."""

    def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
        layers.append((path, output))

    return hook


def trial_inputs(module: nn.Module) -> Iterator[Tensor]:
    """Two random inputs of each kind that a network of these layers may take."""
    weight = next(module.parameters())
    draw = torch.Generator().manual_seed(0)
    convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    linear = next(m for m in module.modules() if isinstance(m, nn.Linear))
    channels = [3, 1] if first is None else [first.in_channels]
    shapes = [(c, side, side) for side in SIDES for c in channels]
    for shape in [*shapes, (linear.in_features,)]:
        yield torch.randn(2, *shape, generator=draw).to(weight)


def linear_at(module: nn.Module, path: str) -> nn.Linear:
    """The linear layer at this path."""
    layer = dict(module.named_modules()).get(path)
    if not path or not isinstance(layer, nn.Linear):
        what = "no module" if layer is None else f"a {type(layer).__name__}"
        linears = [n for n, m in module.named_modules() if n and isinstance(m, nn.Linear)]
        raise ValueError(
            f"head={path!r} is {what} of {type(module).__name__}, but must be an nn.Linear; "
            f"choose from {', '.join(linears) or 'none: it has no nn.Linear'}."
        )
    return layer
