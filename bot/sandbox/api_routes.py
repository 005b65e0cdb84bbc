"""Discord's HTTP API as far as the bot uses it: a handler for each route, and the route table."""

from bot.sandbox import payload_limits, payloads
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


def me(world: SandboxContainer, call: ApiCall) -> Json:
    return world.guild.bot | {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None}


def gateway_bot(world: SandboxContainer, call: ApiCall) -> Json:
    left, seconds = world.gateway.session_starts_left()
    starts = {
        "total": SESSION_START_LIMIT.most,
        "remaining": left,
        "reset_after": int(seconds * 1000),
        "max_concurrency": 1,
    }
    return {"url": world.gateway.url, "shards": 1, "session_start_limit": starts}


def get_guild(world: SandboxContainer, call: ApiCall) -> Json:
    return world.guild.shape() | {"approximate_member_count": len(world.guild.members())}


def get_members(world: SandboxContainer, call: ApiCall) -> list[Json]:
    after = call.number("after") or 0
    later = [member for member in world.guild.members() if int(member["user"]["id"]) > after]
    return later[: call.number("limit") or 1]


def _scope(call: ApiCall) -> str:
    return str(call.path.get("guild_id", GLOBAL_SCOPE))


def open_direct(world: SandboxContainer, call: ApiCall) -> Json:
    recipient = world.store.get("member", (call.body or {}).get("recipient_id"))
    if recipient is None or recipient["user"]["bot"]:
        raise ApiError(50033)
    return world.places.direct(recipient["user"]["id"])


def _channel(world: SandboxContainer, call: ApiCall, needed: Permission) -> Json:
    channel = world.guild.channel(call.path["channel_id"])
    world.guild.require(needed, channel)
    return channel


def _as_read(world: SandboxContainer, channel: Json, message: Json) -> Json:
    """Render a message for the HTTP API: the portal's intent switch applies here, not a session's intents."""
    is_open = world.conditions.message_content or channel["type"] == DIRECT_CHANNEL
    return message if is_open else without_content(message, world.guild.bot_id)


def history(world: SandboxContainer, call: ApiCall) -> list[Json]:
    channel = _channel(world, call, Permission.VIEW_CHANNEL)
    if not _reads_history(world, channel):
        return []
    limit = min(call.number("limit") or 50, 100)
    found = world.messages.history(channel["id"], limit, call.number("before"), call.number("after"))
    return [_as_read(world, channel, message) for message in reversed(found)]


def get_message(world: SandboxContainer, call: ApiCall) -> Json:
    channel = _channel(world, call, Permission.READ_MESSAGE_HISTORY)
    return _as_read(world, channel, world.messages.find(call.path["message_id"], channel["id"]))


def create_message(world: SandboxContainer, call: ApiCall) -> Json:
    channel, draft = _channel(world, call, Permission.SEND_MESSAGES), call.draft()
    draft.check()
    _check_parts(world, channel, draft)
    if draft.body.get("message_reference") and not _reads_history(world, channel):
        raise ApiError(160002)
    return world.messages.create(world.guild.bot, channel["id"], draft)


def _reads_history(world: SandboxContainer, channel: Json) -> bool:
    return world.guild.may(world.guild.bot_id, Permission.READ_MESSAGE_HISTORY, channel)


def _check_parts(world: SandboxContainer, channel: Json, draft: MessageDraft) -> None:
    if draft.body.get("embeds"):
        world.guild.require(Permission.EMBED_LINKS, channel)
    if draft.files:
        world.guild.require(Permission.ATTACH_FILES, channel)


def start_thread(world: SandboxContainer, call: ApiCall) -> Json:
    channel, message = _channel(world, call, Permission.CREATE_PUBLIC_THREADS), None
    payload_limits.check_limits(call.body, payload_limits.THREAD)
    if "message_id" in call.path:
        message = world.messages.find(call.path["message_id"], channel["id"])
    if channel["type"] != TEXT_CHANNEL or (message is None and call.body.get("type") != THREAD_CHANNEL):
        raise ApiError(50024)
    if message and message["flags"] & HAS_THREAD:
        raise ApiError(160004)
    return world.places.thread(world.guild.bot, channel, call.body["name"], message)


def edit_message(world: SandboxContainer, call: ApiCall) -> Json:
    channel, draft = _channel(world, call, Permission.VIEW_CHANNEL), call.draft()
    message = world.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != world.guild.bot_id:
        raise ApiError(50005)
    _check_parts(world, channel, draft)
    return world.messages.edit(message["id"], draft)


def delete_message(world: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(world, call, Permission.VIEW_CHANNEL)
    message = world.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != world.guild.bot_id:
        world.guild.require(Permission.MANAGE_MESSAGES, channel)
    world.messages.delete(message["id"])


def typing(world: SandboxContainer, call: ApiCall) -> None:
    channel = _channel(world, call, Permission.SEND_MESSAGES)
    world.feed.publish("typing", {"channel_id": channel["id"], "user": world.guild.bot})


def _webhook_channel(world: SandboxContainer, call: ApiCall) -> Json:
    """Return the channel whose webhooks apply: for a thread, its parent."""
    channel = _channel(world, call, Permission.MANAGE_WEBHOOKS)
    if channel["type"] != TEXT_CHANNEL:
        raise ApiError(50024)
    return channel


def guild_webhooks(world: SandboxContainer, call: ApiCall) -> list[Json]:
    world.guild.require(Permission.MANAGE_WEBHOOKS)
    return world.webhooks.of_guild()


def get_webhook(world: SandboxContainer, call: ApiCall) -> Json:
    """Find a webhook, by its own token or by the bot's permission to manage it."""
    if "token" not in call.path:
        world.guild.require(Permission.MANAGE_WEBHOOKS)
    return world.webhooks.find(call.path["webhook_id"], call.path.get("token"))


def execute_webhook(world: SandboxContainer, call: ApiCall) -> Json | None:
    interaction = world.interactions.by_token(call.path["token"])
    if interaction is not None:
        return world.interactions.follow_up(interaction, call.draft())
    hook = get_webhook(world, call)
    message = world.webhooks.execute(hook, world.webhooks.place(hook, call.query.get("thread_id")), call.draft())
    return message if call.asks("wait") else None


def get_webhook_message(world: SandboxContainer, call: ApiCall) -> Json:
    """Find a message that the webhook or the interaction created; one in a thread needs the thread's id."""
    interaction = world.interactions.by_token(call.path["token"])
    if interaction is not None and call.path["message_id"] == "@original":
        return world.interactions.original(interaction)
    hook = None if interaction else get_webhook(world, call)
    place = world.webhooks.place(hook, call.query.get("thread_id")) if hook else None
    message = world.messages.find(call.path["message_id"], place)
    if message.get("webhook_id") != call.path["webhook_id"]:
        raise ApiError(10008)
    return message


def callback(world: SandboxContainer, call: ApiCall) -> Json | None:
    ids = call.path["interaction_id"], call.path["token"]
    interaction: Interaction = world.interactions.answer(*ids, call.body or {}, call.draft("data"))
    return world.interactions.receipt(interaction) if call.asks("with_response") else None


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
    ("GET", "/oauth2/applications/@me", lambda world, call: payloads.application(world.guild.bot, world.guild.owner)),
    ("GET", "/gateway/bot", gateway_bot),
    ("GET", "/guilds/{guild_id}", get_guild),
    ("GET", "/guilds/{guild_id}/roles", lambda world, call: world.guild.roles()),
    ("GET", "/guilds/{guild_id}/channels", lambda world, call: world.guild.channels()),
    ("GET", "/guilds/{guild_id}/members", get_members),
    ("GET", "/guilds/{guild_id}/members/{user_id}", lambda world, call: world.guild.member(call.path["user_id"])),
    ("GET", "/guilds/{guild_id}/webhooks", guild_webhooks),
    ("GET", COMMANDS, lambda world, call: world.commands.registered(_scope(call))),
    ("PUT", COMMANDS, lambda world, call: world.commands.replace(_scope(call), call.body or [])),
    ("GET", GUILD_COMMANDS, lambda world, call: world.commands.registered(_scope(call))),
    ("PUT", GUILD_COMMANDS, lambda world, call: world.commands.replace(_scope(call), call.body or [])),
    ("GET", "/channels/{channel_id}", lambda world, call: _channel(world, call, Permission.VIEW_CHANNEL)),
    ("GET", "/channels/{channel_id}/messages", history),
    ("POST", "/channels/{channel_id}/messages", create_message),
    ("GET", MESSAGE, get_message),
    ("PATCH", MESSAGE, edit_message),
    ("DELETE", MESSAGE, delete_message),
    ("POST", MESSAGE + "/threads", start_thread),
    ("POST", "/channels/{channel_id}/threads", start_thread),
    ("POST", "/channels/{channel_id}/typing", typing),
    ("GET", WEBHOOKS, lambda world, call: world.webhooks.of_channel(_webhook_channel(world, call)["id"])),
    ("POST", WEBHOOKS, lambda world, call: world.webhooks.create(_webhook_channel(world, call)["id"], call.body or {})),
    ("GET", WEBHOOK, get_webhook),
    ("PATCH", WEBHOOK, lambda world, call: world.webhooks.edit(get_webhook(world, call), call.body)),
    ("DELETE", WEBHOOK, lambda world, call: world.webhooks.delete(get_webhook(world, call))),
    ("GET", WEBHOOK_EXECUTION, get_webhook),
    ("PATCH", WEBHOOK_EXECUTION, lambda world, call: world.webhooks.edit(get_webhook(world, call), call.body)),
    ("DELETE", WEBHOOK_EXECUTION, lambda world, call: world.webhooks.delete(get_webhook(world, call))),
    ("POST", WEBHOOK_EXECUTION, execute_webhook),
    ("GET", WEBHOOK_MESSAGE, get_webhook_message),
    (
        "PATCH",
        WEBHOOK_MESSAGE,
        lambda world, call: world.messages.edit(get_webhook_message(world, call)["id"], call.draft()),
    ),
    ("DELETE", WEBHOOK_MESSAGE, lambda world, call: world.messages.delete(get_webhook_message(world, call)["id"])),
    ("POST", "/interactions/{interaction_id}/{token}/callback", callback),
)
