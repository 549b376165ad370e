"""A task whose loss is 1/2 (w - a)^T A (w - a): every step of descent on it has a closed form."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_metakd.types import Batch, Lesson, Output, Params

SIZE = 4


class Bowl(NamedTuple):
    """Curvature [d, d], symmetric and positive, and centre [d]."""

    curvature: Tensor
    centre: Tensor

    def loss(self, w: Tensor) -> Tensor:
        away = w - self.centre
        return away @ self.curvature @ away / 2

    def slope(self, w: Tensor) -> Tensor:
        return self.curvature @ (w - self.centre)

    def lesson(self, weight: Tensor | float = 1.0) -> Lesson:
        return lambda student, seen, progress: (weight * self.loss(student.logits[0]))[None]


class Weights:
    """A network that answers with its weights, whatever it is asked."""

    def __call__(self, params: Params, x: Tensor) -> Output:
        return Output(params["w"][None], params["w"][None])

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        return self(params, x), {}

    def statistics(self, params: Params, x: Tensor) -> Params:
        return {}

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        raise NotImplementedError


def bowl(seed: int) -> Bowl:
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(SIZE, SIZE, generator=draw, dtype=torch.float64)
    curvature = root @ root.T / SIZE + 0.1 * torch.eye(SIZE, dtype=torch.float64)
    return Bowl(curvature, torch.randn(SIZE, generator=draw, dtype=torch.float64))


def no_rows() -> Batch:
    number = torch.zeros(1, dtype=torch.long)
    return Batch(torch.zeros(1, 1, dtype=torch.float64), number, number, number)
