"""Discord's HTTP API as far as the bot uses it: a handler for each route, and the route table."""

from sandbox import bot_member, payloads, validation
from sandbox.application_commands import GLOBAL_SCOPE
from sandbox.channel_messages import HAS_THREAD, MessageDraft
from sandbox.channel_types import (
    DIRECT_CHANNEL,
    FORUM_CHANNEL,
    TEXT_CHANNEL,
    THREAD_CHANNEL,
    WEBHOOK_TYPES,
)
from sandbox.container import SandboxContainer
from sandbox.gateway import without_content
from sandbox.guild_seed import Permission
from sandbox.http_api import ApiCall, Route
from sandbox.interactions import Interaction
from sandbox.network_conditions import SESSION_START_LIMIT
from sandbox.sandbox_errors import ApiError, Json


def me(parts: SandboxContainer, call: ApiCall) -> Json:
    return parts.guild.bot | {
        "mfa_enabled": False,
        "locale": "en-US",
        "verified": True,
        "email": None,
    }


def gateway_bot(parts: SandboxContainer, call: ApiCall) -> Json:
    left, seconds = parts.gateway.session_starts_left()
    starts = {
        "total": SESSION_START_LIMIT.most,
        "remaining": left,
        "reset_after": int(seconds * 1000),
        "max_concurrency": 1,
    }
    return {"url": parts.gateway.url, "shards": parts.gateway.shards, "session_start_limit": starts}


def get_user(parts: SandboxContainer, call: ApiCall) -> Json:
    user = parts.shared.find_user(call.path["user_id"])
    if user is None:
        raise ApiError(10013)
    return user


def application(parts: SandboxContainer, call: ApiCall) -> Json:
    return payloads.application(
        parts.guild.bot,
        parts.guild.owner,
        len(parts.shared.guilds),
        user_install=parts.guild.seed.user_install,
    )


def get_guild(parts: SandboxContainer, call: ApiCall) -> Json:
    return parts.guild.shape() | {"approximate_member_count": len(parts.guild.members())}


def get_members(parts: SandboxContainer, call: ApiCall) -> list[Json]:
    after = call.number("after") or 0
    later = [member for member in parts.guild.members() if int(member["user"]["id"]) > after]
    return later[: call.number("limit") or 1]


def _scope(call: ApiCall) -> str:
    return str(call.path.get("guild_id", GLOBAL_SCOPE))


def open_direct(parts: SandboxContainer, call: ApiCall) -> Json:
    recipient_id = (call.body or {}).get("recipient_id")
    for one in parts.shared.guilds:
        recipient = one.guild.find_member(recipient_id)
        if recipient is not None and not recipient["user"]["bot"]:
            return one.threads.direct(recipient["user"]["id"])
    raise ApiError(50033)


def _channel(parts: SandboxContainer, call: ApiCall, needed: Permission) -> Json:
    channel = parts.guild.channel(call.path["channel_id"])
    parts.guild.require(needed, channel)
    return channel


def _as_read(parts: SandboxContainer, channel: Json, message: Json) -> Json:
    """Render a message for the HTTP API: the portal's intent switch applies here, not a session's
    intents.
    """
    if parts.conditions.message_content or channel["type"] == DIRECT_CHANNEL:
        return message
    return without_content(message, parts.guild.bot_id)


def history(parts: SandboxContainer, call: ApiCall) -> list[Json]:
    channel = _channel(parts, call, Permission.VIEW_CHANNEL)
    if not _reads_history(parts, channel):
        return []
    limit = min(call.number("limit") or 50, 100)
    messages = parts.messages.history(
        channel["id"], limit, call.number("before"), call.number("after")
    )
    # Newest first, as Discord returns them.
    return [_as_read(parts, channel, message) for message in reversed(messages)]


def get_message(parts: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(parts, call, Permission.READ_MESSAGE_HISTORY)
    return _as_read(parts, channel, parts.messages.find(call.path["message_id"], channel["id"]))


def create_message(parts: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(parts, call, Permission.SEND_MESSAGES)
    if channel["type"] == FORUM_CHANNEL:
        raise ApiError(50008)
    draft = call.draft()
    draft.check()
    _check_parts(parts, channel, draft)
    if draft.body.get("message_reference") and not _reads_history(parts, channel):
        raise ApiError(160002)
    return parts.messages.create(parts.guild.bot, channel["id"], draft)


def _reads_history(parts: SandboxContainer, channel: Json) -> bool:
    return parts.guild.may(parts.guild.bot_id, Permission.READ_MESSAGE_HISTORY, channel)


def _check_parts(parts: SandboxContainer, channel: Json, draft: MessageDraft) -> None:
    if draft.body.get("embeds"):
        parts.guild.require(Permission.EMBED_LINKS, channel)
    if draft.files:
        parts.guild.require(Permission.ATTACH_FILES, channel)


def start_thread(parts: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(parts, call, Permission.CREATE_PUBLIC_THREADS)
    message = None
    validation.check_limits(call.body, validation.THREAD)
    if "message_id" in call.path:
        message = parts.messages.find(call.path["message_id"], channel["id"])
    # Without a message, the default type is a private thread, which the sandbox lacks.
    is_private = message is None and call.body.get("type") != THREAD_CHANNEL
    if channel["type"] != TEXT_CHANNEL or is_private:
        raise ApiError(50024)
    if message and message["flags"] & HAS_THREAD:
        raise ApiError(160004)
    return parts.threads.thread(parts.guild.bot, channel, call.body["name"], message)


def edit_message(parts: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(parts, call, Permission.VIEW_CHANNEL)
    draft = call.draft()
    message = parts.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != parts.guild.bot_id:
        raise ApiError(50005)
    parts.messages.require_open(channel["id"])
    _check_parts(parts, channel, draft)
    return parts.messages.edit(message["id"], draft)


def delete_message(parts: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(parts, call, Permission.VIEW_CHANNEL)
    message = parts.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != parts.guild.bot_id:
        parts.guild.require(Permission.MANAGE_MESSAGES, channel)
    parts.messages.require_open(channel["id"])
    parts.messages.delete(message["id"])


def typing(parts: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(parts, call, Permission.SEND_MESSAGES)
    parts.feed.publish("typing", {"channel_id": channel["id"], "user": parts.guild.bot})


def _webhook_channel(parts: SandboxContainer, call: ApiCall) -> Json:
    """Return the channel whose webhooks apply: for a thread, its parent."""
    channel = _channel(parts, call, Permission.MANAGE_WEBHOOKS)
    if channel["type"] not in WEBHOOK_TYPES:
        raise ApiError(50024)
    return channel


def guild_webhooks(parts: SandboxContainer, call: ApiCall) -> list[Json]:
    parts.guild.require(Permission.MANAGE_WEBHOOKS)
    return parts.webhooks.of_guild()


def get_webhook(parts: SandboxContainer, call: ApiCall) -> Json:
    """Find a webhook, by its own token or by the bot's permission to manage it."""
    if "token" not in call.path:
        parts.guild.require(Permission.MANAGE_WEBHOOKS)
    return parts.webhooks.find(call.path["webhook_id"], call.path.get("token"))


def execute_webhook(parts: SandboxContainer, call: ApiCall) -> Json | None:
    interaction = parts.interactions.by_token(call.path["token"])
    if interaction is not None:
        return parts.interactions.follow_up(interaction, call.draft())
    hook = get_webhook(parts, call)
    message = parts.webhooks.execute(
        hook, parts.webhooks.place(hook, call.query.get("thread_id")), call.draft()
    )
    return message if call.flag("wait") else None


def get_webhook_message(parts: SandboxContainer, call: ApiCall) -> Json:
    """Find a message that the webhook or the interaction created; one in a thread needs the
    thread's id.
    """
    interaction = parts.interactions.by_token(call.path["token"])
    if interaction is not None and call.path["message_id"] == "@original":
        return parts.interactions.original(interaction)
    hook = None if interaction else get_webhook(parts, call)
    channel_id = parts.webhooks.place(hook, call.query.get("thread_id")) if hook else None
    message = parts.messages.find(call.path["message_id"], channel_id)
    if message.get("webhook_id") != call.path["webhook_id"]:
        raise ApiError(10008)
    return message


def edit_webhook_message(parts: SandboxContainer, call: ApiCall) -> Json:
    return parts.messages.edit(_own_webhook_message(parts, call)["id"], call.draft())


def delete_webhook_message(parts: SandboxContainer, call: ApiCall) -> None:
    parts.messages.delete(_own_webhook_message(parts, call)["id"])


def _own_webhook_message(parts: SandboxContainer, call: ApiCall) -> Json:
    """Find a message to be changed by what created it; only an interaction may do that in an
    archived thread.
    """
    message = get_webhook_message(parts, call)
    if parts.interactions.by_token(call.path["token"]) is None:
        parts.messages.require_open(message["channel_id"])
    return message


def callback(parts: SandboxContainer, call: ApiCall) -> Json | None:
    ids = call.path["interaction_id"], call.path["token"]
    interaction: Interaction = parts.interactions.answer(*ids, call.body or {}, call.draft("data"))
    return parts.interactions.receipt(interaction) if call.flag("with_response") else None


COMMANDS = "/applications/{application_id}/commands"
GUILD_COMMANDS = "/applications/{application_id}/guilds/{guild_id}/commands"
MESSAGE = "/channels/{channel_id}/messages/{message_id}"
WEBHOOKS = "/channels/{channel_id}/webhooks"
WEBHOOK = "/webhooks/{webhook_id}"
WEBHOOK_EXECUTION = "/webhooks/{webhook_id}/{token}"
WEBHOOK_MESSAGE = WEBHOOK_EXECUTION + "/messages/{message_id}"

ROUTES: tuple[Route, ...] = (
    ("GET", "/users/@me", me),
    ("POST", "/users/@me/channels", open_direct),
    ("GET", "/users/{user_id}", get_user),
    ("GET", "/oauth2/applications/@me", application),
    ("GET", "/gateway/bot", gateway_bot),
    ("GET", "/guilds/{guild_id}", get_guild),
    ("GET", "/guilds/{guild_id}/roles", lambda parts, call: parts.guild.roles()),
    ("GET", "/guilds/{guild_id}/channels", lambda parts, call: parts.guild.channels()),
    ("GET", "/guilds/{guild_id}/members", get_members),
    (
        "PATCH",
        "/guilds/{guild_id}/members/@me",
        lambda parts, call: bot_member.edit(parts, call.body or {}),
    ),
    (
        "GET",
        "/guilds/{guild_id}/members/{user_id}",
        lambda parts, call: parts.guild.member(call.path["user_id"]),
    ),
    ("GET", "/guilds/{guild_id}/webhooks", guild_webhooks),
    ("GET", COMMANDS, lambda parts, call: parts.commands.registered(_scope(call))),
    ("PUT", COMMANDS, lambda parts, call: parts.commands.replace(_scope(call), call.body or [])),
    ("GET", GUILD_COMMANDS, lambda parts, call: parts.commands.registered(_scope(call))),
    (
        "PUT",
        GUILD_COMMANDS,
        lambda parts, call: parts.commands.replace(_scope(call), call.body or []),
    ),
    (
        "GET",
        "/channels/{channel_id}",
        lambda parts, call: _channel(parts, call, Permission.VIEW_CHANNEL),
    ),
    ("GET", "/channels/{channel_id}/messages", history),
    ("POST", "/channels/{channel_id}/messages", create_message),
    ("GET", MESSAGE, get_message),
    ("PATCH", MESSAGE, edit_message),
    ("DELETE", MESSAGE, delete_message),
    ("POST", MESSAGE + "/threads", start_thread),
    ("POST", "/channels/{channel_id}/threads", start_thread),
    ("POST", "/channels/{channel_id}/typing", typing),
    (
        "GET",
        WEBHOOKS,
        lambda parts, call: parts.webhooks.of_channel(_webhook_channel(parts, call)["id"]),
    ),
    (
        "POST",
        WEBHOOKS,
        lambda parts, call: parts.webhooks.create(
            _webhook_channel(parts, call)["id"], call.body or {}
        ),
    ),
    ("GET", WEBHOOK, get_webhook),
    (
        "PATCH",
        WEBHOOK,
        lambda parts, call: parts.webhooks.edit(get_webhook(parts, call), call.body),
    ),
    ("DELETE", WEBHOOK, lambda parts, call: parts.webhooks.delete(get_webhook(parts, call))),
    ("GET", WEBHOOK_EXECUTION, get_webhook),
    (
        "PATCH",
        WEBHOOK_EXECUTION,
        lambda parts, call: parts.webhooks.edit(get_webhook(parts, call), call.body),
    ),
    (
        "DELETE",
        WEBHOOK_EXECUTION,
        lambda parts, call: parts.webhooks.delete(get_webhook(parts, call)),
    ),
    ("POST", WEBHOOK_EXECUTION, execute_webhook),
    ("GET", WEBHOOK_MESSAGE, get_webhook_message),
    ("PATCH", WEBHOOK_MESSAGE, edit_webhook_message),
    ("DELETE", WEBHOOK_MESSAGE, delete_webhook_message),
    ("POST", "/interactions/{interaction_id}/{token}/callback", callback),
)
