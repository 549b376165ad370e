"""A network starts from a checkpoint: the body always, the head where it fits.

Weights from elsewhere have the names of the network that was wrapped here, perhaps behind a prefix
(`module.` of DataParallel, `_orig_mod.` of a compiled network), or another name for the classifier.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor, nn

from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.reading import as_record, from_record

PREFIXES = 3
"""Most prefixes, one before another, of the names in a file."""

log = logging.getLogger(__name__)


def load_weights(
    module: Model, state: Mapping[str, Tensor], who: str, head_fault: str = ""
) -> list[str]:
    """Load a checkpoint's weights into a network, in place, or change nothing and raise.

    The head is loaded where both have the same. Where they differ (a 64-way head, a 5-way student)
    or only one has a head, it is left out. Names that differ by a prefix, or are those of the network that
    was wrapped, are translated. Both are logged.

    Args:
        who: whose weights these are and where they came from, for the messages.
        head_fault: why the head is not to be loaded, whatever its shape.

    Returns:
        What was left out, one sentence each; also logged as warnings.

    Raises:
        ValueError: if the bodies differ in a name or a shape.
    """
    own_body, own_head = body_and_head(module.state_dict())
    state = with_own_names(module, state, who)
    body, head = body_and_head(state)
    check_weights(own_body, body, who)
    if shapes(own_head) == shapes(head) and not head_fault:
        module.load_state_dict(state)
        return []
    module.load_state_dict({**own_head, **body})
    differing = f"the checkpoint has {shape_text(head)}, the network {shape_text(own_head)}"
    message = f"{who}: the head was not loaded: {head_fault or differing}."
    log.warning(message)
    return [message]


def with_own_names(module: Model, state: Mapping[str, Tensor], who: str) -> dict[str, Tensor]:
    """The weights under the names which they have in a network, as far as these can be found."""
    own_names = body_and_head(module.state_dict())[0].keys()

    def differing(names: Mapping[str, str]) -> int:
        return len(own_names ^ {name for name in names.values() if not name.startswith("head.")})

    chosen = min(translations(module, state, own_names), key=differing)
    renamed = {file_name: name for file_name, name in chosen.items() if file_name != name}
    if renamed and not differing(chosen):
        of_head = {
            file_name: name for file_name, name in renamed.items() if name.startswith("head.")
        }
        examples = dict([*list(renamed.items())[:1], *list(of_head.items())[:1]])
        renaming = " and ".join(
            f"{file_name!r} as {name!r}" for file_name, name in examples.items()
        )
        log.warning(f"{who}: its names were translated, {renaming}.")
    return {chosen[file_name]: tensor for file_name, tensor in state.items()}


def translations(
    module: Model, state: Mapping[str, Tensor], own_names: AbstractSet[str]
) -> Iterator[dict[str, str]]:
    """Name of each tensor in the file -> name in the network, in every way that it may be meant."""
    names = {name: name for name in state}
    for _ in range(1 + PREFIXES):
        for named in (
            names,
            {file_name: module.own_name(name) for file_name, name in names.items()},
        ):
            yield named | head_elsewhere(named, state, own_names)
        if len({name.partition(".")[:2] for name in names.values()}) != 1:
            return
        names = {file_name: name.partition(".")[2] for file_name, name in names.items()}


def head_elsewhere(
    names: Mapping[str, str], state: Mapping[str, Tensor], own_names: AbstractSet[str]
) -> dict[str, str]:
    """The names of a linear layer, the one thing that a network has not, as those of its head."""
    left = {file_name: name for file_name, name in names.items() if name not in own_names}
    path = {name.rpartition(".")[0] for name in left.values()}
    leaves = {name.rpartition(".")[2]: file_name for file_name, name in left.items()}
    if len(path) != 1 or not {"weight"} <= leaves.keys() <= {"weight", "bias"}:
        return {}
    if state[leaves["weight"]].dim() != 2:
        return {}
    return {file_name: f"head.{leaf}" for leaf, file_name in leaves.items()}


def head_for(
    state: Mapping[str, Tensor],
    file_classes: Sequence[str],
    classes: Sequence[str],
    present: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], str]:
    """Weights with the rows of their head in the order of other classes, and why they cannot be, if so.

    Args:
        state: the weights.
        file_classes: class of each row of their head; where unknown, the weights stay as they are.
        classes: class of each row of the network's head. Where the file knows some of them, the others keep
            the rows that they have.
        present: the network's weights; without them no head grows.
    """
    body, head = body_and_head(state)
    if (
        not file_classes
        or list(file_classes) == list(classes)
        or any(len(t) != len(file_classes) for t in head.values())
    ):
        return dict(state), ""
    if sorted(file_classes) == sorted(classes):
        rows = [file_classes.index(name) for name in classes]
        return {**body, **{name: tensor[rows] for name, tensor in head.items()}}, ""
    new = [name for name in classes if name not in file_classes]
    if set(file_classes) < set(classes) and head.keys() & present.keys():
        log.warning(f"the head grows by {len(new)} classes, {listed(new, 3)}.")
        rows = [classes.index(name) for name in file_classes]
        grown = {name: present[name].clone() for name in head}
        for name, tensor in head.items():
            grown[name][rows] = tensor.to(grown[name])
        return {**body, **grown}, ""
    fault = f"it knows {listed(file_classes, 3)}, and not {listed(new, 3)}"
    return dict(state), fault if len(file_classes) == len(classes) else ""


def body_and_head(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the body and those of the head."""
    head = {name: t for name, t in state.items() if name.startswith("head.")}
    return {name: t for name, t in state.items() if name not in head}, head


def load_alike(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Take over the parameters of a module of the same kind, or nothing.

    Returns:
        Whether there was one of every name and shape.
    """
    params = dict(module.named_parameters())
    loaded = {name: tensor for name, tensor in state.items() if name in params}
    alike = shapes(loaded) == shapes(params)
    if alike:
        module.load_state_dict(loaded, strict=False)
    return alike


def check_weights(state: Mapping[str, Tensor], loaded: Mapping[str, Tensor], who: str) -> None:
    """Raise where two bodies differ, naming the tensors."""
    faults = [f"{name} is missing in the checkpoint" for name in state if name not in loaded]
    faults += [f"{name} is unknown to the network" for name in loaded if name not in state]
    faults += [
        f"{name} is {list(loaded[name].shape)} in the checkpoint, {list(t.shape)} in the network"
        for name, t in state.items()
        if name in loaded and loaded[name].shape != t.shape
    ]
    if faults:
        more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise ValueError(
            f"{who}: the checkpoint is of another network: {'; '.join(faults[:6])}{more}. "
            "Build the model with the class and arguments in the checkpoint's config."
        )


def shapes(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The shape of each tensor."""
    return {name: list(t.shape) for name, t in state.items()}


def shape_text(head: Mapping[str, Tensor]) -> str:
    """The head's tensors in words."""
    return ", ".join(f"{name} {shape}" for name, shape in shapes(head).items()) or "none"


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def origin(model: Model) -> dict[str, Any]:
    """Reading and external data of a network, which a checkpoint keeps beside its weights."""
    return {"reading": as_record(model.reading), "external_data": list(model.external_data)}


def load_origin(model: Model, checkpoint: Mapping[str, Any], who: str) -> None:
    """Take reading and external data from a checkpoint whose weights were loaded.

    Args:
        who: whose weights these are, for messages.
    """
    if (record := checkpoint.get("reading")) is not None:
        try:
            reading = from_record(record)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{who}: what the checkpoint says of its reading, {str(record)[:80]}, is none "
                f"({error}); it is damaged. Take an earlier file of the run, or train again."
            ) from error
        model.read_as(reading, who)
    names = checkpoint.get("external_data")
    recorded = names if isinstance(names, list) else []
    model.external_data = tuple(sorted({*model.external_data, *map(str, recorded)}))
