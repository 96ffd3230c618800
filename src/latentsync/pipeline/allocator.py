"""Freed pictures go back to the system at once, so that memory does not grow with a video."""

import ctypes
from functools import lru_cache

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h of glibc
# Pictures of 1080p and what a network hands on are larger, and are few enough for calls of mmap.
LARGE_BYTES = 4 * 2**20
ARENAS = 2


@lru_cache(maxsize=1)
def return_large_blocks() -> bool:
    """For this process from now on; False where malloc is not glibc's.

    Left alone, glibc raises its threshold up to 32 MiB and keeps freed pictures between smaller
    blocks: at 1080p some 200 MB, the more the longer a video is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_ARENA_MAX, ARENAS))
