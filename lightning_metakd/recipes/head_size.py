"""A student's head of one logit for each class of the data."""

import logging
from collections.abc import Sequence

from lightning_metakd.models.model import Model, head_width

log = logging.getLogger(__name__)


def size_heads(
    students: Sequence[Model], wanted: int | None, shared: bool, classes_set_by: str
) -> bool:
    """Give wrapped networks a head of the width wanted; others have to have it already.

    Args:
        students: the student, and copies that get the same head.
        wanted: logits; None where the head is not used.
        shared: whether the head's weights are a teacher's.
        classes_set_by: setting of the data from which they are counted, for the message.

    Returns:
        Whether the head has another width now.

    Raises:
        ValueError: if the head has another width and cannot be replaced.
    """
    student, *copies = students
    width = head_width(student)
    if wanted is None or wanted == width:
        return False
    for network in students:
        if shared or not network.head_fits_task:
            way_out = f"set the n_classes of model.student to {wanted}, or change {classes_set_by}"
            raise ValueError(
                f"the student has {width} logits for the {wanted} classes of the data; "
                f"{'leave the head out of share' if shared else way_out}."
            )
        network.resize_head(wanted)
    for copy in copies:
        copy.head.load_state_dict(student.head.state_dict())
    log.warning(
        f"the student's head of {width} logits is replaced by one of {wanted}, one for each class."
    )
    return True
