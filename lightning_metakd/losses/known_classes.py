"""A teacher that knows some of the classes: the previous self, before the latest ones arrived.

Li, Hoiem (2016), "Learning without Forgetting", arXiv:1606.09282: the student keeps what its previous self
says of the earlier classes, among these alone.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output


class KnownClasses(Loss):
    """A loss over those classes alone that the first teacher knows; a SlicedHead marks the others.

    Args:
        loss: of the teacher; one that reads labels has no use for rows of other classes, see KnownLabel.

    Example:
        >>> from lightning_metakd.losses import Hinton, KnownClasses, example_rows
        >>> student, batch, context = example_rows()
        >>> KnownClasses(Hinton(temperature=2.0))(student, batch, context)  # this teacher knows them all
        tensor([0.4441, 0.1759, 0.2277, 0.0052])
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        has_logit = batch.teacher_outputs[0].logits.isfinite().all(0)  # [c]
        if bool(has_logit.all()):
            return self.loss(student, batch, context)
        columns = has_logit.nonzero()[:, 0]

        def among(output: Output) -> Output:
            return output._replace(logits=output.logits[:, columns])

        y = (has_logit.cumsum(0) - 1).clamp(min=0)[batch.y]
        teachers = tuple(among(output) for output in batch.teacher_outputs)
        detached = context._replace(student_detached=among(context.student_detached))
        return self.loss(among(student), batch._replace(y=y, teacher_outputs=teachers), detached)
