"""Rows of a training batch turned by quarters, and a student that says by how many.

Gidaris et al. (2018), "Unsupervised Representation Learning by Predicting Image Rotations", arXiv:1803.07728;
beside few-shot training: Gidaris et al. (2019), "Boosting Few-Shot Visual Learning with Self-Supervision",
arXiv:1906.05186. There each image is shown in all four turns; here each row in one that is drawn, the same
loss on average at a quarter of its cost. A draw is a function of seed and step, in a resumed training too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_metakd.arguments.ranges import check_positive
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.types import Output

TURNS = 4


@dataclass(frozen=True)
class Rotation:
    """That a student tells, beside what it is taught, by how many quarters its rows are turned.

    Args:
        weight: > 0; of the cross-entropy of the four turns, added to the teaching loss. The paper has 1.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive("rotation.weight", self.weight)


class Turns(nn.Module):
    """What tells turned rows apart by a student's embedding; trained with the student, and no part of it.

    Args:
        rotation: the weight of its loss.
        embedding_width: of the student.
    """

    def __init__(self, rotation: Rotation, embedding_width: int) -> None:
        super().__init__()
        self.weight, self.head = rotation.weight, nn.Linear(embedding_width, TURNS)

    def forward(
        self, student: Callable[[Tensor], Output], x: Tensor, seed: int, step: int
    ) -> Tensor:
        """The weighted cross-entropy of the turns, a scalar.

        Args:
            x: images [n, ch, h, h].

        Raises:
            ValueError: if the rows are no square images.
        """
        if x.dim() != 4 or x.shape[-1] != x.shape[-2]:
            raise ValueError(
                f"rotation turns square images, and rows have the shape {list(x.shape[1:])}; leave "
                "rotation out."
            )
        quarters = torch.randint(TURNS, (len(x),), generator=generator("rotation", seed, step))
        quarters = quarters.to(x.device)
        logits = self.head(student(turned(x, quarters)).embedding)
        return self.weight * cross_entropy(logits, quarters)


def turned(x: Tensor, quarters: Int[Tensor, " n"]) -> Tensor:
    """Images, each turned counter-clockwise by its number of quarters.

    >>> turned(torch.tensor([[[[1, 2], [3, 4]]]]), torch.tensor([1])).tolist()
    [[[[2, 4], [1, 3]]]]
    """
    every = torch.stack([x.rot90(k, (-2, -1)) for k in range(TURNS)])
    return every[quarters, torch.arange(len(x), device=x.device)]
