"""Doing without root's powers, so that what rights forbid is forbidden in tests that root runs
too.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VERSION_3 = 0x20080522
OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of capabilities(7)."""


@contextmanager
def without_overrides() -> Iterator[None]:
    """Inside, this thread is bound by file rights, root's too."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root's powers can only be laid down on Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held):
        pytest.skip("this kernel does not say which powers root has")
    less = (ctypes.c_uint32 * 6)(*held)
    less[0] &= ~OVERRIDES  # effective only: what is permitted can be taken up again
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0
