"""A task whose loss is 1/2 (w - a)^T A (w - a): every step of descent on it has a closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_metakd.learners.learner import Learner
from lightning_metakd.models.model import Maps, Model
from lightning_metakd.types import Batch, BatchLoss, Context, Output, Params

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

    def batch_loss(self, weight: Tensor | float = 1.0) -> BatchLoss:
        def teach(strategy: Params, student: Output, batch: Batch, context: Context) -> Tensor:
            return (strategy["weight"] * self.loss(student.logits[0]))[None]

        weight = torch.as_tensor(weight, dtype=torch.float64)
        return BatchLoss(teach, {"weight": weight}, no_rows(), no_rows().y)

    def after(self, w: Tensor, lr: float, steps: int) -> Tensor:
        """Where `steps` steps of descent lead from w."""
        return self.centre + self.shrink(lr, steps) @ (w - self.centre)

    def shrink(self, lr: float, steps: int) -> Tensor:
        """d after / d w."""
        return torch.linalg.matrix_power(torch.eye(SIZE).double() - lr * self.curvature, steps)


class Weights(Model):
    """A network that answers with its weights, whatever it is asked, and its own `Forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(SIZE, dtype=torch.float64))

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        raise NotImplementedError

    def forward(self, params: Params, x: Tensor) -> Output:
        return Output(params["w"][None], params["w"][None])

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        return self(params, x), {}

    def statistics(self, params: Params, x: Tensor) -> Params:
        return {}

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        raise NotImplementedError


class Slopes(NamedTuple):
    """A learner on a quadratic: where it went, its outer loss, and the gradient of that by name."""

    there: Tensor
    loss: Tensor
    of: dict[str, Tensor]


def on_quadratics(
    learner: Learner, task: Bowl, judge: Bowl, weight: Tensor | None = None
) -> Slopes:
    """Adapt to one bowl, `weight` times, from w = 1 and be asked by another."""
    net = Weights()
    learner.init_student_state(net)
    meta = {"student.w": net.w, **dict(learner.double().named_parameters(prefix="learner"))}
    student = learner.adapt(
        net, meta, task.batch_loss(1.0 if weight is None else weight), no_rows(), 1
    )
    loss = learner.outer_loss(meta, student, judge.batch_loss(), no_rows())
    wanted = meta if weight is None else {**meta, "weight": weight}
    slopes = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return Slopes(
        student.params["w"].detach(), loss.detach(), dict(zip(wanted, slopes, strict=True))
    )


def bowl(seed: int) -> Bowl:
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(SIZE, SIZE, generator=draw, dtype=torch.float64)
    curvature = root @ root.T / SIZE + 0.1 * torch.eye(SIZE, dtype=torch.float64)
    return Bowl(curvature, torch.randn(SIZE, generator=draw, dtype=torch.float64))


def no_rows() -> Batch:
    number = torch.zeros(1, dtype=torch.long)
    return Batch(torch.zeros(1, 1, dtype=torch.float64), number, number, number)
