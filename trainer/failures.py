"""Errors translated, once, into the event that reports them."""

from __future__ import annotations

import errno
import logging

from personas.contracts import Failed
from personas.errors import UnderstudyError
from trainer.job_watch import JobGoneError
from trainer.stopping import Stopped

log = logging.getLogger(__name__)

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def failure(error: Exception) -> Failed:
    """What went wrong, what to do, and whether the same job could succeed later."""
    match error:
        case Stopped():
            return Failed(cause="stopped", advice=f"Stopped by {error}. Run the same job again.", retry=True)
        case JobGoneError():
            return Failed(cause=error.message, advice=error.advice, retry=True)
        case UnderstudyError():
            return Failed(cause=error.message, advice=error.advice)
    if is_out_of_memory(error):
        advice = "Close other programs, or lower per_device_train_batch_size or max_length."
        return Failed(cause="The machine ran out of memory.", advice=advice, retry=True)
    if _is_disk_full(error):
        return Failed(cause="The disk is full.", advice="Free some space, then run the same job again.", retry=True)
    if isinstance(error, OSError) and error.filename:
        return Failed(cause=f"{error.filename}: {error.strerror}.", advice="Check the path and its rights.", retry=True)
    log.error("unexpected", exc_info=error)
    advice = "This is a fault of the program; the log holds the details."
    return Failed(cause=f"{type(error).__name__}: {error}", advice=advice)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine or its GPU had no memory left."""
    # torch raises RuntimeError on the CPU and a subclass of it on a GPU.
    texts = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    # safetensors writes from Rust and reports the number in the text.
    return any(f"os error {number}" in str(error).lower() for number in DISK_FULL)
