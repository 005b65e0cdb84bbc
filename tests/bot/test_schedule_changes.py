"""The audit channel lists what is set and removed of schedules, lines, greetings, and when a persona
answers; never what somebody wrote.
"""

from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.set_times import answer_to
from tests.fakes import until


def listed(stage):
    """Return the lines of the audit channel."""
    said = stage.sandbox.messages(OFFICE)
    return [it["content"] for it in said if it["author"]["id"] == str(stage.sandbox.bot_id)]


async def test_they_are_listed_with_who_and_where_but_without_words(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        services = stage.client.services
        guild_id = int(stage.sandbox.guild_id)
        channel_id, office = (int(stage.sandbox.channel(it)["id"]) for it in (QUAY, OFFICE))
        stage.store.audit_channels.set(guild_id, office)
        before = len(listed(stage))

        async def answer(command, **options):
            return await answer_to(stage, command, None, QUAY, **options)

        set_line = await answer("persona line set", time="8:30", prompt="say secret words")
        assert set_line.startswith("Set: **1**")
        await answer("persona line remove", number=1)
        await answer("persona line greeting", text="secret words")
        await answer("persona line greeting", remove=True)
        weekly = {"weekday": "Monday", "time": "03:30", "recipe": "quick"}
        assert "Scheduled:" in await answer("finetune schedule set", **weekly)
        await answer("finetune schedule remove")
        assert "Set for this channel" in await answer("persona answering set", chance=50, wait=2.0)
        await answer("persona answering reset", setting="wait_s")
        await answer("persona answering reset")
        await answer("persona line set", time="8:30", prompt="say secret words")
        services.scheduled_lines.remove(guild_id, 2)  # on the dashboard
        by, here = f"<@{stage.moderator.id}>", f"<#{channel_id}>"
        expected = [
            f"{by} set line 1, every day at 08:30 in {here}.",
            f"{by} removed line 1, every day at 08:30 in {here}.",
            f"{by} had new members greeted in {here}.",
            f"{by} ended the greeting of new members.",
            f"{by} scheduled the training of **ballast**, Monday at 03:30.",
            f"{by} ended the scheduled training of **ballast**.",
            f"{by} changed the wait for further lines, the reply chance in {here}.",
            f"{by} changed the wait for further lines in {here}.",
            f"{by} reset when personas answer in {here}.",
            f"{by} set line 2, every day at 08:30 in {here}.",
            f"The operator removed line 2, every day at 08:30 in {here}.",
        ]
        await until(lambda: len(listed(stage)) >= before + len(expected))
        assert listed(stage)[before:] == expected


async def test_a_members_direct_messages_are_told_to_no_server(stage):
    guild_id = int(stage.sandbox.guild_id)
    stage.store.audit_channels.set(guild_id, int(stage.sandbox.channel(OFFICE)["id"]))
    before = len(listed(stage))
    answering = stage.client.services.answering
    answering.change(0, 77, {"wait_s": 2.0}, by=5)
    answering.reset(0, 77, by=5)
    stage.client.services.audit.record(guild_id, None, "did something else")
    await until(lambda: len(listed(stage)) > before)
    assert listed(stage)[before:] == ["The bot did something else."]
