"""What reads people's texts in another process while a member is erased stores nothing of them
afterwards.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from bot.training.backend_protocol import TrainingInterrupted, TrainingSucceeded
from bot.training.backends import job_folder_backend, subprocess_backend
from personas.errors import ErasedMeanwhileError, MaterialError
from personas.home import data_subjects
from personas.home.data_subjects import ErasureFence, mark_erasure
from personas.schemas.training_events import Phase
from tests.bot.subprocess_trainer import Workshop
from tests.bot.test_erasure import forget
from tests.bot.traceable_person import GUILD, LINE, left_of_them, plant
from tests.fakes import until

PAUSED = """
import sys
from pathlib import Path
from trainer.anonymise import anonymise_file
from trainer.dataset import writer
from trainer.dataset.synthetic import lore_extraction

FOLDER = Path(sys.argv[1])

def wait(then):
    def paused(*parts, **more):
        done = then(*parts, **more)
        FOLDER.joinpath("ready").touch()
        sys.stdin.readline()
        return done
    return paused

writer.add_to_holdout = wait(writer.add_to_holdout)
anonymise_file.write_rows = wait(anonymise_file.write_rows)
lore_extraction.extract_lore = wait(lore_extraction.extract_lore)
from trainer.cli.main import main
sys.argv[1:] = sys.argv[2:]
sys.exit(main())
"""
"""The trainer's command line; it pauses when its result is complete, but has no name yet."""
TIMEOUT_S = 120


@contextmanager
def paused_trainer(folder, home, *arguments):
    """A real `python -m trainer` that has made its result, until something is written to its
    standard input.
    """
    environ = {**os.environ, "UNDERSTUDY_HOME": str(home)}
    command = [sys.executable, "-c", PAUSED, str(folder), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not (folder / "ready").exists():
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def write_talk(home):
    rows = [{"instruction": f"What is number {n} in the long list of {n * 7} boats?", "output": f"Boat {n} carries {n}"
             f" barrels of {'salt tar rope fish oil peat slate'.split()[n % 7]} and is called "
             f"{n * 31}."}
            for n in range(150)]  # fmt: skip
    source = home / "talk" / "more.jsonl"
    source.write_text(
        "".join(json.dumps(row) + "\n" for row in [{"instruction": "And?", "output": LINE}, *rows])
    )
    return source


@pytest.mark.parametrize("command", ["build", pytest.param("anonymise", marks=pytest.mark.slow)])
def test_a_result_of_the_command_line_is_refused_if_somebody_was_erased_meanwhile(
    tmp_path, command
):
    home = tmp_path / "home"
    plant(home)
    source = write_talk(home)
    out = home / "talk" / "made"
    arguments = {
        "build": ("dataset", "build", "--source", source, "--right", "own-writing", "--out", out),
        "anonymise": (
            "anonymise",
            "--in",
            source,
            "--out",
            out,
            "--report",
            home / "talk" / "report.json",
        ),
    }[command]
    with paused_trainer(tmp_path, home, *arguments) as process:
        staged = [
            path for path in (home / "talk").rglob(".made*") for path in (path, *path.rglob("*"))
        ]
        assert any(path.is_file() and LINE.encode() in path.read_bytes() for path in staged), (
            "it has read their line"
        )
        forget(home)
        _, errors = process.communicate("go\n", timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "erased meanwhile" in errors and "Run it again" in errors
    assert not out.exists() and left_of_them(home) == []


def test_what_was_extracted_from_their_lore_is_not_stored_afterwards(tmp_path):
    home = tmp_path / "home"
    out = tmp_path / "home" / "talk" / "made"
    plant(home)
    words = (
        "lore",
        "extract",
        "--persona",
        "oda",
        "--lore",
        home / "lore" / str(GUILD),
        "--out",
        out,
    )
    with paused_trainer(tmp_path, home, *words) as process:
        forget(home)
        _, errors = process.communicate("go\n", timeout=TIMEOUT_S)
    assert left_of_them(home) == []
    assert (
        process.returncode == 1 and "A member was erased meanwhile" in errors and not out.exists()
    )


def test_a_result_of_before_or_after_an_erasure_is_stored(tmp_path):
    before = ErasureFence.begin(tmp_path)
    with before.storing():
        pass
    mark_erasure(tmp_path, running=True)
    with pytest.raises(ErasedMeanwhileError), before.storing():
        pytest.fail("it may have been missed")
    mark_erasure(tmp_path, running=False)
    with pytest.raises(ErasedMeanwhileError), before.storing():
        pytest.fail("it was read before")
    with ErasureFence.begin(tmp_path).storing():
        pass


def test_one_that_begins_during_an_erasure_waits_for_its_end(tmp_path, monkeypatch):
    mark_erasure(tmp_path, running=True)
    monkeypatch.setattr(data_subjects, "ERASURE_TIMEOUT_S", 0.2)
    with pytest.raises(MaterialError, match="is being erased"):
        ErasureFence.begin(tmp_path)
    monkeypatch.setattr(data_subjects, "ERASURE_TIMEOUT_S", 60)
    threading.Timer(0.3, mark_erasure, (tmp_path,), {"running": False}).start()
    with ErasureFence.begin(tmp_path).storing():
        pass


def test_an_erasure_waits_while_a_result_gets_its_name(tmp_path):
    fence = ErasureFence.begin(tmp_path)
    ended = []
    erasing = threading.Thread(target=lambda: ended.append(mark_erasure(tmp_path, running=True)))
    with fence.storing():
        erasing.start()
        erasing.join(0.3)
        assert not ended
    erasing.join(10)
    assert ended


async def test_the_bots_own_job_gathers_its_material_again(tmp_path, monkeypatch):
    workshop = Workshop(tmp_path)
    gathered = []
    written = job_folder_backend.write_job_folder

    def erase_meanwhile(*inputs, **more):
        gathered.append(inputs)
        if len(gathered) == 1:
            mark_erasure(workshop.home, running=True)
        return written(*inputs, **more)

    monkeypatch.setattr(job_folder_backend, "write_job_folder", erase_meanwhile)
    running = asyncio.create_task(workshop.run("good"))
    await until(lambda: len(gathered) == 1)
    await asyncio.sleep(0.3)
    assert len(gathered) == 1 and not workshop.folder().exists(), (
        "it waits for the end of the erasure"
    )
    mark_erasure(workshop.home, running=False)
    assert isinstance(await running, TrainingSucceeded) and len(gathered) == 2
    workshop.store.close()


async def test_a_job_waits_for_an_erasure_that_takes_long_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(data_subjects, "ERASURE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(subprocess_backend, "ERASURE_POLL_INTERVAL_S", 0.1)
    workshop = Workshop(tmp_path)
    mark_erasure(workshop.home, running=True)
    running = asyncio.create_task(workshop.run("good"))
    await until(lambda: len(workshop.events) > 3)
    assert not running.done() and not workshop.folder().exists()
    waits = Phase(name="material", detail="A member is being erased; it begins afterwards.")
    assert set(workshop.events) == {waits}
    mark_erasure(workshop.home, running=False)
    assert isinstance(await running, TrainingSucceeded)
    workshop.store.close()


async def test_a_job_that_waits_for_an_erasure_can_be_interrupted_by_it(tmp_path):
    """An erasure sets the jobs aside whose folders have the person: it must not wait for one that
    waits for it.
    """
    workshop = Workshop(tmp_path)
    backend = workshop.backend("good")
    mark_erasure(workshop.home, running=True)
    running = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: workshop.events)
    backend.cancel("j1")
    assert await asyncio.wait_for(running, 5) == TrainingInterrupted()
    assert not workshop.folder().exists()
    workshop.store.close()
