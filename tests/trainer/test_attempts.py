"""Attempts to run one job on several machines: only the newest one writes."""

import signal
import threading
import time

import pytest
from filelock import FileLock

from personas.errors import MaterialError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import atomic_folder
from personas.home.job_attempt import ATTEMPT_FILE, JobAttempt, begin_attempt, read_attempt
from personas.schemas.training_events import Phase
from tests.trainer.job_folders import events, persona_job, stopping
from tests.trainer.test_run import FOREVER, run, start, wait_for_step
from trainer.cli import main as cli
from trainer.process.events import EventWriter
from trainer.process.run_control import AttemptFence, RunCancelled, SupersededError
from trainer.run import run_job
from trainer.train.training_run import RunControl


def test_an_attempt_is_recorded_with_what_lay_there_before(tmp_path):
    assert read_attempt(tmp_path) == JobAttempt()
    assert begin_attempt(tmp_path) == JobAttempt(attempt=1)
    (tmp_path / "events.jsonl").write_text("12345")
    (tmp_path / "trainer.log").write_text("123")
    (tmp_path / "checkpoints" / "first-stage" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".checkpoint-8.partial").mkdir()
    second = begin_attempt(tmp_path)
    assert second == read_attempt(tmp_path)
    assert second == JobAttempt(
        attempt=2, events_from=5, log_from=3, checkpoints=("checkpoints/first-stage/checkpoint-4",)
    )


def test_a_damaged_record_is_an_error_and_ends_the_run(tmp_path):
    (tmp_path / ATTEMPT_FILE).write_text("{")
    for check in (AttemptFence(tmp_path, 1).check, lambda: begin_attempt(tmp_path)):
        with pytest.raises(MaterialError, match=r"attempt\.json cannot be read"):
            check()
    AttemptFence(tmp_path).check()  # a run without a number ignores the record


def test_an_older_attempt_names_no_folder_and_reports_no_event(tmp_path):
    begin_attempt(tmp_path)
    old = AttemptFence(tmp_path, 1)
    events_file = tmp_path / "events.jsonl"
    with open(tmp_path / "out", "w") as out:  # noqa: PTH123  as standard output
        writer = EventWriter(out)
        with writer.also_to(events_file, old.check):
            writer.emit(Phase(name="material"))
            begin_attempt(tmp_path)
            writer.emit(Phase(name="writing"))
    assert len(events_file.read_text().splitlines()) == 1
    assert len((tmp_path / "out").read_text().splitlines()) == 2, "its own log has everything"
    said = r"Attempt 2 of this job has begun; this is attempt 1\."
    with (
        pytest.raises(SupersededError, match=said),
        atomic_folder(tmp_path / "adapter", old.check) as staging,
    ):
        (staging / "weights").touch()
    assert not [path for path in tmp_path.iterdir() if "adapter" in path.name]


def test_a_superseded_run_writes_no_checkpoint_when_it_is_stopped(tmp_path, tiny_base):
    """A stopped run saves its last step, which the check between two steps alone would not
    prevent.
    """
    folder = persona_job(
        tmp_path / "job", tiny_base.source, hyperparameters={"gradient_accumulation_steps": 1}
    )
    begin_attempt(folder)
    fence = AttemptFence(folder, 1)
    context = stopping(step=1)

    def check():
        try:
            context.check()
        except RunCancelled:
            begin_attempt(folder)
            raise

    with pytest.raises(SupersededError):
        run_job(folder, RunControl(context.emit, check, fence=fence.check))
    assert not list(folder.glob("checkpoints/checkpoint-*")) and not (folder / "adapter").exists()


@pytest.mark.slow  # its parts above take a second
def test_a_run_cut_off_in_mid_training_ends_without_an_adapter_once_it_is_back(
    tmp_path, tiny_base, monkeypatch
):
    """SIGSTOP stands for a partition: the first attempt holds the lock and does not see the
    second.
    """
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    folder = persona_job(tmp_path / "job", tiny_base.source, **FOREVER)
    begin_attempt(folder)
    first = start(folder, "--attempt", "1")
    wait_for_step(first)
    first.send_signal(signal.SIGSTOP)
    begin_attempt(folder)
    try:
        late = run(folder, "--attempt", "1")
        cause = late[1][-1]["cause"]
        assert late[0] == 1 and "Attempt 2" in cause and "this is attempt 1" in cause
        kept = (folder / "events.jsonl").read_bytes()
    finally:
        first.send_signal(signal.SIGCONT)
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 1 and "Attempt 2" in events(out)[-1]["cause"]
    since = (folder / "events.jsonl").read_bytes().removeprefix(kept)
    assert b'"failed"' not in since and not (folder / "adapter").exists()


def test_a_newer_attempt_waits_for_the_lock_of_an_older_one_and_then_goes_on_without_it(
    tmp_path, monkeypatch
):
    begin_attempt(tmp_path)
    monkeypatch.setattr(cli, "ATTEMPT_LOCK_TIMEOUT_S", 0.3)
    held = FileLock(tmp_path / "lock", thread_local=False)
    held.acquire()
    began = time.monotonic()
    with cli._job_lock(AttemptFence(tmp_path, 1)):
        assert time.monotonic() - began >= 0.3
    threading.Timer(0.1, held.release).start()
    began = time.monotonic()
    with cli._job_lock(AttemptFence(tmp_path, 1)):
        assert time.monotonic() - began < 0.3, "it was released in time"
        with pytest.raises(cli.Timeout), cli._job_lock(AttemptFence(tmp_path)):
            pytest.fail("a run without a number never goes on without the lock")


@pytest.mark.slow
def test_two_attempts_at_once_leave_one_adapter(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    folder = persona_job(
        tmp_path / "job", tiny_base.source, hyperparameters={"num_train_epochs": 6}
    )
    begin_attempt(folder)
    first = start(folder, "--attempt", "1", "--checkpoint-every", "1")
    wait_for_step(first)
    first.send_signal(signal.SIGSTOP)
    begin_attempt(folder)
    code, seen, log = run(folder, "--attempt", "2")
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    assert code == 0 and seen[-1]["event"] == "done" and "keeps" in log
    assert first.returncode == 1 and verify_adapter(folder / "adapter").job_id == "job-1"
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == weights
