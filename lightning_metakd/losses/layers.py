"""Which layers of student and teacher a loss compares, and how the two are brought to one size.

A loss names layers by module path (`layer3`, `blocks.4`), or `embedding` for the vector in front of the
head. Where it needs the student's layer at the teacher's width, the student's adapters project it
(`adapters.py`): they are trained with the student and are no part of it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lightning_metakd.models.model import EMBEDDING
from lightning_metakd.types import Batch, Context, Output

Layers = Mapping[str, str]
"""Module path in the student -> module path in the teacher."""


class Read(NamedTuple):
    """A pair of layers that a loss looks at.

    Attributes:
        teacher: number of the teacher in the pool; None stands for every one.
        student_layer: module path in the student.
        teacher_layer: module path in the teacher.
        adapted: whether the student's layer is wanted at the teacher's width.
    """

    teacher: int | None
    student_layer: str
    teacher_layer: str
    adapted: bool


def hint_name(teacher: int, student_layer: str, teacher_layer: str) -> str:
    """What the student's layer is called at the width of a teacher's."""
    return f"{teacher}:{student_layer}>{teacher_layer}"


def facing(
    teacher: int, student: Output, batch: Batch, context: Context
) -> tuple[Output, Batch, Context]:
    """What a loss reads, as if this teacher were the only one."""
    own = f"{teacher}:"
    hints = {
        f"0:{name.removeprefix(own)}": hint
        for name, hint in student.hints.items()
        if name.startswith(own)
    }
    trust = context.trust if isinstance(context.trust, tuple) else context.trust[teacher, None]
    return (
        student._replace(hints=hints),
        batch._replace(teachers=(batch.teachers[teacher],)),
        context._replace(trust=trust),
    )


def layer_of(output: Output, path: str) -> Tensor:
    """What a network said at a layer."""
    return output.embedding if path == EMBEDDING else output.features[path]


def pairs(student: Output, teacher: Output, layers: Layers) -> list[tuple[Tensor, Tensor]]:
    """(the student's layer, the teacher's) of each pair, maps at the smaller of their two sizes."""
    return [same_size(layer_of(student, s), layer_of(teacher, t)) for s, t in layers.items()]


def adapted_pairs(student: Output, teacher: Output, layers: Layers) -> list[tuple[Tensor, Tensor]]:
    """As `pairs`, with the student's layers at the teacher's widths."""
    return [
        same_size(student.hints[hint_name(0, s, t)], layer_of(teacher, t))
        for s, t in layers.items()
    ]


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [n, ch, h, w] at the smaller of their sizes, by averaging; vectors stay as they are."""
    if a.dim() != 4 or b.dim() != 4:
        return a, b
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    resized: list[Float[Tensor, "n ch h w"]] = [
        x if x.shape[2:] == size else adaptive_avg_pool2d(x, size) for x in (a, b)
    ]
    return resized[0], resized[1]
