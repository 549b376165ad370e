"""A network as a pure function of explicit parameters."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_metakd.functional.params import subtree
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import EpisodicNorm
from lightning_metakd.models.norm_contexts import recording_statistics
from lightning_metakd.types import NOTHING, Forward, Output, Params


class Bound:
    """A network as a pure function of its parameters: the `Forward` of a module.

    Args:
        module: the network.
        fixed: parameters and buffers that are the same whatever it is called with.
    """

    def __init__(self, module: Model, fixed: Params = NOTHING) -> None:
        check_buffers_unchanged(module)
        self.module, self.fixed = module, fixed
        self.norms = [
            (name, layer)
            for name, layer in module.named_modules()
            if isinstance(layer, EpisodicNorm) and layer.form == "support"
        ]

    def __call__(self, params: Params, x: Tensor) -> Output:
        """The network's output for `x` with these parameters.

        Attention is computed by its mathematical form: fused kernels have no second derivative.
        """
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.module, {**self.fixed, **params}, (x,))

    def statistics(self, params: Params, x: Tensor) -> Params:
        """The statistics of `x` alone; nothing is computed where no norm wants them."""
        return self.observe(params, x)[1] if self.norms else {}

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        """The logits of the network's own head for an embedding."""
        head = subtree({**self.fixed, **params}, "head")
        return functional_call(self.module.head, head, (embedding,))

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        """The output for `x`, and the statistics of `x` at every norm of the form `support`."""
        with recording_statistics(layer for _, layer in self.norms) as recorded:
            output = self(params, x)
        statistics: dict[str, Tensor] = {}
        for (name, _), passes in zip(self.norms, recorded, strict=True):
            statistics[f"{name}.var"], statistics[f"{name}.mean"], _ = passes[-1]
        return output, statistics


def bind(module: Model, fixed: Params = NOTHING) -> Forward:
    """The module as a pure function of its parameters.

    Args:
        module: the network.
        fixed: parameters and buffers that are the same whatever it is called with.

    Raises:
        ValueError: if a batch norm of the module would write its running statistics.
    """
    return Bound(module, fixed)


def bind_loss(module: nn.Module) -> Callable[..., Tensor]:
    """(params, *args) -> module(*args) with these parameters."""
    return lambda params, *args: functional_call(module, dict(params), args)


def check_buffers_unchanged(module: nn.Module) -> None:
    """Raise where a forward pass would mutate a buffer."""
    for name, layer in module.named_modules():
        if (
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and layer.training
            and layer.track_running_stats
        ):
            raise ValueError(
                f"{name!r} is a batch norm in training mode and would write its running statistics inside an "
                "inner loop; convert the network with models.norm.make_episodic, or call .eval() on it."
            )


def with_support_statistics(
    forward: Forward, support: Tensor
) -> Callable[[Params, Tensor], Output]:
    """(parameters, x) -> output, norms of the form `support` with the statistics of a support set."""
    return lambda params, x: forward({**params, **forward.statistics(params, support)}, x)
