"""A person in the guild. Everything that the page can do goes through here."""

import re
from dataclasses import dataclass, field
from typing import cast

from bot.sandbox import options as command_options
from bot.sandbox.errors import ApiError, Json, SandboxRefusal
from bot.sandbox.interactions import Asked, Interaction, Reply
from bot.sandbox.messages import EPHEMERAL, Draft, visible_to
from bot.sandbox.permissions import Permission
from bot.sandbox.world import World

BUTTON, LINK_STYLE = 2, 5
LONGEST_FORM_TEXT = 4000


@dataclass
class Answer:
    """The bot's answer to an interaction; `message` is always as it stands now."""

    interaction: Interaction = field(repr=False)
    world: World = field(repr=False)

    @property
    def type(self) -> int | None:
        """Discord's callback type, or None: not acknowledged in time."""
        return None if self.interaction.reply is None else int(self.interaction.reply)

    @property
    def message(self) -> Json | None:
        """The original answer, edits included; None if there is none (any more)."""
        try:
            return self.world.interactions.original(self.interaction)
        except ApiError:
            return None

    @property
    def ephemeral(self) -> bool:
        """Whether only who asked sees it."""
        return bool((self.message or {"flags": 0})["flags"] & EPHEMERAL)

    @property
    def modal(self) -> Json | None:
        """The form, if the answer is one."""
        return self.interaction.data if self.interaction.reply is Reply.FORM else None


class Member:
    """Plays one person. Methods raise SandboxRefusal where Discord's client would not let them."""

    def __init__(self, world: World, user_id: str) -> None:
        self._world, self.id = world, user_id

    @property
    def name(self) -> str:
        """The display name."""
        return cast(str, self._world.guild.member(self.id)["user"]["global_name"])

    async def say(self, channel: str, content: str, reply_to: Json | None = None) -> Json:
        """Write a message; @Name and #channel become mentions, as they do in Discord's box."""
        channel_id = self._channel_id(channel)
        if not self._world.guild.may(self.id, Permission.SEND_MESSAGES):
            raise SandboxRefusal("You do not have permission to send messages in this channel.")
        body: Json = {"content": self._with_mentions(content)}
        if reply_to is not None:
            body["message_reference"] = {"message_id": reply_to["id"]}
        draft, author = Draft(body), self._world.guild.member(self.id)["user"]
        try:
            draft.check()
            return self._world.messages.create(author, channel_id, draft)
        except ApiError as error:
            raise SandboxRefusal(_in_words(error)) from error

    def _channel_id(self, name: str) -> str:
        for channel in self._world.guild.channels():
            if name.removeprefix("#") in (channel["name"], channel["id"]):
                return cast(str, channel["id"])
        raise SandboxRefusal(f"There is no channel called {name}.")

    def _with_mentions(self, content: str) -> str:
        guild = self._world.guild
        users = [member["user"] for member in guild.members()]
        written = {f"@{user['global_name'] or user['username']}": f"<@{user['id']}>" for user in users}
        written |= {f"#{channel['name']}": f"<#{channel['id']}>" for channel in guild.channels()}
        longest_first = sorted(written, key=len, reverse=True)
        return re.sub(rf"(?:{'|'.join(map(re.escape, longest_first))})\b", lambda found: written[found[0]], content)

    async def slash(self, channel: str, command: str, /, **options: object) -> Answer:
        """Run a command by its full name, such as "finetune start"; returns when acknowledged, or after 3 s."""
        invoked = self._world.commands.invoked(self.id, command)
        data = command_options.fill_in(self._world.guild, invoked, options)
        return await self._ask(Asked.COMMAND, self._channel_id(channel), data)

    async def autocomplete(self, channel: str, command: str, focused: str, /, **options: object) -> list[Json]:
        """The choices the bot offers for the option being typed; none if it does not answer."""
        invoked = self._world.commands.invoked(self.id, command)
        if not any(o["name"] == focused and o.get("autocomplete") for o in invoked.leaf.get("options", ())):
            raise SandboxRefusal(f"{focused}: This option has no autocomplete.")
        data = command_options.fill_in(self._world.guild, invoked, options, focused)
        answer = await self._ask(Asked.AUTOCOMPLETE, self._channel_id(channel), data)
        return cast(list[Json], answer.interaction.data.get("choices", []))

    async def click(self, message: Json, label_or_custom_id: str) -> Answer:
        """Press a button of the message, as it stands now."""
        current = self._visible(message["id"])
        button = self._button(current, label_or_custom_id)
        data = {"component_type": BUTTON, "custom_id": button["custom_id"], "id": button["id"]}
        return await self._ask(Asked.COMPONENT, current["channel_id"], data, current)

    def _visible(self, message_id: str) -> Json:
        try:
            found = self._world.messages.find(message_id)
        except ApiError as error:
            raise SandboxRefusal("This message is gone.") from error
        if not visible_to(found, self.id):
            raise SandboxRefusal("Only someone else can see this message.")
        return found

    def _button(self, message: Json, label_or_custom_id: str) -> Json:
        for row in message["components"]:
            for button in row["components"]:
                if label_or_custom_id in (button.get("custom_id"), button.get("label")):
                    if button.get("disabled") or button.get("style") == LINK_STYLE:
                        raise SandboxRefusal("This button cannot be pressed.")
                    return cast(Json, button)
        raise SandboxRefusal(f"The message has no button called {label_or_custom_id}.")

    async def submit(self, answer: Answer, /, **fields: str) -> Answer:
        """Send a form; fields by custom_id or label."""
        form, asked = answer.modal, answer.interaction
        if form is None:
            raise SandboxRefusal("There is no form to send.")
        rows = [_form_row(row, fields) for row in form["components"]]
        data = {"custom_id": form["custom_id"], "components": rows}
        source = self._visible(asked.source) if asked.source else None
        return await self._ask(Asked.FORM, asked.payload["channel_id"], data, source)

    async def _ask(self, asked: Asked, channel_id: str, data: Json, source: Json | None = None) -> Answer:
        return Answer(await self._world.interactions.ask(asked, self.id, channel_id, data, source), self._world)


def _form_row(row: Json, fields: dict[str, str]) -> Json:
    """A row of the form filled in: an action row with its inputs, or a label around one."""
    if "component" in row:
        return {"type": row["type"], "component": _form_text(row["component"], row.get("label", ""), fields)}
    inputs = [_form_text(text, text.get("label", ""), fields) for text in row.get("components", ())]
    return {"type": row["type"], "components": inputs}


def _form_text(text: Json, label: str, fields: dict[str, str]) -> Json:
    value = fields.get(text["custom_id"], fields.get(label, text.get("value") or ""))
    name = label or text["custom_id"]
    if not value and text.get("required", True):
        raise SandboxRefusal(f"{name}: This field is required.")
    low, high = text.get("min_length") or 0, text.get("max_length") or LONGEST_FORM_TEXT
    if value and not low <= len(value) <= high:
        raise SandboxRefusal(f"{name}: Must be between {low} and {high} in length.")
    return {"type": text["type"], "custom_id": text["custom_id"], "value": value}


def _in_words(error: ApiError) -> str:
    first: object = error.errors
    while isinstance(first, dict):
        first = next(iter(first.values()))
    return f"Your message could not be sent: {first[0]['message']}" if isinstance(first, list) else str(error)
