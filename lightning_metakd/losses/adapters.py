"""Projections of a student's layers to the widths of its teachers'.

A loss that compares layers element by element (FitNets) wants them equally wide. For each such pair an
adapter, a 1x1 convolution, projects the student's layer; where the widths are equal it is the identity.
Adapters are trained beside the student and do not ship with it, and they are no strategy: trained by the
quiz, which sees them through the student's next step only, they stay bad.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d

from lightning_metakd.functional.params import as_key
from lightning_metakd.losses.layer_pairs import Read, hint_name, layer_of
from lightning_metakd.models.model import EMBEDDING, Model
from lightning_metakd.types import Forward, Output, Params

Projections = Mapping[Read, nn.Module]


class Pointwise(nn.Linear):
    """A 1x1 convolution, with the parameters of a linear map.

    The gradient of an [out, in, 1, 1] weight may have other strides than the weight, of which DDP warns.
    """

    def forward(self, x: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n out h w"]:
        return conv2d(x, self.weight[..., None, None], self.bias)


class Adapters(nn.Module):
    """The projections that some losses want, and how they fill in a student's hints.

    Args:
        projections: pair of layers -> from the student's width to the teacher's.
    """

    def __init__(self, projections: Projections = MappingProxyType({})) -> None:
        super().__init__()
        self.reads = tuple(projections)
        self.projections = nn.ModuleDict(
            {as_key(name_of(read)): made for read, made in projections.items()}
        )

    def forward(self, output: Output) -> Output:
        """The student's answer with its hints."""
        if not self.reads:
            return output
        made = zip(self.reads, self.projections.values(), strict=True)
        hints = {name_of(read): p(layer_of(output, read.student_layer)) for read, p in made}
        return output._replace(hints=hints)

    def hinted(self, output: Output, params: Params) -> Output:
        """The same for these parameters."""
        return functional_call(self, dict(params), (output,))

    def beside(self, forward: Forward, params: Params) -> Forward:
        """A student that answers with its hints, for these parameters of the adapters."""
        return WithAdapters(forward, self, params) if self.reads else forward


class WithAdapters:
    """A student that answers with its hints, as a pure function of its parameters.

    Args:
        forward: the student.
        adapters: which project its layers.
        params: their parameters, no part of the student's.
    """

    def __init__(self, forward: Forward, adapters: Adapters, params: Params) -> None:
        self.forward, self.adapters, self.params = forward, adapters, params

    def __call__(self, params: Params, x: Tensor) -> Output:
        """The student's answer for `x` with these parameters, and its hints."""
        return self.adapters.hinted(self.forward(params, x), self.params)

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        """The answer, and the norm statistics of `x`."""
        output, statistics = self.forward.observe(params, x)
        return self.adapters.hinted(output, self.params), statistics

    def statistics(self, params: Params, x: Tensor) -> Params:
        """The student's own."""
        return self.forward.statistics(params, x)

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        """The logits of the student's own head."""
        return self.forward.classify(params, embedding)


def name_of(read: Read) -> str:
    """The hint that a read asks for."""
    return hint_name(read.teacher or 0, read.student_layer, read.teacher_layer)


def of_each_teacher(reads: Iterable[Read], n_teachers: int) -> list[Read]:
    """The reads with the numbers of their teachers, each once.

    Raises:
        ValueError: if there is no teacher of a number.
    """
    found: dict[Read, None] = {}
    for read in reads:
        if read.teacher is not None and read.teacher >= n_teachers:
            raise ValueError(
                f"teacher={read.teacher} is not among the {n_teachers} of model.teachers; they are counted "
                "from 0."
            )
        numbers = range(n_teachers) if read.teacher is None else [read.teacher]
        found |= dict.fromkeys(read._replace(teacher=k) for k in numbers)
    return list(found)


def tap_layers(model: Model, layers: Iterable[str]) -> None:
    """Have a network answer with these layers; the embedding is in every answer."""
    model.tap([layer for layer in dict.fromkeys(layers) if layer != EMBEDDING])


def make_adapters(
    reads: Iterable[Read],
    student: Model,
    teachers: Sequence[Model],
    x: Tensor,
    pictures: Tensor,
    seed: int = 0,
) -> Adapters:
    """The adapters for some pairs of layers, whose widths student and teachers show on a few inputs.

    Args:
        reads: with numbers of teachers, see `of_each_teacher`; those that want no adapter are left out.
        student: with its layers tapped.
        teachers: with their layers tapped.
        x: a few inputs of the student; two are enough.
        pictures: a few inputs of the teachers.
        seed: of their start; the global generator is left alone.

    Raises:
        ValueError: if a map is to be compared with a vector, or a layer was not tapped.
    """
    wanted = [read for read in reads if read.adapted]
    if not wanted:
        return Adapters()
    own, theirs = glance(student, x), [glance(teacher, pictures) for teacher in teachers]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Adapters(
            {
                read: projection(
                    read,
                    layer_of(own, read.student_layer),
                    layer_of(theirs[read.teacher or 0], read.teacher_layer),
                )
                for read in wanted
            }
        )


def projection(read: Read, student: Tensor, teacher: Tensor) -> nn.Module:
    """From the student's channels to the teacher's."""
    if student.dim() != teacher.dim():
        raise ValueError(
            f"layer {read.student_layer!r} of the student is {list(student.shape[1:])} for an image and "
            f"{read.teacher_layer!r} of teacher {read.teacher} is {list(teacher.shape[1:])}; name layers of "
            "one kind: maps [ch, h, w], tokens [l, d] or vectors [d]."
        )
    is_map = student.dim() == 4
    own, wanted = (t.shape[1 if is_map else -1] for t in (student, teacher))
    if own == wanted:
        return nn.Identity()
    made = Pointwise(own, wanted) if is_map else nn.Linear(own, wanted)
    return made.to(student)


@torch.no_grad()
def glance(model: Model, x: Tensor) -> Output:
    """What a network says of a few inputs in evaluation mode; it stays as it was."""
    modes = {module: module.training for module in model.modules()}
    some = next(model.parameters())
    try:
        return model.eval()(x.to(some) if x.is_floating_point() else x.to(some.device))
    finally:
        for module, training in modes.items():
            module.training = training
