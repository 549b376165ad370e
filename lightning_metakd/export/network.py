"""A student as a module that reads whole pixels and remembers nothing, as files of other runtimes need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import EpisodicNorm
from lightning_metakd.models.prototypes import Metric, metric_logits
from lightning_metakd.types import Normalisation, Reading

SUPPORT_ROWS: ContextVar[int | torch.SymInt] = ContextVar("SUPPORT_ROWS")
"""How many rows of a pass, the first ones, are support rows."""


class FixedNorm(nn.Module):
    """A norm by statistics that training has set, as the one operation that runtimes fold into others."""

    mean: Tensor
    var: Tensor

    def __init__(self, norm: EpisodicNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("var", norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.mean, self.var, self.weight, self.bias, False, 0.0, self.eps)


class SupportNorm(nn.Module):
    """A norm by the statistics of the support rows, which come first in a pass."""

    def __init__(self, norm: EpisodicNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        dims, shape = (0, *range(2, x.dim())), (-1, *(1,) * (x.dim() - 2))
        support = x[: SUPPORT_ROWS.get()]
        mean = support.mean(dims, keepdim=True)
        var = (support - mean).square().mean(dims, keepdim=True)
        x = (x - mean) * torch.rsqrt(var + self.eps)
        if self.weight is not None:
            x = x * self.weight.view(shape)
        return x if self.bias is None else x + self.bias.view(shape)


NORMS = {
    "running": FixedNorm,
    "tracked": FixedNorm,
    "support": SupportNorm,
}
"""What stands for a norm for episodes, by its form."""


@contextmanager
def support_rows(n: int | torch.SymInt) -> Iterator[None]:
    """Inside, the first rows of a pass are support rows."""
    token = SUPPORT_ROWS.set(n)
    try:
        yield
    finally:
        SUPPORT_ROWS.reset(token)


def deployed(student: Model) -> Model:
    """A copy of a student without what only training needs."""
    copy = deepcopy(student).eval().requires_grad_(False)
    copy.taps = ()
    replace_norms(copy)
    return copy.to(memory_format=torch.contiguous_format)


def replace_norms(module: nn.Module) -> None:
    """Put plain norms into the place of those for episodes."""
    for name, child in module.named_children():
        if isinstance(child, EpisodicNorm):
            setattr(module, name, NORMS[child.form](child))
        else:
            replace_norms(child)


class Pixels(nn.Module):
    """Pixels of 0 to 255 as a network reads them: (x / 255 - mean) / std of each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, reading: Normalisation) -> None:
        super().__init__()
        mean, std = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in reading)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32) * self.scale - self.shift


def pixels(reading: Reading) -> nn.Module:
    """What normalises inputs: pictures; tokens are read as they are."""
    return Pixels(reading) if isinstance(reading, Normalisation) else nn.Identity()


class RowNetwork(nn.Module):
    """A student that reads pictures, or texts, one by one.

    Args:
        student: the network, as `deployed` returns it.
        reading: mean and deviation of its pictures, or the vocabulary of its texts.
        classifies: whether its logits are wanted, and not its embedding.
    """

    def __init__(self, student: Model, reading: Reading, classifies: bool) -> None:
        super().__init__()
        self.student, self.pixels, self.classifies = student, pixels(reading), classifies

    def forward(self, images: Tensor) -> Tensor:
        embedding, _ = self.student.body(self.pixels(images))
        return self.student.head(embedding) if self.classifies else embedding


class EpisodeNetwork(nn.Module):
    """A student whose norms take the statistics of the support pictures: embeddings of both sets.

    Args:
        student: the network, as `deployed` returns it.
        reading: mean and deviation of its pictures.
    """

    def __init__(self, student: Model, reading: Reading) -> None:
        super().__init__()
        self.student, self.pixels = student, pixels(reading)

    def forward(self, support_images: Tensor, query_images: Tensor) -> tuple[Tensor, Tensor]:
        n = support_images.shape[0]
        with support_rows(n):
            both = torch.cat([support_images, query_images])
            embedding, _ = self.student.body(self.pixels(both))
        return embedding[:n], embedding[n:]


class PrototypeNetwork(nn.Module):
    """A student that adapts by class means, for runtimes of torch.

    Args:
        network: embeds support and query pictures.
        metric: of rows and means.
        scale: factor on the logits.
    """

    def __init__(self, network: nn.Module, metric: Metric, scale: float) -> None:
        super().__init__()
        self.network, self.metric, self.scale = network, metric, scale

    def forward(
        self, support_images: Tensor, support_targets: Tensor, query_images: Tensor
    ) -> Tensor:
        support, query = pair(self.network, support_images, query_images)
        means = (support_targets.T @ support) / support_targets.sum(0)[:, None]
        return self.scale * metric_logits(query, means[None], self.metric)


class RidgeNetwork(nn.Module):
    """A student that adapts by ridge regression, for runtimes of torch.

    Args:
        network: embeds support and query pictures.
        penalty: weight of the squared weights.
        scale: factor on the logits.
    """

    def __init__(self, network: nn.Module, penalty: float, scale: float) -> None:
        super().__init__()
        self.network, self.penalty, self.scale = network, penalty, scale

    def forward(
        self, support_images: Tensor, support_targets: Tensor, query_images: Tensor
    ) -> Tensor:
        support, query = pair(self.network, support_images, query_images)
        one = torch.eye(support.shape[1], dtype=torch.float64, device=support.device)
        x = support.double()
        weights = torch.linalg.solve(x.T @ x + self.penalty * one, x.T @ support_targets.double())
        return (self.scale * (query.double() @ weights)).float()


def pair(network: nn.Module, support_images: Tensor, query_images: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of support and query pictures, by a network of either kind."""
    if isinstance(network, EpisodeNetwork):
        both: tuple[Tensor, Tensor] = network(support_images, query_images)
        return both
    return network(support_images), network(query_images)
