"""Account deletion: a member's messages go at once, the account when the sandbox ends."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sandbox.channel_types import DIRECT_CHANNEL, THREAD_CHANNEL
from sandbox.guild import numbered_kind
from sandbox.object_store import ObjectStore
from sandbox.sandbox_errors import Json

MESSAGE_KINDS = ("message", "ephemeral")
REDACTED_KINDS = ("channel", "webhook")
ANONYMOUS_THREAD_NAME = "thread"
UNKNOWN_USER_ID = "0"


@dataclass(frozen=True)
class DepartingMember:
    """A departing person: `ids` are their accounts, `answers` the ids of replies to them.

    `finds` returns whether a text contains them, `holds` the same for a file (its name and bytes);
    `redacted` is a text without them.
    """

    ids: Collection[str]
    answers: Collection[str]
    finds: Callable[[str], bool]
    redacted: Callable[[str], str]
    holds: Callable[[str, bytes], bool]


def delete_account_content(
    store: ObjectStore,
    delete: Callable[[Json], None],
    person: DepartingMember,
    in_use: Collection[str],
) -> None:
    """Delete a person's messages, replies, mentions and files not `in_use`, and mark their accounts
    as leaving.

    `delete` deletes a message and publishes that.
    """
    direct = _direct_channels(store, person.ids)
    deleted: set[str] = set()
    for kind in MESSAGE_KINDS:
        for message in store.all(kind):
            # Oldest first, so replies come after the messages that they quote.
            replied_to = (message.get("message_reference") or {}).get("message_id")
            is_private = message["channel_id"] in direct
            if replied_to in deleted or is_private or _is_theirs(store, message, person):
                deleted.add(message["id"])
                delete(message)
                continue
            redacted = person.redacted(message["content"])
            if redacted != message["content"]:  # mentioned, but perhaps another of that name
                store.put(kind, message | {"content": redacted})
    # The account itself stays until the sandbox ends: its next message cancels the departure.
    for user_id in person.ids:
        if any(store.get(kind, user_id) for kind in _numbered_kinds(store, "member")):
            store.put("leaving", {"id": user_id})
    _rename_threads(store, person.ids)
    for kind in (*REDACTED_KINDS, *_numbered_kinds(store, "role")):
        for item in store.all(kind):
            if kind != "channel" or item["type"] != DIRECT_CHANNEL:
                _redact(store, kind, item, person.redacted)
    store.delete_unused_files(in_use)
    store.compact()


def delete_departed_accounts(store: ObjectStore) -> None:
    """Delete the accounts of departed persons, and their direct messages. The guild recreates
    seeded members.
    """
    leaving = {account["id"] for account in store.all("leaving")}
    if not leaving:
        return
    direct = _direct_channels(store, leaving)
    for kind in MESSAGE_KINDS:
        for message in store.all(kind):
            # Replies may have arrived after they had left.
            if message["channel_id"] in direct or _by(message, leaving):
                store.delete(kind, message["id"])
    for channel_id in direct:
        store.delete("channel", channel_id)
    for facts in store.all("guild"):
        if facts.get("owner_id") in leaving:  # the guild appoints another owner
            del facts["owner_id"]
        store.put("guild", facts)
    for user_id in leaving:
        for kind in _numbered_kinds(store, "member"):
            store.delete(kind, user_id)
    store.clear("leaving")
    store.delete_unused_files()
    store.compact()


def _numbered_kinds(store: ObjectStore, kind: str) -> list[str]:
    return [numbered_kind(kind, number) for number in range(len(store.all("guild")))]


def _direct_channels(store: ObjectStore, ids: Collection[str]) -> set[str]:
    channels = set()
    for channel in store.all("channel"):
        if channel["type"] == DIRECT_CHANNEL and channel["recipients"][0]["id"] in ids:
            channels.add(channel["id"])
    return channels


def _is_theirs(store: ObjectStore, message: Json, person: DepartingMember) -> bool:
    if message["id"] in person.answers or _by(message, person.ids):
        return True
    if person.finds(json.dumps(message, ensure_ascii=False)):
        return True
    for attachment in message["attachments"]:
        file = store.file(int(attachment["id"]))
        if file and person.holds(file.name, file.data):
            return True
    return False


def _by(message: Json, ids: Collection[str]) -> bool:
    cause: Json = message.get("interaction_metadata") or {}
    return message["author"]["id"] in ids or (cause.get("user") or {}).get("id") in ids


def _rename_threads(store: ObjectStore, ids: Collection[str]) -> None:
    """Rename the threads a person opened; other members' messages in them stay."""
    anonymous = {"name": ANONYMOUS_THREAD_NAME, "owner_id": UNKNOWN_USER_ID}
    for channel in store.all("channel"):
        if channel["type"] != THREAD_CHANNEL or channel["owner_id"] not in ids:
            continue
        store.put("channel", channel | anonymous)
        starter = store.get("message", channel["id"])  # which has a copy
        if starter and "thread" in starter:
            store.put("message", starter | {"thread": starter["thread"] | anonymous})


def _redact(store: ObjectStore, kind: str, item: Json, redacted: Callable[[str], str]) -> None:
    for field in ("name", "topic"):
        value = item.get(field)
        if isinstance(value, str) and redacted(value) != value:
            item = store.put(kind, item | {field: redacted(value)})
