"""Memory settings for XLA on Linux CPUs, for entry points only."""

import ctypes
import os
import sys

# mallopt's parameter numbers, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory instead of giving every buffer over 32 MB back to the kernel.

    XLA allocates its buffers anew in every step and would pay for fresh pages each time: an elementwise operation on
    51 MB takes 13 ms instead of 2. All four settings are needed. CGCNN_JAX_MALLOC=default leaves everything alone.

    Returns:
      Whether the settings were made: on Linux with glibc only.
    """
    if not sys.platform.startswith("linux") or os.environ.get("CGCNN_JAX_MALLOC") == "default":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has neither
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
