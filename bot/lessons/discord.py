"""`/persona teach|taught|unteach`: replies written for a persona to learn from."""

import discord
from discord import app_commands

from bot.chat.places import ChannelRef
from bot.lessons.actions import Teacher, lessons_for, require_may_teach, take_back
from bot.lessons.actions import teach as store_taught_reply
from bot.personas.own_words import is_said
from bot.platform import permissions
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    PERSONA,
    Interaction,
    PersonaOption,
    channel_persona,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    MAX_TITLE_CHARS,
    PersistentButton,
    button_view,
    fitting_text,
    form,
    respond,
    send_form,
    text_field,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, localise, ngettext_lazy, translate
from bot.platform.messages import markdown_name
from personas.schemas.chat import Persona

TEACH_FORM_PREFIX = "teach:"
"""Prefix of the form's custom id; the persona's id follows."""
PROMPT_LABEL = gettext_noop("Somebody says")
REPLY_LABEL = gettext_noop("It should answer")
INSTEAD_LABEL = gettext_noop("It should not answer (optional)")
AT_ONCE_TEXT = gettext_noop(
    "Stored: what **{persona}** should answer to that (number {number}). It says so from now on "
    "where somebody here asks nearly the same, and a training of the type `preference` learns from "
    "it; `/privacy forget` deletes it with all your other data."
)
LATER_TEXT = gettext_noop(
    "Stored: what **{persona}** should answer to that (number {number}). It learns from it "
    "when a moderator starts a training of the type `preference`; `/privacy forget` deletes "
    "it with all your other data."
)
MAX_SHOWN_LESSONS = 10
MAX_EXCERPT_CHARS = 80
MAX_FIELD_CHARS = 1500


@PERSONA.command(
    description=gettext_noop(
        "Teach a persona a reply: you write prompt and reply (moderators, opted-in members)."
    )
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def teach(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    _require_allowed(interaction, persona)
    require_may_teach(interaction.client.services.store, _teacher(interaction))
    fields = (
        text_field(translate(PROMPT_LABEL), "prompt", MAX_FIELD_CHARS),
        text_field(translate(REPLY_LABEL), "reply", MAX_FIELD_CHARS),
        text_field(translate(INSTEAD_LABEL), "instead", MAX_FIELD_CHARS, required=False),
    )
    title = fitting_text(
        gettext_noop("Teach {persona}"), max_chars=MAX_TITLE_CHARS, persona=persona.name
    )
    await send_form(interaction, form(title, f"{TEACH_FORM_PREFIX}{persona.id}", *fields))


@PERSONA.command(
    description=gettext_noop(
        "Show what a persona was taught here: by you, or by all if you are a moderator."
    )
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def taught(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    lessons = lessons_for(interaction.client.services.store, _teacher(interaction), persona.id)
    head = ngettext_lazy(
        "**{persona}** was taught {count} reply here. `/persona unteach` takes one back by its "
        "number.",
        "**{persona}** was taught {count} replies here. `/persona unteach` takes one back by its "
        "number.",
        len(lessons),
        persona=markdown_name(persona),
    )
    lines = [localise(head)]
    for lesson in lessons[-MAX_SHOWN_LESSONS:]:
        lines.append(f"`{lesson.seq}` {_excerpt(lesson.prompt)} → {_excerpt(lesson.reply)}")
    await respond(interaction, "\n".join(lines), suppress_embeds=True)


@PERSONA.command(description=gettext_noop("Take back a reply that a persona was taught."))
@app_commands.describe(number=gettext_noop("Its number, as `/persona taught` shows it"))
async def unteach(interaction: Interaction, number: app_commands.Range[int, 1]) -> None:
    await respond(interaction, _take_back(interaction, number))


class UnteachButton(PersistentButton, template=r"unteach:(?P<seq>[0-9]+)"):
    """Takes back what was taught."""

    label = gettext_lazy("Undo")
    seq: str

    async def pressed(self, interaction: Interaction) -> None:
        await update_message(interaction, content=_take_back(interaction, int(self.seq)), view=None)


async def store_lesson(interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
    """Store a submitted form. Raises `UnderstudyError` where the member may not teach, or the form
    is incomplete.
    """
    persona = require_persona(interaction, persona_id)
    _require_allowed(interaction, persona)
    seq = store_taught_reply(
        interaction.client.services.store,
        _teacher(interaction),
        persona.id,
        prompt=values.get("prompt", ""),
        reply=values.get("reply", ""),
        instead_of=values.get("instead", ""),
    )
    lesson = interaction.client.services.store.lessons.get(seq)
    stored = LATER_TEXT
    if lesson and is_said(lesson):
        stored = AT_ONCE_TEXT
    await respond(
        interaction,
        gettext_lazy(stored, persona=markdown_name(persona), number=seq),
        button_view(UnteachButton(seq)),
    )


def _require_allowed(interaction: Interaction, persona: Persona) -> None:
    """Raise `RefusedError` for a member whom the persona does not answer, or without a role that may
    teach.
    """
    rules = interaction.client.services.reply_service.rules
    place = ChannelRef(interaction.guild_id or 0, interaction.channel_id or 0)
    rules.require_unblocked(persona, place, interaction.user)
    rules.roles.require(interaction.user, place.guild_id, "teach")


def _teacher(interaction: Interaction) -> Teacher:
    """The member. Raises `RefusedError` in direct messages."""
    if interaction.guild_id is None:
        raise RefusedError(
            gettext_lazy("Personas are taught in a server."),
            gettext_lazy("Try it in one of its channels."),
        )
    return Teacher(
        guild_id=interaction.guild_id,
        user_id=interaction.user.id,
        is_moderator=permissions.is_moderator(interaction.user),
    )


def _take_back(interaction: Interaction, seq: int) -> str:
    """Take a lesson back; returns the confirmation."""
    services = interaction.client.services
    lesson = take_back(services.store, _teacher(interaction), seq)
    if lesson.user_id != interaction.user.id:
        name = services.personas.markdown_name_of(lesson.persona_id, lesson.guild_id)
        services.audit.record(
            lesson.guild_id,
            interaction.user.id,
            gettext_lazy(
                "took back what a member had taught {persona} (number {number})",
                persona=f"**{name}**",
                number=seq,
            ),
        )
    return gettext_lazy(
        "Taken back (number {number}). Versions that have learned from it stay as they are.",
        number=seq,
    )


def _excerpt(text: str) -> str:
    line = discord.utils.escape_markdown(" ".join(text.split()))
    if len(line) <= MAX_EXCERPT_CHARS:
        return line
    return f"{line[:MAX_EXCERPT_CHARS]}…"
