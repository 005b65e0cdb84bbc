"""Errors translated, once, into the event that reports them."""

from __future__ import annotations

import logging
import os
import re

from personas.contracts import Failed
from personas.entry import DISK_FULL
from personas.errors import UnderstudyError
from trainer.process.stopping import Stopped

log = logging.getLogger(__name__)


def failure(error: Exception) -> Failed:
    """What went wrong, what to do, and whether the same job could succeed later."""
    match error:
        case Stopped():
            return Failed(cause="stopped", advice=f"Stopped by {error}. Run the same job again.", retry=True)
        case UnderstudyError():
            return Failed(cause=error.message, advice=error.advice, retry=error.can_resume)
    if is_out_of_memory(error):
        advice = "Close other programs, or lower per_device_train_batch_size or max_length."
        return Failed(cause="The machine ran out of memory.", advice=advice, retry=True)
    if (refused := refused_by_disk(error)) is not None:
        if refused.errno in DISK_FULL:
            return Failed(cause="The disk is full.", advice="Free some space, then run the same job again.", retry=True)
        where = refused.filename or "A file"
        return Failed(cause=f"{where}: {refused.strerror}.", advice="Check the path and its rights.", retry=True)
    log.error("unexpected", exc_info=error)
    advice = "This is a fault of the program; the log holds the details."
    return Failed(cause=f"{type(error).__name__}: {error}", advice=advice)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine or its GPU had no memory left."""
    # torch raises RuntimeError on the CPU and a subclass of it on a GPU.
    texts = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)


def refused_by_disk(error: Exception) -> OSError | None:
    """The error as one of reading or writing files, if it is that."""
    if isinstance(error, OSError) and error.errno is not None:
        return error if error.filename or error.errno in DISK_FULL else None
    # safetensors, from Rust, and what copies folders, a line for each file, report the number in the text.
    found = re.search(r"(?:os error |\[Errno )(\d+)(?:\][^:]*: '([^']+)')?", str(error), re.IGNORECASE)
    return OSError(int(found[1]), os.strerror(int(found[1])), found[2]) if found else None
