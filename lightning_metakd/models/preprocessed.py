"""A network with its own preprocessing: the size, mean and deviation of the images of its training."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import LARGEST_SIDE, check_integer
from lightning_metakd.models.model import Maps, Model
from lightning_metakd.models.reading import checked_normalisation, in_words
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.types import Normalisation, Reading

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of most networks that were trained on ImageNet, torchvision's among them."""

Moments = Literal["imagenet"] | float | list[float]


class Preprocessed(Model):
    """A network that reads images in its own way, as a teacher beside a student that reads them in another.

    Teacher and student read the same augmented view, live and from stored outputs.

    Args:
        model: the network; a copy is taken.
        size: side of the square to which images are scaled (bicubic, with antialiasing); null takes them as
            they come.
        mean: of its training images in units of [0, 1], of each channel or one number for all; `imagenet`
            for that data set's; null for those in its checkpoint, or else those of the source.
        std: their standard deviation, likewise.
        pretrained_on: name of data beside the experiment's that its weights were trained on, for instance
            ImageNet; results of a student that learns from it list them as external_data.
    """

    def __init__(
        self,
        model: nn.Module,
        size: int | None = None,
        mean: Moments | None = None,
        std: Moments | None = None,
        pretrained_on: str | None = None,
    ) -> None:
        super().__init__()
        hint = "or left out to keep that of the images"
        check_integer("size", size, 1, LARGEST_SIDE, hint, optional=True)
        if (mean is None) != (std is None):
            raise ValueError(
                f"mean={mean} and std={std} belong together; give both, or neither to take those of the "
                "network's checkpoint or else of the source."
            )
        self.model, self.input_size = as_model(model), size
        self.head, self.model.head = self.model.head, nn.Identity()
        self.embedding_width, self.maps = self.model.embedding_width, self.model.maps
        self.head_fits_task = self.model.head_fits_task
        self.external_data = self.model.external_data
        if pretrained_on is not None:
            self.external_data = tuple(sorted({*self.external_data, pretrained_on}))
        self.fixed = None
        if mean is not None and std is not None:
            self.fixed = checked_normalisation(numbers(mean, "mean"), numbers(std, "std"))
        self.reading = self.fixed or self.model.reading

    def read_as(self, reading: Reading | None, who: str) -> None:
        """Refuse mean and deviation other than the configured ones.

        Raises:
            ValueError: if it does.
        """
        if self.fixed not in (None, reading):
            raise ValueError(
                f"{who}: its weights were trained with {in_words(reading)}, and "
                f"{in_words(self.fixed)} are given; leave mean and std of Preprocessed out."
            )
        super().read_as(reading, who)

    @property
    def tapped(self) -> nn.Module:
        return self.model.tapped

    def own_name(self, name: str) -> str:
        inner = self.model.own_name(name)
        return inner if inner.startswith("head.") else f"model.{inner}"

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        size = self.input_size
        if size is not None and x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bicubic", antialias=True)
        return self.model.body(x)


def numbers(moments: Moments, name: Literal["mean", "std"]) -> list[float]:
    """Mean or deviation channel by channel, where a name stands for them."""
    if moments == "imagenet":
        return list(getattr(IMAGENET, name))
    return moments if isinstance(moments, list) else [moments]
