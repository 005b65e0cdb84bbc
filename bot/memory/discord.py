"""`/remember`, `/memory` and "Remember this" in the menu of messages: what members ask personas to keep,
for themselves alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.memory_text import MAX_MEMORY_CHARS, clean_memory, shorten_memory
from bot.chat.message_text import ANONYMOUS_NAMES, NameOf, channel_name, has_words, raw_text
from bot.chat.places import channel_ref, guild_id_of, is_outside, outside_channel
from bot.chat.reply_text import discord_text, remove_links
from bot.memory.actions import MemberMemories
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    Interaction,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    find_channel_persona,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    form,
    respond,
    send_form,
    text_field,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, localise, ngettext_lazy, translate
from bot.platform.messages import MAX_MESSAGE_CHARS, markdown_name, message_texts
from bot.services import Bot
from bot.store import Memory, StoredReply
from personas.home.persona_ids import short_id
from personas.lore.passages import MAX_PASSAGE_WORDS
from personas.schemas.chat import Persona

MEMORY_FORM_PREFIX = "memory:"
"""Prefix of the form's custom id; the memory's number follows."""
ALL_MEMORIES = "all"
CHANGE_TEXT = gettext_lazy("`/memory edit` and `/memory forget` change that.")
ALL_TEXT = gettext_lazy(
    "The memories of all personas for you here. `/memory edit` and `/memory forget` change one by "
    "its number."
)
CUT_TEXT = gettext_lazy("`/memory edit` shows the full text.")
MAX_SHOWN_CHARS = 1500  # of a text that was too long
MARGIN_CHARS = 16  # number and markup of a line of the list


def _suggest_memories(interaction: Interaction) -> dict[str, str]:
    memories = _memories(interaction).of_persona(_find_persona(interaction))
    return {f"{memory.seq}: {memory.text}": str(memory.seq) for memory in memories}


def _suggest_forgettable(interaction: Interaction) -> dict[str, str]:
    memories = _suggest_memories(interaction)
    if memories and _find_persona(interaction):
        every = gettext_lazy("all {count}", count=len(memories))
        return {localise(every): ALL_MEMORIES, **memories}
    return memories


def _find_persona(interaction: Interaction) -> Persona | None:
    """Find the persona typed so far, else the channel's; None where none lives. Raises
    `RequestError`.
    """
    typed = getattr(interaction.namespace, "persona", None)
    if typed:
        return require_persona(interaction, typed)
    return find_channel_persona(interaction)


MemoryOption = app_commands.Transform[str, SuggestionTransformer(_suggest_memories)]
ForgettableOption = app_commands.Transform[str, SuggestionTransformer(_suggest_forgettable)]


@app_commands.allowed_contexts(guilds=True, dms=True)
class MemoryCog(
    commands.GroupCog,
    group_name="memory",
    group_description=gettext_noop("See, change and delete what personas remember for you."),
):
    """The commands, for everybody about their own memories."""

    def __init__(self, bot: Bot) -> None:
        super().__init__()
        self._tree = bot.tree
        self._menu = app_commands.ContextMenu(
            name=gettext_noop("Remember this"), callback=remember_message
        )

    async def cog_load(self) -> None:
        self._tree.add_command(remember)
        self._tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        self._tree.remove_command(remember.name)
        self._tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command(
        description=gettext_noop("Show what a persona, or all of them, remember for you here.")
    )
    @app_commands.describe(
        persona=gettext_noop("Which persona (if left out: this channel's, or all where none lives)")
    )
    async def show(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        persona = persona or find_channel_persona(interaction)
        texts = [_persona_text(interaction, persona)] if persona else _all_texts(interaction)
        for text in texts:
            await respond(interaction, text, suppress_embeds=True)

    @app_commands.command(
        description=gettext_noop("Change what a persona remembers for you, in a form.")
    )
    @app_commands.describe(
        memory=gettext_noop("Its number, as `/memory show` shows it"), persona=CHANNEL_PERSONA_HELP
    )
    async def edit(
        self, interaction: Interaction, memory: MemoryOption, persona: PersonaOption | None = None
    ) -> None:
        memory_of = _memories(interaction).require(memory, persona)
        await send_form(interaction, _memory_form(memory_of))

    @app_commands.command(
        description=gettext_noop("Have a persona forget what it remembers for you.")
    )
    @app_commands.describe(
        memory=gettext_noop("Its number, as `/memory show` shows it, or all"),
        persona=CHANNEL_PERSONA_HELP,
    )
    async def forget(
        self,
        interaction: Interaction,
        memory: ForgettableOption,
        persona: PersonaOption | None = None,
    ) -> None:
        if memory != ALL_MEMORIES:
            await respond(interaction, _forget(interaction, memory, persona))
            return
        persona = persona or channel_persona(interaction)
        count = _memories(interaction).forget_all(persona)
        await respond(
            interaction,
            gettext_lazy(
                "{persona} has forgotten all it remembered for you here ({count}).",
                persona=markdown_name(persona),
                count=count,
            ),
        )


@app_commands.command(
    description=gettext_noop("Ask a persona to remember something for you, in this server alone.")
)
@app_commands.describe(
    text=gettext_noop("The text to remember, in your words"), persona=CHANNEL_PERSONA_HELP
)
@app_commands.allowed_contexts(guilds=True, dms=True)
async def remember(
    interaction: Interaction,
    text: app_commands.Range[str, 1, MAX_MEMORY_CHARS],
    persona: PersonaOption | None = None,
) -> None:
    # First, because the answer with helplines comes also where nothing would be remembered.
    interaction.client.services.safety.require_safe(text)
    await _store(interaction, persona or channel_persona(interaction), text)


async def remember_message(interaction: Interaction, message: discord.Message) -> None:
    """The command in a message's menu: keep a persona's reply to the member, or the member's own
    message.
    """
    services = interaction.client.services
    if reply := services.store.replies.of_message(message.id):
        if reply.asked_by not in (0, interaction.user.id):
            raise RefusedError(
                gettext_lazy("That was said to somebody else."),
                gettext_lazy("Choose a reply to you, or use `/remember`."),
            )
        message_id = reply.parts[0]
        text = services.store.messages.text_of(reply.parts[0])
        if services.reply_service.is_running(reply.event_id) or text is None:
            raise RefusedError(
                gettext_lazy("This reply has not ended, or is no longer kept."),
                gettext_lazy("Use `/remember` for what it says."),
            )
        await _store(
            interaction,
            _persona_of(interaction, reply),
            remove_links(text),
            message_id,
            by_persona=True,
        )
        return
    # The text of a command or form stands in the bot's response to it. The store may know it by
    # the id of the command alone.
    command = message.interaction_metadata
    author: discord.User | discord.Member
    if command:
        author = command.user
        event_id = command.id
        text_of = services.store.messages.text_of
        text = text_of(message.id) or text_of(event_id)
    else:
        author = message.author
        event_id = message.id
        text = own_words(message, interaction.user)
    if author != interaction.user or not text:
        raise RefusedError(
            gettext_lazy("Personas remember their replies to you and your own messages."),
            gettext_lazy("Choose one of these, or use `/remember`."),
        )
    services.safety.require_safe(text)
    answer = services.store.replies.get(event_id)
    advice = gettext_lazy("Use `/remember` with its text and the option `persona`.")
    if answer:
        persona = _persona_of(interaction, answer)
    else:
        persona = channel_persona(interaction, advice)
    await _store(interaction, persona, text, message.id)


async def edit_memory(interaction: Interaction, seq: str, values: dict[str, str]) -> None:
    """Store a submitted form. Raises `RefusedError` where the memory is gone, or for a text as
    `_store` does.
    """
    interaction.client.services.safety.require_safe(values["text"])
    memories = _memories(interaction)
    memory = memories.require(seq)
    text = check_memory(interaction, values["text"])
    memories.edit(memory, text)
    await respond(
        interaction,
        gettext_lazy("Changed: {text}", text=_quote(text)),
        _buttons(memory.seq),
        suppress_embeds=True,
    )


class EditMemoryButton(PersistentButton, template=r"edit-memory:(?P<seq>[0-9]+)"):
    """Opens the form of a memory."""

    label = gettext_lazy("Edit")
    seq: str

    async def pressed(self, interaction: Interaction) -> None:
        memory = _memories(interaction).require(self.seq)
        await send_form(interaction, _memory_form(memory))


class ForgetMemoryButton(PersistentButton, template=r"forget-memory:(?P<seq>[0-9]+)"):
    """Deletes a memory."""

    label = gettext_lazy("Forget")
    seq: str

    async def pressed(self, interaction: Interaction) -> None:
        await update_message(interaction, content=_forget(interaction, self.seq), view=None)


MEMORY_BUTTONS = (EditMemoryButton, ForgetMemoryButton)


def check_memory(interaction: Interaction, text: str) -> str:
    """Return a member's text as it is kept. Raises `RefusedError` for one that is empty or too
    long.
    """
    text = clean_memory(text, _channel_names(interaction.guild, interaction.user))
    if not has_words(text):
        raise RefusedError(
            gettext_lazy("There is nothing to remember."), gettext_lazy("Write some words.")
        )
    if text != shorten_memory(text):
        raise RefusedError(
            gettext_lazy(
                "That is too long: a memory has at most {characters} characters and {words} words.",
                characters=MAX_MEMORY_CHARS,
                words=MAX_PASSAGE_WORDS,
            ),
            gettext_lazy("Say it shorter. It was: {text}", text=_quote(text[:MAX_SHOWN_CHARS])),
        )
    return text


def own_words(message: discord.Message, author: discord.User | discord.Member) -> str:
    """Return its author's message as a memory has it: without mentions of the bot, and naming
    nobody it mentions.

    The message of a menu's command has a user, not a member, as its author; so the author is given.
    """
    guild = message.guild
    text = raw_text(message)
    if guild:
        for addressed in (guild.me, guild.self_role):
            if addressed:
                text = text.replace(addressed.mention, "")
    return clean_memory(text, _channel_names(guild, author))


def _channel_names(guild: discord.Guild | None, author: discord.User | discord.Member) -> NameOf:
    """Name the server's channels that the author sees."""
    return lambda channel_id: (
        channel_name(guild, author, channel_id) or ANONYMOUS_NAMES.channel(channel_id)
    )


async def _store(
    interaction: Interaction,
    persona: Persona,
    text: str,
    message_id: int | None = None,
    *,
    by_persona: bool = False,
) -> None:
    """Store a memory, and show it. Raises `RefusedError` for a text that cannot be kept, is known,
    or one too many.
    """
    text = check_memory(interaction, text)
    store = interaction.client.services.store
    with store.atomic():
        seq = _memories(interaction).add(
            persona,
            text,
            by_persona=by_persona,
            message_id=message_id,
            channel_id=_channel_id(interaction),
        )
        if isinstance(interaction.channel, discord.Thread) and not is_outside(interaction):
            store.places.record_thread(*astuple(channel_ref(interaction.channel)))
    stored = gettext_lazy(
        "**{persona}** remembers for you (number {number}): {text}\n"
        "-# It is used only for replies to you in this conversation, never for training. `/memory "
        "show` lists what {persona} remembers.",
        persona=markdown_name(persona),
        number=seq,
        text=_quote(text),
    )
    if is_outside(interaction):
        stored = gettext_lazy(
            "**{persona}** remembers for you (number {number}): {text}\n"
            "-# It is used only for replies to you in direct messages, and wherever I am no member, "
            "never for training. `/memory show` lists what {persona} remembers.",
            persona=markdown_name(persona),
            number=seq,
            text=_quote(text),
        )
    elif interaction.guild_id:
        stored = gettext_lazy(
            "**{persona}** remembers for you (number {number}): {text}\n"
            "-# It is used only for replies to you in this server, never for training. Everyone in "
            "the channel can read those replies. `/memory show` lists what {persona} remembers.",
            persona=markdown_name(persona),
            number=seq,
            text=_quote(text),
        )
    await respond(interaction, stored, _buttons(seq), suppress_embeds=True)


def _persona_of(interaction: Interaction, reply: StoredReply) -> Persona:
    persona = interaction.client.services.personas.get(reply.persona_id, reply.guild_id)
    if persona is None:
        raise RefusedError(
            gettext_lazy("The persona that said this is no longer here."),
            gettext_lazy("Choose another message."),
        )
    return persona


def _memories(interaction: Interaction) -> MemberMemories:
    """The member's memories in this server, or in direct messages."""
    return MemberMemories(
        interaction.client.services.store,
        user_id=interaction.user.id,
        guild_id=guild_id_of(interaction),
    )


def _channel_id(interaction: Interaction) -> int | None:
    """Return the channel of a memory's message; where the bot is not, the member's conversation."""
    if is_outside(interaction):
        return outside_channel(interaction).id
    return interaction.channel_id


def _forget(interaction: Interaction, seq: str, persona: Persona | None = None) -> str:
    _memories(interaction).forget(seq, persona)
    return gettext_lazy(
        "Forgotten (number {number}). Replies that used it stay as they are.", number=seq
    )


def _memory_form(memory: Memory) -> discord.ui.Modal:
    label = translate(gettext_noop("What it should remember"))
    field = text_field(label, "text", MAX_MEMORY_CHARS)
    field.default = memory.text
    title = translate(gettext_noop("Change a memory"))
    return form(title, f"{MEMORY_FORM_PREFIX}{memory.seq}", field)


def _buttons(seq: int) -> discord.ui.View:
    return button_view(EditMemoryButton(seq), ForgetMemoryButton(seq))


def _quote(text: str) -> str:
    return f"“{discord.utils.escape_markdown(discord_text(text))}”"


def _persona_text(interaction: Interaction, persona: Persona) -> str:
    """Text of what a persona remembers for the member here, and how much others do."""
    memories = _memories(interaction).of_persona(persona)
    others = len(_memories(interaction).of_persona(None)) - len(memories)
    more = ""
    if others:
        more = ngettext_lazy(
            "Others remember {count} thing: name one with `persona`; a channel without a persona "
            "lists all.",
            "Others remember {count} things: name one with `persona`; a channel without a persona "
            "lists all.",
            others,
        )
    if memories:
        notes = [localise(note) for note in (CHANGE_TEXT, more) if note]
        return _list_text(markdown_name(persona), memories, notes)
    nothing = gettext_lazy(
        "{persona} remembers nothing for you here. `/remember` asks it to.",
        persona=markdown_name(persona),
    )
    return " ".join(localise(text) for text in (nothing, more) if text)


def _all_texts(interaction: Interaction) -> list[str]:
    """Texts of what all personas remember for the member here, also those that are gone; one for
    each message.
    """
    memories = _memories(interaction).of_persona(None)
    guild_id = guild_id_of(interaction)
    if not memories:
        return [
            gettext_lazy("No persona remembers anything for you here. `/remember` asks one to.")
        ]
    by_persona = defaultdict[str, list[Memory]](list)
    texts = [localise(ALL_TEXT)]
    for memory in memories:
        by_persona[memory.persona_id].append(memory)
    for persona_id, own in by_persona.items():
        persona = interaction.client.services.personas.get(persona_id, guild_id)
        if persona:
            texts.append(_list_text(markdown_name(persona), own))
        else:
            name = short_id(Persona(persona_id, persona_id), guild_id)
            gone = translate(gettext_noop("The persona is no longer here."))
            texts.append(_list_text(name, own, [gone]))
    return message_texts(texts)


def _list_text(name: str, memories: list[Memory], notes: Sequence[str] = ()) -> str:
    """List a persona's memories, each as long as a message has room for."""
    title = ngettext_lazy(
        "**{persona}** remembers {count} thing for you here.",
        "**{persona}** remembers {count} things for you here.",
        len(memories),
        persona=name,
    )
    head = " ".join([localise(title), *notes])
    cut = f" {localise(CUT_TEXT)}"
    lengths = [len(_quote(memory.text)) for memory in memories]
    reserved = len(head) + len(cut) + MARGIN_CHARS * len(memories)
    room = _fair_room(lengths, MAX_MESSAGE_CHARS - reserved)
    if max(lengths) > room:
        head += cut
    lines = [f"`{memory.seq}` {_excerpt(memory, room)}" for memory in memories]
    return "\n".join([head, *lines])


def _fair_room(lengths: list[int], room: int) -> int:
    """Return the longest that each text may be so that all have room; short ones leave theirs to
    the others.
    """
    for place, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - place)
        if length > share:
            return share
        room -= length
    return max(lengths)


def _excerpt(memory: Memory, max_chars: int) -> str:
    text = memory.text
    quoted = _quote(memory.text)
    while text and len(quoted) > max_chars:
        text = text[: -max(1, (len(quoted) - max_chars) // 2)]
        quoted = f"{_quote(text)}…"
    return quoted
