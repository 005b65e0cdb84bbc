"""Messages: creation, edits and deletion within Discord's limits."""

import copy
from dataclasses import dataclass
from typing import Any

from sandbox import message_components, payloads, stickers_and_polls, validation
from sandbox.channel_types import DIRECT_CHANNEL
from sandbox.gateway import Gateway
from sandbox.guild import Guild
from sandbox.guild_seed import Permission
from sandbox.message_components import ATTACHMENT_SCHEME, IS_COMPONENTS_V2
from sandbox.network_conditions import SimulatedClock
from sandbox.object_store import NO_LIMIT, StoredFile, time_of
from sandbox.sandbox_errors import ApiError, Json
from sandbox.traffic_log import EventFeed

# Flags of messages
SUPPRESS_EMBEDS = 1 << 2
HAS_THREAD = 1 << 5
EPHEMERAL = 1 << 6
LOADING = 1 << 7
SUPPRESS_NOTIFICATIONS = 1 << 12
IS_VOICE_MESSAGE = 1 << 13
IS_FORWARD = 1 << 14
SENT_FLAGS = SUPPRESS_EMBEDS | SUPPRESS_NOTIFICATIONS | IS_COMPONENTS_V2
"""Flags that a bot may set."""
FORWARD_REFERENCE = 1
"""Type of a message's reference to the one that it forwards."""
SNAPSHOT_FIELDS = (
    "type",
    "content",
    "mentions",
    "mention_roles",
    "attachments",
    "embeds",
    "timestamp",
    "edited_timestamp",
    "flags",
    "components",
    "sticker_items",
)
"""What a forward copies of a message, where it has it."""
REPLY = 19
SLASH_COMMAND_RESPONSE = 20
THREAD_STARTER = 21
CONTEXT_MENU_RESPONSE = 23
USER_MESSAGE_TYPES = (0, REPLY)
"""Types of messages that users write; the others are Discord's own or respond to commands."""
BODY_PARTS = ("content", "embeds", "components", "sticker_ids", "poll")
"""Of these, or files, a message has at least one."""
MAX_FILES = 10
NONCE_LIFETIME_S = 300.0  # Discord's documentation: "a few minutes"


@dataclass(frozen=True)
class MessageDraft:
    """A message to send: the JSON body and its files."""

    body: Json
    files: tuple[StoredFile, ...] = ()

    def check(self) -> None:
        """Refuse a message that is too long (50035) or empty (50006)."""
        validation.check_message(self.body)
        if len(self.files) > MAX_FILES:
            raise ApiError.field(
                "files", "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_FILES} or fewer in length."
            )
        if poll := self.body.get("poll"):
            stickers_and_polls.check_poll(poll)
        has_body = any(self.body.get(part) for part in BODY_PARTS)
        # With the flag, files are shown by components alone.
        is_v2 = (self.body.get("flags") or 0) & IS_COMPONENTS_V2
        if not has_body and (is_v2 or not self.files):
            raise ApiError(50006)


def storage_kind(message: Json) -> str:
    """Return the kind under which a message is stored: ephemeral ones are in no history."""
    return "ephemeral" if message["flags"] & EPHEMERAL else "message"


def visible_to(message: Json, user_id: str) -> bool:
    """Return whether a member sees the message: an ephemeral one is for its interaction's user
    only.
    """
    cause: Json = message.get("interaction_metadata") or {}
    return storage_kind(message) == "message" or (cause.get("user") or {}).get("id") == user_id


def _text_content(message: Json) -> tuple[Any, ...]:
    """Return a message's text, without buttons and menus."""
    shown = message_components.shown_text(message["components"])
    return message["content"], shown, message["embeds"], message["attachments"]


class MessageManager:
    """All messages. Returned messages are rendered, with the message they reply to."""

    def __init__(
        self, guild: Guild, feed: EventFeed, gateway: Gateway, clock: SimulatedClock
    ) -> None:
        self.guild = guild
        self._store = guild.store
        self._feed = feed
        self._gateway = gateway
        self._clock = clock
        self._nonces: dict[tuple[str, str], tuple[float, str]] = {}
        self.files_url = ""

    def find(self, message_id: object, channel_id: str | None = None) -> Json:
        """Find a message, or raise 10008. With a channel, only in its history."""
        message = self._store.get("message", message_id)
        if message is None and channel_id is None:
            message = self._store.get("ephemeral", message_id)
        if message is None or (channel_id is not None and message["channel_id"] != channel_id):
            raise ApiError(10008)
        return self._render(message)

    def history(
        self, channel_id: str, limit: int, before: int | None = None, after: int | None = None
    ) -> list[Json]:
        """Return up to `limit` messages of the channel, oldest first."""
        messages = self._store.page("message", channel_id, limit, before=before, after=after)
        return [self._render(message) for message in messages]

    def seen_by(
        self, user_id: str, channel_id: str, limit: int, before: int | None = None
    ) -> list[Json]:
        """Return the last `limit` messages that a member sees in the channel, ephemeral ones
        included, oldest first.
        """
        stored = self._store.page("message", channel_id, limit, before)
        ephemeral = self._store.page("ephemeral", channel_id, NO_LIMIT, before)
        stored += [message for message in ephemeral if visible_to(message, user_id)]
        stored.sort(key=lambda message: int(message["id"]))
        return [self._render(message) for message in stored[-limit:]]

    def create(self, author: Json, channel_id: str, draft: MessageDraft, **more: Any) -> Json:
        """Send a message; `more` are fields that only the server sets. A repeated enforced nonce
        sends nothing.
        """
        nonce = str(draft.body.get("nonce"))
        if draft.body.get("enforce_nonce") and (message_id := self._nonced(author["id"], nonce)):
            return self.find(message_id)
        message = self._new(author, channel_id, draft.body) | more
        self._fill(message, draft)
        if sticker_ids := draft.body.get("sticker_ids"):
            message["sticker_items"] = stickers_and_polls.sticker_items(sticker_ids)
        if poll := draft.body.get("poll"):
            message["poll"] = stickers_and_polls.create_poll(poll, self._clock.now())
        if draft.body.get("nonce") is not None:
            message["nonce"] = draft.body["nonce"]
            self._nonces[author["id"], nonce] = self._clock.now(), message["id"]
        if storage_kind(message) == "message" and self._is_archived(channel_id):
            self.set_archived(channel_id, False)
        self._store.put(storage_kind(message), message)
        self._store.delete("leaving", author["id"])  # cancels a pending departure
        return self._publish("message", "MESSAGE_CREATE", message)

    def _is_archived(self, channel_id: str) -> bool:
        channel = self._store.get("channel", channel_id) or {}
        return bool(channel.get("thread_metadata", {}).get("archived"))

    def require_open(self, channel_id: str) -> None:
        """Refuse a change of a message in an archived thread. Raises `ApiError` 50083."""
        if self._is_archived(channel_id):
            raise ApiError(50083)

    def set_archived(self, thread_id: str, archived: bool, *, locked: bool = False) -> None:
        """Archive a thread, or open it again, and notify the bot. Raises `ApiError` 10003."""
        thread = self.guild.channel(thread_id)
        state = {"archived": archived, "locked": locked}
        changed = {**thread, "thread_metadata": thread["thread_metadata"] | state}
        self._store.put("channel", changed)
        self._gateway.dispatch("THREAD_UPDATE", changed)

    def _nonced(self, author_id: str, nonce: str) -> str | None:
        oldest = self._clock.now() - NONCE_LIFETIME_S
        self._nonces = {key: sent for key, sent in self._nonces.items() if sent[0] > oldest}
        sent = self._nonces.get((author_id, nonce))
        return sent[1] if sent else None

    def _new(self, author: Json, channel_id: str, body: Json) -> Json:
        message_id = self._store.new_id()
        message: Json = {
            "id": message_id,
            "channel_id": channel_id,
            "author": author,
            "type": 0,
            "timestamp": payloads.format_timestamp(time_of(message_id)),
            "edited_timestamp": None,
            "tts": False,
            "pinned": False,
            "content": "",
            "attachments": [],
            "embeds": [],
            "components": [],
            "flags": (body.get("flags") or 0) & SENT_FLAGS,
        }
        return message | self._reference(channel_id, body.get("message_reference"))

    def _reference(self, channel_id: str, reference: Json | None) -> Json:
        if not reference:
            return {}
        target = self._store.get("message", reference.get("message_id"))
        if target is None or target["channel_id"] != channel_id:
            if reference.get("fail_if_not_exists") is False:
                return {}
            raise ApiError.field("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        reference = {
            "type": 0,
            "channel_id": channel_id,
            "message_id": target["id"],
            **self._guild_field(channel_id),
        }
        return {"type": REPLY, "message_reference": reference}

    def forward(self, author: Json, channel_id: str, original: Json) -> Json:
        """Send a copy of a message to another channel; it has no text of its own."""
        place = original["channel_id"]
        reference = {"type": FORWARD_REFERENCE, "channel_id": place, "message_id": original["id"]}
        snapshot = {name: original[name] for name in SNAPSHOT_FIELDS if name in original}
        snapshot["components"] = message_components.without_controls(original["components"])
        return self.create(
            author,
            channel_id,
            MessageDraft({}),
            message_reference=reference | self._guild_field(place),
            flags=IS_FORWARD,
            message_snapshots=[{"message": snapshot}],
        )

    def _guild_field(self, channel_id: str) -> Json:
        if self.guild.channel(channel_id)["type"] == DIRECT_CHANNEL:
            return {}
        return {"guild_id": self.guild.id}

    def edit(self, message_id: str, draft: MessageDraft) -> Json:
        """Edit the fields in the body; clears "is thinking". A changed button does not count as an
        edit of the text.
        """
        message = self._find_stored(message_id)
        validation.check_message(draft.body, message)
        message["flags"] &= ~LOADING
        if draft.body.get("flags") is not None:
            # Of the flags, an edit may change the first one alone, and set the second for good.
            message["flags"] &= ~SUPPRESS_EMBEDS
            message["flags"] |= draft.body["flags"] & (SUPPRESS_EMBEDS | IS_COMPONENTS_V2)
        before = _text_content(message)
        self._fill(message, draft)
        if _text_content(message) != before:
            message["edited_timestamp"] = payloads.format_timestamp(self._clock.now())
        return self.change(message_id, **message)

    def change(self, message_id: str, **fields: Any) -> Json:
        message = self._find_stored(message_id) | fields
        self._store.put(storage_kind(message), message)
        return self._publish("edit", "MESSAGE_UPDATE", message)

    def _find_stored(self, message_id: str) -> Json:
        message = self._store.get("message", message_id) or self._store.get("ephemeral", message_id)
        if message is None:
            raise ApiError(10008)
        return message

    def _fill(self, message: Json, draft: MessageDraft) -> None:
        body = draft.body
        if "content" in body:
            message["content"] = body["content"] or ""
        if "embeds" in body:
            message["embeds"] = [payloads.embed(embed) for embed in body["embeds"] or []]
        if "attachments" in body or draft.files:
            message["attachments"] = self._attach(message, draft)
        if "components" in body:
            sent = payloads.without_nulls(body["components"] or [])
            message["components"] = message_components.as_returned(
                sent, lambda url, field: self._media(message, url, field)
            )
        message.update(self._mentioned(message, body.get("allowed_mentions")))

    def _attach(self, message: Json, draft: MessageDraft) -> list[Json]:
        """Keep the attachments that the body names, and add the draft's files."""
        fields_by_id = {}
        for entry in draft.body.get("attachments") or []:
            fields_by_id[str(entry.get("id"))] = entry
        attachments = []
        for old in message["attachments"]:
            if old["id"] in fields_by_id:
                attachments.append(old)
            else:
                self._store.delete_file(int(old["id"]))
        for index, file in enumerate(draft.files):
            file_id = self._store.put_file(file)
            attachment = payloads.attachment(file_id, message["channel_id"], file)
            fields = fields_by_id.get(str(index), {})  # new files are named by their index
            for name in ("description", "duration_secs", "waveform"):
                if fields.get(name):
                    attachment[name] = fields[name]
            attachments.append(attachment)
        return attachments

    def _media(self, message: Json, url: str, field: str) -> Json:
        """Return a picture or file of a component as Discord does: an attachment, or from
        elsewhere. Raises ApiError 50035 for an attachment that the message does not have.
        """
        if not url.startswith(ATTACHMENT_SCHEME):
            return {"id": self._store.new_id(), "url": url, "proxy_url": url}
        name = payloads.file_name(url.removeprefix(ATTACHMENT_SCHEME))
        for file in message["attachments"]:
            if file["filename"] == name:
                media = {key: file[key] for key in ("id", "url", "content_type")}
                return media | {"proxy_url": file["url"], "attachment_id": file["id"]}
        code = "UNFURLED_MEDIA_ITEM_REFERENCED_ATTACHMENT_NOT_FOUND"
        raise ApiError.field(field, code, f"The referenced attachment {name} was not found.")

    def _mentioned(self, message: Json, allowed: Json | None) -> Json:
        replied_to = None
        if message["type"] == REPLY:
            target = self._store.get("message", message["message_reference"]["message_id"])
            replied_to = target["author"]["id"] if target else None
        text = message["content"]
        if message["flags"] & IS_COMPONENTS_V2:
            text = message_components.shown_text(message["components"])
        mentions = payloads.find_mentions(text, allowed, replied_to)
        users = []
        for user_id in mentions.users:
            if member := self.guild.find_member(user_id):
                users.append(member["user"])
        roles = [role_id for role_id in mentions.roles if self.guild.find_role(role_id)]
        everyone = mentions.everyone and self._may_mention_everyone(message["author"]["id"])
        return {"mentions": users, "mention_roles": roles, "mention_everyone": everyone}

    def _may_mention_everyone(self, author_id: str) -> bool:
        # A webhook has no roles; Discord lets it mention everyone.
        has_member = self.guild.find_member(author_id) is not None
        return not has_member or self.guild.may(author_id, Permission.MENTION_EVERYONE)

    def delete(self, message_id: str) -> None:
        """Delete the message with its files, and publish the event."""
        message = self._find_stored(message_id)
        self._store.delete(storage_kind(message), message_id)
        for attachment in message["attachments"]:
            self._store.delete_file(int(attachment["id"]))
        self._feed.publish("delete", self._render(message))
        if self._is_told(message):
            ids = {"id": message_id, "channel_id": message["channel_id"]}
            self._gateway.dispatch("MESSAGE_DELETE", ids | self._guild_field(message["channel_id"]))

    def _is_told(self, message: Json) -> bool:
        """Return whether the bot gets the events of a message."""
        is_outside = self.guild.outside_place(message["channel_id"]) is not None
        return storage_kind(message) == "message" and not is_outside

    def with_address(self, attachment: Json) -> Json:
        """Render an attachment with its current URL."""
        url = self.files_url + attachment["url"]
        return attachment | {"url": url, "proxy_url": url}

    def _render(self, message: Json) -> Json:
        rendered = dict(message)
        rendered["components"] = copy.deepcopy(message["components"])
        shown = set[str]()
        for media in message_components.media_of(rendered["components"]):
            if file_id := media.get("attachment_id"):
                shown.add(file_id)
                media.update(self.with_address(media))
        # Those that a component shows are not listed again.
        rendered["attachments"] = [
            self.with_address(old) for old in message["attachments"] if old["id"] not in shown
        ]
        if message["flags"] & SUPPRESS_EMBEDS:
            rendered["embeds"] = []
        if message["type"] in (REPLY, THREAD_STARTER):
            target = self._store.get("message", message["message_reference"]["message_id"])
            # One level only: Discord does not nest what a replied-to message replied to.
            rendered["referenced_message"] = target and self._render(target | {"type": 0})
        return rendered

    def _publish(self, kind: str, event: str, message: Json) -> Json:
        rendered = self._render(message)
        self._feed.publish(kind, rendered)
        if self._is_told(message):
            data = rendered | self._guild_field(message["channel_id"])
            author = self.guild.find_member(message["author"]["id"])
            if author and "guild_id" in data:
                data["member"] = {key: value for key, value in author.items() if key != "user"}
            self._gateway.dispatch(event, data)
        return rendered
