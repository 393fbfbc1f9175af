"""Settings of a command's own process, made before torch is loaded; what the user's environment says comes first."""

from __future__ import annotations

import ctypes
import os

_KEPT = 1 << 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def tune_process() -> None:
    """Lets waiting threads sleep, and keeps freed memory for the next layer.

    OpenMP's threads spin while they wait, which takes the cores from those that read and write images. And glibc hands
    a large tensor's memory back to the system as soon as it is freed, so that every layer of a network on the CPU has
    its pages mapped and cleared anew, up to half the time of a forward pass.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if any(name.startswith(('MALLOC_', 'GLIBC_TUNABLES')) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is not None:  # glibc
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
