"""Normalisation for episodes.

Ioffe, Szegedy (2015), "Batch Normalization", arXiv:1502.03167. In an inner loop nothing may be
remembered from one episode to the next, so `EpisodicNorm` mutates no running statistics. It has
four named forms, which differ in what normalises the query rows:

- `support`: the statistics of the support set, under the adapted parameters. Inductive: each
  query row is classified alone.
- `running`: the frozen statistics of a pretrained start. Inductive.
- `tracked`: for learners without an inner loop, as in ordinary training: a batch's own while training,
  which the running ones follow (`update_running_statistics`) by the momentum of the norm, once for each
  outer step, and those in evaluation. Inductive.
- `batch`: those of the query rows themselves, as in the published MAML. Transductive: query
  rows depend on one another, and every result records it.

All is written with means: differentiated a second time through `torch.func.vmap`, `F.batch_norm` (hence
`nn.InstanceNorm2d`) and `F.layer_norm` silently lose part of the gradient; `nn.GroupNorm` does not. A
compiled step takes an eighth longer with `torch.var_mean`. Where neither is at work, `F.batch_norm` is
faster: see `norm_contexts.fused_norms`. `nn.Hardsigmoid`, which the squeeze-and-excitation of mobile
networks uses as a norm of channels, has no second derivative at all, so it is rewritten here too.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu6
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lightning_metakd.arguments.ranges import check_choice

NormForm = Literal["support", "running", "tracked", "batch"]
PassStatistics = tuple[Tensor, Tensor, int]
"""Variance and mean [ch] that normalised a pass, and of how many values they are."""
PoolFunction = Callable[[Tensor], Tensor]


class EpisodicNorm(nn.Module):
    """Batch norm that never mutates a buffer.

    Args:
        norm: the batch norm whose weights and running statistics are taken over.
        form: whose statistics normalise, see the module.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm, form: NormForm) -> None:
        super().__init__()
        self.eps, self.form, self.training = norm.eps, form, norm.training
        self.momentum = norm.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        # given through functional_call by whoever holds the statistics of a support set
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("var", torch.empty(0), persistent=False)
        self.recorded: list[PassStatistics] | None = None
        self.fused = False

    def follow(self, var: Tensor, mean: Tensor) -> None:
        """Let the running statistics go a part of the way to those of a step, or average all steps."""
        self.num_batches_tracked.add_(1)
        part: Tensor | float = (
            (1 / self.num_batches_tracked).to(var) if self.momentum is None else self.momentum
        )
        self.running_var.lerp_(var, part)
        self.running_mean.lerp_(mean, part)

    def fixed_statistics(self) -> tuple[Tensor, Tensor] | None:
        """Variance and mean [ch] that are fixed before the pass; None where they are those of the rows."""
        if self.mean.numel():
            return self.var, self.mean
        if self.form == "running" or (self.form == "tracked" and not self.training):
            return self.running_var, self.running_mean
        return None

    def forward(self, x: Tensor, pool: PoolFunction | None = None) -> Tensor:
        """The norm of `x`, and its maxima over windows.

        Args:
            pool: takes the maxima. It runs before weight and bias, which then apply to a quarter of the
                values, and less is kept for backward; where a weight is negative, it takes minus the values.
        """
        fixed, dims = self.fixed_statistics(), (0, *range(2, x.dim()))
        if fixed is None and self.fused and self.is_plain(x):
            x = self.in_one_kernel(x)
            return x if pool is None else pool(x)
        shape = (-1, *(1,) * (x.dim() - 2))
        wide = at_least_single(x)
        mean = wide.mean(dims) if fixed is None else fixed[1]
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        side = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
        centred = wide - mean.view(shape)
        # minus a value is as far from the mean: one map serves variance and maxima
        if pool is not None:
            centred = centred * side.view(shape)
        var = centred.square().mean(dims) if fixed is None else fixed[0]
        if self.recorded is not None:
            self.recorded.append((var, mean, x.numel() // len(mean)))
        scale = weight * torch.rsqrt(var + self.eps)
        if pool is not None:
            centred, scale = pool(centred), scale * side
        normalised = centred * scale.view(shape)
        return (normalised if self.bias is None else normalised + self.bias.view(shape)).to(x.dtype)

    def is_plain(self, x: Tensor) -> bool:
        """Whether nothing differentiates through the statistics of `x` but its own norm."""
        recorded_as_constants = self.recorded is None or self.form == "tracked"
        return recorded_as_constants and x.numel() > x.shape[1]  # a single value has no variance

    def in_one_kernel(self, x: Tensor) -> Tensor:
        """The norm of `x` by its own statistics, as torch computes it."""
        if self.recorded is None:
            return batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        mean, var = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        y = batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        n = x.numel() // x.shape[1]
        self.recorded.append((var * ((n - 1) / n), mean, n))  # torch keeps the unbiased variance
        return y


def norm_and_pool(norm: nn.Module, x: Tensor, pool: PoolFunction) -> Tensor:
    """pool(norm(x)), for a pool of maxima over windows."""
    return norm(x, pool) if isinstance(norm, EpisodicNorm) else pool(norm(x))


class LayerNorm(nn.LayerNorm):
    """Layer norm with a right second derivative under `torch.func.vmap`; else that of torch."""

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_single(x)
        dims = [-1 - k for k in range(len(self.normalized_shape))]
        var, mean = torch.var_mean(wide, dim=dims, correction=0, keepdim=True)
        wide = (wide - mean) * torch.rsqrt(var + self.eps)
        if self.elementwise_affine:
            wide = wide * self.weight
            wide = wide if self.bias is None else wide + self.bias
        return wide.to(x.dtype)


class HardSigmoid(nn.Module):
    """The piecewise linear sigmoid, twice differentiable; else that of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return relu6(x + 3) / 6


def at_least_single(x: Tensor) -> Tensor:
    """`x` in single precision if it comes in half, as torch's own norms take their statistics."""
    return x if x.dtype.itemsize >= 4 else x.float()


def answers_row_by_row(module: nn.Module) -> bool:
    """Whether a network in evaluation mode has the same output for a row in any batch."""
    return all(
        m.form in ("running", "tracked") for m in module.modules() if isinstance(m, EpisodicNorm)
    )


def is_transductive(module: nn.Module) -> bool:
    """Whether a norm takes the statistics of the query rows themselves."""
    return any(getattr(layer, "form", None) == "batch" for layer in module.modules())


def untrained_statistics(module: nn.Module) -> list[str]:
    """Names of the norms of the form `running` whose statistics are those of a network that never ran."""
    return [
        name
        for name, m in module.named_modules()
        if isinstance(m, EpisodicNorm)
        and m.form == "running"
        and not (m.running_mean.any() or (m.running_var != 1).any())
    ]


def make_episodic(module: nn.Module, form: NormForm) -> nn.Module:
    """Make every norm of `module` fit for inner loops, in place, and return the module.

    Batch norms become `EpisodicNorm`; layer norms, instance norms and hard sigmoids become equal ones
    with a right second derivative, under `vmap` too. The names of parameters and buffers stay, so that
    a network loads the checkpoints of its unconverted twin.

    Raises:
        ValueError: if the form is unknown, `running` or `tracked` meets a norm that keeps no statistics,
            or a norm has no form for inner loops.
    """
    check_choice("norm", form, get_args(NormForm))
    for name, layer in module.named_modules():
        check_replaceable_norm(name, layer, form)
    return converted(module, form)


def check_replaceable_norm(name: str, layer: nn.Module, form: NormForm) -> None:
    """Raise where a norm has no form for inner loops."""
    if isinstance(layer, _BatchNorm | EpisodicNorm) and form in ("running", "tracked"):
        if layer.running_mean is None:
            raise ValueError(
                f"norm={form!r} needs the statistics of a pretrained start, but {name!r} tracks "
                "none; build it with track_running_stats=True or choose norm='support'."
            )
    elif isinstance(layer, _InstanceNorm) and layer.track_running_stats:
        raise ValueError(
            f"{name!r} is an instance norm with running statistics, which has no form for inner "
            "loops; build it with track_running_stats=False."
        )
    elif isinstance(layer, nn.LayerNorm) and type(layer) not in (nn.LayerNorm, LayerNorm):
        raise ValueError(
            f"{name!r} is a {type(layer).__name__}, a layer norm of its own kind whose second "
            "derivative is not known to be right; write it with models.norm.LayerNorm."
        )


def converted(module: nn.Module, form: NormForm) -> nn.Module:
    """The module itself with converted children, or what stands for a norm."""
    if isinstance(module, _BatchNorm):
        return EpisodicNorm(module, form)
    if isinstance(module, EpisodicNorm):
        module.form = form
    elif isinstance(module, _InstanceNorm):
        return with_parameters_of(module, nn.GroupNorm(module.num_features, module.num_features))
    elif type(module) is nn.LayerNorm:
        new = LayerNorm(module.normalized_shape, elementwise_affine=module.elementwise_affine)
        return with_parameters_of(module, new)
    elif isinstance(module, nn.Hardsigmoid):
        return HardSigmoid()
    for name, child in module._modules.items():
        if child is not None:
            setattr(module, name, converted(child, form))
    return module


def with_parameters_of(
    norm: _InstanceNorm | nn.LayerNorm, new: nn.GroupNorm | LayerNorm
) -> nn.Module:
    """The new norm with the weights, the epsilon and the mode of the old one."""
    new.eps, new.training = norm.eps, norm.training
    new.weight, new.bias = norm.weight, norm.bias
    return new
