"""Implicit differentiation of a root, and a solver that finds one.

Where r(w*; rest) = 0, the implicit function theorem gives dw*/d rest = -J^{-1} dr/d rest with J = dr/dw.
Backward solves J^T u = slope and passes -u to r, so that neither the steps of the solver nor J are ever
stored. Systems are solved by GMRES (Saad, Schultz 1986), which unlike conjugate gradients needs
neither symmetry (a coefficient that reads the student's output breaks it) nor definiteness (a network's
loss has none). All of it is done in single precision at least.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.func import jvp, vjp

from lightning_metakd.functional.params import detach
from lightning_metakd.types import Params

Residual = Callable[[Params], Params]
BREAKDOWN = 1e-6
"""A new direction shorter than this part of the product from which it comes is rounding alone."""


def gmres(
    apply: Callable[[Tensor], Tensor], right: Float[Tensor, " d"], iterations: int
) -> Float[Tensor, " d"]:
    """The w in the Krylov space of `iterations` products for which |apply(w) - right| is smallest."""
    length = right.norm()
    if not length:
        return torch.zeros_like(right)
    basis, images = [right / length], list[Tensor]()
    while len(images) < iterations:
        images.append(apply(basis[-1]))
        new = images[-1]
        for _ in range(2):  # the second time mends what rounding left of the first
            for direction in basis:
                new = new - (direction @ new) * direction
        if new.norm() <= BREAKDOWN * images[-1].norm():
            break
        basis.append(new / new.norm())
    image = torch.stack(images, dim=1)  # [d k]
    weights = torch.linalg.lstsq(image, right[:, None]).solution[:, 0]
    return torch.stack(basis[: len(images)], dim=1) @ weights


def flatten(params: Params) -> Float[Tensor, " d"]:
    """All parameters in one vector."""
    return torch.cat([p.flatten() for p in params.values()])


def unflatten(row: Float[Tensor, " d"], params: Params) -> dict[str, Tensor]:
    """The inverse of `flatten`; names and shapes are those of `params`."""
    parts = row.split([p.numel() for p in params.values()])
    return {n: part.view_as(p) for (n, p), part in zip(params.items(), parts, strict=True)}


@torch.no_grad()
def newton_krylov(
    residual: Residual, near: Params, steps: int, products: int, tolerance: float
) -> dict[str, Tensor]:
    """A root of r near a point, by Newton's method with GMRES.

    Args:
        residual: w -> r(w).
        near: where it starts, close enough for steps of full length.
        steps: at most so many, each with `products` products of the Jacobian.
        tolerance: largest length of r(w) that is good enough.
    """
    at = flatten(near)
    for _ in range(steps):
        left = flatten(residual(unflatten(at, near)))
        if left.norm() <= tolerance:
            break

        def product(towards: Tensor, at: Tensor = at) -> Tensor:
            where, way = unflatten(at, near), unflatten(towards, near)
            return flatten(jvp(residual, (where,), (way,))[1])

        at = at - gmres(product, left, products)
    return unflatten(at, near)


class Solution(torch.autograd.Function):
    """The root, whose gradient goes to the residual."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[Tensor], Tensor], root: Tensor, left: Tensor) -> Tensor:
        ctx.solve = solve
        return root.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor]:
        return None, None, -ctx.solve(slope)


def implicit_root(residual: Residual, root: Params, iterations: int) -> dict[str, Tensor]:
    """`root` as a differentiable function of all that its equation is closed over.

    Args:
        residual: w -> r(w), zero at the root; the graph to start, embedding or strategy passes through it.
        root: what a solver found; the error of the gradient is of the order of r(root).
        iterations: products with J^T in backward.
    """
    root = detach(root)
    if not torch.is_grad_enabled():
        return root

    def solve(slope: Tensor) -> Tensor:
        with torch.autocast(slope.device.type, enabled=False):
            _, pull_back = vjp(residual, root)  # type: ignore[misc]
            return gmres(lambda u: flatten(pull_back(unflatten(u, root))[0]), slope, iterations)

    return unflatten(Solution.apply(solve, flatten(root), flatten(residual(root))), root)
