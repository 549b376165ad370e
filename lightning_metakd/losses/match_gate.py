"""Match-Gate: how much to learn alone and how much to follow the teacher.

With S the student, F the teacher and a gate g in (0, 1):

- `MatchGate`: L = g CE(y, S) + (1 - g) match(S, F), where match is any loss of a teacher, and any loss of
  the labels may stand for CE. Here the gate decides between two directions of learning.
- `LiteralMatchGate`: L = -g log S(y|x) - (1 - g) log F(y|x), the formula as first written. Its second term
  has no gradient for the student, so the gate only rescales the step of each row; it is the control.
"""

from jaxtyping import Float
from torch import Tensor

from lightning_metakd.losses.coefficient import Value, coefficient
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy, Loss
from lightning_metakd.types import Batch, Context, Output


class MatchGate(Loss):
    """Weigh cross-entropy with the labels by g, and a loss of the teacher by 1 - g.

    Args:
        gate: in [0, 1]; 1 learns alone, 0 follows the teacher; a number or a coefficient.
        match: how the teacher is followed, by default Hinton's loss.
        alone: how the labels are, by default cross-entropy.

    Example:
        >>> from lightning_metakd.losses import MatchGate, example_rows
        >>> student, batch, context = example_rows()
        >>> MatchGate(gate=0.5)(student, batch, context)
        tensor([0.5970, 0.5654, 1.1735, 0.6921])
    """

    def __init__(
        self, gate: Value = 0.5, match: Loss | None = None, alone: Loss | None = None
    ) -> None:
        super().__init__()
        self.gate = coefficient(gate, "gate", 0.5, low=0.0, high=1.0, closed=True)
        self.match = Hinton() if match is None else match
        self.alone = CrossEntropy() if alone is None else alone

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        g = self.gate(batch, context)
        alone, follow = (part(student, batch, context) for part in (self.alone, self.match))
        return g * alone + (1 - g) * follow


class LiteralMatchGate(Loss):
    """Rescale cross-entropy by a gate, -g log S(y|x) - (1 - g) log F(y|x): the control of `MatchGate`.

    Args:
        gate: in [0, 1]; a number or a coefficient.

    Example:
        >>> from lightning_metakd.losses import LiteralMatchGate, example_rows
        >>> student, batch, context = example_rows()
        >>> LiteralMatchGate(gate=0.5)(student, batch, context)
        tensor([0.4195, 1.4429, 2.1556, 1.3326])
    """

    def __init__(self, gate: Value = 0.5) -> None:
        super().__init__()
        self.gate = coefficient(gate, "gate", 0.5, low=0.0, high=1.0, closed=True)
        self.alone = CrossEntropy()

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        g = self.gate(batch, context)
        teacher_loss = self.alone(batch.teacher_outputs[0], batch, context)
        return g * self.alone(student, batch, context) + (1 - g) * teacher_loss
