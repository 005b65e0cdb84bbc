"""A training run can be read from `run_job` on: no step calls back into the run."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

import pytest

from tests.trainer.job_folders import persona_job
from trainer.run import run_job
from trainer.train.training_run import RunControl

SERVICES = ("sources", "anonymise", "estimate", "evaluate", "gate")
"""Folders with one entry each, which are read or skipped as a whole."""
IMPORT = "import"
TRAINER = Path(sys.modules["trainer"].__file__ or "").parent


@functools.cache
def unit_of(code: CodeType) -> str:
    """Name the trainer's file of a function, such as `data.loader`; a service is one unit; empty
    for other code.
    """
    file = Path(code.co_filename)
    if not file.is_relative_to(TRAINER):
        return ""
    if code.co_name == "<module>":
        return IMPORT
    parts = file.relative_to(TRAINER).with_suffix("").parts
    return parts[0] if parts[0] in SERVICES else ".".join(parts)


def folder_of(unit: str) -> str:
    return unit.rpartition(".")[0]


@pytest.mark.slow
def test_no_step_of_a_run_calls_back_into_it(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters={"num_train_epochs": 1})
    calls: set[tuple[str, str]] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or (callee := unit_of(frame.f_code)) in ("", IMPORT):
            return
        caller = frame.f_back
        while caller and not unit_of(caller.f_code):
            caller = caller.f_back
        if caller:
            calls.add((unit_of(caller.f_code), callee))

    sys.setprofile(profile)
    threading.setprofile(profile)
    try:
        run_job(folder, RunControl(card="losses"))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    steps = {
        (caller, callee) for caller, callee in calls if caller not in (callee, IMPORT, *SERVICES)
    }
    entered = {
        callee
        for caller, callee in steps
        if "." not in callee or folder_of(caller) != folder_of(callee)
    }
    # Printed for readers of the walk: `pytest -s` shows the files that a run enters.
    print(len(entered | {"run"}), *sorted(entered))
    assert "run" not in entered
