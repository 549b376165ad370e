"""Random rows on which a loss or a coefficient can be tried."""

import torch
from torch import Tensor

from lightning_metakd.losses.layer_pairs import hint_name
from lightning_metakd.models.model import EMBEDDING
from lightning_metakd.types import Batch, Context, Output


def example_rows(n: int = 4, n_way: int = 3, seed: int = 0) -> tuple[Output, Batch, Context]:
    """The arguments of `Loss.forward`, drawn at random: a student's output, a batch and its context.

    One teacher answers. The student embeds in 3 numbers, the teacher in 5; each has a layer `block` of 2 x 2
    positions, with 4 and 6 channels, and the student has hints at the teacher's widths. It stands halfway
    through its task.

    Args:
        n: rows, their labels 0, 1, .., 0, 1, ..
        n_way: classes.
        seed: of the numbers.
    """
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=random)

    y = torch.arange(n) % n_way
    teacher = Output(draw(n_way), draw(5), {"block": draw(6, 2, 2)})
    hints = {
        hint_name(0, "block", "block"): draw(6, 2, 2),
        hint_name(0, EMBEDDING, EMBEDDING): draw(5),
    }
    student = Output(draw(n_way), draw(3), {"block": draw(4, 2, 2)}, hints)
    batch = Batch(draw(3), y, torch.arange(n), torch.full((n,), -1), (teacher,))
    return student, batch, Context(y, torch.tensor(0.5), student)
