"""Interactions: commands, buttons and forms of members, and the bot's callbacks within Discord's
deadlines.
"""

import asyncio
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum

from sandbox import outside_places, validation
from sandbox.channel_messages import (
    CONTEXT_MENU_RESPONSE,
    EPHEMERAL,
    LOADING,
    SLASH_COMMAND_RESPONSE,
    MessageDraft,
    MessageManager,
)
from sandbox.channel_types import DIRECT_CHANNEL
from sandbox.gateway import Gateway
from sandbox.guild import Guild
from sandbox.network_conditions import SimulatedClock
from sandbox.sandbox_errors import ApiError, Json
from sandbox.traffic_log import EventFeed
from sandbox.validation import CHAT_INPUT

# Discord's documentation, "Receiving and Responding": a token is invalid if the first response
# takes longer than three seconds, and 15 minutes after the interaction.
ACKNOWLEDGE_TIMEOUT_S = 3.0
TOKEN_LIFETIME_S = 15 * 60.0
ATTACHMENT_LIMIT_BYTES = 10 * 2**20  # Discord's, for members without Nitro


class InteractionType(IntEnum):
    """Types of interactions."""

    COMMAND = 2
    COMPONENT = 3
    AUTOCOMPLETE = 4
    FORM = 5


class CallbackType(IntEnum):
    """Types of callbacks, by which the bot responds."""

    MESSAGE = 4
    THINKING = 5
    LATER = 6
    UPDATE = 7
    CHOICES = 8
    FORM = 9


ALLOWED_CALLBACKS: dict[InteractionType, frozenset[CallbackType]] = {
    InteractionType.COMMAND: frozenset(
        {CallbackType.MESSAGE, CallbackType.THINKING, CallbackType.FORM}
    ),
    InteractionType.COMPONENT: frozenset(CallbackType) - {CallbackType.CHOICES},
    InteractionType.AUTOCOMPLETE: frozenset({CallbackType.CHOICES}),
    InteractionType.FORM: frozenset(CallbackType) - {CallbackType.CHOICES, CallbackType.FORM},
}


@dataclass
class Interaction:
    """One interaction; `source` is the message with the used button or form, `trigger` what the
    form responded to.
    """

    kind: InteractionType
    payload: Json
    source: str | None
    created_at: float
    trigger: "Interaction | None" = None
    reply: CallbackType | None = None
    expired: bool = False
    data: Json = field(default_factory=dict)
    original: str | None = None
    follow_ups: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def user(self) -> Json:
        # In direct messages there is a user, in a guild a member.
        user: Json = self.payload.get("user") or self.payload["member"]["user"]
        return user

    def cause(self) -> Json:
        """The interaction_metadata of the messages that respond to it."""
        own = {
            "id": self.payload["id"],
            "type": self.kind,
            "user": self.user,
            "authorizing_integration_owners": self.payload["authorizing_integration_owners"],
        }
        if self.kind is InteractionType.COMMAND:
            data = self.payload["data"]
            return own | {"name": _full_name(data), "command_type": data["type"]} | _target(data)
        if self.trigger is not None:
            return own | {"triggering_interaction_metadata": self.trigger.cause()}
        return own | {"interacted_message_id": self.source}


class InteractionManager:
    """All interactions since the start; tokens end with the process, as they would soon anyway."""

    def __init__(
        self,
        guild: Guild,
        messages: MessageManager,
        feed: EventFeed,
        gateway: Gateway,
        clock: SimulatedClock,
    ) -> None:
        self._guild = guild
        self._messages = messages
        self._feed = feed
        self._gateway = gateway
        self._clock = clock
        self._by_token: dict[str, Interaction] = {}
        self.locales: dict[str, str] = {}  # the locales of members' clients, where not English

    def locale_of(self, user_id: str) -> str:
        return self.locales.get(user_id, "en-US")

    async def dispatch(
        self,
        kind: InteractionType,
        user_id: str,
        channel_id: str,
        data: Json,
        source: Json | None = None,
        trigger: Interaction | None = None,
    ) -> Interaction:
        """Dispatch an interaction; returns when it is acknowledged, or after 3 s."""
        self._drop_expired()
        payload = self._payload(kind, user_id, channel_id, data)
        source_id = None
        if source:
            payload["message"] = source
            source_id = source["id"]
        interaction = Interaction(
            kind, payload, source=source_id, created_at=self._clock.now(), trigger=trigger
        )
        self._by_token[payload["token"]] = interaction
        self._gateway.dispatch("INTERACTION_CREATE", payload)
        interaction.expired = not await self._clock.within(
            interaction.settled, ACKNOWLEDGE_TIMEOUT_S
        )
        self._feed.publish("answer", self._summary(interaction))
        return interaction

    def _drop_expired(self) -> None:
        # Twice the lifetime, to distinguish an expired token from an unknown one.
        oldest = self._clock.now() - 2 * TOKEN_LIFETIME_S
        for token, interaction in list(self._by_token.items()):
            if interaction.created_at <= oldest:
                del self._by_token[token]

    def attachment_ids_of_others(self, ids: Collection[str]) -> set[str]:
        """Return the ids of files in interactions of others than these users: the bot may still
        fetch them.
        """
        attachment_ids: set[str] = set()
        for interaction in self._by_token.values():
            if interaction.user["id"] not in ids:
                resolved = interaction.payload["data"].get("resolved", {})
                attachment_ids.update(resolved.get("attachments", {}))
        return attachment_ids

    def _payload(self, kind: InteractionType, user_id: str, channel_id: str, data: Json) -> Json:
        place = self._guild.outside_place(channel_id)
        payload = {
            "id": self._guild.store.new_id(),
            "application_id": self._guild.bot_id,
            "type": kind,
            "token": secrets.token_urlsafe(48),
            "version": 1,
            "data": self._reachable(data),
            "channel_id": channel_id,
            "locale": self.locale_of(user_id),
            "entitlements": [],
            "attachment_size_limit": ATTACHMENT_LIMIT_BYTES,
        }
        if place:
            return payload | outside_places.origin(place, self._guild.member(user_id))
        channel = self._guild.channel(channel_id)
        payload |= {
            "channel": channel,
            "app_permissions": str(self._guild.permissions_of(self._guild.bot_id, channel)),
        }
        if channel["type"] == DIRECT_CHANNEL:
            return payload | self._direct(user_id)
        return payload | self._in_guild(user_id, channel)

    def _reachable(self, data: Json) -> Json:
        """Return the data with the URLs of its files."""
        files = data.get("resolved", {}).get("attachments", {})
        for key, attachment in files.items():
            files[key] = self._messages.with_address(attachment)
        return data

    def _in_guild(self, user_id: str, channel: Json) -> Json:
        permissions = {"permissions": str(self._guild.permissions_of(user_id, channel))}
        return {
            "guild_id": self._guild.id,
            "guild": {
                "id": self._guild.id,
                "locale": self._guild.preferred_locale,
                "features": [],
            },
            "guild_locale": self._guild.preferred_locale,
            "member": self._guild.member(user_id) | permissions,
            "authorizing_integration_owners": {"0": self._guild.id},
            "context": 0,
        }

    def _direct(self, user_id: str) -> Json:
        user = self._guild.member(user_id)["user"]
        return {"user": user, "authorizing_integration_owners": {"0": "0"}, "context": 1}

    def _summary(self, interaction: Interaction) -> Json:
        return {
            "interaction_id": interaction.payload["id"],
            "user_id": interaction.user["id"],
            "channel_id": interaction.payload["channel_id"],
            "asked": int(interaction.kind),
            "type": None if interaction.reply is None else int(interaction.reply),
            "message_id": interaction.original,
            "data": interaction.data,
        }

    def answer(
        self, interaction_id: str, token: str, body: Json, draft: MessageDraft
    ) -> Interaction:
        """Handle the bot's callback: 10062 if it is too late or unknown, 40060 for a second one."""
        interaction = self._by_token.get(token)
        if interaction is None or interaction.payload["id"] != interaction_id:
            raise ApiError(10062)
        if interaction.expired:
            raise ApiError(10062)
        if interaction.reply is not None:
            raise ApiError(40060)
        reply = body.get("type")
        if reply not in ALLOWED_CALLBACKS[interaction.kind]:
            raise ApiError.field(
                "type", "BASE_TYPE_CHOICES", "Not a callback type for this interaction"
            )
        self._respond(interaction, CallbackType(reply), draft)
        # Set last: a refused response, such as one that is too long, leaves the interaction open.
        interaction.reply = CallbackType(reply)
        interaction.data = draft.body
        interaction.settled.set()
        return interaction

    def _respond(self, interaction: Interaction, reply: CallbackType, draft: MessageDraft) -> None:
        if reply is CallbackType.MESSAGE:
            draft.check()
            interaction.original = self._send(interaction, draft)["id"]
        elif reply is CallbackType.THINKING:
            blank = MessageDraft({"flags": draft.body.get("flags")})
            interaction.original = self._send(interaction, blank, LOADING)["id"]
        elif reply is CallbackType.CHOICES:
            validation.check_limits(draft.body, validation.CHOICES)
        elif reply is CallbackType.FORM:
            validation.check_modal(draft.body)
        else:
            interaction.original = interaction.source
            if reply is CallbackType.UPDATE and interaction.source is not None:
                self._messages.edit(interaction.source, draft)

    def _send(self, interaction: Interaction, draft: MessageDraft, more_flags: int = 0) -> Json:
        flags = (draft.body.get("flags") or 0) & ~LOADING | more_flags
        place = self._guild.outside_place(interaction.payload["channel_id"])
        if place and outside_places.is_private(place):
            flags |= EPHEMERAL
        kind = {}
        if interaction.kind is InteractionType.COMMAND and interaction.original is None:
            is_slash = interaction.payload["data"]["type"] == CHAT_INPUT
            kind["type"] = SLASH_COMMAND_RESPONSE if is_slash else CONTEXT_MENU_RESPONSE
        return self._messages.create(
            self._guild.bot,
            interaction.payload["channel_id"],
            draft,
            flags=flags,
            webhook_id=self._guild.bot_id,
            application_id=self._guild.bot_id,
            interaction_metadata=interaction.cause(),
            **kind,
        )

    def by_token(self, token: str) -> Interaction | None:
        """Find an interaction by its token; raises 50027 after its 15 minutes, None if there is
        none.
        """
        interaction = self._by_token.get(token)
        if interaction is None:
            return None
        if interaction.expired or self._clock.now() - interaction.created_at > TOKEN_LIFETIME_S:
            raise ApiError(50027)
        return interaction

    def has_token(self, token: str) -> bool:
        return token in self._by_token

    def original(self, interaction: Interaction) -> Json:
        """Find the original response, or raise 10008."""
        return self._messages.find(interaction.original)

    def follow_up(self, interaction: Interaction, draft: MessageDraft) -> Json:
        """Send another message. The first after "is thinking" takes that message's place, as on
        Discord.
        """
        if interaction.reply is None:
            raise ApiError(10015)
        draft.check()
        if interaction.original is not None and self._is_loading(interaction.original):
            return self._messages.edit(interaction.original, draft)
        place = self._guild.outside_place(interaction.payload["channel_id"])
        is_limited = place is not None and "guild_id" in place
        if is_limited and interaction.follow_ups >= outside_places.MAX_FOLLOW_UPS:
            raise ApiError(40094)
        interaction.follow_ups += 1
        return self._send(interaction, draft)

    def _is_loading(self, message_id: str) -> bool:
        try:
            return bool(self._messages.find(message_id)["flags"] & LOADING)
        except ApiError:  # deleted by the bot
            return False

    def receipt(self, interaction: Interaction) -> Json:
        """Return the callback's result, for a request with `with_response`."""
        result: Json = {"id": interaction.payload["id"], "type": interaction.kind}
        if interaction.original is None:
            return {"interaction": result}
        message = self._messages.find(interaction.original)
        result |= {
            "response_message_id": message["id"],
            "response_message_loading": bool(message["flags"] & LOADING),
            "response_message_ephemeral": bool(message["flags"] & EPHEMERAL),
        }
        receipt = {"interaction": result}
        if interaction.reply in (CallbackType.MESSAGE, CallbackType.UPDATE):
            receipt["resource"] = {"type": interaction.reply, "message": message}
        return receipt


def _target(data: Json) -> Json:
    resolved = data.get("resolved", {})
    target = data.get("target_id")
    if target in resolved.get("users", {}):
        return {"target_user": resolved["users"][target]}
    return {"target_message_id": target} if target else {}


def _full_name(data: Json) -> str:
    """Return a slash command's path without option values, such as "finetune start"."""
    names = [data["name"]]
    options = data.get("options", [])
    while options and options[0]["type"] in (1, 2):
        names.append(options[0]["name"])
        options = options[0].get("options", [])
    return " ".join(names)
