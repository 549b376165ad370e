"""Prototypes: class means of embeddings, and the similarities of rows to them."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Metric = Literal["euclidean", "cosine"]


def unit(x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Rows of length one; differentiable twice even at a dead (all-zero) row, unlike F.normalize."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-12)


def metric_logits(
    embedding: Float[Tensor, "n d"], prototypes: Float[Tensor, "#n c d"], metric: Metric
) -> Float[Tensor, "n c"]:
    """Similarity of each row to each prototype.

    Args:
        embedding: of the rows.
        prototypes: shared by all rows (first axis 1), or each row's own.
        metric: `euclidean`: minus the squared distance (Snell 2017, eq. 1); `cosine`: in [-1, 1].
    """
    rows = embedding[:, None]  # [n 1 d]
    if metric == "cosine":
        return (unit(rows) * unit(prototypes)).sum(-1)
    return -(rows - prototypes).square().sum(-1)


def leave_one_out_means(
    embedding: Float[Tensor, "s d"], y: Int[Tensor, " s"], n_way: int
) -> Float[Tensor, "s c d"]:
    """The class means for each row: of its own class without itself, (k c - e) / (k - 1).

    A row that is alone in its class stays in its mean; a class without rows has the origin for a mean.
    """
    member = one_hot(y, n_way).to(embedding.dtype)  # [s c]
    total, count = member.T @ embedding, member.sum(0)
    leaves = member * (count > 1)
    without = total[None] - leaves[..., None] * embedding[:, None]
    return without / (count - leaves).clamp(min=1)[..., None]


def one_hot(y: Int[Tensor, " n"], n_way: int) -> Bool[Tensor, "n c"]:
    """One-hot labels, without the value check of `F.one_hot`, which fails under `vmap(grad)`."""
    return y[:, None] == torch.arange(n_way, device=y.device)


def class_means(
    embedding: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    n_way: int,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "c d"]:
    """Mean embedding of each class.

    Args:
        weights: how much each row counts, >= 0; None is all alike.
    """
    member = one_hot(y, n_way).to(embedding.dtype)
    if weights is not None:
        member = member * weights.to(embedding.dtype)[:, None]
    return (member.T @ embedding) / member.sum(0)[:, None]
