"""`/persona why`: why messages of a channel were answered or not."""

import re
from collections.abc import Sequence

import discord
from discord import app_commands

from bot.chat.addressing import Decision
from bot.chat.decision_log import NotedDecision
from bot.chat.discord_addressing import decide_on
from bot.chat.discord_answers import SAFETY_REMARK
from bot.chat.discord_missed import MISSED_MINUTES
from bot.chat.places import GuildChannel, SpeakChannel, may_read, may_see
from bot.chat.reply_text import discord_text
from bot.chat.voice_messages import voice_file
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    guild_moderators_only,
    require_guild_channel,
)
from bot.platform.discord_kit.ui import defer, respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localise
from bot.platform.messages import markdown_name
from bot.services import Bot, Services
from bot.store import StoredReply

MAX_EXPLAINED = 8
MAX_READ_MESSAGES = 40
"""Latest messages of the channel among which those of members are looked for."""
MAX_SHOWN_CHARS = 60
MESSAGE_PATTERN = re.compile(r"(?:https://[\w.]+/channels/(\d{1,20})/(\d{1,20})/)?(\d{1,20})/?")
NO_HISTORY_TEXT = gettext_lazy("I lack the permission Read Message History there.")


@guild_moderators_only(gettext_lazy("This is asked about the channels of a server."))
@PERSONA.command(
    description=gettext_noop("Say why the latest messages here were answered or not (moderators).")
)
@app_commands.describe(
    message=gettext_noop("A message's link or id (the latest ones of this channel, if left out)")
)
async def why(
    interaction: Interaction, message: app_commands.Range[str, 1, 200] | None = None
) -> None:
    await defer(interaction, ephemeral=True)
    try:
        if message:
            asked = [await _find_message(interaction, message)]
        else:
            channel = require_guild_channel(interaction)
            asked = await _latest_messages(channel, interaction.client.services)
    except discord.Forbidden:
        raise RefusedError(
            NO_HISTORY_TEXT, gettext_lazy("A server's owner can grant it.")
        ) from None
    if not asked:
        raise RefusedError(
            gettext_lazy("No member has written here lately."),
            gettext_lazy("Give the link of a message."),
        )
    lines = [_explanation(interaction.client, message) for message in asked]
    await respond(interaction, "\n".join(lines))


async def _latest_messages(channel: GuildChannel, services: Services) -> list[discord.Message]:
    """Return the latest messages of members, and the copies of them that proxies have posted, oldest
    first.
    """
    messages = []
    async for message in channel.history(limit=MAX_READ_MESSAGES):
        is_other = message.author.bot or message.webhook_id
        is_copy = services.store.messages.is_of_member(message.id)
        is_copy = is_copy or services.decisions.find(channel.id, message.id) is not None
        if not is_other or is_copy:
            messages.append(message)
        if len(messages) == MAX_EXPLAINED:
            break
    return messages[::-1]


async def _find_message(interaction: Interaction, text: str) -> discord.Message:
    """Find a message by its link or id. Raises `RefusedError`."""
    found = MESSAGE_PATTERN.fullmatch(text.strip().strip("<>"))
    if found is None:
        raise RefusedError(
            gettext_lazy("That is no message."),
            gettext_lazy("Copy the link of one: its menu has *Copy Message Link*."),
        )
    guild_id, channel_id, message_id = found.groups()
    channel = require_guild_channel(interaction)
    if channel_id and int(channel_id) != channel.id:
        guild = interaction.guild
        place = guild.get_channel_or_thread(int(channel_id)) if guild else None
        is_here = guild is not None and guild_id == str(guild.id)
        if (
            not is_here
            or not isinstance(place, GuildChannel)
            or not _has_access(interaction, place)
        ):
            raise RefusedError(gettext_lazy("That message is in no channel that you see here."))
        channel = place
    try:
        return await channel.fetch_message(int(message_id))
    except discord.NotFound:
        raise RefusedError(
            gettext_lazy("That message is gone."), gettext_lazy("Choose another one.")
        ) from None


def _has_access(interaction: Interaction, channel: GuildChannel) -> bool:
    user = interaction.user
    return isinstance(user, discord.Member) and may_see(channel, user) and may_read(channel, user)


def _explanation(bot: Bot, message: discord.Message) -> str:
    """Return a line about a message: its author, its first words unless they speak of self-harm, and
    what was decided about it.
    """
    shown_text = bot.services.message_reader.shown_text(message)
    words = " ".join(discord_text(shown_text).split())
    if _speaks_of_self_harm(bot, message):
        words = ""
    if len(words) > MAX_SHOWN_CHARS:
        words = f"{words[: MAX_SHOWN_CHARS - 1]}…"
    name = discord_text(message.author.display_name)
    shown = f": {words}" if words else ""
    return f"• **{name}**{shown}\n-# {explain(bot, message)}"


def explain(bot: Bot, message: discord.Message) -> str:
    """Say in the present language whether a message was answered, and by which rule."""
    return localise(join_texts(*_sentences(bot, message)))


def _sentences(bot: Bot, message: discord.Message) -> list[str]:
    channel = message.channel
    if not isinstance(channel, SpeakChannel):
        return [gettext_lazy("Not answered: personas do not speak there.")]
    services = bot.services
    replies = services.store.replies
    asked = replies.of_asked(message.id)
    noted = services.decisions.find(channel.id, message.id)
    if message.author.bot or message.webhook_id:
        return [_copy_sentence(bot, message, asked, noted=noted)]
    decision = noted.decision if noted else _decision_of_now(bot, message, channel)
    missed: list[str] = []
    if noted and noted.is_missed:
        missed = [gettext_lazy("It waited until the bot was back.")]
    rule = decision.rule.value
    if noted is None and not decision.is_answered:
        rule = gettext_lazy(
            "by which rule is not known any more, as what is set here has changed since"
        )
    if answer := _answer_text(bot, asked):
        if not replies.get(message.id):
            answer = gettext_lazy("{answer} together with other lines of the member", answer=answer)
        besides = _besides(bot, message, asked, noted=noted)
        return [_ruled(answer, rule), *missed, *besides]
    if asked:
        reason = _remark(bot, message, asked, noted=noted)
        return [_unanswered(rule, reason), *missed]
    if not decision.is_answered:
        since: list[str] = []
        if not noted:
            since = [gettext_lazy("By the settings of now: the bot has started since.")]
        left_alone = gettext_lazy("Not answered: {rule}.", rule=decision.rule.value)
        besides = _besides(bot, message, asked, noted=noted)
        return [left_alone, *besides, *missed, *since]
    reason = _remark(bot, message, asked, noted=noted)
    return [_unanswered(decision.rule.value, reason)]


def _decision_of_now(bot: Bot, message: discord.Message, channel: SpeakChannel) -> Decision:
    """Decide on a message by the settings of now, as at its time."""
    spoken: str | None = ""
    if voice_file(message):
        spoken = bot.services.store.messages.text_of(message.id)  # it begins with what was said
    return decide_on(bot, message, channel, at=message.created_at, spoken=spoken or "")


def _ruled(answer: str, rule: str) -> str:
    return gettext_lazy("{answer}: {rule}.", answer=answer, rule=rule)


def _copy_sentence(
    bot: Bot,
    message: discord.Message,
    asked: Sequence[StoredReply],
    *,
    noted: NotedDecision | None,
) -> str:
    """Say whether a message of a bot or webhook was answered: as a proxy's copy, or not at all."""
    again = gettext_lazy("a proxy has posted a member's message again")
    if answer := _answer_text(bot, asked):
        return _ruled(answer, again)
    if asked or noted:
        reason = _remark(bot, message, asked, noted=noted)
        return _unanswered(again, reason)
    return gettext_lazy(
        "Not answered: bots and webhooks are never answered, but for a proxy's copies."
    )


def _unanswered(rule: str, reason: str) -> str:
    return gettext_lazy(
        "Said to the persona ({rule}), but without a reply: {reason}.", rule=rule, reason=reason
    )


def _besides(
    bot: Bot,
    message: discord.Message,
    asked: Sequence[StoredReply],
    *,
    noted: NotedDecision | None,
) -> list[str]:
    """Say in a sentence why personas have not answered a message; none where nothing is known of
    that.
    """
    if not (noted and noted.remarks) and all(map(_has_begun, asked)):
        return []
    remark = localise(_remark(bot, message, asked, noted=noted))
    return [gettext_lazy("{remark}.", remark=f"{remark[:1].upper()}{remark[1:]}")]


def _remark(
    bot: Bot,
    message: discord.Message,
    asked: Sequence[StoredReply],
    *,
    noted: NotedDecision | None,
) -> str:
    """Say why a message that is said to a persona has no reply, or not of each that was asked."""
    if noted and noted.remarks:
        return noted.remark_text()
    if _speaks_of_self_harm(bot, message):
        return SAFETY_REMARK
    if missing := [reply for reply in asked if not _has_begun(reply)]:
        return "; ".join(localise(_missing_text(bot, reply)) for reply in missing)
    if noted:
        return gettext_lazy("the message waits, or was changed or deleted before its reply began")
    if message.created_at.timestamp() < bot.services.decisions.looked_back_to:
        return gettext_lazy(
            "the bot has come back since, and answers what came in the last {minutes} minutes "
            "before; or its reply is no longer stored",
            minutes=MISSED_MINUTES,
        )
    return gettext_lazy("the bot was not here then, or its reply is no longer stored")


def _speaks_of_self_harm(bot: Bot, message: discord.Message) -> bool:
    services = bot.services
    return services.safety.finds(services.message_reader.text(message)) is not None


def _has_begun(reply: StoredReply) -> bool:
    """Report whether something of a reply was posted, or is yet to be. Its messages may be deleted
    by now: only the end of one that was posted stores a seed.
    """
    return bool(reply.parts) or reply.state not in ("stopped", "failed") or reply.seed is not None


def _answer_text(bot: Bot, asked: Sequence[StoredReply]) -> str:
    """Say who answers a message: one persona, or several in their order; empty where none does."""
    text = ""
    for reply in filter(_has_begun, asked):
        answer = localise(_reply_text(bot, reply))
        if text:
            lowered = f"{answer[:1].lower()}{answer[1:]}"
            answer = gettext_lazy("{answers}, then {answer}", answers=text, answer=lowered)
        text = answer
    return text


def _missing_text(bot: Bot, reply: StoredReply) -> str:
    """Say what became of a reply of which nothing is there."""
    name = _persona_name(bot, reply)
    if reply.state == "failed":
        return gettext_lazy("the reply of {persona} failed", persona=name)
    return gettext_lazy(
        "the reply of {persona} was stopped before it began, or deleted while it was written",
        persona=name,
    )


def _persona_name(bot: Bot, reply: StoredReply) -> str:
    persona = bot.services.personas.get(reply.persona_id, reply.guild_id)
    return markdown_name(persona) if persona else gettext_lazy("a persona that is no longer here")


def _reply_text(bot: Bot, reply: StoredReply) -> str:
    name = _persona_name(bot, reply)
    if reply.state == "failed":
        return gettext_lazy("Answered by {persona}, whose reply failed", persona=name)
    if reply.state in ("waiting", "streaming"):
        return gettext_lazy("Being answered by {persona}", persona=name)
    return gettext_lazy("Answered by {persona}", persona=name)
