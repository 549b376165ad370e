"""Procedural images: a few-shot source that needs no files.

Each class is a shape filled with a texture. Twenty shapes are the superclasses, five of ten textures
in each make the hundred classes; a novel class is a new pairing of known parts. Everything else about an image is
nuisance: position, size, angle, colours, contrast, a textured and cluttered background, noise. Pixels
and untrained networks are therefore nearly lost, and features learned on base classes carry over.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lightning_metakd.data.episodes import generator
from lightning_metakd.data.source import Labelled, Source, divide_train, rows_of

SHAPES = tuple(
    f"{'hollow' if hollow else 'full'}_{'sharp' if sharp else 'round'}_{lobes}"
    for lobes in (1, 2, 3, 4, 6)
    for sharp in (False, True)
    for hollow in (False, True)
)
TEXTURES = (
    "level", "upright", "rising", "falling", "checks",
    "fine_level", "fine_upright", "rings", "dots", "plain",
)  # fmt: skip
SIDE = 32


class Synthetic(Source):
    """Procedural colour images of 32 x 32: 100 classes in 20 superclasses, 64 base, 16 and 20 novel ones.

    Args:
        per_class: images of each class.
        seed: of the images; the classes and their split stay the same.
    """

    def __init__(self, per_class: int = 200, seed: int = 0) -> None:
        if per_class < 2:
            raise ValueError(f"per_class={per_class} leaves no image to query; choose 2 or more.")
        self.per_class, self.seed = per_class, seed

    def everything(self) -> Labelled:
        return generate(self.per_class, self.seed)

    def select(self, split: str) -> Int[Tensor, " n"]:
        order = torch.randperm(100, generator=generator("synthetic classes")).tolist()
        train, val, test = sorted(order[:64]), order[64:80], order[80:]
        teacher, strategy = divide_train([[str(c)] for c in train])
        chosen = {
            "train": train,
            "val": val,
            "test": test,
            "teacher": teacher,
            "strategy": strategy,
        }
        return rows_of(self.everything().y, map(int, chosen[split]))


@lru_cache(maxsize=2)
def generate(per_class: int, seed: int) -> Labelled:
    """All images, drawn in a fixed order of classes; a pure function, remembered."""
    names = [f"{shape}_{TEXTURES[t]}" for s, shape in enumerate(SHAPES) for t in textures_of(s)]
    y = torch.arange(100).repeat_interleave(per_class)
    x = torch.empty(len(y), 3, SIDE, SIDE, dtype=torch.uint8)
    for part in torch.arange(len(y)).split(1000):
        x[part] = draw(y[part], generator("synthetic", seed, int(part[0])))
    return Labelled(x, y, torch.arange(len(y)), tuple(names))


def textures_of(shape: int) -> list[int]:
    """The five textures that occur with a shape."""
    return [(shape + 2 * i + (i * shape) // 5) % 10 for i in range(5)]


#                 first wave    second wave   rings  weights: first, product, rings, both
WAVES = torch.tensor([
    [0.0, 4.0,   0.0, 0.0,   0.0,   1, 0, 0, 0],  # level
    [4.0, 0.0,   0.0, 0.0,   0.0,   1, 0, 0, 0],  # upright
    [2.8, 2.8,   0.0, 0.0,   0.0,   1, 0, 0, 0],  # rising
    [2.8, -2.8,  0.0, 0.0,   0.0,   1, 0, 0, 0],  # falling
    [3.0, 0.0,   0.0, 3.0,   0.0,   0, 1, 0, 0],  # checks
    [0.0, 6.5,   0.0, 0.0,   0.0,   1, 0, 0, 0],  # fine_level
    [6.5, 0.0,   0.0, 0.0,   0.0,   1, 0, 0, 0],  # fine_upright
    [0.0, 0.0,   0.0, 0.0,   4.0,   0, 0, 1, 0],  # rings
    [3.5, 3.5,   3.5, -3.5,  0.0,   0, 0, 0, 1],  # dots
    [0.0, 0.0,   0.0, 0.0,   0.0,   0, 0, 0, 0],  # plain
])  # fmt: skip


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
    behind = ground + clutter(across, down, uniform, random)
    front = ground + contrast + stripes * texture[:, None]
    image = torch.lerp(behind, front, mask[:, None])
    image = image * uniform(0.7, 1.2, 1, 1, 1) + NOISE * torch.randn(image.shape, generator=random)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def direction(n, random):
    """A random direction in colour space."""
    d = torch.randn(n, 3, 1, 1, generator=random)
    return d / d.norm(dim=1, keepdim=True)


def silhouette(u, v, shape, size):
    """How far each pixel is inside the shape, 0 to 1."""
    lobes = torch.tensor([2, 3, 4, 5, 6])[shape // 4][:, None, None]
    sharp, hollow = ((shape // 2) % 2)[:, None, None], (shape % 2)[:, None, None]
    turn = torch.atan2(v, u) * lobes
    wave = torch.where(sharp == 1, 2 * torch.asin(turn.cos()) / math.pi, turn.cos())
    level = (u.square() + v.square()).sqrt() / (size * (1 + 0.3 * wave))
    outside = (level - 1) * 12
    inside = (0.5 - level) * 12 * hollow - 12 * (1 - hollow)
    return torch.sigmoid(-torch.maximum(outside, inside))


def fill(u, v, texture, uniform):
    waves = WAVES[texture][:, :, None, None]
    first = torch.cos(math.pi * (waves[:, 0] * u + waves[:, 1] * v) + uniform(0, 6.28))
    second = torch.cos(math.pi * (waves[:, 2] * u + waves[:, 3] * v) + uniform(0, 6.28))
    rings = torch.cos(math.pi * waves[:, 4] * (u.square() + v.square()).sqrt() + uniform(0, 6.28))
    return (
        waves[:, 5] * first
        + waves[:, 6] * first * second
        + waves[:, 7] * rings
        + waves[:, 8] * torch.maximum(first, second)
    )


def clutter(across, down, uniform, random):
    """Background: soft blotches and a grating of random direction and pitch."""
    n = len(uniform(0, 1))
    blotches = torch.nn.functional.interpolate(
        torch.randn(n, 3, 6, 6, generator=random), SIDE, mode="bilinear"
    )
    angle, pitch = uniform(0, math.pi), uniform(2.5, 7)
    grating = torch.cos(
        math.pi * pitch * (across * angle.cos() + down * angle.sin()) + uniform(0, 6.28)
    )
    return (
        BLOTCHES * blotches + uniform(0, GRATING, 1, 1, 1) * direction(n, random) * grating[:, None]
    )


SHIFT, TURN, SIZE, CONTRAST, STRIPES, NOISE, BLOTCHES, GRATING = (
    0.3,
    0.3,
    (0.5, 0.75),
    (0.1, 0.35),
    (0.1, 0.3),
    0.05,
    0.06,
    0.2,
)
