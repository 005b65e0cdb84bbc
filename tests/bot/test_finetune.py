"""Retraining from Discord: start, progress, cancel, promote, roll back, and who may."""

import asyncio
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from discord import app_commands

from bot.platform.messages import MAX_MESSAGE_CHARS
from bot.store import InstalledVersion, JobResult
from bot.training import discord_progress
from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from bot.training.queue import JobQueue
from bot.training.repeat import is_repeatable
from bot.training.teacher_text import BUNDLED_MODEL_TEXT
from personas.errors import RequestError
from personas.schemas.training import Teacher, TrainingRequest
from personas.schemas.training_events import Epoch, Progress
from sandbox import SandboxRefusal, message_text
from sandbox.message_components import all_components
from tests.bot.conftest import INN, OFFICE, PROGRESS_INTERVAL_S, QUAY, on_stage
from tests.fakes import until
from tests.samples import SCORECARD

STEP = Progress(
    step=10, of=40, epoch=0.75, loss=2.345, lr=1e-3, tokens_per_s=456.7, eta_s=95.0, memory_bytes=2**30,
    done=0.42, left_s=290.0,
)  # fmt: skip


async def start(stage, channel=QUAY, **options):
    answer = await stage.moderator.slash(channel, "finetune start", **options)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.text


async def test_the_whole_way_from_start_to_promote_to_rollback(stage, monkeypatch):
    words = await start(stage, epochs=1.5, job_name="try_1")
    assert words.startswith("Queued as") and BUNDLED_MODEL_TEXT in words
    await until(lambda: stage.backend.busy)
    job = stage.backend.runs[0]
    assert job.request.persona == "ballast" and job.request.hyperparameters.num_train_epochs == 1.5
    assert job.request.job_name == "try_1" and job.request.base_model == "embedded"
    stage.backend.on_event(STEP)
    shown = await stage.sees("step 10 of 40 · loss 2.345 · 457 tokens/s")
    assert "42% · training · ready in about 5 min\n" in shown["content"] and shown["components"]
    stage.backend.on_event(STEP.model_copy(update={"left_s": 230.0, "most_left_s": 430.0}))
    await stage.sees("42% · training · ready in about 4–7 min\n")
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "is_late", lambda queue, job_id: job_id == job.job_id)
        await stage.sees("42% · training · it takes longer than expected\n")
    stage.backend.on_event(Epoch(epoch=1, train_loss=2.0, eval_loss=2.1, seconds=9.0))
    stage.backend.on_event(
        STEP.model_copy(update={"step": 20, "trouble": "No checkpoint could be written."})
    )
    await stage.sees("⚠ No checkpoint could be written. It is tried again.")
    stage.backend.finish()
    result = await stage.sees("Trained: **Ballast v1**")
    assert result["id"] != shown["id"], "a new message, which people are told of"
    old = await stage.sees("Training ended: **Ballast v1**")
    assert old["id"] == shown["id"] and not old["components"]
    shown = message_text(result)
    assert "loss 3.000 → **2.000**" in shown and "33% lower; 12 replies" in shown

    await stage.moderator.click(result, "Promote")
    await stage.sees("v1 of **Ballast** is live")
    assert stage.engine.loaded[0].name == "ballast-v1"
    for channel, version in ((QUAY, "v1"), (INN, "base model")):
        mark = stage.mark
        await stage.member.say(channel, "hello")
        assert f"AI-written · {version}" in (await stage.finished(channel, mark))["content"]

    await until(lambda: buttons_of(stage, result) == ["Roll back", "Repeat with changes"])
    await stage.moderator.click(result, "Roll back")
    await stage.sees("Rolled back: the base model answers for **Ballast**")
    mark = stage.mark
    await stage.member.say(QUAY, "hello again")
    assert "AI-written · base model" in (await stage.finished(QUAY, mark))["content"]
    await until(lambda: buttons_of(stage, result) == ["Promote", "Repeat with changes"])


def buttons_of(stage, message):
    shown = next(m for m in stage.sandbox.messages(QUAY) if m["id"] == message["id"])
    return [each["label"] for each in all_components(shown["components"]) if "label" in each]


async def test_other_channels_are_answered_while_a_training_runs(stage):
    await start(stage)
    await until(lambda: stage.backend.busy)
    for channel in (QUAY, INN):
        mark = stage.mark
        await stage.member.say(channel, "still here?")
        await stage.finished(channel, mark)


async def test_a_member_may_neither_command_nor_press(stage):
    for command in ("finetune start", "finetune cancel", "finetune promote", "finetune rollback", "finetune status",
                    "finetune resume", "finetune preview"):  # fmt: skip
        with pytest.raises(SandboxRefusal, match="permission"):
            await stage.member.slash(QUAY, command)
    await start(stage)
    progress = await stage.sees("Training: **Ballast v1**")
    answer = await stage.member.click(progress, "Cancel")
    assert answer.ephemeral and "Only moderators" in answer.message["content"]
    assert stage.backend.busy
    stage.backend.finish()
    result = await stage.sees("Trained: **Ballast v1**")
    answer = await stage.member.click(result, "Promote")
    assert answer.ephemeral and "Only moderators" in answer.message["content"]
    assert stage.live("ballast") is None


async def test_the_code_refuses_a_member_even_where_the_server_opened_the_command(stage):
    """An admin can open a command to everyone in the server's settings; then only the check in code
    holds.
    """
    group = stage.client.tree.get_command("finetune")
    for who, allowed in ((stage.member, False), (stage.moderator, True)):
        person = await stage.client.guilds[0].fetch_member(int(who.id))
        with (
            nullcontext()
            if allowed
            else pytest.raises(app_commands.CheckFailure, match="Only moderators")
        ):
            asked = SimpleNamespace(
                user=person,
                client=stage.client,
                guild_id=stage.sandbox.guild_id,
                command=group.get_command("start"),
            )
            assert await group.interaction_check(asked)


async def test_cancel_ends_a_running_job_and_says_so(stage):
    await start(stage)
    progress = await stage.sees("Training: **Ballast v1**")
    await stage.moderator.click(progress, "Cancel")
    await stage.sees("Cancelled: **Ballast v1**")
    await until(lambda: not stage.backend.busy)
    answer = await stage.moderator.slash(QUAY, "finetune cancel")
    await until(lambda: "There is no job" in answer.text)


async def test_a_job_that_is_resumed_while_its_failure_is_posted_is_announced_again(
    stage, monkeypatch
):
    await start(stage)
    await stage.sees("Training: **Ballast v1**")
    (job,) = stage.store.jobs.in_state("running")
    slept = asyncio.sleep

    async def resume_meanwhile(delay):
        if stage.store.jobs.get(job.job_id).can_resume:
            stage.client.services.queue.resume(job.job_id)
        await slept(0)

    monkeypatch.setattr("discord.http.asyncio", SimpleNamespace(**vars(asyncio)))
    monkeypatch.setattr("discord.http.asyncio.sleep", resume_meanwhile)
    stage.sandbox.fail_requests("POST /channels/{channel_id}/messages", "error_before", 1)
    stage.backend.finish(TrainingFailed("The disk is full.", can_resume=True))
    await until(lambda: len(stage.backend.runs) == 2)
    mark = stage.mark
    stage.backend.finish(TrainingSucceeded(Path("/models/x"), 61.0, SCORECARD))
    result = await stage.sees("Trained: **Ballast v1**", since=mark)
    await until(lambda: buttons_of(stage, result) == ["Promote", "Repeat with changes"])


async def ready_with_first_card(stage, version):
    """Start a training and end it with a first card; returns the result's message."""
    await start(stage)
    await until(lambda: stage.backend.busy)
    first = SCORECARD.model_copy(update={"pending": True, "verdict": "promote"})
    stage.backend.finish(TrainingSucceeded(Path("/models/x"), 61.0, first))
    result = await stage.sees(f"Trained: **Ballast {version}**")
    await until(
        lambda: buttons_of(stage, result) == ["Promote", "Stop measuring", "Repeat with changes"]
    )
    return result


async def test_another_verdict_of_the_whole_card_is_told_and_its_rest_can_be_left(stage):
    result = await ready_with_first_card(stage, "v1")
    whole = SCORECARD.model_copy(update={"verdict": "hold", "first_verdict": "promote"})
    stage.backend.finish(TrainingSucceeded(Path("/models/x"), 61.0, whole))
    told = await stage.sees("The verdict has changed")
    assert "the gate says hold; it said promote before" in told["content"]
    await until(lambda: buttons_of(stage, result) == ["Promote", "Repeat with changes"])

    result = await ready_with_first_card(stage, "v2")
    answer = await stage.member.click(result, "Stop measuring")
    assert answer.ephemeral and "Only moderators" in answer.message["content"]
    await stage.moderator.click(result, "Stop measuring")
    await stage.sees("The rest of its score card was not measured. It was stopped.")
    assert (
        buttons_of(stage, result) == ["Promote", "Repeat with changes"] and not stage.backend.busy
    )


async def training_in_an_archived_thread(stage, *, locked=False):
    """The thread, and the message that shows the training's progress."""
    thread = await stage.moderator.thread(QUAY, "workshop")
    await start(stage, thread)
    progress = await stage.sees("Training: **Ballast v1**")
    await until(lambda: stage.backend.busy)
    stage.sandbox.archive_thread(thread["id"], locked=locked)
    await until(lambda: not stage.client.guilds[0].get_thread(int(thread["id"])))
    return thread, progress


async def test_in_an_archived_thread_the_result_comes_and_opens_it(stage):
    thread, progress = await training_in_an_archived_thread(stage)
    mark = stage.mark
    stage.backend.finish()
    result = await stage.sees("Trained: **Ballast v1**", "message", mark)
    labels = [part.get("label") for part in all_components(result["components"])]
    assert "Promote" in labels
    assert result["channel_id"] == thread["id"]
    ended = await stage.sees("The result is below.", "edit", mark)
    assert ended["id"] == progress["id"] and not ended["components"]


@pytest.mark.parametrize("outcome", ["cancelled", "locked"])
async def test_an_archived_thread_stays_so_for_a_cancelled_job_or_when_it_is_locked(stage, outcome):
    thread, _ = await training_in_an_archived_thread(stage, locked=outcome == "locked")
    mark = stage.mark
    if outcome == "locked":
        stage.backend.finish()
    else:
        await stage.moderator.slash(QUAY, "finetune cancel")
    await until(lambda: stage.store.jobs.of_guild(int(stage.sandbox.guild_id))[0].announced)
    assert not stage.client.guilds[0].get_thread(int(thread["id"]))
    sent = [event for kind, event in stage.sandbox.events[mark:] if kind in ("message", "edit")]
    assert not [message for message in sent if message["channel_id"] == thread["id"]]


async def test_a_failure_as_long_as_a_log_is_posted_with_its_advice(stage):
    await start(stage)
    await until(lambda: stage.backend.busy)
    log = "The trainer ended with 1. " + "step 7 " * 600 + "Out of memory."
    stage.backend.finish(TrainingFailed(log, "Train a smaller model. " * 40))
    failed = await stage.sees("Failed: **Ballast v1**", "message")
    assert len(failed["content"]) < MAX_MESSAGE_CHARS
    assert failed["content"].count("…") == 2 and "a smaller model" in failed["content"]
    assert (
        "The trainer ended with 1." in failed["content"] and "Out of memory." in failed["content"]
    )
    await start(stage, persona="oda")
    await until(lambda: stage.backend.busy)
    stage.backend.finish(TrainingFailed("No disk. " * 300, "Free some space. " * 40))
    await stage.sees("Failed: **Oda Marrow v1**", "message")
    mark = stage.mark
    await stage.moderator.slash(QUAY, "finetune status")
    for name, reason in (("Oda Marrow", "No disk."), ("Ballast", "Out of memory.")):
        listed = await stage.sees(f"Failed: **{name} v1**", "message", mark)
        assert reason in listed["content"]
    assert listed["content"].rstrip().endswith("…")


async def test_a_result_that_discord_does_not_take_is_tried_once(stage, monkeypatch):
    texts = []

    def too_long(*_, **__):
        texts.append("x" * (MAX_MESSAGE_CHARS + 1))
        return texts[-1]

    await start(stage)
    await until(lambda: stage.backend.busy)
    await stage.sees("Training: **Ballast v1**")
    monkeypatch.setattr(discord_progress, "current_job_text", too_long)
    stage.backend.finish(TrainingFailed("The log is empty.", "Write one."))
    await until(lambda: stage.store.jobs.of_guild(int(stage.sandbox.guild_id))[0].announced)


def typed_in(form):
    """Values of a form's texts, and of what is chosen in its menus."""
    values = {}
    for row in form.modal["components"]:
        if field := row.get("component"):
            chosen = [each["value"] for each in field.get("options", ()) if each.get("default")]
            values[field["custom_id"]] = field.get("value", "".join(chosen))
    return values


async def test_a_training_is_repeated_with_changes_by_a_form_that_has_its_settings(stage):
    settings = "lora_r=4, target_modules=q_proj, v_proj"
    await start(stage, recipe="quick", epochs=2, settings=settings, job_name="dusk")
    await until(lambda: stage.backend.busy)
    before = stage.backend.runs[0].request
    stage.backend.finish(TrainingFailed("The log is empty.", "Give the persona something to say."))
    failed = await stage.sees("Failed: **Ballast v1**")
    answer = await stage.member.click(failed, "Repeat with changes")
    assert answer.modal is None and "Only moderators" in answer.text
    form = await stage.moderator.click(failed, "Repeat with changes")
    assert "**Ballast v1**" in form.modal["components"][0]["content"]
    assert typed_in(form) == {
        "recipe": "quick", "epochs": "2", "learning_rate": "", "settings": settings
    }  # fmt: skip
    mark = stage.mark
    answer = await stage.moderator.submit(
        form, recipe="demo-cpu", epochs="", learning_rate="2e-4", settings=settings
    )
    await until(lambda: "with the recipe `demo-cpu`" in answer.text)
    assert answer.ephemeral
    await until(lambda: stage.backend.busy)
    request = stage.backend.runs[1].request
    assert (request.job_name, request.recipe) == ("dusk-2", "demo-cpu")
    hyperparameters = {"lora_r": 4, "target_modules": ["q_proj", "v_proj"], "learning_rate": 2e-4}
    assert request.hyperparameters.model_dump(mode="json", exclude_none=True) == hyperparameters
    changed = {"job_name", "recipe", "hyperparameters"}
    assert request.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    stage.backend.finish()
    result = await stage.sees("Trained: **Ballast v2**", since=mark)  # a card, which takes no text
    form = await stage.moderator.click(result, "Repeat with changes")
    assert typed_in(form)["recipe"] == "demo-cpu"
    answer = await stage.moderator.submit(form)
    await until(lambda: "Queued as" in answer.text and stage.backend.busy)
    assert stage.backend.runs[2].request.job_name == "dusk-3"


async def test_a_refused_repetition_opens_again_with_what_was_typed(stage):
    await start(stage, recipe="quick")
    await until(lambda: stage.backend.busy)
    stage.backend.finish(TrainingFailed("The log is empty.", "Give the persona something to say."))
    failed = await stage.sees("Failed: **Ballast v1**")
    form = await stage.moderator.click(failed, "Repeat with changes")
    wrong = {
        "recipe": "demo-cpu",
        "epochs": "many",
        "learning_rate": "0",
        "settings": "lora_r=8,\nx",
    }
    refused = await stage.moderator.submit(form, **wrong)
    await until(lambda: "**Try again** opens the form" in refused.text)
    assert "num_train_epochs cannot be" in refused.text and not stage.backend.busy
    assert refused.ephemeral
    again = await stage.moderator.click(refused.message, "Try again")
    assert typed_in(again) == wrong
    answer = await stage.moderator.submit(again, epochs="", learning_rate="", settings="lora_r=8")
    await until(lambda: "with the recipe `demo-cpu`" in answer.text and stage.backend.busy)
    busy = await stage.moderator.click(failed, "Repeat with changes")
    second = await stage.moderator.submit(busy)
    await until(lambda: "is running already. Wait, or cancel it." in second.text)
    assert len(stage.backend.runs) == 2
    unlisted = await stage.moderator.click(failed, "Repeat with changes")
    unlisted.modal["components"][1]["component"]["required"] = False
    empty = await stage.moderator.submit(unlisted, recipe=[])
    await until(lambda: "There is no recipe. Choose one from the list." in empty.text)


async def test_what_a_server_cannot_repeat(stage):
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish(TrainingFailed("The log is empty.", "Give the persona something to say."))
    failed = await stage.sees("Failed: **Ballast v1**")
    (job,) = stage.store.jobs.of_guild(int(stage.sandbox.guild_id))
    assert is_repeatable(job)
    by_path = job.request.model_copy(update={"dataset_path": "/tmp/talk.jsonl"})
    result = JobResult(adapter="x", seconds=1.0, scorecard=SCORECARD, imported=True)
    for changed in (
        replace(job, request_json=by_path.model_dump_json()),
        replace(job, request_json="{}"),
        replace(job, state="done", result_json=result.model_dump_json()),
        replace(job, state="running"),
    ):
        assert not is_repeatable(changed)
    form = await stage.moderator.click(failed, "Repeat with changes")
    stage.store.jobs._db.write("update jobs set guild_id = 5")  # another server's
    for answer in (
        await stage.moderator.click(failed, "Repeat with changes"),
        await stage.moderator.submit(form),
    ):
        await until(lambda answer=answer: "cannot be repeated" in answer.text)
    assert not stage.backend.busy


async def test_a_job_that_somebody_can_mend_goes_on_by_button_or_command(stage):
    full = TrainingFailed("The disk is full.", "Free some space.", can_resume=True)
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish(full)
    failed = await stage.sees("Failed: **Ballast v1**")
    for words in (full.error, full.advice, "**Resume**"):
        assert words in failed["content"]
    assert buttons_of(stage, failed) == ["Resume", "Repeat with changes"]
    answer = await stage.member.click(failed, "Resume")
    assert (
        answer.ephemeral
        and "Only moderators" in answer.message["content"]
        and not stage.backend.busy
    )

    mark = stage.mark
    await stage.moderator.click(failed, "Resume")
    shown = await stage.sees("Training: **Ballast v1**", since=mark)
    assert shown["id"] == failed["id"], "in the same message"
    await until(lambda: buttons_of(stage, failed) == ["Cancel"])
    stage.backend.finish(full)
    again = await stage.sees("Failed: **Ballast v1**", kind="message", since=mark)
    choices = await stage.moderator.autocomplete(QUAY, "finetune resume", "job", job="ball")
    assert [choice["name"].split(" · ")[:2] for choice in choices] == [["Ballast v1", "failed"]]
    await stage.moderator.slash(QUAY, "finetune resume")
    await until(lambda: stage.backend.busy)
    stage.backend.finish()
    assert (await stage.sees("Trained: **Ballast v1**"))["id"] != again["id"]
    answer = await stage.moderator.slash(QUAY, "finetune resume")
    await until(lambda: "no job that can be resumed" in answer.text)


async def test_what_cannot_be_trained_is_refused_and_nothing_is_queued(stage):
    for options, words in (
        ({"persona": "nobody"}, "'nobody'. Known: Ballast (`ballast`)"),
        ({"job_name": "no spaces please"}, "job_name: use letters"),
        ({"settings": "lora_r=8, rank=2"}, "There is no setting 'rank'."),
        ({"settings": "epochs=2"}, "'epochs'. Did you mean num_train_epochs"),
        ({"settings": "lora_r=0"}, "lora_r cannot be '0'. lora_r: a whole number from 1 to 256."),
        (
            {"settings": "learning_rate=1e-4", "learning_rate": 1e-3},
            "learning_rate is set twice",
        ),
        ({"channel": OFFICE}, "option `persona`"),
    ):
        assert words in await start(stage, **options)
        assert stage.store.jobs.of_guild(stage.sandbox.guild_id) == []
    assert "Queued" in await start(stage, OFFICE, persona="thrip")


async def test_a_share_of_lore_pairs_goes_into_the_request_and_the_preview_counts_them(stage):
    counts = {
        "lore_pairs_extracted": 48,
        "lore_pairs_synthesised": 68,
        "lore_pairs_used": 70,
        "samples_from_lore": 42,
    }
    stage.backend.result = stage.backend.result.model_copy(update={"lore_pairs": counts})
    answer = await stage.moderator.slash(QUAY, "finetune preview", lore_pairs=0.3)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    text = answer.text
    (box,) = answer.message["components"]
    title, *_ = box["components"]
    assert title["content"] == "### Plan of a training: **Ballast**"
    assert [part["type"] for part in box["components"]] == [10, 14, 10, 14, 10, 14, 10, 14, 10]
    assert BUNDLED_MODEL_TEXT in text
    assert re.search("48 extracted.*68 synthesised.*70 are used: 30%", text)
    assert stage.backend.planned[-1].lore_pairs == 0.3
    alone = await start(stage, lore_pairs=1.0, dataset="ballast")
    assert "lore_pairs 1 " in alone and "leave the data set out" in alone
    assert "takes no lore_pairs" in await start(stage, lore_pairs=0.5, task_type="preference")
    with pytest.raises(SandboxRefusal):
        await start(stage, lore_pairs=1.5)
    assert "Queued" in await start(stage, lore_pairs=1.0)
    await until(lambda: stage.backend.busy)
    assert stage.backend.runs[0].request.lore_pairs == 1
    names = await stage.moderator.autocomplete(QUAY, "finetune start", "dataset", dataset="synth")
    assert "ballast_synthetic" in [choice["value"] for choice in names]


async def test_a_training_from_the_card_needs_no_log_and_has_its_own_recipe(stage, monkeypatch):
    checks = stage.client.services.trainings._checks
    teacher = Teacher(model="big", url="http://127.0.0.1:1/v1", licence="MIT")
    monkeypatch.setattr(
        stage.client.services.trainings, "_checks", replace(checks, teacher=teacher)
    )
    await stage.moderator.slash(QUAY, "finetune preview", dataset="ballast", **{"from": "card"})
    await until(lambda: stage.backend.planned)
    assert stage.backend.planned[-1].from_card == 0.5, "beside real exchanges"
    queued = await start(stage, **{"from": "card"})
    assert "Queued" in queued and "a `TEACHER`" not in queued, "a larger model teaches"
    told = (
        "`big` writes the replies: the persona's card and lore are sent to the server `127.0.0.1`"
    )
    assert told in queued
    await until(lambda: stage.backend.busy)
    request = stage.backend.runs[0].request
    assert (request.from_card, request.recipe, request.teacher.model) == (1, "card", "big")
    assert "takes no from_card" in await start(stage, task_type="preference", **{"from": "card"})


async def test_a_training_of_no_server_is_shown_in_none(stage, caplog):
    request = TrainingRequest(job_name="operators", persona="ballast")
    job = stage.client.services.trainings.start(request, guild_id=0).job
    await until(lambda: stage.backend.busy)
    await asyncio.sleep(2 * PROGRESS_INTERVAL_S)
    assert "could not be shown" not in caplog.text
    stage.backend.finish()
    await until(lambda: stage.store.jobs.get(job.job_id).state == "done")


async def test_a_preview_says_what_a_training_would_do_and_queues_nothing(stage):
    async def preview(**options):
        answer = await stage.moderator.slash(QUAY, "finetune preview", **options)
        await until(lambda: answer.message and not answer.message["flags"] & 128)
        assert answer.ephemeral
        return answer.text

    words = await preview()
    assert re.search(r"\*\*120\*\* replies .*20 held out; 50,000 tokens", words)
    assert "280 of 300 records are used.\n- 12: too long\n- 8: near duplicate" in words
    assert "30 steps, about 2 min 5 s in all, 4.0 GiB" in words
    assert "number 1 in the queue." in words
    assert stage.store.jobs.of_guild(stage.sandbox.guild_id) == []
    for persona in ("ballast", "oda"):
        await start(stage, persona=persona)
    assert "number 2 in the queue after" in await preview(persona="thrip")
    words = await preview()
    assert "30 steps" in words and "number" not in words
    assert "not be started now" in words and "cancel it" in words
    await preview(task_type="preference", start_from="v1")
    (*_, asked) = stage.backend.planned
    assert (asked.task_type, asked.recipe, asked.start_from) == ("preference", "preference", "v1")
    stage.backend.refusal = RequestError("The card is broken.", "Mend it.")
    assert await preview() == "The card is broken. Mend it."
    names = await stage.moderator.autocomplete(QUAY, "finetune preview", "dataset", dataset="bal")
    assert [choice["value"] for choice in names] == ["ballast", "ballast_synthetic"]


async def test_status_and_autocomplete_tell_what_there_is_and_what_a_recipe_is_for(stage):
    await start(stage)
    await start(stage, persona="oda")
    answer = await stage.moderator.slash(QUAY, "finetune status")
    assert "Training: **Ballast v1**" in answer.message["content"]
    assert (
        "Waiting to train: **Oda Marrow v1**" in answer.message["content"]
        and "Place 1" in answer.message["content"]
    )
    names = await stage.moderator.autocomplete(QUAY, "finetune start", "persona", persona="sir")
    assert [choice["value"] for choice in names] == ["thrip"]
    sets = await stage.moderator.autocomplete(QUAY, "finetune start", "dataset", dataset="bal")
    assert [choice["value"] for choice in sets] == ["ballast", "ballast_synthetic"]
    shown = await stage.moderator.autocomplete(QUAY, "finetune start", "recipe", recipe="")
    recipes = stage.client.services.catalogue.recipes()
    assert [choice["value"] for choice in shown] == recipes
    for choice in shown:
        name, _, purpose = choice["name"].partition(": ")
        assert name == choice["value"] and len(purpose) > 20, choice
        assert not choice["name"].endswith(("…", ".")), "a label of Discord's has 100 characters"
    (quick,) = await stage.moderator.autocomplete(QUAY, "finetune start", "recipe", recipe="wait f")
    assert quick["value"] == "quick"


async def test_after_a_restart_the_jobs_go_on_in_the_same_messages_and_buttons_work(tmp_path):
    async with on_stage(tmp_path) as stage:
        await start(stage)
        shown = await stage.sees("Training: **Ballast v1**")
        for persona in ("oda", "thrip"):
            await start(stage, persona=persona)
        waiting = await stage.sees("Waiting to train: **Sir Aurelio Thrip v1**")
        assert "Place 2" in waiting["content"]
    async with on_stage(tmp_path) as stage:
        await until(lambda: stage.backend.busy)
        assert stage.backend.runs[0].version == "v1"
        await stage.moderator.slash(QUAY, "finetune cancel", job="oda")
        moved = await stage.sees(waiting["content"].replace("Place 2", "Place 1"))
        assert moved["id"] == waiting["id"]
        stage.backend.finish()
        result = await stage.sees("Trained: **Ballast v1**")
        assert (await stage.sees("Training ended"))["id"] == shown["id"]
        await stage.moderator.click(result, "Promote")
        await stage.sees("v1 of **Ballast** is live")


async def test_promote_and_rollback_by_command(stage):
    store = stage.store
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish()
    await stage.sees("Trained: **Ballast v1**")
    assert isinstance(store.versions.installed("ballast")[0], InstalledVersion)
    for command, options, words in (
        ("finetune promote", {"version": "v9"}, "ballast has no version v9. Installed: v1."),
        ("finetune promote", {}, "v1 of **Ballast** is live"),
        ("finetune promote", {}, "v1 of **Ballast** is live already."),
        ("finetune rollback", {}, "the base model answers for **Ballast**"),
        ("finetune rollback", {}, "Ballast has no earlier version to roll back to. Make one live"),
        ("finetune promote", {"persona": "oda"}, "Oda Marrow has no trained version yet."),
    ):
        answer = await stage.moderator.slash(QUAY, command, **options)
        await until(lambda answer=answer, words=words: words in answer.text)
        assert answer.ephemeral
    assert store.versions.installed("ballast")[0].scorecard == SCORECARD
