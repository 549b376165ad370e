"""Matching logits.

Ba, Caruana (2014), "Do Deep Nets Really Need to be Deep?", arXiv:1312.6184; in continual learning the second
term of DER and DER++: Buzzega et al. (2020), "Dark Experience for General Continual Learning",
arXiv:2004.07211, where the logits are those of the moment at which a row was remembered. Here they are a
teacher's, for instance of the previous self.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.loss import Loss, check_same_classes
from lightning_metakd.types import Batch, Context, Output


class LogitMatching(Loss):
    """Mean squared distance of the student's logits from the first teacher's.

    Example:
        >>> from lightning_metakd.losses import LogitMatching, example_rows
        >>> student, batch, context = example_rows()
        >>> LogitMatching()(student, batch, context)
        tensor([1.8857, 0.5080, 1.2679, 0.8881])
    """

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        teacher_logits = batch.teacher_outputs[0].logits
        check_same_classes(student.logits, teacher_logits)
        return (student.logits - teacher_logits).square().mean(-1)
