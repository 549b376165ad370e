"""Pairs of layers of student and teacher that a loss compares, at one size.

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


class LayerPair(NamedTuple):
    """A pair of layers that a loss compares.

    Attributes:
        teacher: number of the teacher in the pool; None stands for every teacher.
        student_layer: module path in the student.
        teacher_layer: module path in the teacher.
        adapted: whether the loss reads the student's layer at the teacher's width.
    """

    teacher: int | None
    student_layer: str
    teacher_layer: str
    adapted: bool


def hint_name(teacher: int, student_layer: str, teacher_layer: str) -> str:
    """Key in `Output.hints` of the student's layer at the width of a teacher's layer."""
    return f"{teacher}:{student_layer}>{teacher_layer}"


def for_one_teacher(
    teacher: int, student: Output, batch: Batch, context: Context
) -> tuple[Output, Batch, Context]:
    """(student, batch, context) as if this teacher were the only one; a loss of one teacher reads it so."""
    prefix = f"{teacher}:"
    hints = {
        f"0:{name.removeprefix(prefix)}": hint
        for name, hint in student.hints.items()
        if name.startswith(prefix)
    }
    support_accuracy = (
        context.teacher_support_accuracy
        if isinstance(context.teacher_support_accuracy, tuple)
        else context.teacher_support_accuracy[teacher, None]
    )
    return (
        student._replace(hints=hints),
        batch._replace(teacher_outputs=(batch.teacher_outputs[teacher],)),
        context._replace(teacher_support_accuracy=support_accuracy),
    )


def layer_of(output: Output, path: str) -> Tensor:
    """The output of a network at a layer: maps [n, ch, h, w], tokens [n, l, ch] or vectors [n, d].

    Raises:
        ValueError: if the layer was not tapped.
    """
    if path == EMBEDDING:
        return output.embedding
    if path not in output.features:
        raise ValueError(
            f"layer {path!r} is not in the answer, which has {', '.join(output.features) or 'no features'}; "
            f"call tap([{path!r}]) of the network first, as the recipes do."
        )
    return output.features[path]


def hint_of(student: Output, student_layer: str, teacher_layer: str) -> Tensor:
    """The student's layer at the width of the first teacher's.

    Raises:
        ValueError: if no adapter made it.
    """
    name = hint_name(0, student_layer, teacher_layer)
    if name not in student.hints:
        raise ValueError(
            f"hint {name!r} is not in the student's answer; give the student the adapters of the loss "
            "(adapters.make_adapters), as the recipes do."
        )
    return student.hints[name]


def with_teacher_layer(batch: Batch, teacher_layer: str) -> Batch:
    """The batch with this layer alone among the first teacher's; the coefficient of a pair reads it so."""
    teacher, *others = batch.teacher_outputs
    output = teacher._replace(features={teacher_layer: layer_of(teacher, teacher_layer)})
    return batch._replace(teacher_outputs=(output, *others))


def pairs(student: Output, teacher: Output, layers: Layers) -> list[tuple[Tensor, Tensor]]:
    """(student's layer, teacher's layer) of each pair, maps at the smaller of their two sizes."""
    return [same_size(layer_of(student, s), layer_of(teacher, t)) for s, t in layers.items()]


def adapted_pairs(student: Output, teacher: Output, layers: Layers) -> list[tuple[Tensor, Tensor]]:
    """As `pairs`, with the student's layers at the teacher's widths."""
    return [same_size(hint_of(student, s, t), layer_of(teacher, t)) for s, t in layers.items()]


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [n, ch, h, w] at the smaller of their sizes, by averaging; vectors stay as they are."""
    if a.dim() != 4 or b.dim() != 4:
        return a, b
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    resized: list[Float[Tensor, "n ch h w"]] = [
        x if x.shape[2:] == size else adaptive_avg_pool2d(x, size) for x in (a, b)
    ]
    return resized[0], resized[1]


def check_shapes(hint: Tensor, target: Tensor) -> None:
    """Raise where a hint cannot be compared with the teacher's layer, element by element."""
    if hint.shape != target.shape:
        raise ValueError(
            f"hint {tuple(hint.shape)} and target {tuple(target.shape)} must have one shape; name layers of "
            "one kind, maps or vectors, and let an adapter bring the student's to the teacher's width."
        )
