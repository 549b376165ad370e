"""A coefficient with a value for each row, computed from signals about it.

Shu et al. (2019), "Meta-Weight-Net", arXiv:1902.07379: a small network maps the loss of a row to its weight.
Here it maps several signals of student and teacher (`signals`) to any coefficient.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_UNITS, check_integer, check_number
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.types import Batch, Context, Output


class LearnedPerSample(Coefficient):
    """A number for each row, learned as a small network of signals about it.

    The signals depend on neither architecture nor number of classes, see `signals`. It starts at the same
    value for every row.

    Args:
        hidden: hidden units.
        init: where it starts; by default at the loss's own constant.
        student_signals: whether signals of the student's own output are among its inputs.

    Example:
        >>> from lightning_metakd.losses import LearnedPerSample, MatchGate, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=LearnedPerSample()).gate(batch, context).detach()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    needs_teacher = True

    def __init__(
        self, hidden: int = 8, init: float | None = None, student_signals: bool = True
    ) -> None:
        super().__init__()
        check_integer("hidden", hidden, 1, MOST_UNITS, "for instance 8")
        check_number("init", init, optional=True)
        self.init, self.student_signals = init, student_signals
        self.net = nn.Sequential(
            nn.Linear(8 if student_signals else 5, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def configured_values(self) -> Mapping[str, float]:
        return {} if self.init is None else {"init": self.init}

    def set_value(self, value: float) -> None:
        weight, bias = self.net[2].parameters()
        nn.init.zeros_(weight)
        nn.init.constant_(bias, self.interval.unsquash(value))

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return self.interval.squash(
            self.net(signals(batch, context, self.student_signals)).squeeze(-1)
        )


def answer_signals(
    logits: Float[Tensor, "n c"], y: Tensor
) -> tuple[Tensor, list[Float[Tensor, " n"]]]:
    """Probabilities [n, c], and of each row entropy / log c, loss / log c and p(truth) - max p(other)."""
    log_probs = logits.log_softmax(-1)
    probs, scale = log_probs.exp(), math.log(logits.shape[-1])
    entropy = -(probs * log_probs).sum(-1) / scale
    loss = -log_probs.gather(-1, y[:, None])[:, 0] / scale
    truth = probs.gather(-1, y[:, None])[:, 0]
    other = probs.scatter(-1, y[:, None], 0.0).amax(-1)
    return probs, [entropy, loss.clamp(max=4.0), truth - other]


def signals(batch: Batch, context: Context, student_signals: bool) -> Float[Tensor, "n signals"]:
    """The inputs of a per-sample coefficient for each row.

    Of the first teacher and, if wanted, of the student: entropy and loss (over log c), margin of the truth.
    Then their agreement sum_c p_c q_c, and the student's progress.
    """
    answers: list[Output] = [batch.teacher_outputs[0]]
    if student_signals:
        answers.append(context.student_detached)
    columns: list[Tensor] = []
    probs: list[Tensor] = []
    for answer in answers:
        p, signals_of_answer = answer_signals(answer.logits, batch.y)
        probs.append(p)
        columns += signals_of_answer
    agreement = (probs[0] * probs[-1]).sum(-1)  # with itself: the teacher's own concentration
    columns += [agreement, context.progress.expand_as(agreement)]
    return torch.stack(columns, -1)
