"""What ends a run without an adapter, inside one process: full disks, damaged adapters, lost
readers, wrong jobs.
"""

from __future__ import annotations

import errno
import importlib
import io
import math
import py_compile
import shutil
from pathlib import Path
from typing import get_args

import pytest
from safetensors import SafetensorError

from personas.errors import AdapterError, MaterialError, NoMemoryError, RequestError
from personas.schemas.training_events import Done, Phase
from tests.full_disk import files_of_at_most
from tests.trainer.job_folders import dialogue_job, persona_job
from trainer.process.environment import (
    ALLOCATOR_SETTINGS,
    RESTARTED_VARIABLE,
    allocator_environment,
)
from trainer.process.events import EventWriter, failed_event
from trainer.process.run_control import CancelToken, RunCancelled
from trainer.run import run_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")


def run_here(folder, check=lambda: None):
    """The events of a run in this process."""
    received = []
    run_job(folder, RunControl(received.append, check))
    return received


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source)
    with files_of_at_most(4096), pytest.raises(Exception) as caught:
        run_here(folder)
    failed = failed_event(caught.value)
    assert failed.cause == "The disk is full." and failed.retry
    assert "Free some space" in failed.advice and "again" in failed.advice
    assert not [path for path in folder.iterdir() if "adapter" in path.name]


class StopAfter:
    """A check that asks for a stop after so many calls; it counts them."""

    def __init__(self, calls: float) -> None:
        self._calls, self._stop, self.count = calls, CancelToken(), 0

    def __call__(self) -> None:
        self.count += 1
        if self.count > self._calls:
            self._stop.request("the test")
        self._stop.check()


def test_a_stop_is_heeded_in_every_phase_and_leaves_nothing(tmp_path, tiny_base):
    never = StopAfter(math.inf)
    calls_at_phase = {}

    def note_phase(event):
        if isinstance(event, Phase):
            calls_at_phase.setdefault(event.name, never.count)

    run_job(persona_job(tmp_path / "whole", tiny_base.source), RunControl(note_phase, never))
    of_a_card = {"writing replies"}  # test_from_card.py stops there
    phases = set(get_args(Phase.model_fields["name"].annotation)) - of_a_card
    assert calls_at_phase.keys() == phases
    del calls_at_phase["writing"]  # nothing asks there any more: the adapter is whole in a moment
    for calls in calls_at_phase.values():
        folder = persona_job(tmp_path / str(calls), tiny_base.source)
        with pytest.raises(RunCancelled, match="the test"):
            run_here(folder, StopAfter(calls))
        assert not [path for path in folder.iterdir() if "adapter" in path.name]


def test_a_second_run_only_says_so_unless_the_adapter_is_damaged_or_another_jobs(
    tmp_path, tiny_base
):
    folder = dialogue_job(tmp_path, tiny_base.source)
    (folder / ".adapter.abc").mkdir()
    (folder / ".adapter.abc" / "half").write_text("x")
    first = run_here(folder)
    assert not (folder / ".adapter.abc").exists(), "a killed run left it"
    second = run_here(folder)
    assert isinstance(first[-1], Done) and [type(event) for event in second] == [Done]
    assert first[-1].adapter == second[-1].adapter == str(folder / "adapter")
    request = folder / "request.json"
    request.write_text(request.read_text().replace("job-1", "job-2"))
    with pytest.raises(RequestError, match="made by another job"):
        run_here(folder)
    (folder / "adapter" / "README.md").write_text("changed")
    with pytest.raises(AdapterError, match=r"README\.md .*checksum"):
        run_here(folder)


@pytest.mark.parametrize(
    ("error", "cause", "retry"),
    [
        (MaterialError("The log is empty.", "Fill it."), "The log is empty.", False),
        (NoMemoryError("The base model needs 9 GiB.", "Close others."), "needs 9 GiB.", True),
        (MemoryError(), "ran out of memory", True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "ran out of memory",
            True,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full.", True),
        (
            PermissionError(errno.EACCES, "Permission denied", "/jobs/1/lock"),
            "/jobs/1/lock: Permission denied.",
            True,
        ),
        (
            SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"),
            "A file: Permission denied.",
            True,
        ),
        (
            SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            ),
            "The disk is full.",
            True,
        ),
        (shutil.Error([("/a", "/b", "[Errno 27] File too large")]), "The disk is full.", True),
        (
            shutil.Error([("/a", "/b", "[Errno 13] Permission denied: '/b'")]),
            "/b: Permission denied.",
            True,
        ),
        (KeyError("x"), "KeyError: 'x'", False),
    ],
)
def test_every_error_has_one_event(error, cause, retry):
    failed = failed_event(error)
    assert cause in failed.cause and failed.retry is retry and failed.advice


def test_bytecode_that_a_full_disk_cut_off_is_removed_and_the_run_can_go_on(tmp_path, monkeypatch):
    module = tmp_path / "full_of_words.py"
    module.write_text(f"WORDS = {[f'word {number}' for number in range(1000)]}\n")
    cached = Path(py_compile.compile(str(module)))
    cached.write_bytes(cached.read_bytes()[:4096])
    monkeypatch.syspath_prepend(tmp_path)

    def imported_on_demand():  # as trl's modules are
        try:
            return importlib.import_module("full_of_words")
        except Exception as error:
            raise RuntimeError("Failed to import full_of_words") from error

    with pytest.raises(RuntimeError) as caught:
        imported_on_demand()

    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert failed_event(caught.value).cause.endswith("Remove it.") and cached.exists()
    failed = failed_event(caught.value)
    assert failed.cause.startswith(f"{cached} was cut off") and failed.retry
    assert len(imported_on_demand().WORDS) == 1000
    assert not failed_event(EOFError("of another file")).retry


def test_events_outlive_their_reader(tmp_path):
    class Gone(io.StringIO):
        name = "stdout"

        def write(self, _text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    events = EventWriter(Gone())
    with events.also_to(tmp_path / "events.jsonl"):
        for name in ("material", "writing"):
            events.emit(Phase(name=name))
    assert (tmp_path / "events.jsonl").read_text().count("\n") == 2


def test_the_process_starts_again_once_and_keeps_what_was_set():
    environment = allocator_environment({"PATH": "/bin", "MALLOC_TOP_PAD_": "1"})
    if environment is None:
        pytest.skip("another allocator")
    assert environment == {
        **ALLOCATOR_SETTINGS,
        "PATH": "/bin",
        "MALLOC_TOP_PAD_": "1",
        RESTARTED_VARIABLE: "1",
    }
    assert allocator_environment(environment) is None
