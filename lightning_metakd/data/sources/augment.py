"""Augmentation and normalisation of whole batches, on the device they are on.

A view of an image is a pure function of (seed, index, view): its crop and flip come from an integer
hash of the three, not from a random state. The same view therefore has the same pixels whenever and
wherever it is made, so that a teacher's output for it can be stored and looked up.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from lightning_metakd.data.sources.seeding import hash64
from lightning_metakd.types import Normalisation

PADDING = 4


def augment(
    x: Shaped[Tensor, "n ch h w"], index: Int[Tensor, " n"], view: Int[Tensor, " n"], seed: int = 0
) -> Shaped[Tensor, "n ch h w"]:
    """Each image shifted by up to 4 pixels (black enters at the border) and mirrored half of the time.

    Args:
        index: number of the image.
        view: which of its views; -1 is the image as it is.
        seed: another set of views for the same numbers.
    """
    if view.device.type == "cpu" and (view < 0).all():  # another device would make the host wait
        return x
    bits = hash64(hash64(index + hash64(torch.full_like(index, seed))) ^ view)
    as_is = view < 0
    size = 2 * PADDING + 1
    down = torch.where(as_is, PADDING, (bits & 0xFFFFF) % size)
    right = torch.where(as_is, PADDING, ((bits >> 20) & 0xFFFFF) % size)
    mirrored = ~as_is & ((bits >> 40) & 1).bool()
    windows = F.pad(x, [PADDING] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
    crop = windows[torch.arange(len(x), device=x.device), :, down, right]  # [n ch h w]
    return torch.where(mirrored[:, None, None, None], crop.flip(-1), crop)


def normalise(
    x: UInt8[Tensor, "*n ch h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "*n ch h w"]:
    """(x / 255 - mean) / std of each channel, as float32."""
    shift = torch.tensor(mean, device=x.device)[:, None, None]
    scale = torch.tensor(std, device=x.device)[:, None, None]
    return x.to(torch.float32).mul_(1 / (255 * scale)).sub_(shift / scale)


def renormalise(
    x: Float[Tensor, "*n ch h w"], before: Normalisation, after: Normalisation
) -> Float[Tensor, "*n ch h w"]:
    """Images normalised by `before`, as `after` would have normalised them; equal up to rounding."""
    (shift, scale), (to_shift, to_scale) = (
        [torch.tensor(part, dtype=torch.float64)[:, None, None] for part in of]
        for of in (before, after)
    )
    return x * (scale / to_scale).to(x) + ((shift - to_shift) / to_scale).to(x)
