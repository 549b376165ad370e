"""Ordinary training beside a plain PyTorch loop.

    python -m benchmarks.training --data <folder of CIFAR-100>

Images a second of a ResNet-12 that is pretrained and of a Conv4-64 that is distilled, by `SingleTask` from
the images to the update, beside a plain loop of the same network to which ready tensors are given; and how
much of a step the network's convolutions take alone. All take turns in one process with the same setting of
the memory allocator. Then the memory of images that are read.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.steps import provenance, provenance_text, write
from benchmarks.turns import status
from lightning_metakd.callbacks.results import code_version
from lightning_metakd.data.sources.cifar import CIFARFS
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy, Loss
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.resnet12 import ResNet12
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.teachers.heads import SlicedHead
from lightning_metakd.teachers.teacher import Teacher

PLAIN, CHANNELS_LAST, OURS = "plain loop", "plain loop, channels-last", "SingleTask"
LIVE, STORED, BARE = (
    "SingleTask, two teachers live",
    "SingleTask, two teachers cached",
    "convolutions alone",
)
VIEWS, LR = 2, 0.01
Step = Callable[[], object]


@dataclass
class Contest:
    """A network that is trained in several ways.

    Attributes:
        name: of what is trained.
        network: makes it, with a logit for each class.
        batch_size: images of a step.
        with_teachers: whether it is trained with teachers too.
        seconds: of steps, by who made them.
    """

    name: str
    network: Callable[[], nn.Module]
    batch_size: int
    with_teachers: bool
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, data: SupervisedData, rounds: int, steps: int) -> None:
        """Rounds in which each way makes some steps."""
        ways = self.ways(data)
        for _ in range(rounds):
            for name, turn in ways.items():
                self.seconds.setdefault(name, []).extend(turn(steps))

    def ways(self, data: SupervisedData) -> dict[str, Callable[[int], list[float]]]:
        batches = ready(data)
        networks = {name: self.network() for name in (PLAIN, CHANNELS_LAST, BARE)}
        for name in (CHANNELS_LAST, BARE):
            networks[name].to(memory_format=torch.channels_last)
        bare = convolutions_of(networks[BARE], next(batches)[0])
        plain = {name: plain_step(networks[name], batches) for name in (PLAIN, CHANNELS_LAST)}
        ways = {name: turns_of(step) for name, step in (plain | {BARE: bare}).items()}
        ways[OURS] = turns_of_recipe(
            SingleTask(self.network(), CrossEntropy(), optimisation=SGD), data
        )
        if self.with_teachers:
            classes = data.train_class_names()
            for name in (LIVE, STORED):
                ways[name] = turns_of_recipe(
                    distillation(self.network(), classes, name == STORED), data
                )
        return ways

    def rows(self) -> list[dict[str, Any]]:
        median = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        best = min(median[PLAIN], median[CHANNELS_LAST])
        return [
            {"contest": self.name, "name": name, "images_s": self.batch_size / median[name]}
            | {"least": self.batch_size / max(seconds), "most": self.batch_size / min(seconds)}
            | {"of_plain": best / median[name], "of_bare": median[BARE] / median[name]}
            | {"steps": len(seconds), "git": code_version()}
            for name, seconds in self.seconds.items()
        ]


SGD = Optimisation(lr=LR, optimiser="sgd", weight_decay=5e-4)


def ready(data: SupervisedData) -> Iterator[tuple[Tensor, Tensor]]:
    """Some batches that were drawn and normalised before, again and again."""
    drawn = [
        data.on_after_batch_transfer(batch, 0)[0]
        for batch, _ in zip(data.train_dataloader(), range(4), strict=False)
    ]
    return cycle([(rows.x, rows.y) for rows in drawn])


def plain_step(net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> Step:
    optimiser = torch.optim.SGD(
        net.parameters(), LR, momentum=0.9, weight_decay=5e-4, nesterov=True
    )

    def step() -> None:
        x, y = next(batches)
        optimiser.zero_grad()
        cross_entropy(net(x).logits, y).backward()
        optimiser.step()

    return step


def convolutions_of(net: nn.Module, x: Tensor) -> Step:
    """Forward and backward of each convolution of a network apart, at the shapes that it meets."""
    met: list[tuple[nn.Conv2d, Tensor]] = []
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    hooks = [m.register_forward_pre_hook(lambda m, args: met.append((m, args[0]))) for m in layers]
    x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    inputs = [(m, torch.randn_like(x_in).requires_grad_(x_in is not x)) for m, x_in in met]
    slopes = [torch.randn_like(m(x_in)) for m, x_in in inputs]

    def step() -> None:
        for (m, x_in), slope in zip(inputs, slopes, strict=True):
            m(x_in).backward(slope)
            x_in.grad = None

    return step


def turns_of(step: Step) -> Callable[[int], list[float]]:
    """Seconds of some steps, after one to warm up."""

    def turn(steps: int) -> list[float]:
        marks = []
        for _ in range(steps + 1):
            step()
            marks.append(time.perf_counter())
        return [later - earlier for earlier, later in pairwise(marks)]

    return turn


class Marks(Callback):
    """When steps ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.at.append(time.perf_counter())


def turns_of_recipe(recipe: SingleTask, data: SupervisedData) -> Callable[[int], list[float]]:
    """As `turns_of`, from one step's end to the next: with drawing, augmenting and logging."""

    def turn(steps: int) -> list[float]:
        marks = Marks()
        trainer = Trainer(
            max_steps=steps + 2,
            callbacks=[marks],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        trainer.fit(recipe, datamodule=data)
        return [b - a for a, b in pairwise(marks.at[1:])]

    return turn


def distillation(student: nn.Module, classes: list[str], cache: bool) -> SingleTask:
    """A student of two untrained teachers."""
    torch.manual_seed(0)
    networks = [ResNet12((32, 64, 128, 256), n_classes=len(classes)) for _ in range(2)]
    head = SlicedHead(scale=1.0)
    teachers = [Teacher(net, head=head, cache=cache, classes=classes) for net in networks]
    loss: Loss = MatchGate(match=MultiTeacher(Hinton()))
    return SingleTask(student, loss, teachers, optimisation=SGD)


def table(contests: Sequence[dict[str, Any]]) -> str:
    trained = [
        {
            "training": row["contest"],
            "by": row["name"],
            "images a second": f"{row['images_s']:.0f}",
            "least, most": f"{row['least']:.0f}, {row['most']:.0f}",
            "of the faster plain loop": f"{row['of_plain']:.2f}",
            "of the convolutions alone": f"{row['of_bare']:.2f}",
        }
        for row in contests
    ]
    return markdown(trained)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="directory that holds CIFAR-100")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    result = Path(__file__).parent / "results" / "training.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section training to fill")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_large_blocks()
    before = status("VmRSS")
    pixels = CIFARFS(options.data).all_rows().x.nbytes / 2**20
    held = status("VmRSS") - before
    source = Synthetic(per_class=40)
    n_classes = len(SupervisedData(source).train_classes())
    contests = [
        Contest("ResNet-12", lambda: ResNet12(n_classes=n_classes), 64, with_teachers=False),
        Contest("Conv4-64", lambda: Conv4(64, n_classes=n_classes), 128, with_teachers=True),
    ]
    for contest in contests:
        data = SupervisedData(source, batch_size=contest.batch_size, views=VIEWS)
        contest.run(data, options.rounds, options.steps)
        print(f"{contest.name} is done", flush=True)
    rows = [row for contest in contests for row in contest.rows()]
    made = provenance(options.threads)
    note = (
        f"The images of CIFAR-FS are {pixels:.0f} MiB, and reading them adds {held:.0f} MiB to the process. "
        f"{provenance_text(made, 'python -m benchmarks.training')}; code {str(rows[0]['git'])[:10]}"
    )
    numbers = {"rows": rows, "provenance": made, "pixels_mib": pixels, "held_mib": held}
    text = f"{table(rows)}\n\n{note}"
    write(numbers, options.result, options.output, "training", text)
    print(text)


if __name__ == "__main__":
    main()
