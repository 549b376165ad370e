"""A network starts from a checkpoint: the body always, the head where it fits."""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_metakd.models.model import listed

log = logging.getLogger(__name__)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], who: str, head_fault: str = ""
) -> list[str]:
    """Load a checkpoint's weights into a network, in place, or change nothing and raise.

    The head is loaded where both have the same. Where they differ (a 64-way head, a 5-way student)
    or only one has a head, it is left out, and that is said.

    Args:
        who: whose weights these are and where they came from, for the messages.
        head_fault: why the head is not to be loaded, whatever its shape.

    Returns:
        What was left out, one sentence each; also logged as warnings.

    Raises:
        ValueError: if the bodies differ in a name or a shape.
    """
    own_body, own_head = body_and_head(module.state_dict())
    body, head = body_and_head(state)
    refuse_mismatch(own_body, body, who)
    if shapes(own_head) == shapes(head) and not head_fault:
        module.load_state_dict(state)
        return []
    module.load_state_dict({**own_head, **body})
    differing = f"the checkpoint has {described(head)}, the network {described(own_head)}"
    said = f"{who}: the head was not loaded: {head_fault or differing}."
    log.warning(said)
    return [said]


def head_for(
    state: Mapping[str, Tensor], theirs: Sequence[str], own: Sequence[str]
) -> tuple[dict[str, Tensor], str]:
    """Weights with the rows of their head in the order of other classes, and why they cannot be, if so.

    Args:
        theirs: class of each row of the head; where it is not known, the weights stay as they are.
        own: class of each row of the network's.
    """
    body, head = body_and_head(state)
    if not theirs or list(theirs) == list(own) or any(len(t) != len(theirs) for t in head.values()):
        return dict(state), ""
    if sorted(theirs) == sorted(own):
        rows = [theirs.index(name) for name in own]
        return {**body, **{name: tensor[rows] for name, tensor in head.items()}}, ""
    new = [name for name in own if name not in theirs]
    fault = f"it knows {listed(theirs, 3)}, and not {listed(new, 3)}"
    return dict(state), fault if len(theirs) == len(own) else ""


def body_and_head(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the body and those of the head."""
    head = {name: t for name, t in state.items() if name.startswith("head.")}
    return {name: t for name, t in state.items() if name not in head}, head


def refuse_mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor], who: str) -> None:
    """Raise where two bodies differ, and tell where."""
    faults = [f"{name} is missing in the checkpoint" for name in own if name not in given]
    faults += [f"{name} is unknown to the network" for name in given if name not in own]
    faults += [
        f"{name} is {list(given[name].shape)} in the checkpoint, {list(t.shape)} in the network"
        for name, t in own.items()
        if name in given and given[name].shape != t.shape
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


def described(head: Mapping[str, Tensor]) -> str:
    """The head's tensors in words."""
    return ", ".join(f"{name} {shape}" for name, shape in shapes(head).items()) or "none"
