"""Procedural images: a few-shot source that needs no files.

Each class is a shape filled with a texture. Twenty shapes are the superclasses, five of ten textures in
each make the hundred classes; a novel class is a new pairing of known parts. Everything else about an
image is nuisance: position, size, angle, colours, contrast, a textured and blotchy background, noise.
Pixels and untrained networks are therefore nearly lost, and features learned on base classes carry over.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer, check_seed
from lightning_metakd.data.sources.class_splits import class_ids, few_shot_splits, rows_of
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.data.sources.source import Labelled, Source

MOST_PER_CLASS = 10_000
"""So many take 3 GB of memory."""
LOBES = (2, 3, 4, 5, 6)
SHAPES = tuple(
    f"{'hollow' if hollow else 'full'}_{'sharp' if sharp else 'round'}_{lobes}"
    for lobes in LOBES
    for sharp in (False, True)
    for hollow in (False, True)
)
#   first wave   second wave  rings  weights of first, product, rings, larger
TEXTURES = {
    "level": (0.0, 4.0, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "upright": (4.0, 0.0, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "rising": (2.8, 2.8, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "falling": (2.8, -2.8, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "checks": (3.0, 0.0, 0.0, 3.0, 0.0, 0, 1, 0, 0),
    "fine_level": (0.0, 6.5, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "fine_upright": (6.5, 0.0, 0.0, 0.0, 0.0, 1, 0, 0, 0),
    "rings": (0.0, 0.0, 0.0, 0.0, 4.0, 0, 0, 1, 0),
    "dots": (3.5, 3.5, 3.5, -3.5, 0.0, 0, 0, 0, 1),
    "plain": (0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0),
}
# what hides a class: place and radius of the object (the image spans -1 to 1), its turn in radians,
# how far its colours lie from the background's and from one another, and what lies behind and above it
SHIFT, TURN, SIZE, CONTRAST, STRIPES = 0.3, 0.3, (0.5, 0.75), (0.16, 0.46), (0.16, 0.42)
NOISE, BLOTCHES, GRATING = 0.04, 0.05, 0.08
Uniform = Callable[..., Float[Tensor, "n ..."]]
SIDE = 32


def textures_of(shape: int) -> list[int]:
    """The five textures that occur with a shape."""
    return [(shape + i * (1 if shape % 2 else 3)) % 10 for i in range(5)]


CLASSES = tuple(
    f"{shape}_{list(TEXTURES)[t]}" for s, shape in enumerate(SHAPES) for t in textures_of(s)
)


class Synthetic(Source):
    """Procedural colour images of 32 x 32: 100 classes in 20 superclasses, 64 base, 16 and 20 novel ones.

    Args:
        per_class: images of each class, 2 to 10,000.
        seed: of the images; the classes and their split stay the same.

    Raises:
        ValueError: if a class would have fewer than 2 images, or a number is out of range.

    Example:
        >>> from lightning_metakd.data.sources import Synthetic
        >>> source = Synthetic(per_class=2)
        >>> source.all_rows().x.shape, len(source.rows("train")), len(source.rows("test"))
        (torch.Size([200, 3, 32, 32]), 128, 40)
    """

    def __init__(self, per_class: int = 200, seed: int = 0) -> None:
        check_integer("data.source.per_class", per_class, 1, MOST_PER_CLASS)
        if per_class == 1:
            raise ValueError("per_class=1 leaves no image to query; choose 2 or more.")
        check_seed("data.source.seed", seed)
        self.per_class, self.seed = per_class, seed

    def all_rows(self) -> Labelled:
        return generate(self.per_class, self.seed)

    @property
    def superclasses(self) -> dict[str, str]:
        """The twenty shapes."""
        return {name: SHAPES[i // 5] for i, name in enumerate(CLASSES)}

    def select(self, split: str) -> Int[Tensor, " n"]:
        labelled = self.all_rows()
        return rows_of(labelled.y, class_ids(split, split_names(), labelled.class_names))


@lru_cache
def split_names() -> dict[str, list[str]]:
    """Class names of each split: 64, 16 and 20 classes drawn once and for all."""
    order = torch.randperm(100, generator=generator("synthetic classes")).tolist()
    train, val, test = (
        [CLASSES[c] for c in sorted(p)] for p in (order[:64], order[64:80], order[80:])
    )
    return few_shot_splits(train, val, test)


@lru_cache(maxsize=2)
def generate(per_class: int, seed: int) -> Labelled:
    """All images in the order of their classes: a pure function of its arguments, cached."""
    y = torch.arange(100).repeat_interleave(per_class)
    x = torch.empty(len(y), 3, SIDE, SIDE, dtype=torch.uint8)
    for part in torch.split(torch.arange(len(y)), 1000):
        x[part] = draw(y[part], generator("synthetic", seed, int(part[0])))
    return Labelled(x, y, torch.arange(len(y)), CLASSES)


def draw(y: Int[Tensor, " n"], random: torch.Generator) -> UInt8[Tensor, "n 3 h w"]:
    """One image of each class in `y`."""
    n = len(y)

    def uniform(low: float, high: float, *shape: int) -> Float[Tensor, "n ..."]:
        return low + (high - low) * torch.rand(n, *(shape or (1, 1)), generator=random)

    line = torch.linspace(-1, 1, SIDE)
    across, down = line.expand(SIDE, SIDE), line[:, None].expand(SIDE, SIDE)
    # the object's own frame
    a, b = across - uniform(-SHIFT, SHIFT), down - uniform(-SHIFT, SHIFT)
    angle = uniform(-TURN, TURN)
    u, v = a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()
    shape = y // 5
    mask = silhouette(u, v, shape, uniform(*SIZE))
    texture = fill(u, v, torch.tensor([textures_of(s) for s in range(20)]).flatten()[y], uniform)
    # colours: fill differs from background by a random direction, its texture by another
    ground = uniform(0.25, 0.75, 3, 1, 1)
    contrast = uniform(*CONTRAST, 1, 1, 1) * direction(n, random)
    stripes = uniform(*STRIPES, 1, 1, 1) * direction(n, random)
    behind = ground + clutter(across, down, n, uniform, random)
    front = ground + contrast + stripes * texture[:, None]
    image = torch.lerp(behind, front, mask[:, None])
    image = image * uniform(0.7, 1.2, 1, 1, 1) + NOISE * torch.randn(image.shape, generator=random)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def direction(n: int, random: torch.Generator) -> Float[Tensor, "n 3 1 1"]:
    """A random direction in colour space."""
    return F.normalize(torch.randn(n, 3, 1, 1, generator=random), dim=1)


def silhouette(
    u: Float[Tensor, "n h w"],
    v: Float[Tensor, "n h w"],
    shape: Int[Tensor, " n"],
    size: Float[Tensor, "n 1 1"],
) -> Float[Tensor, "n h w"]:
    """How far each pixel is inside the shape, 0 to 1: r < size * (1 + wave(lobes * angle))."""
    lobes = torch.tensor(LOBES)[shape // 4][:, None, None]
    sharp, hollow = (shape // 2 % 2)[:, None, None], (shape % 2)[:, None, None]
    turn = torch.cos(torch.atan2(v, u) * lobes)
    wave = torch.where(sharp == 1, 2 / math.pi * torch.asin(turn.clamp(-1, 1)), turn)
    level = (u.square() + v.square()).sqrt() / (size * (1 + 0.3 * wave))
    beyond = torch.maximum(level - 1, torch.where(hollow == 1, 0.5 - level, -1.0))
    return torch.sigmoid(-12 * beyond)


def fill(
    u: Float[Tensor, "n h w"],
    v: Float[Tensor, "n h w"],
    texture: Int[Tensor, " n"],
    uniform: Uniform,
) -> Float[Tensor, "n h w"]:
    """The texture in the object's frame, between -1 and 1."""
    table = torch.tensor([TEXTURES[name] for name in TEXTURES])[texture]
    waves = table[:, :, None, None].unbind(1)
    first = torch.cos(math.pi * (waves[0] * u + waves[1] * v) + uniform(0.0, 2 * math.pi))
    second = torch.cos(math.pi * (waves[2] * u + waves[3] * v) + uniform(0.0, 2 * math.pi))
    rings = torch.cos(
        math.pi * waves[4] * (u.square() + v.square()).sqrt() + uniform(0.0, 2 * math.pi)
    )
    mixed = waves[5] * first + waves[6] * first * second + waves[7] * rings
    return mixed + waves[8] * torch.maximum(first, second)


def clutter(
    across: Float[Tensor, "h w"],
    down: Float[Tensor, "h w"],
    n: int,
    uniform: Uniform,
    random: torch.Generator,
) -> Float[Tensor, "n 3 h w"]:
    """Background: soft blotches and a grating of random direction and pitch."""
    blotches = F.interpolate(
        torch.randn(n, 3, 6, 6, generator=random), SIDE, mode="bilinear", align_corners=False
    )
    angle, pitch = uniform(0.0, math.pi), uniform(2.5, 7.0)
    along = across * angle.cos() + down * angle.sin()
    grating = torch.cos(math.pi * pitch * along + uniform(0.0, 2 * math.pi))[:, None]
    strength = uniform(0.0, GRATING, 1, 1, 1) * direction(n, random)
    return BLOTCHES * blotches + strength * grating
