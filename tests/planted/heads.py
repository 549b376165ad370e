"""Teachers whose faults are known: a network that knows every image, and heads that answer as planted."""

import torch
from torch import Tensor, nn

from lightning_metakd.data.sources.augment import normalise
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.models.model import Maps, Model
from lightning_metakd.teachers.heads import PrototypeHead


class Oracle(Model):
    """Knows the images of Synthetic, as they are, by the pixels of a corner.

    An image is embedded as the axis of its class. The length, in [1, 2), is a number of its own, spread
    evenly over the images of a class.

    Args:
        per_class: images of each class, as the source has.
    """

    def __init__(self, per_class: int) -> None:
        super().__init__()
        source = Synthetic(per_class)
        images = source.all_rows()
        x = normalise(images.x, *source.normalisation())
        length = 1 + (images.index * 0.6180339887) % 1
        axes = nn.functional.one_hot(images.y, len(images.class_names)) * length[:, None]
        self.corners = nn.Parameter(self.corner(x))
        self.register_buffer("axes", axes)
        self.head, self.embedding_width = nn.Identity(), axes.shape[1]

    def corner(self, x: Tensor) -> Tensor:
        """Few numbers, and none like another image's."""
        return x[:, :, :2, :4].flatten(1)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """The axis of the image's class."""
        exactly = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(self.corner(x), self.corners, compute_mode=exactly)
        return self.axes[distance.argmin(1)], {}


class Right(PrototypeHead):
    """Answers with what the network says."""

    def fit(self, support, y, classes):
        right = super().fit(support, y, classes)
        return lambda output: self.answer(right(output), output, classes)

    def held_out(self, support, y, classes, other):
        right = super().held_out(support, y, classes, other)
        return self.answer(right, support, classes)

    def answer(self, logits, output, classes):
        """The planted answer in place of the right one."""
        return logits


class Permuted(Right):
    """Answers as if the classes of the episode were renumbered: wrong everywhere."""

    def answer(self, logits, output, classes):
        return logits.roll(1, -1)


class HalfRight(Right):
    """Right on what it takes for a class of even number in the data set, and wrong on the others."""

    def answer(self, logits, output, classes):
        odd = classes[logits.argmax(-1)] % 2 == 1
        return torch.where(odd[:, None], logits.roll(1, -1), logits)


class Doubting(Right):
    """Right by a margin of `scale`, but for a share of the images, where the truth is the lowest by far.

    Args:
        doubted: share of the images of a class.
        depth: by how many times `scale` the truth lies below the others there.
        scale: factor on the logits, > 0.
    """

    def __init__(self, doubted: float, depth: float, scale: float | None = None) -> None:
        super().__init__(scale=scale)
        self.doubted, self.depth = doubted, depth

    def answer(self, logits, output, classes):
        doubts = output.embedding.sum(-1, keepdim=True) - 1 < self.doubted
        return torch.where(doubts, -self.depth * logits, logits)
