"""Random numbers as functions of a key: the same whatever was drawn before."""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor


def generator(*key: object) -> torch.Generator:
    """A random generator seeded by a key, the same on every machine.

    Example:
        >>> first, second = (generator("val", 0, 3) for _ in range(2))
        >>> torch.rand((), generator=first) == torch.rand((), generator=second)
        tensor(True)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def hash64(z: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The finaliser of splitmix64: a bijection of 64-bit integers whose bits look random.

    Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators". Integer arithmetic wraps
    alike on every device; masks make the shifts logical.
    """
    z = z + -0x61C8864680B583EB  # the golden ratio, as a signed number
    z = (z ^ ((z >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & (2**33 - 1))
