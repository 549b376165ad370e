"""What student, teachers and adapting cost, measured once on this machine."""

import statistics
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import is_dry_run
from lightning_metakd.metrics.cost import (
    FEWEST,
    Cost,
    Shape,
    count_flops,
    evaluating,
    input_shapes,
    measure,
    milliseconds,
    one_like,
    peak_memory,
    shape_of,
)
from lightning_metakd.teachers.teacher_pool import without_counting


class CostReport(Callback):
    """Logs `cost/...` after the first batch, and puts the same into the result row.

    Measured on the first process, for one input, with what the first batch looked like: the deployed
    student (body and whatever head it has), all teachers together, and adapting to one episode with its
    inner loop.

    Args:
        repeats: measured forward passes, after 10 to warm up.
        adapt_repeats: measured adaptations.
    """

    def __init__(self, repeats: int = 30, adapt_repeats: int = 5) -> None:
        check_integer("repeats", repeats, FEWEST, hint="as fewer have no 95th percentile")
        check_integer("adapt_repeats", adapt_repeats, 1)
        self.repeats, self.adapt_repeats = repeats, adapt_repeats
        self.shapes: dict[nn.Module, Shape] = {}
        self.watching = ExitStack()

    def watch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the inputs of the first batch."""
        self.shapes.clear()
        if trainer.is_global_zero and not is_dry_run(trainer):
            student, eval_student, teachers = networks(pl_module)
            self.watching.enter_context(
                input_shapes([student, eval_student, *teachers], self.shapes)
            )

    def report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log, once; nothing here is collective."""
        self.watching.close()
        student, eval_student, teachers = networks(pl_module)
        input_shape = self.shapes.get(student, self.shapes.get(eval_student))
        if input_shape is None:
            return
        recipe = reported(pl_module)
        shapes = []
        for teacher in recipe.teachers:
            x = teacher.typical_inputs()  # texts of a batch are filled up to its longest
            of_batch = self.shapes.get(teacher.model, input_shape)
            shapes.append(of_batch if x is None else shape_of(x))
        self.shapes.clear()
        cost = measure(student, one_like(input_shape), self.repeats)
        numbers: dict[str, int | float] = {f"student_{k}": v for k, v in cost._asdict().items()}
        with without_counting(recipe.teachers):
            costs = [
                measure(teacher, one_like(shape), self.repeats)
                for teacher, shape in zip(teachers, shapes, strict=True)
            ]
        if costs:
            numbers |= {f"teacher_{k}": v for k, v in together(costs)._asdict().items()}
        numbers |= self.adaptation(pl_module)
        numbers["peak_memory_bytes"] = peak_memory(pl_module.device)
        if trainer.global_step == 1 or not trainer.training:  # once in a run
            step = max(trainer.global_step - 1, 0)  # where the Trainer puts what this batch logged
            for logger in trainer.loggers:
                logger.log_metrics({f"cost/{k}": v for k, v in numbers.items()}, step)
        record = reported(pl_module).record.result
        record |= {RESULT_KEYS.get(k, k): v for k, v in numbers.items()} | {"latency_batch": 1}

    def adaptation(self, pl_module: LightningModule) -> dict[str, int | float]:
        """FLOPs and median time of adapting to one episode, nothing where the recipe does not adapt."""
        run = reported(pl_module).adaptation()
        if run is None:
            return {}
        with evaluating(pl_module), torch.random.fork_rng(devices=cuda(pl_module.device)):
            times = milliseconds(run, self.adapt_repeats, pl_module.device)
            return {"adapt_flops": count_flops(run), "adapt_ms": statistics.median(times)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self.shapes:
            self.report(trainer, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self.shapes:
            self.report(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The peak is known at the end only."""
        record = reported(pl_module).record.result
        record["peak_memory_bytes"] = peak_memory(pl_module.device)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.watching.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.watching.close()


RESULT_KEYS = {
    "student_latency_ms": "latency_ms",
    "student_latency_p95_ms": "latency_p95_ms",
}


def networks(pl_module: LightningModule) -> tuple[nn.Module, nn.Module, list[nn.Module]]:
    """The student, the one that is evaluated (its average, where one is kept), and the teachers'."""
    recipe = reported(pl_module)
    return recipe.student, recipe.eval_student, [teacher.model for teacher in recipe.teachers]


def together(costs: list[Cost]) -> Cost:
    """What several networks cost that run one after the other."""
    return Cost(*(sum(column) for column in zip(*costs, strict=True)))


def cuda(device: torch.device) -> list[torch.device]:
    """The device, if it has a random state of its own to keep."""
    return [device] if device.type == "cuda" else []
