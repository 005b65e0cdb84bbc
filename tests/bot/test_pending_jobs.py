"""Jobs that wait, while a member withdraws or a message changes: what may have their words goes, and
nothing else.
"""

import asyncio
import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from bot.privacy import consent_files
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.pending_jobs import remove_set_aside, set_aside_history
from bot.store import ConsentDecision
from bot.training.backend_protocol import TrainingFailed
from bot.training.store import NewTrainingJob
from personas.home import atomic_files
from personas.home.atomic_files import delete_abandoned_folders
from personas.home.data_subjects import Consent, read_consent, write_consent, write_people
from personas.home.job_folder import ensure_job_folder
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.written_replies import review_file, written_file
from personas.schemas.training import TrainingRequest
from tests.bot.test_edits_and_deletions import say
from tests.fakes import until

WREN = 4711
"""A member who has opted in; other members have other ids."""


def folder_of(path, job_id, right="discord-api", opted_in=(), people=()):
    """A job's folder, with replies that a model has written."""
    folder = path / "jobs" / job_id
    written_file(folder).parent.mkdir(parents=True)
    written_file(folder).write_text("written\n")
    (folder / "request.json").write_text(json.dumps({"materials": [{"right": right}]}))
    write_consent(folder, Consent(permission="stated", opted_in=frozenset(map(str, opted_in))))
    key = HomeKey.of(path).people()
    write_people(folder, {keyed_person(key, str(person)): 1 for person in people})
    return folder


def is_whole(folder):
    return (folder / "request.json").exists()


async def decide(home, tmp_path, user_id, *, opted_in):
    decision = ConsentDecision(user_id, opted_in, at=1.0, language="en")
    await ConsentMirror(tmp_path, home.store).decide(decision)


async def test_opting_out_takes_only_what_may_have_the_member_s_words(home, tmp_path):
    await decide(home, tmp_path, WREN, opted_in=True)
    card = folder_of(tmp_path, home.ask("oda", guild=1), right="own-writing", opted_in=[WREN])
    others = folder_of(tmp_path, home.ask("oda", guild=2), opted_in=[5])
    theirs = folder_of(tmp_path, home.ask("oda", guild=3), opted_in=[5, WREN])
    taught = folder_of(tmp_path, home.ask("oda", guild=4), right="form", people=[WREN])
    everything = [card, others, theirs, taught]
    await decide(home, tmp_path, 6, opted_in=False)
    assert all(map(is_whole, everything)), "they have never opted in"
    await decide(home, tmp_path, WREN, opted_in=False)
    assert [is_whole(folder) for folder in everything] == [True, True, False, False]
    left = {path.name for folder in (theirs, taught) for path in folder.rglob("*")}
    assert left == {"written", "replies.jsonl"}
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {it.name for it in everything}


async def test_a_kill_within_a_withdrawal_leaves_nothing_that_a_job_would_use(
    home, tmp_path, monkeypatch
):
    await decide(home, tmp_path, WREN, opted_in=True)
    folder = folder_of(tmp_path, home.ask(), opted_in=[WREN])

    def killed(home):
        raise OSError("killed")

    monkeypatch.setattr(consent_files, "remove_set_aside", killed)
    with pytest.raises(OSError, match="killed"):
        await decide(home, tmp_path, WREN, opted_in=False)
    assert home.store.people.opted_in() == set() and not is_whole(folder)
    (aside,) = (tmp_path / "jobs").glob(".*")
    os.utime(aside, (0, 0))
    assert delete_abandoned_folders(tmp_path / "jobs") == [aside], "as at the next start"


async def test_the_folder_that_is_written_again_takes_over_the_written_replies(home, tmp_path):
    job = home.store.jobs.get(home.ask("oda", dataset="history"))
    folder = folder_of(tmp_path, job.job_id)
    review_file(folder).touch()
    assert set_aside_history(tmp_path, home.store, 1)
    for _ in range(2):
        made = ensure_job_folder(folder, tmp_path, job.job_id, "v1", job.request, (), "float32")
        assert is_whole(made) and written_file(made).read_text() == "written\n"
        assert review_file(made).exists()
    remove_set_aside(tmp_path)
    assert [*(tmp_path / "jobs").iterdir()] == [folder]


async def test_a_withdrawal_counts_where_a_waiting_job_cannot_be_changed(
    home, tmp_path, monkeypatch
):
    await decide(home, tmp_path, WREN, opted_in=True)
    folder_of(tmp_path, home.ask(), opted_in=[WREN])
    monkeypatch.setattr(Path, "rename", unwritable)
    with pytest.raises(PermissionError):
        await decide(home, tmp_path, WREN, opted_in=False)
    assert home.store.people.opted_in() == set() and not read_consent(tmp_path).opted_in


def unwritable(path, target):
    raise PermissionError(path)


async def test_what_a_model_wrote_stays_when_the_folder_cannot_be_written_again(
    home, tmp_path, monkeypatch
):
    job = home.store.jobs.get(home.ask("oda", dataset="history"))
    folder = folder_of(tmp_path, job.job_id)
    assert set_aside_history(tmp_path, home.store, 1)
    write_again = partial(
        ensure_job_folder, folder, tmp_path, job.job_id, "v1", job.request, (), "float32"
    )
    with monkeypatch.context() as patch:
        # The old folder got another name, and the new one cannot have its own.
        patch.setattr(
            atomic_files, "replace_durably", lambda source, target: unwritable(source, target)
        )
        with pytest.raises(PermissionError):
            write_again()
    assert written_file(folder).read_text() == "written\n"
    # Killed in that moment.
    folder.rename(folder.with_name(f".{folder.name}.earlier"))
    assert written_file(write_again()).read_text() == "written\n"
    remove_set_aside(tmp_path)
    assert [*(tmp_path / "jobs").iterdir()] == [folder]


async def test_history_is_read_again_by_the_waiting_jobs_of_its_server(home, tmp_path):
    card = folder_of(tmp_path, home.ask("oda"))
    here, elsewhere = (
        folder_of(tmp_path, home.ask("thrip", guild=guild, dataset="history")) for guild in (1, 2)
    )
    written_file(here).unlink()
    written_file(here).parent.rmdir()
    assert set_aside_history(tmp_path, home.store, 1)
    assert not here.exists() and is_whole(card) and is_whole(elsewhere)
    assert not set_aside_history(tmp_path, home.store, 1)


async def test_a_running_job_keeps_its_folder_and_a_resumable_one_does_not(home, tmp_path):
    home.queue.start()
    for can_resume in (True, False):
        folder = folder_of(tmp_path, home.ask("thrip", dataset="history"))
        await home.running()
        assert not set_aside_history(tmp_path, home.store, 1)
        await home.finish(TrainingFailed("The disk is full.", can_resume=can_resume))
        assert set_aside_history(tmp_path, home.store, 1) == can_resume
        assert is_whole(folder) != can_resume


async def test_an_edit_and_a_deletion_reach_the_waiting_jobs_of_their_server(stage, tmp_path):
    guild = stage.sandbox.guild_id
    first, second = await say(stage, "one", "two")
    folders = []
    for place, persona in ((guild, "ballast"), (guild + 1, "ballast")):
        request = TrainingRequest(job_name="j", persona=persona, dataset="history")
        stage.store.jobs.add(NewTrainingJob(f"job-{place}", place, 2, 3, request), time.time())
        folders.append(folder_of(tmp_path, f"job-{place}"))
    here, elsewhere = folders
    for change in (stage.member.edit(first, "one, but otherwise"), stage.member.delete(second)):
        await change
        await until(lambda: not is_whole(here))
        await until(lambda: not [*(tmp_path / "jobs").glob(".*")])
        assert is_whole(elsewhere)
        (here / "request.json").touch()
    channel = stage.client.get_channel(int(first["channel_id"]))
    stage.client.dispatch("guild_channel_delete", channel)
    await until(lambda: not is_whole(here))
    await asyncio.sleep(0.05)
    assert is_whole(elsewhere) and written_file(here).exists()
