"""The smallest networks, episodes and training runs on which the mathematics can be checked."""

from itertools import product
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus
from torch.utils.data import DataLoader

from lightning_metakd.data.distributed_sampling import identity_collate
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.class_splits import rows_of
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.losses.coefficient import Coefficient, Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.layer_pairs import hint_name
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import Loss
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.model import EMBEDDING, Maps, Model, linear_head
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Batch, Context, Episode, Output, TrainBatch

N_WAY, SHOTS, QUERIES, WIDTH = 3, 2, 4, 3
STUDENT_MAPS = {"low": (4, 4, 4), "high": (5, 2, 2)}
TEACHER_MAPS = {"low": (6, 4, 4), "high": (7, 3, 3)}
"""Shapes of layers."""


class SmoothConv4(Model):
    """Conv4 without kinks, which differences need: softplus for ReLU, average pooling for the largest."""

    def __init__(self, n_classes: int = N_WAY, width: int = WIDTH) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width if block else 1, width, 3, padding=1) for block in range(4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(4))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            nn.init.normal_(conv.weight, std=0.5)  # variances far above the epsilon of the norms
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
        self.embedding_width = width
        self.head = linear_head(width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = softplus(norm(conv(x)))
            x = avg_pool2d(x, 2) if x.shape[-1] > 1 else x
        return x.flatten(1), {}


class Linear(Model):
    """A linear map and a linear classifier of its output."""

    def __init__(self, n_in: int = 6, width: int = 4, n_classes: int = N_WAY) -> None:
        super().__init__()
        self.linear, self.embedding_width = nn.Linear(n_in, width), width
        self.head = linear_head(width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        return self.linear(x).tanh(), {}


def batch(n: int, shape: tuple[int, ...] = (6,), n_way: int = N_WAY, first: int = 0) -> Batch:
    """Random rows, interleaved by class."""
    y = torch.arange(n) % n_way
    x = torch.randn(n, *shape, dtype=torch.float64)
    return Batch(x, y, torch.arange(first, first + n), torch.full((n,), -1))


def separable(n: int, shape: tuple[int, ...] = (6,), n_way: int = N_WAY) -> Batch:
    """Rows whose class shifts their pixels, so that there is something to learn."""
    rows = batch(n, shape, n_way)
    centres = torch.randn(n_way, *shape, generator=torch.Generator().manual_seed(9))
    return rows._replace(x=0.3 * rows.x + centres.double()[rows.y])


def episode(id: int = 0, shape: tuple[int, ...] = (1, 8, 8), classes: int = 20) -> Episode:
    """A task with a signal, whose classes are some of `classes`."""
    support, query = separable(N_WAY * SHOTS, shape), separable(N_WAY * QUERIES, shape)
    chosen = torch.randperm(classes)[:N_WAY]
    return Episode(support, query, chosen, torch.tensor(id))


def answered(rows: Batch, teachers: int = 1, n_way: int = N_WAY) -> Batch:
    """The rows with random answers of teachers."""
    n = len(rows.y)

    def random(*shape: int) -> Tensor:
        return torch.randn(n, *shape).to(rows.x)

    answers = [
        Output(
            random(n_way), random(5), {name: random(*shape) for name, shape in TEACHER_MAPS.items()}
        )
        for _ in range(teachers)
    ]
    return rows._replace(teacher_outputs=tuple(answers))


def student_answer(rows: Batch, width: int = 4) -> Output:
    """A student's random answer for the rows, with its layers, and these at each teacher's widths."""
    n = len(rows.y)
    logits, embedding = 2 * torch.randn(n, N_WAY).to(rows.x), torch.randn(n, width).to(rows.x)
    features = {name: torch.randn(n, *shape).to(rows.x) for name, shape in STUDENT_MAPS.items()}
    hints = {}
    for k, teacher in enumerate(rows.teacher_outputs):
        hints[hint_name(k, EMBEDDING, EMBEDDING)] = torch.randn_like(teacher.embedding)
        for (s, present), (t, theirs) in product(features.items(), teacher.features.items()):
            shape = (n, theirs.shape[1], *present.shape[2:])
            hints[hint_name(k, s, t)] = torch.randn(shape).to(rows.x)
    return Output(logits, embedding, features, hints)


def context(rows: Batch, recorded: Output, progress: float = 0.3) -> Context:
    """What a coefficient is told, with labels for dataset classes."""
    return Context(rows.y, recorded.logits.new_tensor(progress), recorded)


def gate_and_temperature(gate: Coefficient | None = None) -> Loss:
    """A strategy of a per-sample gate that looks at the student and a learned temperature."""
    loss = MatchGate(gate or LearnedPerSample(), Hinton(Learned(2.0))).double()
    return perturbed(loss)


def perturbed(module: nn.Module) -> nn.Module:
    """Away from the start, where much is zero."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module


def teacher(**settings) -> Teacher:
    """A network of its own with class means of its embeddings."""
    model = SmoothConv4(n_classes=0, width=4).double()
    return Teacher(model, head=PrototypeHead("cosine", scale=5.0).double(), **settings)


class Blobs(Source):
    """Twenty classes of grey images of 8 x 8, each a pattern with noise."""

    of_split = {"train": range(12), "val": range(12, 16), "test": range(16, 20)} | {
        "teacher": range(9),
        "strategy": range(9, 12),
    }

    def __init__(self, per_class: int = 12, level: int = 0) -> None:
        draw = torch.Generator().manual_seed(5)
        y = torch.arange(20).repeat_interleave(per_class)
        patterns = torch.rand(20, 1, 8, 8, generator=draw)
        noise = torch.rand(len(y), 1, 8, 8, generator=draw)
        x = level + ((255 - level) * (0.6 * patterns[y] + 0.4 * noise)).to(torch.uint8)
        self.all = Labelled(x, y, torch.arange(len(y)), tuple(f"blob {c}" for c in range(20)))

    def all_rows(self) -> Labelled:
        return self.all

    def select(self, split: str) -> Tensor:
        return rows_of(self.all.y, self.of_split[split])


class Fixed(EpisodicData):
    """The same meta-batches each epoch, ready for the network: `(train, quiz)`, or one without a quiz."""

    def __init__(self, batches: list) -> None:
        super().__init__(Blobs(), N_WAY, k_shot=2, n_query=4, views=0)
        self.batches = as_train_batches(batches)

    def train_classes(self) -> Tensor:
        return torch.arange(12)

    def classes(self, split: str) -> Tensor:
        return torch.arange(12)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None, collate_fn=identity_collate)


class FixedRows(SourceData):
    """The same batches of rows each epoch, of a few classes."""

    views, seed, has_quiz = 0, 0, True

    def __init__(self, batches: list) -> None:
        super().__init__(Blobs(), 0)
        self.batches = as_train_batches(batches)

    def train_classes(self) -> Tensor:
        return torch.arange(N_WAY)

    def cache_views(self, stage: str | None) -> list:
        return []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None, collate_fn=identity_collate)


def as_train_batches(batches: list) -> list[TrainBatch]:
    """Batches, or pairs of one and its quiz, as a recipe gets them."""
    return [TrainBatch(*b) if type(b) is tuple else TrainBatch(b) for b in batches]


def trainer(**settings) -> Trainer:
    """A Trainer that says and writes nothing."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
        "max_epochs": 1,
    }
    return Trainer(**{**quiet, **settings})
