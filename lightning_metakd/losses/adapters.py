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

from lightning_metakd.losses.layer_pairs import LayerPair, hint_name, layer_of
from lightning_metakd.models.model import EMBEDDING, Model, as_key
from lightning_metakd.types import Forward, Output, Params

Projections = Mapping[LayerPair, nn.Module]


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
        self.layer_pairs = tuple(projections)
        self.projections = nn.ModuleDict(
            {as_key(name_of(pair)): made for pair, made in projections.items()}
        )

    def take_over(self, other: "Adapters") -> None:
        """Hold the projections of others in place of these."""
        self.layer_pairs, self.projections = other.layer_pairs, other.projections

    def forward(self, output: Output) -> Output:
        """The student's output with its hints."""
        if not self.layer_pairs:
            return output
        made = zip(self.layer_pairs, self.projections.values(), strict=True)
        hints = {name_of(pair): p(layer_of(output, pair.student_layer)) for pair, p in made}
        return output._replace(hints=hints)

    def hinted(self, output: Output, params: Params) -> Output:
        """The same for these parameters."""
        return functional_call(self, dict(params), (output,))

    def beside(self, forward: Forward, params: Params) -> Forward:
        """A student that answers with its hints, for these parameters of the adapters."""
        return WithAdapters(forward, self, params) if self.layer_pairs else forward


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


def name_of(pair: LayerPair) -> str:
    """The hint that a read asks for."""
    return hint_name(pair.teacher or 0, pair.student_layer, pair.teacher_layer)


def of_each_teacher(pairs: Iterable[LayerPair], n_teachers: int) -> list[LayerPair]:
    """The reads with the numbers of their teachers, each once.

    Raises:
        ValueError: if there is no teacher of a number.
    """
    numbered: dict[LayerPair, None] = {}
    for pair in pairs:
        if pair.teacher is not None and pair.teacher >= n_teachers:
            raise ValueError(
                f"teacher={pair.teacher} is not among the {n_teachers} of model.teachers; they are counted "
                "from 0."
            )
        numbers = range(n_teachers) if pair.teacher is None else [pair.teacher]
        numbered |= dict.fromkeys(pair._replace(teacher=k) for k in numbers)
    return list(numbered)


def tap_layers(model: Model, layers: Iterable[str]) -> None:
    """Have a network answer with these layers; the embedding is in every answer."""
    model.tap([layer for layer in dict.fromkeys(layers) if layer != EMBEDDING])


def make_adapters(
    pairs: Iterable[LayerPair],
    student: Model,
    teachers: Sequence[Model],
    x: Tensor,
    teacher_x: Tensor,
    seed: int = 0,
) -> Adapters:
    """The adapters for some pairs of layers, whose widths student and teachers show on a few inputs.

    Args:
        pairs: with numbers of teachers, see `of_each_teacher`; those that want no adapter are left out.
        student: with its layers tapped.
        teachers: with their layers tapped.
        x: a few inputs of the student; two are enough.
        teacher_x: a few inputs of the teachers.
        seed: of their start; the global generator is left alone.

    Raises:
        ValueError: if a map is to be compared with a vector, or a layer was not tapped.
    """
    wanted = [pair for pair in pairs if pair.adapted]
    if not wanted:
        return Adapters()
    student_output, teacher_outputs = (
        probe_shapes(student, x),
        [probe_shapes(teacher, teacher_x) for teacher in teachers],
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Adapters(
            {
                pair: projection(
                    pair,
                    layer_of(student_output, pair.student_layer),
                    layer_of(teacher_outputs[pair.teacher or 0], pair.teacher_layer),
                )
                for pair in wanted
            }
        )


def projection(pair: LayerPair, student: Tensor, teacher: Tensor) -> nn.Module:
    """From the student's channels to the teacher's."""
    if student.dim() != teacher.dim():
        raise ValueError(
            f"layer {pair.student_layer!r} of the student is {list(student.shape[1:])} for an image and "
            f"{pair.teacher_layer!r} of teacher {pair.teacher} is {list(teacher.shape[1:])}; name layers of "
            "one kind: maps [ch, h, w], tokens [l, d] or vectors [d]."
        )
    is_map = student.dim() == 4
    width, teacher_width = (t.shape[1 if is_map else -1] for t in (student, teacher))
    if width == teacher_width:
        return nn.Identity()
    made = Pointwise(width, teacher_width) if is_map else nn.Linear(width, teacher_width)
    return made.to(student)


@torch.no_grad()
def probe_shapes(model: Model, x: Tensor) -> Output:
    """What a network says of a few inputs in evaluation mode; it stays as it was."""
    modes = {module: module.training for module in model.modules()}
    param = next(model.parameters())
    try:
        return model.eval()(x.to(param) if x.is_floating_point() else x.to(param.device))
    finally:
        for module, training in modes.items():
            module.training = training
