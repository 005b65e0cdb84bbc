"""A plugin of pytest that keeps the tests' files in memory, where there is room.

The bot has each commit reach the disk. Thousands of tests, each with a database of its own, would
wait for that longer than for all else; a killed process leaves the same files either way. With
`--basetemp` the files are where that says, and stay.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

MEMORY_FOLDER = Path("/dev/shm")
NAME = "understudy-tests"
ROOM = 6 << 30
"""Bytes that must be free: some files of a whole run stay to its end, such as tiny models."""


@pytest.hookimpl(tryfirst=True)  # before pytest has decided on its own folder
def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder in memory, which goes with it; workers get theirs inside it."""
    if config.option.basetemp or not MEMORY_FOLDER.is_dir():
        return
    for left in MEMORY_FOLDER.glob(f"{NAME}-*-*"):  # by a run that was killed
        if not psutil.pid_exists(int(left.name.removeprefix(f"{NAME}-").partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(MEMORY_FOLDER).free < ROOM:
        return
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=MEMORY_FOLDER))
    folder.chmod(0o755)  # as /tmp: some tests become another user
    config.option.basetemp = str(folder / "pytest")
    # What tests and their processes put into the system's folder is there, too.
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    # Registered early, so that it runs after what libraries remove of theirs at the end.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
