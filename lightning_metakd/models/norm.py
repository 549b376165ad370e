"""Batch normalisation for episodes.

Ioffe, Szegedy (2015), "Batch Normalization", arXiv:1502.03167. In an inner loop nothing may be
remembered from one episode to the next, so `EpisodicNorm` mutates no running statistics. It has
three named forms, which differ in what normalises the query rows:

- `support`: the statistics of the support set, under the adapted parameters. Inductive: each query
  row is answered alone.
- `running`: the frozen statistics of a pretrained start. Inductive.
- `batch`: those of the query rows themselves, as in the published MAML. Transductive: queries see
  one another, and every result says so.

It is written with `var_mean`: `F.batch_norm` under `torch.func.vmap` silently loses part of the
second-order gradient.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

NormForm = Literal["support", "running", "batch"]


class EpisodicNorm(nn.Module):
    """Batch norm that never mutates a buffer.

    Args:
        norm: the batch norm whose weights and running statistics are taken over.
        form: whose statistics normalise, see the module.
    """

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, form: NormForm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.form = norm.weight, norm.bias, norm.eps, form
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        # given through functional_call by whoever holds the statistics of a support set
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("var", torch.empty(0), persistent=False)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Variance (biased) and mean [ch] that normalise `x` where none are given."""
        if self.form == "running":
            return self.running_var, self.running_mean
        return torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)

    def forward(self, x: Tensor) -> Tensor:
        var, mean = (self.var, self.mean) if self.mean.numel() else self.statistics(x)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * scale.view(shape) + shift.view(shape)


def make_episodic(module: nn.Module, form: NormForm) -> nn.Module:
    """Replace every batch norm of `module`, in place, by one fit for inner loops.

    The names of parameters and buffers stay, so either form loads a checkpoint of the other.

    Raises:
        ValueError: if the form is unknown, or `running` meets a norm that tracked no statistics.
    """
    if form not in get_args(NormForm):
        raise ValueError(
            f"norm={form!r} is unknown; choose one of {', '.join(get_args(NormForm))}."
        )
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            if form == "running" and child.running_mean is None:
                raise ValueError(
                    "norm='running' needs the statistics of a pretrained start, but "
                    f"{name!r} tracks none; build it with track_running_stats=True or choose "
                    "norm='support'."
                )
            setattr(module, name, EpisodicNorm(child, form))
        elif isinstance(child, EpisodicNorm):
            child.form = form
        else:
            make_episodic(child, form)
    return module
