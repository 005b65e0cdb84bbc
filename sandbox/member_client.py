"""A member's Discord client. Everything the page can do goes through it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import cast

from sandbox import command_options
from sandbox.channel_messages import (
    EPHEMERAL,
    HAS_THREAD,
    IS_VOICE_MESSAGE,
    USER_MESSAGE_TYPES,
    MessageDraft,
    visible_to,
)
from sandbox.channel_types import FORUM_CHANNEL, TEXT_CHANNEL
from sandbox.container import SandboxContainer
from sandbox.guild_seed import Permission, has_permissions
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES as LARGEST_FILE_BYTES
from sandbox.interactions import CallbackType, Interaction, InteractionType
from sandbox.message_components import BUTTON, all_components, message_text
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import ApiError, Json, SandboxRefusal
from sandbox.stickers_and_polls import STICKERS
from sandbox.validation import FILE_UPLOAD, TEXT_INPUT, USER_COMMAND

LINK_STYLE = 5
# Discord's limits: its client refuses longer texts before it sends them.
MAX_FORM_TEXT_CHARACTERS = 4000
MAX_MESSAGE_CHARACTERS = 2000
MAX_CHANNEL_NAME_CHARACTERS = 100
# A channel, thread or direct messages: the object or its id, or a channel's name.
ChannelReference = str | Json
FormValue = str | StoredFile | list[str] | list[StoredFile]
FormFields = dict[str, FormValue]


@dataclass
class InteractionResponse:
    """The bot's response to an interaction; `message` is always the current one."""

    interaction: Interaction = field(repr=False)
    container: SandboxContainer = field(repr=False)

    @property
    def type(self) -> int | None:
        """Discord's callback type, or None: not acknowledged in time."""
        return None if self.interaction.reply is None else int(self.interaction.reply)

    @property
    def message(self) -> Json | None:
        """The original response, edits included; None if there is none (any more)."""
        try:
            return self.container.interactions.original(self.interaction)
        except ApiError:
            return None

    @property
    def text(self) -> str:
        """The text of the original response, of its layout if it has one; empty without it."""
        return message_text(self.message or {})

    @property
    def ephemeral(self) -> bool:
        return bool((self.message or {"flags": 0})["flags"] & EPHEMERAL)

    @property
    def modal(self) -> Json | None:
        return self.interaction.data if self.interaction.reply is CallbackType.FORM else None


class MemberClient:
    """Acts as one member. Methods raise SandboxRefusal where Discord's client would not allow
    them.
    """

    def __init__(self, container: SandboxContainer, user_id: str) -> None:
        self._container = container
        self.id = user_id

    @property
    def name(self) -> str:
        return cast(str, self._self["user"]["global_name"])

    @property
    def _self(self) -> Json:
        return self._container.guild.member(self.id)

    def set_locale(self, locale: str) -> None:
        """Set the locale of this member's client, such as "vi"."""
        self._container.interactions.locales[self.id] = locale

    async def say(
        self,
        channel: ChannelReference,
        content: str,
        reply_to: Json | None = None,
        files: Sequence[StoredFile] = (),
        descriptions: Sequence[str] = (),
    ) -> Json:
        """Send a message; @Name and #channel become mentions, as in Discord's input.

        `descriptions` are of the files, in their order, for people who do not see them.
        """
        if files:
            self._require_sendable(files, self._find_channel_to_write(channel))
        described = []
        for index, description in enumerate(descriptions):
            described.append({"id": str(index), "description": description})
        return self._post(channel, content, reply_to, {"attachments": described}, files=files)

    def _require_sendable(self, files: Sequence[StoredFile], location: Json) -> None:
        if not self._may(Permission.ATTACH_FILES, location):
            raise SandboxRefusal("You do not have permission to upload files in this channel.")
        if any(len(file.data) > LARGEST_FILE_BYTES for file in files):
            raise SandboxRefusal("Your files are too powerful: 10 MiB each at most.")

    async def sticker(
        self, channel: ChannelReference, name: str, content: str = "", reply_to: Json | None = None
    ) -> Json:
        """Send a sticker, alone or with text."""
        ids = [sticker["id"] for sticker in STICKERS if sticker["name"] == name]
        if not ids:
            raise SandboxRefusal(f"There is no sticker called {name}.")
        return self._post(channel, content, reply_to, {"sticker_ids": ids})

    async def poll(self, channel: ChannelReference, question: str, answers: Sequence[str]) -> Json:
        """Send a poll."""
        location = self._find_channel_to_write(channel)
        if not self._may(Permission.SEND_POLLS, location):
            raise SandboxRefusal("You do not have permission to create polls in this channel.")
        medias = [{"poll_media": {"text": text}} for text in answers]
        poll = {"question": {"text": question}, "answers": medias}
        return self._post(channel, "", None, {"poll": poll})

    async def voice_message(
        self,
        channel: ChannelReference,
        reply_to: Json | None = None,
        sound: bytes = b"OggS",
        seconds: float = 1.0,
    ) -> Json:
        """Send a voice message; `sound` is an Ogg Opus file."""
        file = StoredFile("voice-message.ogg", "audio/ogg", sound)
        self._require_sendable([file], self._find_channel_to_write(channel))
        recorded = {"id": "0", "duration_secs": seconds, "waveform": "AAAA"}
        body = {"attachments": [recorded]}
        return self._post(channel, "", reply_to, body, files=(file,), flags=IS_VOICE_MESSAGE)

    async def forward(self, channel: ChannelReference, message: Json) -> Json:
        """Forward a message that the member sees to a channel."""
        location = self._find_channel_to_write(channel)
        original = self._visible(_message_id(message))
        return self._container.messages.forward(self._self["user"], location["id"], original)

    def _post(
        self,
        channel: ChannelReference,
        content: str,
        reply_to: Json | None,
        more: Json,
        files: Sequence[StoredFile] = (),
        flags: int = 0,
    ) -> Json:
        """Send a message with `more` in its body than text."""
        location = self._find_channel_to_write(channel)
        body: Json = {"content": self._with_mentions(content), **more}
        if reply_to is not None:
            body["message_reference"] = {"message_id": _message_id(reply_to)}
        draft = MessageDraft(body, tuple(files))
        fields = {"flags": flags} if flags else {}

        def send() -> Json:
            draft.check()
            author = self._self["user"]
            return self._container.messages.create(author, location["id"], draft, **fields)

        return _as_client(body["content"], send)

    async def edit(self, message: Json, content: str) -> Json:
        current = self._visible(_message_id(message))
        if current["author"]["id"] != self.id or current["type"] not in USER_MESSAGE_TYPES:
            raise SandboxRefusal("You can edit your own messages only.")
        # A file may stand without text.
        if not content.strip() and not current["attachments"]:
            raise SandboxRefusal("Cannot send an empty message")
        mentioning = self._with_mentions(content)
        draft = MessageDraft({"content": mentioning})
        return _as_client(mentioning, lambda: self._container.messages.edit(current["id"], draft))

    async def delete(self, message: Json) -> None:
        """Delete an own message, or with Manage Messages anybody's."""
        current = self._visible(_message_id(message))
        is_own = current["author"]["id"] == self.id
        location = self._container.guild.location(current["channel_id"])
        may_delete = is_own or self._may(Permission.MANAGE_MESSAGES, location)
        # Discord's client dismisses an ephemeral message, and offers no deletion.
        if current["flags"] & EPHEMERAL or not may_delete:
            raise SandboxRefusal("You do not have permission to delete this message.")
        self._container.messages.delete(current["id"])

    async def thread(
        self, channel: ChannelReference, name: str, message: Json | None = None
    ) -> Json:
        """Create a thread in a channel, under a message or on its own."""
        parent = self._find_channel(channel)
        start = self._visible(_message_id(message)) if message else None
        is_elsewhere = start is not None and start["channel_id"] != parent["id"]
        if parent["type"] != TEXT_CHANNEL or is_elsewhere:
            raise SandboxRefusal("A thread cannot be created here.")
        if not self._may(Permission.CREATE_PUBLIC_THREADS, parent):
            raise SandboxRefusal("You do not have permission to create threads in this channel.")
        _require_name(name, "thread")
        # A thread has the id of its message, which can therefore have no other.
        if start and start["flags"] & (HAS_THREAD | EPHEMERAL):
            raise SandboxRefusal("A thread has already been created for this message.")
        thread = self._container.threads.thread(self._self["user"], parent, name.strip(), start)
        return self._container.guild.client_view(thread)

    async def post(self, forum: ChannelReference, name: str, content: str) -> Json:
        """Create a post in a forum, with its first message."""
        parent = self._find_channel(forum)
        if parent["type"] != FORUM_CHANNEL:
            raise SandboxRefusal("Posts are created in forums.")
        # In a forum, this permission is the one to create posts.
        if not self._may(Permission.SEND_MESSAGES, parent):
            raise SandboxRefusal("You do not have permission to create posts in this channel.")
        _require_name(name, "post")
        words = self._with_mentions(content)
        draft = MessageDraft({"content": words})
        user = self._self["user"]
        threads = self._container.threads
        post = _as_client(words, lambda: threads.post(user, parent, name.strip(), draft))
        return self._container.guild.client_view(post)

    async def dm(self) -> Json:
        return self._container.guild.client_view(self._container.threads.direct(self.id))

    def _may(self, needed: Permission, location: Json) -> bool:
        if self._container.guild.outside_place(location["id"]):
            return has_permissions(int(location["permissions"]), needed)
        return self._container.guild.may(self.id, needed, location)

    def _find_channel_to_write(self, reference: ChannelReference) -> Json:
        location = self._find_channel(reference)
        if self._container.guild.outside_place(location["id"]):
            raise SandboxRefusal("Where the bot is not, the sandbox has interactions alone.")
        if location["type"] == FORUM_CHANNEL:
            raise SandboxRefusal("A forum has posts. Create one, or write in one of them.")
        if not self._may(Permission.SEND_MESSAGES, location):
            raise SandboxRefusal("You do not have permission to send messages in this channel.")
        return location

    def _find_channel(self, reference: ChannelReference) -> Json:
        id_or_name = str(reference).removeprefix("#")
        if isinstance(reference, dict):
            id_or_name = reference["id"]
            if place := self._container.guild.outside_place(id_or_name):
                return place
        for location in self._container.guild.visible_channels(self.id):
            if id_or_name in (location["id"], location.get("name")):
                return self._container.guild.channel(location["id"])
        raise SandboxRefusal(f"There is no channel called {id_or_name}.")

    def _with_mentions(self, content: str) -> str:
        mentions = {}
        for member in self._container.guild.members():
            user = member["user"]
            for name in filter(None, (user["global_name"] or user["username"], member["nick"])):
                mentions[f"@{name}"] = f"<@{user['id']}>"
        for channel in self._container.guild.channels():
            mentions[f"#{channel['name']}"] = f"<#{channel['id']}>"
        # Longest first: the name of one member may begin with another's.
        longest_first = sorted(mentions, key=len, reverse=True)
        pattern = rf"(?:{'|'.join(map(re.escape, longest_first))})\b"
        return re.sub(pattern, lambda match: mentions[match[0]], content)

    async def slash(
        self, channel: ChannelReference, command: str, /, **options: object
    ) -> InteractionResponse:
        """Run a command by its full name, such as "finetune start"; returns when acknowledged, or
        after 3 s.
        """
        location = self._find_channel(channel)
        invoked = self._container.commands.invoked(self.id, command, location)
        data = command_options.fill_options(self._container.guild, invoked, options)
        return await self._ask(InteractionType.COMMAND, location, data)

    async def autocomplete(
        self, channel: ChannelReference, command: str, focused: str, /, **options: object
    ) -> list[Json]:
        """Return the choices the bot offers for the option being typed; none if it does not
        respond.
        """
        location = self._find_channel(channel)
        invoked = self._container.commands.invoked(self.id, command, location)
        for option in invoked.leaf.get("options", ()):
            if option["name"] == focused and option.get("autocomplete"):
                break
        else:
            raise SandboxRefusal(f"{focused}: This option has no autocomplete.")
        data = command_options.fill_options(self._container.guild, invoked, options, focused)
        answer = await self._ask(InteractionType.AUTOCOMPLETE, location, data)
        return cast(list[Json], answer.interaction.data.get("choices", []))

    async def context(
        self, channel: ChannelReference, command: str, target: "MemberClient | Json | str"
    ) -> InteractionResponse:
        """Use a menu command on a member or a message (the object, or its id)."""
        location = self._find_channel(channel)
        menu_command = self._container.commands.menu_command(self.id, command, location)
        if isinstance(target, dict):
            target_id = target["id"]
        else:
            target_id = getattr(target, "id", target)
        try:
            if menu_command["type"] == USER_COMMAND:
                entity = self._container.guild.member(target_id)
            else:
                entity = self._container.messages.find(target_id, location["id"])
        except ApiError as error:
            raise SandboxRefusal(f"{menu_command['name']}: {error}.") from error
        data = command_options.fill_menu(self._container.guild, menu_command, entity)
        return await self._ask(InteractionType.COMMAND, location, data)

    async def click(self, message: Json, label_or_custom_id: str) -> InteractionResponse:
        current = self._visible(_message_id(message))
        button = _component(current, label_or_custom_id, "button", (BUTTON,))
        return await self._use(current, button, {})

    async def select(
        self, message: Json, id_or_placeholder: str, values: Sequence[object]
    ) -> InteractionResponse:
        current = self._visible(_message_id(message))
        kinds = tuple(command_options.SELECT_OPTION_TYPES)
        menu = _component(current, id_or_placeholder, "menu", kinds)
        filled = command_options.fill_select(self._container.guild, menu, values)
        return await self._use(current, menu, filled)

    async def _use(self, message: Json, component: Json, values: Json) -> InteractionResponse:
        data = {
            "component_type": component["type"],
            "custom_id": component["custom_id"],
            "id": component["id"],
            **values,
        }
        location = self._container.guild.location(message["channel_id"])
        return await self._ask(InteractionType.COMPONENT, location, data, message)

    def _visible(self, message_id: str) -> Json:
        try:
            message = self._container.messages.find(message_id)
        except ApiError as error:
            raise SandboxRefusal("This message was deleted.") from error
        if not self._sees(message):
            raise SandboxRefusal("Only someone else can see this message.")
        return message

    def _sees(self, message: Json) -> bool:
        location = self._container.guild.location(message["channel_id"])
        return visible_to(message, self.id) and self._may(Permission.VIEW_CHANNEL, location)

    async def submit(
        self, answer: InteractionResponse, /, **fields: FormValue
    ) -> InteractionResponse:
        """Submit a form; fields by custom_id or label: a text, values of a select, or files."""
        form = answer.modal
        interaction = answer.interaction
        if form is None:
            raise SandboxRefusal("There is no form to submit.")
        rows = []
        resolved: dict[str, Json] = {}
        for row in form["components"]:
            rows.append(self._form_row(row, fields, resolved))
        data = {"custom_id": form["custom_id"], "components": _numbered(rows)}
        if resolved:
            data["resolved"] = resolved
        source = self._visible(interaction.source) if interaction.source else None
        location = self._container.guild.location(interaction.payload["channel_id"])
        return await self._ask(
            InteractionType.FORM, location, data, source=source, trigger=interaction
        )

    def _form_row(self, row: Json, fields: FormFields, resolved: dict[str, Json]) -> Json:
        """Fill in a row: an action row with inputs, a label around an input, or a text. `resolved`
        gets what the values stand for, by kind and id.
        """
        if "component" in row:
            field = self._form_field(row["component"], row.get("label", ""), fields, resolved)
            return {"type": row["type"], "component": field}
        if "components" not in row:
            return {"type": row["type"]}
        inputs = []
        for field in row["components"]:
            inputs.append(self._form_field(field, field.get("label", ""), fields, resolved))
        return {"type": row["type"], "components": inputs}

    def _form_field(
        self, field: Json, label: str, fields: FormFields, resolved: dict[str, Json]
    ) -> Json:
        if field["type"] == TEXT_INPUT:
            return _form_text(field, label, fields)
        chosen = fields.get(field["custom_id"], fields.get(label))
        if chosen is None:
            chosen = _default_values(field)
        values: Sequence[object] = chosen if isinstance(chosen, list) else [chosen]
        part = {"placeholder": label, **field}
        # What is not required may stay empty, whatever its least number is; what is required may not.
        if not values:
            part["min_values"] = 1 if field.get("required", True) else 0
        is_upload = field["type"] == FILE_UPLOAD
        fill = command_options.fill_upload if is_upload else command_options.fill_select
        filled = fill(self._container.guild, part, values)
        for kind, found in filled.get("resolved", {}).items():
            resolved.setdefault(kind, {}).update(found)
        return {"type": field["type"], "custom_id": field["custom_id"], "values": filled["values"]}

    async def _ask(
        self,
        kind: InteractionType,
        location: Json,
        data: Json,
        source: Json | None = None,
        trigger: Interaction | None = None,
    ) -> InteractionResponse:
        interaction = await self._container.interactions.dispatch(
            kind, self.id, location["id"], data, source=source, trigger=trigger
        )
        return InteractionResponse(interaction, self._container)


def _require_name(name: str, what: str) -> None:
    if not 1 <= len(name.strip()) <= MAX_CHANNEL_NAME_CHARACTERS:
        raise SandboxRefusal(f"A {what}'s name has 1 to {MAX_CHANNEL_NAME_CHARACTERS} characters.")


def _message_id(message: Json) -> str:
    if not isinstance(message, dict) or "id" not in message:
        raise SandboxRefusal("A message is given as the object, not as its id.")
    return str(message["id"])


def _component(message: Json, name: str, what: str, kinds: tuple[int, ...]) -> Json:
    for component in all_components(message["components"]):
        names = [component.get(key) for key in ("custom_id", "label", "placeholder")]
        if component["type"] not in kinds or name not in names:
            continue
        # A link opens in the browser; the bot is not told.
        is_link = component["type"] == BUTTON and component.get("style") == LINK_STYLE
        if component.get("disabled") or is_link:
            action = "pressed" if what == "button" else "used"
            raise SandboxRefusal(f"This {what} cannot be {action}.")
        return component
    raise SandboxRefusal(f"The message has no {what} called {name}.")


def _numbered(rows: Sequence[Json]) -> list[Json]:
    """Give rows and inputs their ids, in their order."""
    numbers = count(1)
    numbered = []
    for row in rows:
        row = {"id": next(numbers), **row}
        if "component" in row:
            row["component"]["id"] = next(numbers)
        for part in row.get("components", ()):
            part["id"] = next(numbers)
        numbered.append(row)
    return numbered


def _default_values(field: Json) -> list[str]:
    """Return what is chosen in a form's select before a member changes it."""
    chosen = [option["value"] for option in field.get("options", ()) if option.get("default")]
    return [*chosen, *(each["id"] for each in field.get("default_values", ()))]


def _form_text(text: Json, label: str, fields: FormFields) -> Json:
    value = str(fields.get(text["custom_id"], fields.get(label, text.get("value") or "")))
    name = label or text["custom_id"]
    if not value and text.get("required", True):
        raise SandboxRefusal(f"{name}: This field is required.")
    low = text.get("min_length") or 0
    high = text.get("max_length") or MAX_FORM_TEXT_CHARACTERS
    if value and not low <= len(value) <= high:
        raise SandboxRefusal(f"{name}: Must be between {low} and {high} in length.")
    return {"type": text["type"], "custom_id": text["custom_id"], "value": value}


def _as_client(content: str, send: Callable[[], Json]) -> Json:
    """Send, and convert errors to the messages of Discord's client."""
    if len(content) > MAX_MESSAGE_CHARACTERS:
        raise SandboxRefusal(
            f"Your message is too long: {len(content)} of {MAX_MESSAGE_CHARACTERS} characters."
        )
    try:
        return send()
    except ApiError as error:
        raise SandboxRefusal(_translate_error(error)) from error


def _translate_error(error: ApiError) -> str:
    first: object = error.errors
    while isinstance(first, dict):
        first = next(iter(first.values()))
    if isinstance(first, list):
        return f"Your message could not be sent: {first[0]['message']}"
    return str(error)
