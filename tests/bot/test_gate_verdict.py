"""What the gate says is shown with a result; a rejected version takes a second click, and a server
may choose that a good one goes live by itself.
"""

import asyncio
import dataclasses
from pathlib import Path

import discord
import pytest

from bot.demo_guild import SKERROW_SEED
from bot.guild_settings.definitions import IS_PROMOTION_AUTOMATIC
from bot.platform.discord_kit.layouts import MAX_LAYOUT_BYTES, MAX_LAYOUT_CHARS
from bot.platform.permissions import required_permissions
from bot.store import Store
from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from bot.training.discord_progress import AUTOMATIC_PROMOTION_TEXT, ProgressMessages
from bot.training.discord_result import REST_TEXT
from bot.training.status_text import epoch_lines
from bot.versions.actions import LiveVersions
from personas.errors import AdapterError
from personas.schemas.training_events import Epoch
from sandbox import message_text
from sandbox.message_components import all_components
from tests.bot.conftest import PROGRESS_INTERVAL_S, QUAY, on_stage
from tests.bot.test_finetune import buttons_of, start
from tests.bot.web.test_web_score_cards import (
    CARELESS,
    WHY,
    a_verdict,
    careless_verdict,
    put_card,
)
from tests.fakes import until
from tests.samples import SCORECARD
from tests.trainer.sample_scorecards import good_card

REASONS = (
    "The loss on 12 held-out replies is 2.000, the base model's 3.000.",
    "40% read like other people.",
)
ADVICE = ("Check the speaker labels of the material.",)


def trained(verdict, folder="adapter", reasons=REASONS, advice=ADVICE, epochs=()):
    card = SCORECARD.model_copy(update={"verdict": verdict, "reasons": reasons, "advice": advice})
    return TrainingSucceeded(Path(folder), 60.0, card, epochs)


async def finish(stage, verdict, **options):
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish(trained(verdict, **options))
    return await stage.sees("Trained: **Ballast v1**", kind="message")


async def test_a_result_shows_verdict_reasons_and_advice(stage):
    shown = message_text(await finish(stage, "promote"))
    assert (
        "The gate says **promote**." in shown
        and all(f"- {reason}" in shown for reason in REASONS)
        and f"What to do: {ADVICE[0]}" in shown
    )
    assert stage.live("ballast") is None, "nobody has been asked yet"


async def test_a_verdict_without_end_is_cut_and_says_where_to_read_on(stage):
    many = ("word " * 400,) * 40
    shown = message_text(await finish(stage, "hold", reasons=many))
    assert len(shown.replace("\n", "")) <= MAX_LAYOUT_CHARS
    assert shown.count("word …") > 10 and shown.endswith(f"word …\n{REST_TEXT}")


def epoch(number):
    losses = {
        "train_loss": 4.04 - number / 2,
        "eval_loss": 3.5 - number / 4 if number > 1 else None,
    }
    return Epoch(epoch=number, **losses, seconds=60.0 + number, samples_per_s=11.0 + number / 10)


async def test_a_result_has_a_table_of_its_epochs_as_far_as_it_fits(stage):
    shown = message_text(await finish(stage, "hold", epochs=tuple(map(epoch, (1, 2, 3)))))
    assert shown.split("```")[1].strip("\n").splitlines() == [
        "epoch train → eval loss samples/s     time",
        "    1         3.540 → –      11.1     1:01",
        "    2     3.040 → 3.000      11.2     1:02",
        "    3     2.540 → 2.750      11.3     1:03",
    ]
    assert "The gate says **hold**" in shown.split("```")[0], "figures come last"


def put_replies(folder, count=1, text="said by {side}"):
    """Write a whole card beside an adapter, with replies of each side."""
    card = good_card()
    replies = {
        side: reply.model_copy(update={"text": text.format(side=side)})
        for side, reply in card.side_by_side[0].replies.items()
    }
    pair = card.side_by_side[0].model_copy(update={"replies": replies})
    card = card.model_copy(update={"side_by_side": (pair,) * count, "verdict": a_verdict()})
    folder.mkdir()
    (folder / "scorecard.json").write_text(card.model_dump_json(), encoding="utf-8")


async def test_a_result_begins_with_the_verdict_and_replies_and_ends_with_figures(stage, tmp_path):
    put_replies(tmp_path / "adapter", text="**said** by {side}\nand more")
    result = await finish(stage, "hold", folder=tmp_path / "adapter", epochs=(epoch(1),))
    shown = message_text(result)
    lines = shown.splitlines()
    assert lines[1].endswith("a moderator decides. 1 of 1 criteria pass.")
    assert lines[3:6] == [
        "> does the bell <ring>?",
        r"**this version:** \*\*said\*\* by new and more",
        r"**live version:** \*\*said\*\* by live and more",
    ]
    order = ("The gate", "> does", f"- {REASONS[0]}", "Promote makes", "-# Held-out", "```")
    places = [shown.index(part) for part in order]
    assert places == sorted(places)
    (box,) = result["components"]
    kinds = [component["type"] for component in box["components"]]
    text, line, row = 10, 14, 1
    assert kinds == [text, text, line, text, text, line, text, line, text, text, row]
    assert result["content"] == "" and box["accent_color"] == discord.Colour.gold().value


async def test_a_result_in_a_script_of_three_bytes_has_room(stage, tmp_path):
    """Discord answers with a server error to a layout of more than some 10,000 bytes."""
    put_replies(tmp_path / "adapter", count=9, text="话" * 300)
    reasons = ("话" * 200,) * 9
    shown = message_text(await finish(stage, "hold", folder=tmp_path / "adapter", reasons=reasons))
    assert 7_000 < len(shown.encode()) <= MAX_LAYOUT_BYTES and shown.count("\n> ") in (1, 2)


async def test_a_damaged_card_leaves_a_result_without_replies(stage, tmp_path):
    put_replies(tmp_path / "adapter")
    (tmp_path / "adapter" / "scorecard.json").write_text("{")
    shown = message_text(await finish(stage, "hold", folder=tmp_path / "adapter"))
    assert "The gate says **hold**" in shown and "side by side" not in shown


def test_of_a_long_run_the_first_and_last_epochs_are_shown():
    rows = epoch_lines(tuple(map(epoch, range(1, 13))))[2:-1]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4", "…", "9", "10", "11", "12"]


async def test_the_picture_of_the_score_card_is_attached_and_shown_again_after_a_press(
    stage, tmp_path
):
    picture = tmp_path / "adapter" / "report" / "scorecard.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    result = await finish(stage, "hold", folder=tmp_path / "adapter")
    (gallery,) = [one for one in all_components(result["components"]) if "items" in one]
    (shown,) = gallery["items"]
    assert shown["media"]["url"].endswith("/scorecard.png")
    assert shown["description"] == "The score card of the new version"
    await stage.moderator.click(result, "Promote")
    changed = await stage.sees("It is live now.", kind="edit")
    (gallery,) = [one for one in all_components(changed["components"]) if "items" in one]
    assert gallery["items"][0]["media"]["url"].endswith("/scorecard.png")


async def test_a_result_that_was_sent_as_a_text_gets_its_layout_when_it_changes(stage, tmp_path):
    """Version 1.0 sent a text with a view, and the picture beside it."""
    picture = tmp_path / "adapter" / "report" / "scorecard.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    result = await finish(stage, "hold", folder=tmp_path / "adapter")
    (job,) = stage.store.jobs.in_state("done")
    view = discord.ui.View(timeout=None)
    view.add_item(discord.ui.Button(label="Promote", custom_id="promote:ballast:v1"))
    channel = stage.client.get_channel(int(result["channel_id"]))
    old = await channel.send(
        "Trained: **Ballast v1**", view=view, file=discord.File(picture, "scorecard.png")
    )
    stage.store.jobs.set_progress_message(job, old.id)
    (shown,) = [one for one in stage.sandbox.messages(QUAY) if one["id"] == str(old.id)]
    await stage.moderator.click(shown, "Promote")
    await stage.sees("v1 of **Ballast** is live")
    await until(lambda: buttons_of(stage, shown) == ["Roll back", "Repeat with changes"])
    (changed,) = [one for one in stage.sandbox.messages(QUAY) if one["id"] == str(old.id)]
    assert changed["content"] == "" and changed["attachments"] == []
    assert "It is live now." in message_text(changed)
    await stage.moderator.click(changed, "Roll back")
    await stage.sees("Rolled back: the base model answers for **Ballast**")


async def test_the_buttons_of_a_layout_work_after_a_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        result = await finish(stage, "hold")
    async with on_stage(tmp_path) as stage:
        await stage.moderator.click(result, "Promote")
        await stage.sees("v1 of **Ballast** is live")


async def test_a_result_comes_without_its_picture_where_files_may_not_be_sent(tmp_path):
    picture = tmp_path / "adapter" / "report" / "scorecard.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    poor = required_permissions()
    poor.attach_files = False
    async with on_stage(
        tmp_path, seed=dataclasses.replace(SKERROW_SEED, bot_permissions=poor.value)
    ) as stage:
        result = await finish(stage, "hold", folder=tmp_path / "adapter")
        assert result["attachments"] == []
        assert not [one for one in all_components(result["components"]) if "items" in one]


async def test_what_is_held_for_careless_answers_takes_a_second_press(stage, tmp_path):
    result = await finish(stage, "hold")
    put_card(tmp_path, "v1", verdict=careless_verdict())
    await stage.moderator.click(result, "Promote")
    asked = await stage.sees("The gate holds v1 of **Ballast**")
    assert f"- {CARELESS}" in asked["content"] and WHY not in asked["content"]
    assert stage.live("ballast") is None
    await stage.moderator.click(asked, "Promote anyway")
    await stage.sees("v1 of **Ballast** is live")


async def test_what_is_rejected_is_promoted_by_a_second_press_that_only_moderators_have(stage):
    result = await finish(stage, "reject")
    await stage.moderator.slash(QUAY, "finetune promote")
    await stage.sees("The gate rejects v1 of **Ballast**")
    assert stage.live("ballast") is None, "the command asks, too"
    mark = stage.mark
    await stage.moderator.click(result, "Promote")
    asked = await stage.sees("The gate rejects v1 of **Ballast**", since=mark)
    assert f"- {REASONS[1]}" in asked["content"] and asked["flags"] & 64, "only who pressed sees it"
    assert stage.live("ballast") is None
    await stage.moderator.click(asked, "Promote anyway")
    await stage.sees("v1 of **Ballast** is live")
    assert stage.live("ballast") == "v1"


# ---------------------------------------------------------------------------------------- by itself


async def choose(stage, **options):
    answer = await stage.moderator.slash(QUAY, "finetune promotion", **options)
    await until(lambda: answer.message)
    return answer.message["content"]


async def test_a_server_chooses_and_is_asked_unless_it_does(stage):
    assert (await choose(stage)).startswith("Ask:")
    assert (await choose(stage, way="automatic")).startswith("Automatic:")
    assert (await choose(stage)).startswith("Automatic:")
    assert (await choose(stage, way="ask")).startswith("Ask:")


async def test_what_is_measurably_better_goes_live_by_itself_is_said_and_can_be_taken_back(stage):
    await choose(stage, way="automatic")
    result = await finish(stage, "promote")
    shown = message_text(result)
    assert "It is live now." in shown and "Promoted automatically" in shown
    assert stage.engine.loaded[0].name == "ballast-v1", "it was loaded before it went live"
    assert stage.live("ballast") == "v1"
    assert stage.store.versions.history("ballast")[-1].kind == "automatic promotion"
    assert buttons_of(stage, result) == ["Roll back", "Repeat with changes"]
    await stage.moderator.click(result, "Roll back")
    await stage.sees("Rolled back: the base model answers for **Ballast**")


async def test_all_else_waits_for_a_moderator_where_promotion_is_automatic(stage):
    await choose(stage, way="automatic")
    result = await finish(stage, "hold")
    assert stage.live("ballast") is None and buttons_of(stage, result) == [
        "Promote",
        "Repeat with changes",
    ]


async def finish_first_card(stage):
    """Train a version that is held until the rest of its score card is measured."""
    await choose(stage, way="automatic")
    await start(stage)
    await until(lambda: stage.backend.busy)
    card = SCORECARD.model_copy(update={"verdict": "hold", "pending": True})
    stage.backend.finish(TrainingSucceeded(Path("adapter"), 60.0, card))
    result = await stage.sees("Trained: **Ballast v1**", kind="message")
    await until(lambda: stage.backend.cards)
    return result


def finish_whole_card(stage):
    card = SCORECARD.model_copy(update={"verdict": "promote", "first_verdict": "hold"})
    stage.backend.finish(TrainingSucceeded(Path("adapter"), 60.0, card))


async def test_what_was_held_for_want_of_time_goes_live_once_its_whole_card_is_good(stage):
    await finish_first_card(stage)
    assert stage.live("ballast") is None
    finish_whole_card(stage)
    await until(lambda: stage.live("ballast") == "v1")
    assert stage.store.versions.history("ballast")[-1].kind == "automatic promotion"


async def test_it_does_not_where_a_moderator_has_chosen_meanwhile(stage):
    result = await finish_first_card(stage)
    await stage.moderator.click(result, "Promote")
    await until(lambda: stage.live("ballast") == "v1")
    await until(lambda: "Roll back" in buttons_of(stage, result))
    await stage.moderator.click(result, "Roll back")
    await until(lambda: stage.live("ballast") is None)
    finish_whole_card(stage)
    (job,) = stage.store.jobs.page(5)
    await until(lambda: stage.store.jobs.get(job.job_id).card_state == "complete")
    await until(lambda: stage.store.jobs.get(job.job_id).decision == "manual")
    assert stage.live("ballast") is None


async def test_what_cannot_be_loaded_does_not_go_live_by_itself(stage):
    await choose(stage, way="automatic")
    stage.engine.failure = AdapterError("The adapter is damaged.", "Train it again.")
    result = await finish(stage, "promote")
    assert stage.live("ballast") is None and buttons_of(stage, result) == [
        "Promote",
        "Repeat with changes",
    ]


def test_the_choice_is_one_servers_own_and_goes_with_it(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        IS_PROMOTION_AUTOMATIC.write(store, True, 1)
        IS_PROMOTION_AUTOMATIC.write(store, True, 1)
    with Store.open(tmp_path / "understudy.sqlite") as store:
        assert IS_PROMOTION_AUTOMATIC.held(store, 1) and not IS_PROMOTION_AUTOMATIC.held(store, 2)
        store.guilds.delete(1)
        assert not IS_PROMOTION_AUTOMATIC.held(store, 1)


# ------------------------------------------------------------------------------------ after a crash


def results(stage):
    texts = map(message_text, stage.sandbox.messages(QUAY))
    return [text for text in texts if "Trained: **Ballast v1**" in text]


async def hang(*args, **kwargs):
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("owner", "method", "decision"),
    [(LiveVersions, "decide", None), (ProgressMessages, "_post_result", "promoted")],
    ids=["before the decision", "before the message"],
)
async def test_a_crash_after_a_run_promotes_and_announces_exactly_once(
    tmp_path, monkeypatch, owner, method, decision
):
    """The process ends once the result is stored; the next one goes on from there, the one after it
    repeats nothing.
    """
    async with on_stage(tmp_path) as stage:
        await choose(stage, way="automatic")
        await start(stage)
        await until(lambda: stage.backend.busy)
        with monkeypatch.context() as crash:
            crash.setattr(owner, method, hang)
            stage.backend.finish(trained("promote"))
            await until(
                lambda: [job.decision for job in stage.store.jobs.in_state("done")] == [decision]
            )
            await asyncio.sleep(6 * PROGRESS_INTERVAL_S)
            assert results(stage) == [] and not stage.store.jobs.in_state("done")[0].announced
    for _ in range(2):
        async with on_stage(tmp_path) as stage:
            await until(lambda: stage.store.jobs.in_state("done")[0].announced)
            await asyncio.sleep(0.5)
            assert stage.live("ballast") == "v1"
            assert [it.kind for it in stage.store.versions.history("ballast")] == [
                "automatic promotion"
            ]
            (result,) = results(stage)
            assert "It is live now." in result and AUTOMATIC_PROMOTION_TEXT in result


async def test_a_result_is_kept_while_discord_has_not_sent_the_server_again(tmp_path, monkeypatch):
    """A new session begins without servers: the channel is not known then, and not gone either."""
    monkeypatch.setattr("bot.training.discord.RETRY_INTERVAL_S", 0.2)
    async with on_stage(tmp_path) as stage:
        await start(stage)
        await until(lambda: stage.backend.busy)
        guilds = stage.client._connection._guilds
        away = dict(guilds)
        guilds.clear()
        stage.backend.finish(TrainingFailed("The disk is full.", "Free some space."))
        await until(lambda: stage.store.jobs.in_state("failed"))
        await asyncio.sleep(6 * PROGRESS_INTERVAL_S)
        assert not stage.store.jobs.in_state("failed")[0].announced
        guilds.update(away)
        await stage.sees("The disk is full.")
        await until(lambda: stage.store.jobs.in_state("failed")[0].announced)
