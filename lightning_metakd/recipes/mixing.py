"""Rows of a training batch mixed with one another, their labels in the same proportion.

MixUp of Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412, and CutMix of Yun
et al. (2019), arXiv:1905.04899. Any teaching loss is that of both labels in their shares, and a teacher
answers for the mixed row itself (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent", arXiv:2106.05237). A mixture is a function of seed and step: a resumed training has the same.
"""

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_choice, check_positive
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.types import Batch

Kind = Literal["mixup", "cutmix"]


class Mixed(NamedTuple):
    """A batch of mixed rows.

    Attributes:
        batch: mixed inputs, each with the label of its first row.
        other: label of its second row.
        share: of the first row, in [0, 1], the same for all.
    """

    batch: Batch
    other: Int[Tensor, " n"]
    share: float


@dataclass(frozen=True)
class Mixing:
    """How rows of a training batch are mixed.

    Args:
        kind: `mixup`, all of two images, or `cutmix`, a rectangle of one in the other.
        alpha: > 0; the share of the first is drawn from Beta(alpha, alpha).
    """

    kind: Kind
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_choice("mixing.kind", self.kind, get_args(Kind))
        check_positive("mixing.alpha", self.alpha)

    def mixed(self, batch: Batch, seed: int, step: int) -> Mixed:
        """Each row with another of the batch.

        Raises:
            ValueError: if the rows cannot be mixed so.
        """
        if not batch.x.is_floating_point():
            raise ValueError("mixing takes numbers, and rows are tokens; leave mixing out.")
        draw = generator("mixing", seed, step)
        numbers = random.Random(int(torch.randint(2**62, (), generator=draw)))
        share = numbers.betavariate(self.alpha, self.alpha)
        partner = torch.randperm(len(batch.y), generator=draw).to(batch.y.device)
        other = batch.x[partner]
        if self.kind == "mixup":
            x = torch.lerp(other, batch.x, share)
        else:
            x, share = pasted(batch.x, other, share, numbers.random(), numbers.random())
        return Mixed(batch._replace(x=x), batch.y[partner], share)


def pasted(
    x: Tensor, other: Tensor, share: float, down: float, right: float
) -> tuple[Tensor, float]:
    """Images with a rectangle of others, and the share that is left of them.

    Args:
        share: of the first that would be left if none of the rectangle lay outside.
        down: place of its middle, as a part of the height.
        right: likewise, of the width.
    """
    if x.dim() != 4:
        raise ValueError(
            f"mixing.kind=cutmix cuts images, and rows have the shape {tuple(x.shape[1:])}; take mixup."
        )
    edges = []
    for size, middle in zip(x.shape[2:], (down, right), strict=True):
        reach = round(size * (1 - share) ** 0.5) / 2
        edges.append(slice(max(0, round(middle * size - reach)), round(middle * size + reach)))
    rows, columns = edges
    x = x.clone()
    x[..., rows, columns] = other[..., rows, columns]
    area = x[0, 0, rows, columns].numel()
    return x, 1 - area / x[0, 0].numel()
