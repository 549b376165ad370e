"""The files of a teacher: weights, and the classes on which they were trained."""

from collections.abc import Sequence

from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.weights import load_origin, load_weights
from lightning_metakd.storage.read_checkpoint import class_names, read_checkpoint, student_weights
from lightning_metakd.teachers.heads import Head

NetworkFile = tuple[Model, str | None]
"""A network, and the file of its weights, where it has one."""


def load_teacher(
    networks: Sequence[NetworkFile], head: Head, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Load the weights of a teacher's network, and of the top over it, where there is one.

    Args:
        networks: the last one answers.
        head: of the teacher.
        classes: on which the configuration says that what answers was trained; empty where it says nothing.

    Returns:
        The classes on which what answers was trained, or else what is under it, and those of both.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if one is no checkpoint, does not fit its network, or was trained on other classes.
    """
    *under, (answering, path) = networks
    below = tuple(name for network, file in under for name in load_network(network, file))
    above = load_network(answering, path, classes, head)
    return above or below, frozenset(above + below)


def load_network(
    network: Model, path: str | None, classes: tuple[str, ...] = (), head: Head | None = None
) -> tuple[str, ...]:
    """Load a network's weights, and return the classes on which it was trained.

    Args:
        head: that reads its logits; None where nothing does.
    """
    if path is None:
        return classes
    content, who = read_checkpoint(path), f"teacher {path}"
    left_out = load_weights(network, student_weights(content), who)
    if left_out and head is not None and not head.needs_support:
        raise ValueError(
            f"head={type(head).__name__} answers with the network's own logits, and they are "
            f"not there: {left_out[0]} Give that network the n_classes of its training."
        )
    load_origin(network, content, who)
    recorded = class_names(content)
    if classes and recorded not in ((), classes):
        raise ValueError(
            f"classes of the teacher begin with {listed(classes, 3)}, and its checkpoint "
            f"{path} records {listed(recorded, 3)}; leave classes out."
        )
    return recorded or classes
