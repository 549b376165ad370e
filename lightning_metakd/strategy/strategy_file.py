"""The strategy as a file: the learned coefficients of a loss, a few kB that can be carried elsewhere.

A safetensors file. Its head says in JSON which coefficients there are and what they expect of the
teachers, so that a strategy is not applied to a loss or a head it was not learned with. Where it has a
number for each class, the head says which class each is of: they are applied by name.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.losses.coefficient import Coefficient, LearnedPerClass
from lightning_metakd.losses.layer_pairs import for_one_teacher
from lightning_metakd.losses.loss import Loss
from lightning_metakd.losses.multi_teacher import Weights
from lightning_metakd.models.model import listed
from lightning_metakd.models.weights import shapes
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.storage.tensor_file import create_tensor_file
from lightning_metakd.types import Batch, Context, Output


def coefficients(loss: nn.Module) -> dict[str, Coefficient]:
    """The coefficients of a loss by name."""
    return {name: c for name, c in loss.named_modules() if isinstance(c, Coefficient)}


def weights_of_teachers(loss: nn.Module) -> dict[str, Weights]:
    """How teachers are weighed, by name."""
    return {name: w for name, w in loss.named_modules() if isinstance(w, Weights)}


def per_class(loss: nn.Module) -> dict[str, LearnedPerClass]:
    """The coefficients which have a number for each class, by name."""
    return {name: c for name, c in coefficients(loss).items() if isinstance(c, LearnedPerClass)}


def check_no_new_classes(
    loss: Loss, trained: Tensor, evaluated: Tensor, class_names: Sequence[str]
) -> None:
    """Raise where a coefficient of each class would meet classes for which it was not learned.

    Args:
        trained: dataset classes of the training.
        evaluated: dataset classes of the evaluation.
        class_names: names of all dataset classes, by number.
    """
    for name, c in per_class(loss).items():
        if new := [class_names[k] for k in sorted(set(evaluated.tolist()) - set(trained.tolist()))]:
            raise ValueError(
                f"{name}=LearnedPerClass learns a number for each class that is trained on, and {len(new)} "
                f"classes of the evaluation are new ({listed(new, 5)}); use Learned or "
                "LearnedPerSample, or data whose test classes are its training classes."
            )
        if len(c.raw) <= (largest := int(trained.max())):
            raise ValueError(
                f"n_classes={len(c.raw)} of {name}=LearnedPerClass is too few for dataset class {largest}; "
                f"set it to {largest + 1} or more."
            )


def coefficient_values(
    loss: Loss, student: Output, batch: Batch, context: Context
) -> dict[str, float]:
    """The values of each coefficient for these rows: its mean, and its range where rows differ.

    Of the weights of several teachers it is each one's share, by its number; what is evaluated for several
    teachers is said of all together.
    """
    recorded: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def record(module: nn.Module, args: Any, value: Tensor) -> None:
            of_each = isinstance(module, Weights)
            for k, row in enumerate(value if of_each else [value]):
                recorded.setdefault(f"{name}.{k}" if of_each else name, []).append(row)

        return record

    weighing = weights_of_teachers(loss)
    inner = tuple(f"{name}.of_teacher." for name in weighing)
    outer = {n: c for n, c in coefficients(loss).items() if not n.startswith(inner or "\0")}
    with torch.no_grad(), ExitStack() as hooks:
        for name, module in {**outer, **weighing}.items():
            hooks.callback(module.register_forward_hook(recorder(name)).remove)
        loss(student, batch, context)
    summary: dict[str, float] = {}
    for name, values in recorded.items():
        value = torch.cat([v.flatten() for v in values])
        summary[f"{name}_mean"] = float(value.mean())
        if values[0].dim():
            summary |= {f"{name}_min": float(value.min()), f"{name}_max": float(value.max())}
    return summary


def values_of_rows(
    loss: Loss, student: Output, batch: Batch, context: Context
) -> dict[str, Float[Tensor, " n"]]:
    """The coefficients that differ from row to row, by name, for rows that need not be taught.

    Of the weights of several teachers it is each one's share, by its number. Numbers of a class are left out,
    as these rows may be of new classes, and those of a teacher's layer.
    """
    n_teachers, weighing = len(batch.teacher_outputs), weights_of_teachers(loss)
    inside = tuple(f"{name}." for name in weighing) or ("\0",)
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, c in coefficients(loss).items():
            answerable = not c.reads_layer and (n_teachers > 0 or not c.needs_teacher)
            if answerable and not isinstance(c, LearnedPerClass) and not name.startswith(inside):
                values[name] = c(batch, context)
        for name, weights in weighing.items():
            if n_teachers and len(weights.of_teacher) in (1, n_teachers):
                views = [for_one_teacher(k, student, batch, context) for k in range(n_teachers)]
                shares = weights(views, context)
                values |= {f"{name}.{k}": row for k, row in enumerate(shares)}
    return {
        n: value for n, value in values.items() if value.dim() == 1 and (value != value[0]).any()
    }


def build(loss: nn.Module) -> dict[str, Any]:
    """Which loss it is, with which coefficients."""
    kinds = {name: type(c).__name__ for name, c in coefficients(loss).items()}
    return {"loss": type(loss).__name__, "coefficients": kinds}


def save_strategy(
    loss: Loss,
    path: Path,
    teacher_heads: list[str],
    teacher_scales: list[float],
    values: Mapping[str, float] | None = None,
    settings_sha256: str = "",
    classes: Mapping[str, int] | None = None,
) -> None:
    """Write the strategy of a loss.

    Args:
        values: of its coefficients, from `coefficient_values`.
        settings_sha256: digest of the settings by which it was trained.
        classes: number of each class that was trained on, for coefficients which tell classes apart.
    """
    head = build(loss) | {"teacher_heads": teacher_heads, "teacher_scales": teacher_scales}
    head |= {"coefficient_values": dict(values or {}), "settings_sha256": settings_sha256}
    if per_class(loss):
        head["classes"] = dict(classes or {})
    tensors = dict(loss.state_dict())
    sizes = {name: (p.dtype, tuple(p.shape)) for name, p in tensors.items()}
    with create_tensor_file(path, sizes, {"strategy": json.dumps(head)}) as places:
        for name, place in places.items():
            place.copy_(tensors[name])


def same_heads(heads: list[str], file_heads: list[str]) -> bool:
    """Whether two pools answer alike; weights that suit any number of teachers may go to a larger one."""
    return heads == file_heads if len(heads) == len(file_heads) else set(heads) == set(file_heads)


def by_name(
    loss: Loss,
    tensors: Mapping[str, Tensor],
    head: Mapping[str, Any],
    classes: Mapping[str, int],
    path: Path,
) -> dict[str, Tensor]:
    """A strategy's tensors, with the numbers of each class at the places which the classes have here.

    Args:
        head: of the strategy's file.
        classes: number, in the data at hand, of each class that is trained on.

    Raises:
        ValueError: if the strategy has no number for one of them.
    """
    arranged, learned_on = dict(tensors), dict(head.get("classes") or {})
    for name in (f"{c}.raw" for c in per_class(loss)):
        file_raw, raw = tensors[name], loss.state_dict()[name].clone()
        if new := [c for c in classes if learned_on.get(c) not in range(len(file_raw))]:
            raise ValueError(
                f"strategy_file={str(path)!r} has no {name.removesuffix('.raw')} for {', '.join(new[:5])}: "
                f"it was learned on {listed(list(learned_on), 5) or 'classes without names'}; use Learned or "
                "LearnedPerSample, or data of these classes."
            )
        for c, place in classes.items():
            if place < len(raw):
                raw[place] = file_raw[learned_on[c]]
        arranged[name] = raw
    return arranged


def load_strategy(
    loss: Loss,
    path: Path,
    teacher_heads: list[str] | None = None,
    classes: Mapping[str, int] | None = None,
) -> None:
    """Read a strategy into a loss of the same build.

    Args:
        teacher_heads: class names of the heads of the teachers; None does not compare them.
        classes: number of each class that is trained on, for coefficients which tell classes apart; None
            takes the numbers as they stand.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or was learned for another loss, with other heads, or on other classes.
    """
    head, tensors = read_strategy(path)
    if classes is not None and all(head.get(name) == kind for name, kind in build(loss).items()):
        tensors = by_name(loss, tensors, head, classes, path)
    expected = build(loss) | {"shapes": shapes(loss.state_dict())}
    recorded = {name: head.get(name) for name in build(loss)} | {"shapes": shapes(tensors)}
    if expected != recorded:
        raise ValueError(
            f"strategy_file={str(path)!r} was learned for {recorded}, but this loss is {expected}; configure "
            "the loss as the head of the file says."
        )
    if teacher_heads is not None and not same_heads(teacher_heads, head["teacher_heads"]):
        raise ValueError(
            f"strategy_file={str(path)!r} was learned with teachers that answer by {head['teacher_heads']}, "
            f"and these answer by {teacher_heads}; give model.teachers the same heads in the same order."
        )
    with torch.no_grad():
        loss.load_state_dict(tensors)
