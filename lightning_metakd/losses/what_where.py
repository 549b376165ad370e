"""Learning what and where to transfer.

Jang, Lee, Hwang, Shin (2019), "Learning What and Where to Transfer", arXiv:1905.05901. Every pair (m, n) of a
teacher's and a student's layer may be matched. With G the teacher's map and r(F) the student's at its width,
L = lambda / (h w) sum_c w_c sum_ij (r(F) - G)^2_cij (eq. 1, 2): w, weights of channels that add up to 1,
decide what is transferred, and lambda where to. Both are functions of the teacher's map alone,
w = softmax(W g + b) and lambda = ReLU6(v . g + c) with g the mean of G over positions, and are learned by how
good the student becomes.

How this differs: W, b, v, c are coefficients, so that uniform, constant and scheduled ones stand in the
same place, and are trained by the quiz of the recipe, on rows held out of the training batch (the paper
takes the same batch). They start at uniform channels and lambda = 1. Maps meet at the smaller of their sizes.
"""

from abc import ABC
from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu6

from lightning_metakd.arguments.ranges import MOST_CHANNELS, check_integer, check_number
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.losses.layer_pairs import (
    LayerPair,
    check_shapes,
    hint_of,
    layer_of,
    same_size,
    with_teacher_layer,
)
from lightning_metakd.losses.layer_weights import LayerWeights, Weights, of_each_pair
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.types import Batch, Context, Output


def by_channel(features: Tensor) -> Float[Tensor, "n ch l"]:
    """Maps [n, ch, h, w], tokens [n, l, ch] or vectors [n, ch], as channels and positions."""
    wide = at_least_single(features)
    return wide.transpose(1, 2) if wide.dim() == 3 else wide.reshape(*wide.shape[:2], -1)


def channel_loss(
    hint: Float[Tensor, "n ..."],
    target: Float[Tensor, "n ..."],
    channels: Float[Tensor, " ch"] | Float[Tensor, "n ch"],
) -> Float[Tensor, " n"]:
    """Squared difference of each row, mean over positions, weighted mean over channels (eq. 1).

    Args:
        hint: the student's layer at the teacher's width.
        target: the teacher's layer.
        channels: weights that add up to 1, for all rows or of each.

    Raises:
        ValueError: if hint and target differ in shape.
    """
    check_shapes(hint, target)
    return (channels * (by_channel(hint) - by_channel(target)).square().mean(-1)).sum(-1)


def layer_means(batch: Batch, channels: int, who: str) -> Float[Tensor, "n ch"]:
    """Means over positions of the one teacher's layer that the batch holds, see `with_teacher_layer`.

    Args:
        channels: its width.
        who: the coefficient that reads it, for messages.

    Raises:
        ValueError: if there is not exactly one layer, or it has another width.
    """
    layers = list(batch.teacher_outputs[0].features.items())
    if len(layers) != 1:
        raise ValueError(
            f"{who} looks at one layer of the teacher, and there are {len(layers)}; use it for the weights "
            "of a loss that compares layers, such as WhatWhere."
        )
    ((layer, features),) = layers
    means = by_channel(features).mean(-1)
    if means.shape[1] != channels:
        raise ValueError(
            f"channels={channels} of {who} is not the width of the teacher's {layer!r}; set it to "
            f"{means.shape[1]}, or name one for each layer of the teacher."
        )
    return means


class LearnedPerMap(Coefficient):
    """The weight of a pair of layers, `where to`: ReLU6(v . g + c), g the means of the teacher's map.

    It starts at the same value for every row. For a row whose sum falls below 0 it is 0 and has no gradient.

    Args:
        channels: of the teacher's layer.
        init: where it starts, in (0, 6); by default at the loss's own constant.

    Example:
        >>> from lightning_metakd.losses import LearnedPerMap, WhatWhere, example_rows
        >>> loss = WhatWhere({"block": ["block"]}, weights=LearnedPerMap(channels=6, init=2.0))
        >>> loss(*example_rows()).detach()
        tensor([3.3679, 4.1436, 3.8128, 4.7283])
    """

    needs_teacher = True
    reads_layer = True

    def __init__(self, channels: int, init: float | None = None) -> None:
        super().__init__()
        check_integer("channels", channels, 1, MOST_CHANNELS)
        check_number("init", init, 0.0, 6.0, optional=True)
        self.channels, self.init, self.net = channels, init, nn.Linear(channels, 1)

    def configured_values(self) -> Mapping[str, float]:
        return {} if self.init is None else {"init": self.init}

    def initialise(self, default: float) -> None:
        value = default if self.init is None else self.init
        if self.interval.low > 0 or self.interval.high < 6 or not 0 < value < 6:
            raise ValueError(
                f"LearnedPerMap lies in [0, 6] and starts inside, but is to start at {value} in "
                f"{tuple(self.interval)}; use it for weights of layers, or take LearnedPerSample."
            )
        self.set_value(value)

    def set_value(self, value: float) -> None:
        nn.init.zeros_(self.net.weight)
        nn.init.constant_(self.net.bias, min(value, 6.0))

    def forward(self, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        means = layer_means(batch, self.channels, type(self).__name__)
        return relu6(self.net(means)).squeeze(-1)


class ChannelWeights(Coefficient, ABC):
    """Weights of the channels of the teacher's map; they add up to 1."""

    reads_layer = True


class UniformChannels(ChannelWeights):
    """The same weight for every channel of the teacher's layer.

    Example:
        >>> from lightning_metakd.losses import UniformChannels, example_rows
        >>> _, batch, context = example_rows()
        >>> UniformChannels()(batch, context)
        tensor([0.1667, 0.1667, 0.1667, 0.1667, 0.1667, 0.1667])
    """

    def forward(self, batch: Batch, context: Context) -> Float[Tensor, " ch"]:
        ((_, features),) = batch.teacher_outputs[0].features.items()
        width = by_channel(features).shape[1]
        return context.progress.new_full((width,), 1 / width)


class LearnedPerChannel(ChannelWeights):
    """The weights of channels, `what`: softmax(W g + b), g the means of the teacher's map; uniform at first.

    Args:
        channels: of the teacher's layer.

    Example:
        >>> from lightning_metakd.losses import LearnedPerChannel, example_rows
        >>> _, batch, context = example_rows()
        >>> LearnedPerChannel(channels=6)(batch, context).shape
        torch.Size([4, 6])
    """

    needs_teacher = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_integer("channels", channels, 1, MOST_CHANNELS)
        self.channels, self.net = channels, nn.Linear(channels, channels)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    def forward(self, batch: Batch, context: Context) -> Float[Tensor, "n ch"]:
        means = layer_means(batch, self.channels, type(self).__name__)
        return self.net(means).softmax(-1)


class WhatWhere(Loss):
    """Match all pairs of some layers, each pair and each channel times its weight.

    Args:
        layers: module path in the student -> module paths in the first teacher.
        weights: where to; of each pair, >= 0; a number or a coefficient (LearnedPerMap is the paper's), or
            such by the teacher's layer.
        channels: what; LearnedPerChannel, or such by the teacher's layer; uniform by default.

    Example:
        >>> from lightning_metakd.losses import WhatWhere, example_rows
        >>> student, batch, context = example_rows()
        >>> WhatWhere({"block": ["block"]})(student, batch, context)
        tensor([1.6840, 2.0718, 1.9064, 2.3641])
    """

    def __init__(
        self,
        layers: dict[str, list[str]],
        weights: Weights = 1.0,
        channels: ChannelWeights | dict[str, ChannelWeights] | None = None,
    ) -> None:
        super().__init__()
        self.pairs = [(s, t) for s, listed in layers.items() for t in listed]
        uniform = UniformChannels()
        by_pair = of_each_pair(self.pairs, channels or uniform, uniform, "channels")
        self.weights, self.channels = LayerWeights(self.pairs, weights), nn.ModuleDict(by_pair)

    def layer_pairs(self, teacher: int | None = 0) -> Iterator[LayerPair]:
        return (LayerPair(teacher, s, t, adapted=True) for s, t in self.pairs)

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        losses = []
        for (s, t), channels in zip(self.pairs, self.channels.values(), strict=True):
            pair = same_size(hint_of(student, s, t), layer_of(batch.teacher_outputs[0], t))
            losses.append(channel_loss(*pair, channels(with_teacher_layer(batch, t), context)))
        return self.weights(losses, batch, context)
