"""The audit channel lists what is set and removed of schedules, lines, greetings, and when a persona
answers; never what somebody wrote.
"""

from bot.guild_settings.definitions import ANSWERING, AUDIT_CHANNEL
from bot.guild_settings.store import SettingScope
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
        AUDIT_CHANNEL.write(stage.store, office, guild_id)
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
        assert "Set for <#" in await answer("persona answering set", chance=50, wait=2.0)
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
            f"{by} changed the replies (Wait for further lines: 2 s, Reply chance: 50 %) in {here}.",
            f"{by} changed the replies (Wait for further lines: not set) in {here}.",
            f"{by} reset what was set for the replies in {here}.",
            f"{by} set line 2, every day at 08:30 in {here}.",
            f"The operator removed line 2, every day at 08:30 in {here}.",
        ]
        await until(lambda: len(listed(stage)) >= before + len(expected))
        assert listed(stage)[before:] == expected


async def test_a_members_direct_messages_are_told_to_no_server(stage):
    guild_id = int(stage.sandbox.guild_id)
    AUDIT_CHANNEL.write(stage.store, int(stage.sandbox.channel(OFFICE)["id"]), guild_id)
    before = len(listed(stage))
    settings = stage.client.services.guild_settings
    scope = SettingScope(0, channel_id=77)
    settings.change(ANSWERING, scope, {"wait_s": 2.0}, by=5)
    settings.reset((ANSWERING,), scope, by=5)
    stage.client.services.audit.record(guild_id, None, "did something else")
    await until(lambda: len(listed(stage)) > before)
    assert listed(stage)[before:] == ["The bot did something else."]
