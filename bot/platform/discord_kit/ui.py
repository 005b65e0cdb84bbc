"""Responses, persistent buttons and forms, and the handler of failed commands."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, Self, TypeVar

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.chat.places import guild_id_of
from bot.moderation.roles import Action, RolePermissions
from bot.platform.discord_kit.transformers import Interaction, require_action
from bot.platform.errors import error_text
from bot.platform.localisation import (
    activate,
    gettext_lazy,
    interaction_language,
    localise,
    override,
    translate,
)
from bot.platform.messages import MAX_MESSAGE_CHARS, NO_MENTIONS
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
MAX_SELECT_OPTIONS = 25
"""Options that Discord allows in a menu."""
MAX_MENUS = 5
"""Menus that Discord allows below a message."""
MAX_TITLE_CHARS = 45
"""Characters that Discord allows in the title of a form."""
MAX_BUTTON_CHARS = 80
"""Characters that Discord allows on a button."""
MAX_DESCRIPTION_CHARS = 100
"""Characters that Discord allows below an option."""
CHOOSE_PERSONA_TEXT = gettext_lazy("Choose a persona")
T = TypeVar("T")
EMPTY_RESPONSE = "empty response"
"""Key of `interaction.extras` while the response has no text yet; the value says whether it is
private.
"""
LINK_PATTERN = re.compile(r"(?<!<)https?://[^\s<>]+")
ALREADY_ACKNOWLEDGED = 40060
"""Discord's error code for a second response to an interaction; the key of `interaction.extras`
that says so, too.
"""
AnyView = discord.ui.View | discord.ui.LayoutView
"""Below a text, or in its place. discord.py's methods have types for either, but not for both."""
FormHandler = Callable[[Interaction, str, dict[str, str]], Awaitable[None]]
"""Called with the rest of the form's custom id and its values by custom id."""


class BotCommandTree(app_commands.CommandTree[Any]):
    """The command tree, which answers every failed command, and each command once."""

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        return _begin(interaction)

    async def on_error(
        self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /
    ) -> None:
        await respond_privately(interaction, error_text(error))


def _begin(interaction: discord.Interaction[Any]) -> bool:
    """Have what answers an interaction written in its member's language: discord.py calls this in
    the task of the answer. False for one that has come before: a gateway that resumes may repeat
    events.
    """
    activate(interaction_language(interaction))
    return bool(interaction.client.note_interaction(interaction.id))


async def acknowledge(
    interaction: discord.Interaction[Any], request: Callable[[], Awaitable[T]]
) -> T | None:
    """Make the first response to an interaction, again while its outcome is uncertain. None if
    Discord has it already.

    Discord may answer a request that took effect with a server error, or not at all. It takes one
    response alone, and answers a repeated one with error 40060: that is a success. Raises
    `discord.NotFound` if it comes too late.
    """
    try:
        return await persist(request)
    except discord.HTTPException as error:
        if error.code != ALREADY_ACKNOWLEDGED:
            raise
        interaction.extras[ALREADY_ACKNOWLEDGED] = True
        return None


def is_acknowledged(interaction: discord.Interaction[Any]) -> bool:
    """Return True if Discord has a response to the interaction."""
    return interaction.response.is_done() or ALREADY_ACKNOWLEDGED in interaction.extras


async def defer(
    interaction: discord.Interaction[Any], *, ephemeral: bool = False, thinking: bool = False
) -> None:
    """Acknowledge an interaction before anything that takes time; `respond` fills the response.

    A button whose result is a message of its own needs `thinking`.
    """
    await acknowledge(
        interaction, lambda: interaction.response.defer(ephemeral=ephemeral, thinking=thinking)
    )
    if thinking or interaction.type is discord.InteractionType.application_command:
        interaction.extras[EMPTY_RESPONSE] = ephemeral


async def send_form(interaction: discord.Interaction[Any], modal: discord.ui.Modal) -> None:
    """Open a form as the response."""
    await acknowledge(interaction, lambda: interaction.response.send_modal(modal))


async def respond(
    interaction: discord.Interaction[Any],
    text: str,
    view: discord.ui.View | None = None,
    *,
    ephemeral: bool = True,
    suppress_embeds: bool = False,
    files: Sequence[discord.File] = (),
) -> None:
    """Respond to an interaction, or follow up on it, with one message; nobody is mentioned. A
    localisable text is given in the language of those who see it.

    A response that Discord does not take is logged: what it tells of has been done, and did not go
    wrong.
    """
    with override(interaction_language(interaction, is_private=ephemeral)):
        text = localise(text)[:MAX_MESSAGE_CHARS]
    await _respond(
        interaction, text, view, ephemeral=ephemeral, suppress_embeds=suppress_embeds, files=files
    )


async def respond_with_layout(
    interaction: discord.Interaction[Any],
    layout: discord.ui.LayoutView,
    *,
    files: Sequence[discord.File] = (),
) -> None:
    """Respond as `respond` does, to the member alone, with a layout of components in place of a text.

    No text can be put in its place later, so that nothing with progress has one.
    """
    await _respond(interaction, None, layout, ephemeral=True, files=files)


async def _respond(
    interaction: discord.Interaction[Any],
    text: str | None,
    view: AnyView | None,
    *,
    ephemeral: bool,
    suppress_embeds: bool = False,
    files: Sequence[discord.File] = (),
) -> None:
    shown: Any = view or discord.utils.MISSING
    with _logging_failure(interaction):
        if not is_acknowledged(interaction):
            await respond_first(
                interaction, text, view, ephemeral=ephemeral, suppress_embeds=suppress_embeds
            )
        elif EMPTY_RESPONSE in interaction.extras and (
            interaction.extras[EMPTY_RESPONSE] or not ephemeral
        ):
            await fill_response(interaction, text, view, files, suppress_embeds=suppress_embeds)
        else:
            # An empty response is there, but public: everybody would read what is private.
            if interaction.extras.pop(EMPTY_RESPONSE, None) is not None:
                await persist(interaction.delete_original_response)
            await interaction.followup.send(
                text or discord.utils.MISSING, view=shown, ephemeral=ephemeral,
                suppress_embeds=suppress_embeds, allowed_mentions=NO_MENTIONS, files=files or discord.utils.MISSING,
            )  # fmt: skip


async def respond_first(
    interaction: discord.Interaction[Any],
    text: str | None,
    view: AnyView | None = None,
    *,
    ephemeral: bool = False,
    suppress_embeds: bool = False,
) -> int | None:
    """Acknowledge an interaction by a message. Returns its id if Discord has confirmed it.

    Raises `discord.HTTPException` and others if the response failed or came too late.
    """
    shown: Any = view or discord.utils.MISSING
    response = await acknowledge(
        interaction,
        lambda: interaction.response.send_message(
            text, view=shown, ephemeral=ephemeral, suppress_embeds=suppress_embeds,
            allowed_mentions=NO_MENTIONS,
        ),
    )  # fmt: skip
    return response.message_id if response else None


async def fill_response(
    interaction: discord.Interaction[Any],
    text: str | None,
    view: AnyView | None = None,
    files: Sequence[discord.File] = (),
    *,
    suppress_embeds: bool = False,
) -> int:
    """Fill the response that `defer` has begun, and return its id. Raises `discord.HTTPException`
    and others.

    An edit can be repeated, where a follow-up would be posted twice.
    """
    content = text
    if content is not None and suppress_embeds:
        # An edit cannot suppress embeds; a link in <> has none.
        content = LINK_PATTERN.sub(r"<\g<0>>", content)

    async def edit() -> int:
        for file in files:
            file.reset()
        message = await interaction.edit_original_response(
            content=content and content[:MAX_MESSAGE_CHARS],
            view=view,
            attachments=files,
            allowed_mentions=NO_MENTIONS,
        )
        return message.id

    message_id = await persist(edit)
    del interaction.extras[EMPTY_RESPONSE]
    return message_id


async def update_message(interaction: discord.Interaction[Any], **fields: Any) -> None:
    """Edit the message of the button that was pressed, as the response; a failure is logged, as by
    `respond`. A localisable content is in the present language.
    """
    if content := fields.get("content"):
        fields["content"] = localise(content)
    with _logging_failure(interaction):
        if is_acknowledged(interaction):
            await persist(lambda: interaction.edit_original_response(**fields))
        else:
            await acknowledge(interaction, lambda: interaction.response.edit_message(**fields))


async def edit_response(interaction: discord.Interaction[Any], **fields: Any) -> None:
    """Edit the response, such as by progress; a failure is logged, as by `respond`. A localisable
    content is in the present language.
    """
    if content := fields.get("content"):
        fields["content"] = localise(content)
    interaction.extras.pop(EMPTY_RESPONSE, None)
    with _logging_failure(interaction):
        await persist(lambda: interaction.edit_original_response(**fields))


@contextmanager
def _logging_failure(interaction: discord.Interaction[Any]) -> Iterator[None]:
    """Log a response that failed, but not its text, which may be a member's own."""
    try:
        yield
    except (discord.HTTPException, discord.RateLimited, *UNCERTAIN_ERRORS) as error:
        data: Any = interaction.data or {}
        asked = data.get("name") or data.get("custom_id")
        log.warning(
            "could not tell %s what %s did: %s",
            interaction.user,
            asked,
            str(error) or type(error).__name__,
        )


async def respond_privately(interaction: discord.Interaction[Any], text: str) -> None:
    """Respond for the author's eyes only, in their language."""
    await respond(interaction, text)


def button_view(*buttons: discord.ui.Item[Any]) -> discord.ui.View:
    """A view of these buttons that never times out."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view


class PersistentButton(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=r"never:"
):
    """A button that outlives a restart: its custom id is the template's prefix and a value for each
    group.

    The values become attributes, as text. Errors are shown to whoever pressed it.
    """

    label: ClassVar[str] = ""
    style: ClassVar[discord.ButtonStyle] = discord.ButtonStyle.secondary
    emoji: ClassVar[str | None] = None
    moderators_only: ClassVar[bool] = False
    actions: ClassVar[tuple[Action, ...]] = ()
    """Whoever may do one of these may use it; with `moderators_only`, in servers alone, and beside
    moderators.
    """

    def __init__(self, *values: object, label: str | None = None) -> None:
        texts = [str(value) for value in values]
        for name, text in zip(self.template.groupindex, texts, strict=True):
            setattr(self, name, text)
        prefix = self.template.pattern.partition(":")[0].replace("\\", "")
        look: dict[str, Any] = {
            "label": localise(label or self.label) or None,
            "style": self.style,
            "emoji": self.emoji,
        }
        super().__init__(discord.ui.Button(custom_id=":".join([prefix, *texts]), **look))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: Any, match: Any
    ) -> Self:
        return cls(*match.groups())

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        return _begin(interaction)

    async def callback(self, interaction: Interaction) -> None:  # type: ignore[override]
        try:
            if self.moderators_only:
                require_action(interaction, *self.actions)
            elif self.actions:
                roles = RolePermissions(interaction.client.services.store)
                roles.require(interaction.user, guild_id_of(interaction), *self.actions)
            await self.pressed(interaction)
            interaction.client.dispatch("item_completion", interaction)
        except Exception as error:  # nothing above would answer the interaction
            await respond_privately(interaction, error_text(error))

    async def pressed(self, interaction: Interaction) -> None:
        """Handle the click."""
        raise NotImplementedError


class PersistentSelect(
    discord.ui.DynamicItem[discord.ui.Select[discord.ui.View]], template=r"never:"
):
    """A menu that outlives a restart and can be used again; custom ids as of a `PersistentButton`. A
    group may be missing: its value is None.
    """

    moderators_only: ClassVar[bool] = False
    actions: ClassVar[tuple[Action, ...]] = ()
    """With `moderators_only`: whoever may do one of these by a role may use it, too."""

    def __init__(
        self,
        options: list[discord.SelectOption],
        *values: str | None,
        placeholder: str | None = None,
    ) -> None:
        for name, text in zip(self.template.groupindex, values, strict=True):
            setattr(self, name, text)
        prefix = re.split(r"[^\w-]", self.template.pattern, maxsplit=1)[0]
        custom_id = ":".join([prefix, *filter(None, values)])
        super().__init__(
            discord.ui.Select(custom_id=custom_id, placeholder=placeholder, options=options)
        )

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: Any, match: Any
    ) -> Self:
        return cls(item.options, *match.groups(), placeholder=item.placeholder)

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        return _begin(interaction)

    async def callback(self, interaction: Interaction) -> None:  # type: ignore[override]
        try:
            if self.moderators_only:
                require_action(interaction, *self.actions)
            await self.chosen(interaction, self.item.values[0])
            interaction.client.dispatch("item_completion", interaction)
        except Exception as error:  # nothing above would answer the interaction
            await respond_privately(interaction, error_text(error))

    async def chosen(self, interaction: Interaction, value: str) -> None:
        """Handle the choice."""
        raise NotImplementedError


MENU_NUMBER = r"(?::(?P<menu>[0-9]+))?"
"""Ends the template of a `PersistentPersonaSelect`."""


class PersistentPersonaSelect(PersistentSelect, template=r"never:"):
    """A menu of personas. Its template ends with `MENU_NUMBER`, for Discord wants different custom
    ids below a message; the first menu has none.
    """

    menu: str | None

    @classmethod
    def menus(cls, personas: Sequence[Persona], *values: str) -> list[Self]:
        """Menus of these personas, as many as Discord shows below a message."""
        options = []
        for persona in personas[: MAX_MENUS * MAX_SELECT_OPTIONS]:
            tagline = persona.tagline[:MAX_DESCRIPTION_CHARS] or None
            option = discord.SelectOption(label=persona.name, value=persona.id, description=tagline)
            options.append(option)
        starts = range(0, len(options), MAX_SELECT_OPTIONS)
        pages = [options[start : start + MAX_SELECT_OPTIONS] for start in starts]
        menus = []
        for number, page in enumerate(pages, start=1):
            placeholder = localise(CHOOSE_PERSONA_TEXT)
            if len(pages) > 1:
                placeholder += f" ({number}/{len(pages)})"
            further = str(number) if number > 1 else None
            menus.append(cls(page, *values, further, placeholder=placeholder))
        return menus


def select_field(
    label: str,
    custom_id: str,
    options: Iterable[discord.SelectOption],
    *,
    placeholder: str = "",
) -> discord.ui.Label[Any]:
    """A field of a form for one of up to 25 options, which has to be chosen."""
    menu: discord.ui.Select[Any] = discord.ui.Select(
        custom_id=custom_id,
        placeholder=placeholder or None,
        options=list(islice(options, MAX_SELECT_OPTIONS)),
        required=True,
    )
    return discord.ui.Label(text=label, component=menu)


def text_field(
    label: str, custom_id: str, max_chars: int, *, required: bool = True
) -> discord.ui.TextInput[Any]:
    """A field of a form for text of several lines."""
    style = discord.TextStyle.paragraph
    return discord.ui.TextInput(
        label=label, custom_id=custom_id, style=style, max_length=max_chars, required=required
    )


def fitting_text(source: str, *, max_chars: int, **names: str) -> str:
    """Return a text that `gettext_noop` marks in the present language, with names in it. The longest
    of them are shortened until the text has room.
    """
    while len(text := translate(source, **names)) > max_chars:
        longest = max(names, key=lambda each: len(names[each]))
        assert names[longest] != "…"  # the words around the names always have room
        names[longest] = f"{names[longest].removesuffix('…')[:-1]}…"
    return text


def form(title: str, custom_id: str, *fields: discord.ui.Item[Any]) -> discord.ui.Modal:
    """A form, handled by `FormCog` when it is submitted. Discord takes no title of more than
    `MAX_TITLE_CHARS`: one with a name in it comes from `fitting_text`.
    """
    modal = discord.ui.Modal(title=title, custom_id=custom_id)
    for field in fields:
        modal.add_item(field)
    return modal


class FormCog(commands.Cog):
    """Handles submitted forms by the prefix of their custom id, also those opened before a
    restart.
    """

    def __init__(self, handlers: Mapping[str, FormHandler]) -> None:
        self._handlers = handlers

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """A form was submitted."""
        is_form = interaction.type is discord.InteractionType.modal_submit
        if not is_form or not _begin(interaction):
            return
        data: Any = interaction.data or {}
        prefix, separator, rest = str(data.get("custom_id", "")).partition(":")
        if handle := self._handlers.get(prefix + separator):
            try:
                await handle(interaction, rest, _submitted_values(data))
                interaction.client.dispatch("item_completion", interaction)
            except Exception as error:
                await respond_privately(interaction, error_text(error))


def _submitted_values(data: Any) -> dict[str, str]:
    """The values by custom id, read from the raw interaction: the form's own object may be from
    before a restart. A menu has its first value, and nothing where none is chosen.
    """
    values = {}
    for field in _submitted_fields(data):
        chosen = field.get("values") or [field.get("value", "")]
        values[str(field["custom_id"])] = str(chosen[0])
    return values


def _submitted_fields(data: Any) -> Iterator[Any]:
    """The fields of a submitted form, each of which Discord puts into a label or a row."""
    for row in data["components"]:
        if "component" in row:
            yield row["component"]
        yield from row.get("components", ())


def submitted_files(interaction: discord.Interaction[Any]) -> list[discord.Attachment]:
    """The files of a submitted form, in their order."""
    data: Any = interaction.data or {}
    found = data.get("resolved", {}).get("attachments", {})
    files = []
    for field in _submitted_fields(data):
        for file_id in field.get("values", ()):
            if file_id in found:
                files.append(discord.Attachment(data=found[file_id], state=interaction._state))
    return files
