"""`/persona teach|taught|unteach`: replies written for a persona to learn from."""

import time

import discord
from discord import app_commands

from bot.chat.message_text import ANONYMOUS_NAMES, readable_text
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
    PersistentButton,
    button_view,
    form,
    respond,
    send_form,
    text_field,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.store import Lesson
from bot.training.stored_datasets import FORM_SOURCE
from personas.errors import RequestError
from personas.home.rights import OPT_IN_COMMAND
from personas.schemas.chat import Persona

TEACH_FORM_PREFIX = "teach:"
"""Prefix of the form's custom id; the persona's id follows."""
MAX_LESSONS = 500
"""Of one member. Nobody's count beyond a share of all preferences, so more would not be heard."""
MAX_SHOWN_LESSONS = 10
MAX_EXCERPT_CHARS = 90
MAX_FIELD_CHARS = 1500


@PERSONA.command(
    description="Teach a persona a reply: you write prompt and reply (moderators, opted-in members)."
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def teach(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    check_teacher(interaction)
    await send_form(interaction, teach_form(persona))


@PERSONA.command(
    description="Show what a persona was taught here: by you, or by all if you are a moderator."
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def taught(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    _require_guild(interaction)
    lessons = interaction.client.services.store.lessons.of_persona(
        persona.id, interaction.guild_id or 0
    )
    visible = [lesson for lesson in lessons if _may_change(interaction, lesson)]
    lines = [
        f"`{it.seq}` {_excerpt(it.prompt)} → {_excerpt(it.reply)}"
        for it in visible[-MAX_SHOWN_LESSONS:]
    ]
    count = "1 reply" if len(visible) == 1 else f"{len(visible)} replies"
    head = (
        f"**{persona.name}** was taught {count} here. `/persona unteach` takes one back by its "
        "number."
    )
    await respond(interaction, "\n".join([head, *lines]), suppress_embeds=True)


@PERSONA.command(description="Take back a reply that a persona was taught.")
@app_commands.describe(number="Its number, as `/persona taught` shows it")
async def unteach(interaction: Interaction, number: app_commands.Range[int, 1]) -> None:
    await respond(interaction, _remove_lesson(interaction, number))


def teach_form(persona: Persona) -> discord.ui.Modal:
    """Form for a prompt, the reply that the persona should give, and one that it should not."""
    return form(
        f"Teach {persona.name}",
        f"{TEACH_FORM_PREFIX}{persona.id}",
        text_field("Somebody says", "prompt", MAX_FIELD_CHARS),
        text_field("It should answer", "reply", MAX_FIELD_CHARS),
        text_field("It should not answer (optional)", "instead", MAX_FIELD_CHARS, required=False),
    )


class UnteachButton(PersistentButton, template=r"unteach:(?P<seq>[0-9]+)"):
    """Takes back what was taught."""

    label = "Undo"
    seq: str

    async def pressed(self, interaction: Interaction) -> None:
        await update_message(
            interaction, content=_remove_lesson(interaction, int(self.seq)), view=None
        )


def check_teacher(interaction: Interaction) -> bool:
    """Report whether the teacher is a moderator. Raises `RefusedError` for members who may not
    teach.
    """
    _require_guild(interaction)
    if permissions.is_moderator(interaction.user):
        return True
    decision = interaction.client.services.store.people.decision(interaction.user.id)
    if decision is None or not decision.opted_in:
        raise RefusedError(
            "Members may teach once they have agreed that characters learn from what they write.",
            f"`{OPT_IN_COMMAND}` does that; it is explained before you press the button.",
        )
    return False


async def store_lesson(interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
    """Store a submitted form. Raises `UnderstudyError` where the member may not teach, or the form
    is incomplete.
    """
    persona = require_persona(interaction, persona_id)
    is_moderator = check_teacher(interaction)
    store = interaction.client.services.store
    user_id = interaction.user.id
    if store.lessons.count(user_id) >= MAX_LESSONS:
        raise RefusedError(
            f"You have taught {MAX_LESSONS} replies already.", "Take some back: `/persona taught`."
        )
    typed = (values.get(name, "") for name in ("prompt", "reply", "instead"))
    prompt, reply, instead = (
        readable_text(it, ANONYMOUS_NAMES, keep_code=False).strip() for it in typed
    )
    if not (prompt and reply):
        raise RequestError("A prompt and a reply are needed.", "Fill in both fields.")
    if reply == instead:
        raise RequestError(
            "The reply it should give is the one it should not give.", "Change one of them."
        )
    lesson = Lesson(
        interaction.guild_id or 0,
        persona.id,
        user_id,
        is_moderator,
        prompt,
        reply,
        instead,
        FORM_SOURCE,
        time.time(),
    )
    seq = store.lessons.add(lesson)
    await respond(
        interaction,
        f"Stored: what **{persona.name}** should answer to that (number {seq}). It learns from it "
        "when a moderator "
        "starts a training of the type `preference`; `/privacy forget` deletes it with all your "
        "other data.",
        button_view(UnteachButton(seq)),
    )


def _require_guild(interaction: Interaction) -> None:
    if interaction.guild_id is None:
        raise RefusedError("Personas are taught in a server.", "Try it in one of its channels.")


def _may_change(interaction: Interaction, lesson: Lesson) -> bool:
    is_here = lesson.guild_id == interaction.guild_id
    return is_here and (
        lesson.user_id == interaction.user.id or permissions.is_moderator(interaction.user)
    )


def _remove_lesson(interaction: Interaction, seq: int) -> str:
    """Remove a lesson and return the confirmation. Raises `RefusedError` for others' lessons, and
    unknown ones.
    """
    lessons = interaction.client.services.store.lessons
    lesson = lessons.get(seq)
    if lesson is None or not _may_change(interaction, lesson):
        raise RefusedError(
            f"There is no taught reply {seq} of yours here.", "`/persona taught` lists them."
        )
    lessons.delete(seq)
    return f"Taken back (number {seq}). Versions that have learned from it stay as they are."


def _excerpt(text: str) -> str:
    line = discord.utils.escape_markdown(" ".join(text.split()))
    return line if len(line) <= MAX_EXCERPT_CHARS else f"{line[:MAX_EXCERPT_CHARS]}…"
