"""Discord's JSON objects with every field that discord.py reads, and parsing of mentions."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.channel_types import (
    DIRECT_CHANNEL,
    FORUM_CHANNEL,
    THREAD_CHANNEL,
    VOICE_CHANNEL,
    VOICE_TYPES,
)
from sandbox.guild_seed import ChannelSeed
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import Json

MENTION_TYPES = ("users", "roles", "everyone")


def format_timestamp(seconds: float) -> str:
    """Format a time as Discord does: always with microseconds and offset."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def without_nulls(node: Any) -> Any:
    """Remove nulls from what a bot sent: Discord omits these fields in its responses."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [without_nulls(value) for value in node]
    return node


def _fields(names: str, value: object) -> Json:
    return dict.fromkeys(names.split(), value)


def user(user_id: str, name: str, *, bot: bool = False, avatar: str | None = None) -> Json:
    """Build a user; a webhook's author, too."""
    username = name
    global_name = None
    if not bot:  # a member's user name has small letters and no spaces
        username = name.lower().replace(" ", "_")
        global_name = name
    return {
        "id": user_id,
        "username": username,
        "global_name": global_name,
        "discriminator": "0",
        "avatar": avatar,
        "bot": bot,
        "primary_guild": None,
        **_fields("public_flags flags", 0),
    }


def webhook_author(webhook_id: str, name: str, avatar: str | None) -> Json:
    """Build the author of a webhook's message: not an account, so it cannot be mentioned."""
    return user(webhook_id, name, bot=True, avatar=avatar) | {"discriminator": "0000"}


def member(of: Json, role_ids: list[str], joined_at: str) -> Json:
    unset = _fields("nick avatar banner premium_since communication_disabled_until", None)
    no = _fields("pending deaf mute", False)
    return {"user": of, "roles": role_ids, "joined_at": joined_at, "flags": 0, **unset, **no}


def role(role_id: str, name: str, permissions: int, colour: int, position: int) -> Json:
    """Build a role; permissions are text because they exceed JavaScript's numbers."""
    return {
        "id": role_id,
        "name": name,
        "color": colour,
        "colors": {"primary_color": colour, "secondary_color": None, "tertiary_color": None},
        "position": position,
        "permissions": str(permissions),
        "flags": 0,
        **_fields("icon unicode_emoji", None),
        **_fields("hoist managed mentionable", False),
    }


def channel(
    channel_id: str, guild_id: str, position: int, seed: ChannelSeed, overwrites: list[Json]
) -> Json:
    base = {
        "id": channel_id,
        "type": seed.type,
        "guild_id": guild_id,
        "name": seed.name,
        "topic": seed.topic or None,
        "position": position,
        "nsfw": seed.nsfw,
        "permission_overwrites": overwrites,
        **_fields("parent_id last_message_id", None),
        **_fields("rate_limit_per_user flags", 0),
    }
    if seed.type in VOICE_TYPES:
        base |= {"bitrate": 64_000, "user_limit": 0, "rtc_region": None}
    if seed.type == VOICE_CHANNEL:
        del base["topic"]  # in its place Discord has a status, which no bot is sent
    if seed.type == FORUM_CHANNEL:
        base |= {
            "available_tags": [],
            "default_forum_layout": 0,
            **_fields("default_reaction_emoji default_sort_order", None),
        }
    return base


def thread(thread_id: str, parent: Json, owner_id: str, name: str, created_at: str) -> Json:
    """Build a public thread; like Discord's it has no topic of its own, and inherits the age
    restriction.
    """
    return {
        "id": thread_id,
        "type": THREAD_CHANNEL,
        "guild_id": parent["guild_id"],
        "parent_id": parent["id"],
        "owner_id": owner_id,
        "name": name,
        "last_message_id": None,
        "member_count": 1,
        "thread_metadata": {
            "auto_archive_duration": 4320,
            **_fields("archive_timestamp create_timestamp", created_at),
            **_fields("archived locked", False),
        },
        **_fields("message_count total_message_sent rate_limit_per_user flags", 0),
    }


def direct(channel_id: str, recipient: Json) -> Json:
    """Build the direct messages with someone, as the other side sees them."""
    return {
        "id": channel_id,
        "type": DIRECT_CHANNEL,
        "last_message_id": None,
        "flags": 0,
        "recipients": [recipient],
    }


def guild(
    guild_id: str, name: str, owner_id: str, roles: list[Json], *, preferred_locale: str
) -> Json:
    """Build a guild as returned by GET /guilds/{id}."""
    zero = (
        "verification_level default_message_notifications explicit_content_filter mfa_level "
        "nsfw_level premium_tier "
        "premium_subscription_count system_channel_flags"
    )
    missing = (
        "icon banner splash discovery_splash home_header description application_id "
        "vanity_url_code max_presences "
        "afk_channel_id system_channel_id rules_channel_id widget_channel_id "
        "safety_alerts_channel_id "
        "public_updates_channel_id incidents_data"
    )
    return {
        "id": guild_id,
        "name": name,
        "owner_id": owner_id,
        "features": [],
        "preferred_locale": preferred_locale,
        "region": "deprecated",
        "afk_timeout": 300,
        "max_members": 500_000,
        "max_video_channel_users": 25,
        "max_stage_video_channel_users": 50,
        "emojis": [],
        "stickers": [],
        "roles": roles,
        **_fields(zero, 0),
        **_fields(missing, None),
        **_fields("nsfw widget_enabled premium_progress_bar_enabled", False),
    }


def guild_create(
    base: Json, channels: list[Json], threads: list[Json], members: list[Json], joined_at: str
) -> Json:
    """Build a guild as in GUILD_CREATE."""
    empty = "voice_states presences stage_instances guild_scheduled_events soundboard_sounds"
    return {
        **base,
        "channels": channels,
        "threads": threads,
        "members": members,
        "member_count": len(members),
        "large": False,
        "unavailable": False,
        "joined_at": joined_at,
        **{name: [] for name in empty.split()},
    }


def application(bot: Json, owner: Json, guild_count: int, *, user_install: bool) -> Json:
    """Build the bot's application; its id is the bot's, as for every application created today."""
    return {
        "id": bot["id"],
        "name": bot["username"],
        "description": "",
        "flags_new": "0",
        "bot": bot,
        "verify_key": "0" * 64,
        "owner": owner,
        "redirect_uris": [],
        "approximate_guild_count": guild_count,
        "eligible_oauth2_scopes": [],
        "integration_types_config": {"0": {}, "1": {}} if user_install else {"0": {}},
        **_fields("bot_public bot_require_code_grant", False),
        **_fields(
            "icon type interactions_endpoint_url role_connections_verification_url team", None
        ),
        **_fields("flags explicit_content_filter", 0),
        **_fields("approximate_user_install_count approximate_user_authorization_count", 0),
    }


def file_name(name: str) -> str:
    """Return the name that Discord gives an uploaded file."""
    return re.sub(r"[^\w.-]", "_", name)


def attachment(file_id: str, channel_id: str, file: StoredFile) -> Json:
    """Build an attachment; its URL is a path on the sandbox's own server."""
    name = file_name(file.name)
    return {
        "id": file_id,
        "filename": name,
        "size": len(file.data),
        "content_type": file.type,
        "url": f"/attachments/{channel_id}/{file_id}/{name}",
    }


def embed(sent: Json) -> Json:
    """Build an embed as Discord returns it."""
    rendered = {"type": "rich", **sent}
    if fields := [{"inline": False, **field} for field in sent.get("fields") or ()]:
        rendered["fields"] = fields
    return rendered


@dataclass(frozen=True)
class ParsedMentions:
    """The mentioned ids in the order of the text, and whether everyone is mentioned."""

    users: tuple[str, ...]
    roles: tuple[str, ...]
    everyone: bool


def find_mentions(content: str, allowed: Json | None, replied_to: str | None) -> ParsedMentions:
    """Return the pinging mentions of `content` by allowed_mentions (None: all, and the replied-to
    author).
    """
    rule: Json = {"parse": MENTION_TYPES, "replied_user": True}
    if allowed is not None:
        rule = allowed
    users = _allowed_ids(re.findall(r"<@!?(\d+)>", content), rule, "users")
    if replied_to is not None and rule.get("replied_user"):
        users = [*users, replied_to]
    parse = rule.get("parse") or ()
    everyone = "everyone" in parse and re.search(r"@(everyone|here)\b", content) is not None
    roles = _allowed_ids(re.findall(r"<@&(\d+)>", content), rule, "roles")
    return ParsedMentions(tuple(dict.fromkeys(users)), tuple(dict.fromkeys(roles)), everyone)


def _allowed_ids(mentioned: list[str], rule: Json, kind: str) -> list[str]:
    """Return the ids that may be mentioned: all if `parse` has their kind, else those listed."""
    parse = rule.get("parse")
    if isinstance(parse, list | tuple) and kind in parse:
        return mentioned
    listed = {str(listed_id) for listed_id in rule.get(kind) or ()}
    return [mentioned_id for mentioned_id in mentioned if mentioned_id in listed]
