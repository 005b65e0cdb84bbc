"""Stands in for a full disk: the system takes no files beyond a size."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Have writes beyond so many bytes fail in this process, with the error that a full disk gives
    in all but its number.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    stored_none = sys.dont_write_bytecode
    # Of a module that is imported meanwhile, a part of the bytecode would stay in the environment.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = stored_none
