"""Discord's HTTP API as far as the bot uses it: a handler for each route, and the route table."""

from bot.sandbox import payloads, validation
from bot.sandbox.application_commands import GLOBAL_SCOPE
from bot.sandbox.channel_messages import HAS_THREAD, MessageDraft
from bot.sandbox.container import SandboxContainer
from bot.sandbox.gateway import without_content
from bot.sandbox.guild_seed import Permission
from bot.sandbox.http_api import ApiCall, Route
from bot.sandbox.interactions import Interaction
from bot.sandbox.network_conditions import SESSION_START_LIMIT
from bot.sandbox.payloads import DIRECT_CHANNEL, TEXT_CHANNEL, THREAD_CHANNEL
from bot.sandbox.sandbox_errors import ApiError, Json


def me(container: SandboxContainer, call: ApiCall) -> Json:
    return container.guild.bot | {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None}


def gateway_bot(container: SandboxContainer, call: ApiCall) -> Json:
    left, seconds = container.gateway.session_starts_left()
    starts = {
        "total": SESSION_START_LIMIT.most,
        "remaining": left,
        "reset_after": int(seconds * 1000),
        "max_concurrency": 1,
    }
    return {"url": container.gateway.url, "shards": 1, "session_start_limit": starts}


def get_guild(container: SandboxContainer, call: ApiCall) -> Json:
    return container.guild.shape() | {"approximate_member_count": len(container.guild.members())}


def get_members(container: SandboxContainer, call: ApiCall) -> list[Json]:
    after = call.number("after") or 0
    later = [member for member in container.guild.members() if int(member["user"]["id"]) > after]
    return later[: call.number("limit") or 1]


def _scope(call: ApiCall) -> str:
    return str(call.path.get("guild_id", GLOBAL_SCOPE))


def open_direct(container: SandboxContainer, call: ApiCall) -> Json:
    recipient = container.store.get("member", (call.body or {}).get("recipient_id"))
    if recipient is None or recipient["user"]["bot"]:
        raise ApiError(50033)
    return container.places.direct(recipient["user"]["id"])


def _channel(container: SandboxContainer, call: ApiCall, needed: Permission) -> Json:
    channel = container.guild.channel(call.path["channel_id"])
    container.guild.require(needed, channel)
    return channel


def _as_read(container: SandboxContainer, channel: Json, message: Json) -> Json:
    """Render a message for the HTTP API: the portal's intent switch applies here, not a session's intents."""
    is_open = container.conditions.message_content or channel["type"] == DIRECT_CHANNEL
    return message if is_open else without_content(message, container.guild.bot_id)


def history(container: SandboxContainer, call: ApiCall) -> list[Json]:
    channel = _channel(container, call, Permission.VIEW_CHANNEL)
    if not _reads_history(container, channel):
        return []
    limit = min(call.number("limit") or 50, 100)
    found = container.messages.history(channel["id"], limit, call.number("before"), call.number("after"))
    return [_as_read(container, channel, message) for message in reversed(found)]


def get_message(container: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(container, call, Permission.READ_MESSAGE_HISTORY)
    return _as_read(container, channel, container.messages.find(call.path["message_id"], channel["id"]))


def create_message(container: SandboxContainer, call: ApiCall) -> Json:
    channel, draft = _channel(container, call, Permission.SEND_MESSAGES), call.draft()
    draft.check()
    _check_parts(container, channel, draft)
    if draft.body.get("message_reference") and not _reads_history(container, channel):
        raise ApiError(160002)
    return container.messages.create(container.guild.bot, channel["id"], draft)


def _reads_history(container: SandboxContainer, channel: Json) -> bool:
    return container.guild.may(container.guild.bot_id, Permission.READ_MESSAGE_HISTORY, channel)


def _check_parts(container: SandboxContainer, channel: Json, draft: MessageDraft) -> None:
    if draft.body.get("embeds"):
        container.guild.require(Permission.EMBED_LINKS, channel)
    if draft.files:
        container.guild.require(Permission.ATTACH_FILES, channel)


def start_thread(container: SandboxContainer, call: ApiCall) -> Json:
    channel, message = _channel(container, call, Permission.CREATE_PUBLIC_THREADS), None
    validation.check_limits(call.body, validation.THREAD)
    if "message_id" in call.path:
        message = container.messages.find(call.path["message_id"], channel["id"])
    if channel["type"] != TEXT_CHANNEL or (message is None and call.body.get("type") != THREAD_CHANNEL):
        raise ApiError(50024)
    if message and message["flags"] & HAS_THREAD:
        raise ApiError(160004)
    return container.places.thread(container.guild.bot, channel, call.body["name"], message)


def edit_message(container: SandboxContainer, call: ApiCall) -> Json:
    channel, draft = _channel(container, call, Permission.VIEW_CHANNEL), call.draft()
    message = container.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != container.guild.bot_id:
        raise ApiError(50005)
    _check_parts(container, channel, draft)
    return container.messages.edit(message["id"], draft)


def delete_message(container: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(container, call, Permission.VIEW_CHANNEL)
    message = container.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != container.guild.bot_id:
        container.guild.require(Permission.MANAGE_MESSAGES, channel)
    container.messages.delete(message["id"])


def typing(container: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(container, call, Permission.SEND_MESSAGES)
    container.feed.publish("typing", {"channel_id": channel["id"], "user": container.guild.bot})


def _webhook_channel(container: SandboxContainer, call: ApiCall) -> Json:
    """Return the channel whose webhooks apply: for a thread, its parent."""
    channel = _channel(container, call, Permission.MANAGE_WEBHOOKS)
    if channel["type"] != TEXT_CHANNEL:
        raise ApiError(50024)
    return channel


def guild_webhooks(container: SandboxContainer, call: ApiCall) -> list[Json]:
    container.guild.require(Permission.MANAGE_WEBHOOKS)
    return container.webhooks.of_guild()


def get_webhook(container: SandboxContainer, call: ApiCall) -> Json:
    """Find a webhook, by its own token or by the bot's permission to manage it."""
    if "token" not in call.path:
        container.guild.require(Permission.MANAGE_WEBHOOKS)
    return container.webhooks.find(call.path["webhook_id"], call.path.get("token"))


def execute_webhook(container: SandboxContainer, call: ApiCall) -> Json | None:
    interaction = container.interactions.by_token(call.path["token"])
    if interaction is not None:
        return container.interactions.follow_up(interaction, call.draft())
    hook = get_webhook(container, call)
    message = container.webhooks.execute(
        hook, container.webhooks.place(hook, call.query.get("thread_id")), call.draft()
    )
    return message if call.asks("wait") else None


def get_webhook_message(container: SandboxContainer, call: ApiCall) -> Json:
    """Find a message that the webhook or the interaction created; one in a thread needs the thread's id."""
    interaction = container.interactions.by_token(call.path["token"])
    if interaction is not None and call.path["message_id"] == "@original":
        return container.interactions.original(interaction)
    hook = None if interaction else get_webhook(container, call)
    place = container.webhooks.place(hook, call.query.get("thread_id")) if hook else None
    message = container.messages.find(call.path["message_id"], place)
    if message.get("webhook_id") != call.path["webhook_id"]:
        raise ApiError(10008)
    return message


def callback(container: SandboxContainer, call: ApiCall) -> Json | None:
    ids = call.path["interaction_id"], call.path["token"]
    interaction: Interaction = container.interactions.answer(*ids, call.body or {}, call.draft("data"))
    return container.interactions.receipt(interaction) if call.asks("with_response") else None


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
    (
        "GET",
        "/oauth2/applications/@me",
        lambda container, call: payloads.application(container.guild.bot, container.guild.owner),
    ),
    ("GET", "/gateway/bot", gateway_bot),
    ("GET", "/guilds/{guild_id}", get_guild),
    ("GET", "/guilds/{guild_id}/roles", lambda container, call: container.guild.roles()),
    ("GET", "/guilds/{guild_id}/channels", lambda container, call: container.guild.channels()),
    ("GET", "/guilds/{guild_id}/members", get_members),
    (
        "GET",
        "/guilds/{guild_id}/members/{user_id}",
        lambda container, call: container.guild.member(call.path["user_id"]),
    ),
    ("GET", "/guilds/{guild_id}/webhooks", guild_webhooks),
    ("GET", COMMANDS, lambda container, call: container.commands.registered(_scope(call))),
    ("PUT", COMMANDS, lambda container, call: container.commands.replace(_scope(call), call.body or [])),
    ("GET", GUILD_COMMANDS, lambda container, call: container.commands.registered(_scope(call))),
    ("PUT", GUILD_COMMANDS, lambda container, call: container.commands.replace(_scope(call), call.body or [])),
    ("GET", "/channels/{channel_id}", lambda container, call: _channel(container, call, Permission.VIEW_CHANNEL)),
    ("GET", "/channels/{channel_id}/messages", history),
    ("POST", "/channels/{channel_id}/messages", create_message),
    ("GET", MESSAGE, get_message),
    ("PATCH", MESSAGE, edit_message),
    ("DELETE", MESSAGE, delete_message),
    ("POST", MESSAGE + "/threads", start_thread),
    ("POST", "/channels/{channel_id}/threads", start_thread),
    ("POST", "/channels/{channel_id}/typing", typing),
    ("GET", WEBHOOKS, lambda container, call: container.webhooks.of_channel(_webhook_channel(container, call)["id"])),
    (
        "POST",
        WEBHOOKS,
        lambda container, call: container.webhooks.create(_webhook_channel(container, call)["id"], call.body or {}),
    ),
    ("GET", WEBHOOK, get_webhook),
    ("PATCH", WEBHOOK, lambda container, call: container.webhooks.edit(get_webhook(container, call), call.body)),
    ("DELETE", WEBHOOK, lambda container, call: container.webhooks.delete(get_webhook(container, call))),
    ("GET", WEBHOOK_EXECUTION, get_webhook),
    (
        "PATCH",
        WEBHOOK_EXECUTION,
        lambda container, call: container.webhooks.edit(get_webhook(container, call), call.body),
    ),
    ("DELETE", WEBHOOK_EXECUTION, lambda container, call: container.webhooks.delete(get_webhook(container, call))),
    ("POST", WEBHOOK_EXECUTION, execute_webhook),
    ("GET", WEBHOOK_MESSAGE, get_webhook_message),
    (
        "PATCH",
        WEBHOOK_MESSAGE,
        lambda container, call: container.messages.edit(get_webhook_message(container, call)["id"], call.draft()),
    ),
    (
        "DELETE",
        WEBHOOK_MESSAGE,
        lambda container, call: container.messages.delete(get_webhook_message(container, call)["id"]),
    ),
    ("POST", "/interactions/{interaction_id}/{token}/callback", callback),
)
