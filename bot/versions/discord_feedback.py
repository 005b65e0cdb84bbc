"""Writes members' feedback on versions for the gate: after votes on replies, and when versions
change.
"""

from discord.ext import commands

from bot.services import Bot
from bot.versions.member_feedback import record_all_feedback, record_member_feedback


class MemberFeedbackCog(commands.Cog):
    """Keeps the feedback up to date that the gate reads."""

    def __init__(self, bot: Bot) -> None:
        self._services = bot.services

    @commands.Cog.listener()
    async def on_reply_judged(self, event_id: int) -> None:
        store = self._services.store
        reply = store.replies.get(event_id)
        if reply is None or reply.adapter_version is None:
            return
        await record_member_feedback(
            self._services.home,
            store,
            personas=self._services.personas,
            persona_id=reply.persona_id,
            version=reply.adapter_version,
        )

    @commands.Cog.listener()
    async def on_version_changed(self, guild_id: int, persona_id: str) -> None:
        await record_all_feedback(
            self._services.home,
            self._services.store,
            personas=self._services.personas,
            persona_id=persona_id,
            guild_id=guild_id,
        )
