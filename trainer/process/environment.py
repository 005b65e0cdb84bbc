"""Prepares a training process: home folder, allocator settings, threads and priority."""

import logging
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from personas.cli_common import read_setting
from personas.errors import RequestError

ALLOCATOR_SETTINGS = {
    # Tensors of megabytes come and go at every step. By default glibc maps each anew and gives it
    # back, and the kernel clears every page again: nearly half of the time of a step on the CPU.
    # Kept in the heap they are reused.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}
HEAP_SLACK_BYTES = 128 * 2**20
"""Unused heap that a training run keeps before returning memory (`trainer.train.callbacks`)."""
RESTARTED_VARIABLE = "UNDERSTUDY_TRAINER_RESTARTED"
QUIET_LIBRARY_SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
HOME_VARIABLE = "UNDERSTUDY_HOME"


def restart_with_allocator_settings() -> None:
    """Start this process again, once, with the allocator's settings: glibc reads them only at the
    start.
    """
    environment = allocator_environment(os.environ)
    if environment:
        os.execve(sys.executable, sys.orig_argv, environment)  # nosec B606  # itself again


def allocator_environment(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The environment to start again with, or None where that is done already or the allocator is
    another one.
    """
    if (
        RESTARTED_VARIABLE in environ
        or sys.platform != "linux"
        or platform.libc_ver()[0] != "glibc"
    ):
        return None
    return {**ALLOCATOR_SETTINGS, **environ, RESTARTED_VARIABLE: "1"}


def configure_process(niceness: int, threads: int | None) -> None:
    """Lower this process's priority, fix how many threads compute (None: one a core), and keep
    libraries quiet.

    Several processes of a run share the cores.

    To be called before torch is loaded, which reads the number of threads only then.
    """
    os.environ.update(QUIET_LIBRARY_SETTINGS)
    # Threads that wait for their next piece of work spin; when the bot needs the cores too, that
    # starves both.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # oneDNN keeps a thousand prepared products, one for each length of batch, and each holds a
    # piece of the heap. With 64 a run is as fast and holds some 0.4 GiB less after ten steps; with
    # 16 it is a tenth slower.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ["OMP_NUM_THREADS"] = str(
        threads or max(1, (os.cpu_count() or 1) // local_process_count())
    )
    os.nice(niceness)
    warnings.filterwarnings(
        "ignore", "`(is_)?gradient_checkpointing", FutureWarning
    )  # peft and TRL ask transformers themselves
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s"
    )
    for package in ("httpx", "httpx2"):  # a hub's client logs every request
        logging.getLogger(package).setLevel(logging.WARNING)


def find_home() -> Path:
    """UNDERSTUDY_HOME of the environment or of `.env` here, `~/.understudy` otherwise: as the bot
    finds it.

    Raises `RequestError` where it is no folder, and none can be made.
    """
    named = read_setting(HOME_VARIABLE)
    return require_home(Path(named or "~/.understudy").expanduser().absolute())


def require_home(folder: Path) -> Path:
    """The folder itself. Raises `RequestError` where it or what it is to lie in is a file."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise RequestError(
            f"The home {folder} cannot be used: {there} is no folder.",
            f"Set {HOME_VARIABLE} to a folder.",
        )
    return folder


def local_process_count() -> int:
    """Returns the number of processes on this machine that share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
