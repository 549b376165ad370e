import ctypes
import platform
import resource

import pytest

from lightning_metakd.recipes.host_allocator import keep_large_blocks

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc's allocator")


@glibc
def test_a_freed_block_is_given_again_without_page_faults():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 64 * 2**20

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert keep_large_blocks()
    faults()
    assert faults() < size / 4096 / 10


@glibc
def test_asking_twice_is_asking_once():
    assert keep_large_blocks()
    assert keep_large_blocks()
