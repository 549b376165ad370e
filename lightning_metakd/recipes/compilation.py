"""Whether the steps of a training are compiled: where that pays, without being asked.

A compiled step computes the same in fewer passes over memory, which pays on a CPU where gradients are
differentiated (benchmarks/README.md); else norms in one kernel are as fast. Compiling takes a time that grows
with the number of operators of a pass, so enough steps must be left. Both are estimated from the first steps.
"""

import logging
import math
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning import Trainer
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_metakd.learners.learner import Learner
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import NormForm
from lightning_metakd.recipes.execution import Execution, supports_vmap
from lightning_metakd.recipes.outer_update import progress
from lightning_metakd.recipes.training_record import TrainingRecord

log = logging.getLogger(__name__)

TIMED = 5
"""Steps whose median is the time of a step; the first, which counts operators, is none of them."""
SAVED = 0.3
"""Part of the time of a step of second order that compiling saves."""
SECONDS_PER_OPERATOR = 0.08
"""Time of compiling, by operators of one pass, such as an inner step with what differentiates it."""

CompilationErrors = (TorchDynamoException, FailOnRecompileLimitHit)
"""What a compiled call raises where it cannot be traced or compiled, or met too many shapes."""


class Compilation:
    """What is decided of compiling, and on what grounds.

    Args:
        execution: true and false of its compile_step decide at once.
        learner: how the student adapts.
        norm: whose statistics normalise.
        student: the network.
        record: keeps the decision, so that a training that is resumed goes on alike.
    """

    def __init__(
        self,
        execution: Execution,
        learner: Learner,
        norm: NormForm,
        student: Model,
        record: TrainingRecord,
    ) -> None:
        self.execution, self.student, self.record = execution, student, record
        self.learner, self.norm = learner, norm
        self.vmap = supports_vmap(learner, norm)
        self.operators, self.seconds = 0, list[float]()

    @property
    def obstacle(self) -> str:
        """Why nothing can be compiled; empty where it can."""
        if not self.learner.compilable:
            return f"{type(self.learner).__name__} takes as many steps as its solver needs"
        if self.norm == "tracked":
            return "norm=tracked looks at each pass"
        if modules := sorted(set(self.student.taps) - set(self.student.maps)):
            return f"the loss listens to {', '.join(modules)} of the student"
        return ""

    @property
    def is_on(self) -> bool:
        """Whether the next step is compiled."""
        chosen = self.execution.compile_step
        wanted = self.record.compiled is True if chosen == "auto" else chosen
        return wanted and not self.obstacle

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided."""
        auto = self.execution.compile_step == "auto"
        may_pay = self.learner.second_order and not self.obstacle
        return auto and may_pay and self.record.compiled is None

    def warn_of_obstacle(self) -> None:
        """Say that what the configuration wants compiled runs without, and why."""
        if self.execution.compile_step is True and self.obstacle:
            log.warning(f"execution.compile_step=true compiles nothing: {self.obstacle}.")

    def observed(self, n_tasks: int) -> AbstractContextManager[object]:
        """Count the operators of the first step inside, or time a later one, until it is decided.

        Args:
            n_tasks: of the step, run one after the other.
        """
        if not self.is_open:
            return nullcontext()
        return self.timed() if self.operators else self.counted(n_tasks)

    @contextmanager
    def counted(self, n_tasks: int) -> Iterator[None]:
        with Operators() as counting:
            yield
        self.operators = max(1, counting.n // n_tasks)

    @contextmanager
    def timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - began)

    def decide(self, trainer: Trainer) -> None:
        """Keep what is decided after this step: at once, or once some steps were timed."""
        if not self.is_open:
            self.record.compiled = self.is_on
        elif len(self.seconds) >= TIMED:
            self.record.compiled = self.pays(trainer)

    def pays(self, trainer: Trainer) -> bool:
        """Whether compiling costs less than it saves, the same on all processes; if so, say it."""
        seconds = statistics.median(self.seconds)
        done = progress(trainer)
        steps_left = trainer.global_step * (1 / done - 1) if done > 0 else math.inf
        compiling = SECONDS_PER_OPERATOR * self.operators / (self.learner.inner_steps + 1)
        saved = SAVED * seconds * steps_left
        pays = self.can_compile(trainer.strategy.root_device) and saved > compiling
        pays = trainer.strategy.broadcast(pays)
        if pays and trainer.is_global_zero:
            log.warning(
                f"compiles its steps: {steps_left:,.0f} of {seconds:.2f} s are left, which may save "
                f"{saved / 60:.0f} minutes for about {compiling / 60:.1f} of compiling; "
                "execution.compile_step=false keeps it from that."
            )
        return pays

    def can_compile(self, device: torch.device) -> bool:
        """Whether there is a compiler for steps on this device."""
        return device.type == "cpu" and compiler() is not None

    def give_up(self, error: Exception) -> None:
        """Go on uncompiled, with a warning.

        Raises:
            Exception: the error, if the configuration wants steps compiled.
        """
        if self.execution.compile_step is True:
            raise error
        self.record.compiled = False
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        log.warning(f"goes on without compiling its steps, which failed: {first}")


class Operators(TorchDispatchMode):
    """Counts the operators that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


def compiler() -> str | None:
    """Path of a C++ compiler, which inductor needs on a CPU."""
    named = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((path for name in named if name and (path := shutil.which(name))), None)
