"""The numbers inside a loss that decide how a student learns: weights, gates, temperatures.

A coefficient is constant, scheduled or learned, and the three differ by the class that the config
names and by nothing else: `gate: 0.5`, `gate: {class_path: Scheduled, ...}`, `gate: LearnedPerSample`.
The parameters of all learned coefficients together are the *strategy*. They are trained by the quiz
(Zhou et al. 2022, MetaDistil, arXiv:2106.04570) and never by the loss they parametrise: a weight that
chooses its own loss makes that loss small.

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
    Ends,
    check_integer,
    check_number,
)
from lightning_metakd.types import Batch, Context


class Interval(NamedTuple):
    """The open interval in which a coefficient lies; what is learned is mapped into it."""

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
    """A weight, gate or temperature.

    Attributes:
        interval: where its values lie, set by the loss that owns it.
        needs_teacher: whether it reads a teacher's output.
        reads_layer: whether it looks at one layer of a teacher, which the loss around it names.
        of_batch: whether it is learned anew for each batch, before the student's step on it.
    """

    interval: Interval = Interval()
    needs_teacher: bool = False
    reads_layer: bool = False
    of_batch: bool = False

    def configure(
        self, name: str, interval: Interval, default: float, *, closed: bool = False
    ) -> "Coefficient":
        """Take interval and default from the loss that owns it; called once.

        Args:
            name: the loss's argument, for messages.
            interval: where the values lie.
            default: where it starts, unless the config names a value.
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
        """Argument -> value from the config that must lie in the interval; "" for a plain number."""
        return {}

    def initialise(self, default: float) -> None:
        """Start at the configured value, or at the default where the config names no value."""
        if any(True for _ in self.parameters()):
            self.set_value(next(iter(self.configured_values().values()), default))

    def set_value(self, value: float) -> None:
        """Go on from this value for every row, or from the nearest that it can represent."""

    def restart(self) -> None:
        """Go back to the start; called before each batch of one that is `of_batch`."""

    @abstractmethod
    def forward(self, batch: Batch, context: Context) -> Float[Tensor, "..."]:
        """The value: [] for all rows, or [n], one of each row.

        Args:
            batch: the rows, with the teachers' outputs.
            context: dataset classes, progress, the student's detached output.
        """


class Constant(Coefficient):
    """A fixed number.

    Args:
        value: the number.

    Example:
        >>> from lightning_metakd.losses import Constant, MatchGate, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=Constant(0.8)).gate(batch, context)
        tensor(0.8000)
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        check_number("value", value)
        self.value = value

    def configured_values(self) -> Mapping[str, float]:
        return {"": self.value}

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return context.progress.new_tensor(self.value)


def is_zero(value: Coefficient) -> bool:
    """Whether it is 0 for all rows and always, so that what it weighs need not be computed."""
    return isinstance(value, Constant) and value.value == 0.0


class Scheduled(Coefficient):
    """Linear in the student's progress through the task.

    Args:
        begin: value at the first step of the task.
        end: value at its end.

    Example:
        >>> from lightning_metakd.losses import MatchGate, Scheduled, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=Scheduled(1.0, 0.5)).gate(batch, context)
        tensor(0.7500)
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
        init: where it starts; by default at the loss's own constant.

    Example:
        >>> from lightning_metakd.losses import Learned, MatchGate, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=Learned(0.8)).gate(batch, context).detach()
        tensor(0.8000)
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
    """One learned number per class of the data set; recipes refuse it where test classes are new.

    Args:
        n_classes: classes of the data set, not of an episode.
        init: where all of them start; by default at the loss's own constant.

    Example:
        >>> from lightning_metakd.losses import LearnedPerClass, MatchGate, example_rows
        >>> _, batch, context = example_rows()
        >>> MatchGate(gate=LearnedPerClass(3, init=0.25)).gate(batch, context).detach()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, n_classes: int, init: float | None = None) -> None:
        super().__init__(init)
        check_integer("n_classes", n_classes, 1, MOST_CLASSES)
        self.raw = nn.Parameter(torch.zeros(n_classes))

    def forward(self, batch: Batch, context: Context) -> Tensor:
        return self.interval.squash(self.raw[context.class_id])


Value = float | Coefficient
"""A number, or a coefficient that returns numbers."""


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
