"""The guild in which the bot runs without a Discord account: its channels, members and personas."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import discord

from bot.chat.reply_service import ReplyService
from bot.platform.permissions import required_permissions
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from bot.privacy.redaction import contains_person
from sandbox import (
    FORUM_CHANNEL,
    SILENCED_PERMISSIONS,
    VOICE_CHANNEL,
    ChannelSeed,
    DepartingMember,
    GuildSeed,
    MemberSeed,
    Permission,
    PostSeed,
    RoleSeed,
    Sandbox,
)

MODERATOR = "Mina Vale"
MEMBER = "Tobias Reed"
NEWCOMER = "Wren Castle"
OWNER = "Edwina Harrow"

CHANNEL_PERSONAS = {
    "weighbridge-quay": "ballast",
    "the-damp-lantern": "oda",
    "drowned-stage": "thrip",
}
"""The personas of the channels of a new guild."""

# Two more members: the owner, and one who may only read.
SKERROW_SEED = GuildSeed(
    name="Skerrow Harbour",
    channels=(
        ChannelSeed("weighbridge-quay", "Where the lifting is done. Dock Crane No. 3 answers."),
        ChannelSeed("the-damp-lantern", "The inn at the bottom of Eel Stair. Boots on the rail."),
        ChannelSeed(
            "drowned-stage", "The stage of the Grand Tidal Opera. Its leading actor is at home."
        ),
        ChannelSeed("harbour-office", "For commands. /persona create makes a character."),
        ChannelSeed("signal-tower", type=VOICE_CHANNEL),
        ChannelSeed(
            "lost-and-found",
            "One post for each thing. /persona set in a post gives it a character.",
            type=FORUM_CHANNEL,
            posts=(
                PostSeed(
                    "A brass lantern without a handle",
                    OWNER,
                    "It stood on the quay this morning, still warm. Whose is it?",
                ),
            ),
        ),
    ),
    roles=(
        RoleSeed("Regular", 0, 0xB07D3C),
        RoleSeed("Silenced", 0, denied=SILENCED_PERMISSIONS),
        RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES), 0x2E8B8B),
    ),
    members=(
        MemberSeed(MODERATOR, ("Moderator",)),
        MemberSeed(MEMBER, ("Regular",)),
        MemberSeed(OWNER, owner=True),
        MemberSeed(NEWCOMER),
        MemberSeed("Silas Mott", ("Silenced",)),
    ),
    bot_name="Understudy",
    bot_avatar=Path(__file__).with_name("avatar.png"),
    bot_permissions=int(
        required_permissions().value | Permission.CONNECT | Permission.CHANGE_NICKNAME
    ),
    welcome=(
        "Your name at the bottom of the channel list lets you be somebody else.",
        "Ask Ballast something in #weighbridge-quay, then ask Oda the same in #the-damp-lantern.",
        "Make a character of your own with /persona create, or train one with /finetune start.",
    ),
    developer_tools=False,
)


SMALL_MODEL_LINE = (
    "A toy answers here, a model of 135 million parameters: it learns a voice, and where the talk "
    "makes sense, it is in words that a character's author wrote. Models, "
    "at the bottom left, fetches a larger one where a model hub can be reached; they go on talking "
    "meanwhile."
)
"""Said of the bundled model."""


@dataclass(frozen=True)
class DemoGuild:
    """A guild to create, and the personas of its channels."""

    seed: GuildSeed
    homes: Mapping[str, str]


SKERROW_HARBOUR = DemoGuild(SKERROW_SEED, CHANNEL_PERSONAS)


def forget_in_sandbox(sandbox: Sandbox, traces: PersonIdentifiers) -> None:
    """Erase a member from the sandbox, whose state is in the bot's home."""
    finder = IdentifierMatcher(traces)
    sandbox.erase(
        DepartingMember(
            ids=traces.ids,
            answers=traces.answers,
            finds=finder.in_text,
            redacted=finder.redacted,
            holds=lambda name, data: finder.in_text(name) or contains_person(name, data, finder),
        )
    )


def forget_in_stored_sandbox(home: Path, traces: PersonIdentifiers) -> None:
    """Erase a member from the sandbox's stored state, if there is one, while no bot runs."""
    state = home / "sandbox.sqlite"
    if state.exists():
        sandbox = Sandbox(SKERROW_SEED, state)
        try:
            forget_in_sandbox(sandbox, traces)
        finally:
            sandbox.close_state()


async def assign_channel_personas(
    client: discord.Client,
    sandbox: Sandbox,
    reply_service: ReplyService,
    homes: Mapping[str, str] = CHANNEL_PERSONAS,
) -> None:
    """Give each channel of a new guild its persona, which posts its greeting."""
    guild = client.get_guild(sandbox.guild_id)
    assert guild is not None  # the sandbox's only guild, and the client is ready
    for channel in guild.text_channels:
        persona = reply_service.personas.get(homes.get(channel.name, ""), guild.id)
        if persona and not reply_service.store.channels.get(guild.id, channel.id):
            reply_service.assign(
                persona, channel, answers="everything", user_id=guild.owner_id or 0
            )
            await reply_service.greet(persona, channel)
