"""The file of a teacher: its weights, and the classes that it was trained on."""

from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.weights import load_origin, load_weights
from lightning_metakd.storage.read_checkpoint import class_names, read_checkpoint, student_weights
from lightning_metakd.teachers.heads import Head


def load_teacher(
    model: Model, checkpoint: str, head: Head, classes: tuple[str, ...]
) -> tuple[str, ...]:
    """Load a checkpoint's weights into a teacher's network.

    Args:
        classes: on which the configuration says that it was trained; empty where it says nothing.

    Returns:
        The classes that it was trained on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, does not fit the network, or was trained on other classes.
    """
    content, who = read_checkpoint(checkpoint), f"teacher {checkpoint}"
    left_out = load_weights(model, student_weights(content), who)
    if left_out and not head.needs_support:
        raise ValueError(
            f"head={type(head).__name__} answers with the network's own logits, and they are "
            f"not there: {left_out[0]} Give the teacher's model the n_classes of its training."
        )
    load_origin(model, content, who)
    recorded = class_names(content)
    if classes and recorded not in ((), classes):
        raise ValueError(
            f"classes of the teacher begin with {listed(classes, 3)}, and its checkpoint "
            f"{checkpoint} records {listed(recorded, 3)}; leave classes out."
        )
    return recorded or classes
