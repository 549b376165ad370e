"""The numbers inside a loss that say how to teach: weights, gates, temperatures.

A coefficient is constant, scheduled or learned, and the three differ by the class that the config
names and by nothing else: `gate: 0.5`, `gate: {class_path: Scheduled, ...}`, `gate: LearnedPerSample`.
The parameters of all learned coefficients together are the *strategy*. They are trained by the quiz
alone, never by the loss they parametrise: a weight that may choose its own loss makes it small.

The loss that owns a coefficient gives it its interval and default (a gate lies in (0, 1), a
temperature above 0), so the config need not.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import (
    MOST_CLASSES,
    MOST_UNITS,
    Ends,
    check_integer,
    check_number,
)
from lightning_metakd.types import Batch, Context, Output


class Interval(NamedTuple):
    """The open interval in which a coefficient lies; learned ones are squashed into it."""

    low: float = -math.inf
    high: float = math.inf

    def squash(self, raw: Tensor) -> Tensor:
        """From the whole line into the interval: identity, low + exp, or a scaled sigmoid."""
        if math.isinf(self.low):
            return raw
        if math.isinf(self.high):
            return self.low + raw.exp()
        return self.low + (self.high - self.low) * raw.sigmoid()

    def unsquash(self, value: float) -> float:
        """The inverse of `squash`."""
        if math.isinf(self.low):
            return value
        if math.isinf(self.high):
            return math.log(value - self.low)
        return math.log((value - self.low) / (self.high - value))


class Coefficient(nn.Module, ABC, Configured):
    """A weight, gate or temperature."""

    interval: Interval = Interval()
    needs_teacher: bool = False

    def configure(
        self, name: str, interval: Interval, default: float, *, closed: bool = False
    ) -> "Coefficient":
        """Told once by the loss that owns it where it lies and where it starts.

        Args:
            closed: whether a value that is not learned may lie on a finite border; a learned one would
                have to start at infinity.

        Raises:
            ValueError: if a value of the config lies outside.
        """
        self.interval = interval
        closed = closed and not any(True for _ in self.parameters())
        ends: Ends = "[]" if closed else "()"
        for argument, value in self.configured_values().items():
            check_number(
                f"{name}.{argument}" if argument else name,
                value,
                *interval,
                ends,
                f"for instance {default}",
            )
        self.initialise(default)
        return self

    def configured_values(self) -> Mapping[str, float]:
        """What must lie in the interval, by arguments; "" for a coefficient that is a number alone."""
        return {}

    def initialise(self, default: float) -> None:
        """Begin at the default where the config names no value."""
        if any(True for _ in self.parameters()):
            self.set_value(next(iter(self.configured_values().values()), default))

    def set_value(self, value: float) -> None:
        """Say this from now on, whatever is asked, or the nearest that can be learned."""

    @abstractmethod
    def forward(self, batch: Batch, context: Context) -> Float[Tensor, "..."]:
        """The value, [] for all rows or [n] one a row."""


class Constant(Coefficient):
    """The same number always.

    Args:
        value: the number.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        check_number("value", value)
        self.value = value

    def configured_values(self) -> Mapping[str, float]:
        return {"": self.value}

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return context.progress.new_tensor(self.value)


class Scheduled(Coefficient):
    """Linear in the student's progress through the task.

    Args:
        begin: value at the first step of the task.
        end: value at its end.
    """

    def __init__(self, begin: float, end: float) -> None:
        super().__init__()
        check_number("begin", begin)
        check_number("end", end)
        self.begin, self.end = begin, end

    def configured_values(self) -> Mapping[str, float]:
        return {"begin": self.begin, "end": self.end}

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return self.begin + (self.end - self.begin) * context.progress


class Learned(Coefficient):
    """One learned number for all rows.

    Args:
        init: where it starts; by default at the constant which the loss would use.
    """

    def __init__(self, init: float | None = None) -> None:
        super().__init__()
        check_number("init", init, optional=True)
        self.init, self.raw = init, nn.Parameter(torch.zeros(()))

    def configured_values(self) -> Mapping[str, float]:
        return {} if self.init is None else {"init": self.init}

    def set_value(self, value: float) -> None:
        nn.init.constant_(self.raw, self.interval.unsquash(value))

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return self.interval.squash(self.raw)


class LearnedPerClass(Learned):
    """One learned number per class of the data set; useless, hence refused, where test classes are new.

    Args:
        n_classes: classes of the data set, not of an episode.
        init: where all of them start.
    """

    def __init__(self, n_classes: int, init: float | None = None) -> None:
        super().__init__(init)
        check_integer("n_classes", n_classes, 1, MOST_CLASSES)
        self.raw = nn.Parameter(torch.zeros(n_classes))

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return self.interval.squash(self.raw[context.class_id])


class LearnedPerSample(Coefficient):
    """A small network of signals which depend on neither architecture nor number of classes.

    It starts at the same value for every row.

    Args:
        hidden: hidden units.
        init: where it starts; by default at the constant which the loss would use.
        student_signals: whether it also looks at the student's own answer.
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
    """Probabilities [n, c], and entropy and loss over log c and the margin of the truth, per row."""
    log_probs = logits.log_softmax(-1)
    probs, scale = log_probs.exp(), math.log(logits.shape[-1])
    entropy = -(probs * log_probs).sum(-1) / scale
    loss = -log_probs.gather(-1, y[:, None])[:, 0] / scale
    truth = probs.gather(-1, y[:, None])[:, 0]
    other = probs.scatter(-1, y[:, None], 0.0).amax(-1)
    return probs, [entropy, loss.clamp(max=4.0), truth - other]


def signals(batch: Batch, context: Context, student_signals: bool) -> Float[Tensor, "n signals"]:
    """What a per-sample coefficient sees of a row.

    Entropy and loss (over log c), margin of the truth for the first teacher and, if wanted, for the
    student; their agreement; the student's progress.
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


Value = float | Coefficient
"""A number, or a coefficient that decides on one."""


def coefficient(
    value: Value,
    name: str,
    default: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    closed: bool = False,
) -> Coefficient:
    """The coefficient that a loss holds under `name`: a copy of `value`, or a constant of that number.

    Raises:
        ValueError: if a number lies outside of the interval.
    """
    if isinstance(value, Coefficient):
        module = deepcopy(value)
    else:
        check_number(name, value, low, high, "[]" if closed else "()", f"for instance {default}")
        module = Constant(float(value))
    return module.configure(name, Interval(low, high), default, closed=closed)


def weight(value: Value, name: str, default: float = 1.0) -> Coefficient:
    """The coefficient of a weight, which lies in [0, inf).

    Raises:
        ValueError: if a number is negative.
    """
    return coefficient(value, name, default, low=0.0, closed=True)
