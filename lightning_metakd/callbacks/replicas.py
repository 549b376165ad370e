"""Replicas that stay equal, and frozen parameters that stay frozen.

Both mistakes are silent: training goes on, and its result means something else.
"""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_integer

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(tensor: Tensor) -> Tensor:
    """A number that changes with any bit of the tensor and with the order of its entries.

    Sum of (bits + 1) * odd multiplier of the place, modulo 2^64; integers, so that it does not depend on
    the order in which it is summed.
    """
    flat = tensor.detach().contiguous().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    bits = flat.view(WORDS[flat.element_size()]).long()
    place = torch.arange(len(bits), device=bits.device)
    return ((bits + 1) * (2 * place + 0x9E3779B1)).sum()


def checksums(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    """Checksum by name."""
    return {name: checksum(p) for name, p in named}


class ReplicaConsistency(Callback):
    """Compares the trainable parameters of all processes after steps 1, 2 and every n-th.

    Args:
        every_n_steps: outer steps between two comparisons.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        check_integer("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step
        if trainer.world_size > 1 and (step in (1, 2) or step % self.every_n_steps == 0):
            self.compare(trainer, pl_module)

    def compare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every process must call it.

        Raises:
            RuntimeError: if a parameter differs; on all processes alike.
        """
        sums_by_name = checksums((n, p) for n, p in pl_module.named_parameters() if p.requires_grad)
        if not sums_by_name:
            return
        sums = torch.stack(list(sums_by_name.values()))
        gathered = [torch.empty_like(sums) for _ in range(trainer.world_size)]
        torch.distributed.all_gather(gathered, sums)
        table = torch.stack(gathered)  # [ranks, parameters]
        differs = (table != table[0]).any(0).tolist()
        wrong = [name for name, moved in zip(sums_by_name, differs, strict=True) if moved]
        if wrong:
            raise RuntimeError(
                f"parameter {wrong[0]!r} differs between the {trainer.world_size} processes after step "
                f"{trainer.global_step} ({len(wrong)} of {len(sums_by_name)} parameters do): its gradient "
                "was not averaged. Let the outer gradient reach the parameters through self.manual_backward "
                "(Recipe.outer_update does), and never assign .grad by hand or call loss.backward()."
            )


class FrozenParameterCheck(Callback):
    """Refuses a training in which a parameter that was not declared trainable has moved.

    Args:
        except_under: prefixes of names that are moved on purpose, without a gradient (averages).
    """

    def __init__(self, except_under: tuple[str, ...] = ("ema.",)) -> None:
        self.except_under = tuple(except_under)
        self.before: dict[str, Tensor] = {}

    def frozen(self, pl_module: LightningModule) -> dict[str, Tensor]:
        """Checksums of what must not move."""
        return checksums(
            (name, p)
            for name, p in pl_module.named_parameters()
            if not p.requires_grad and not name.startswith(self.except_under or ("\0",))
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = self.frozen(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        after = self.frozen(pl_module)
        moved = [
            n for n, was in self.before.items() if n in after and not torch.equal(was, after[n])
        ]
        if moved:
            raise RuntimeError(
                f"frozen parameter {moved[0]!r} has moved during training ({len(moved)} of "
                f"{len(self.before)} frozen ones did); declare it trainable with requires_grad_(True), or "
                "find what writes to it in place."
            )
