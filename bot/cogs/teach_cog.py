"""`/persona teach|taught|unteach`: replies written for a persona to learn from."""

from __future__ import annotations

import time

import discord
from discord import app_commands
from discord.ext import commands

from bot import permissions
from bot.chat.discord_channels import NO_MENTIONS
from bot.cogs.transformers import Interaction, PersonaOption, channel_persona, require_persona, submitted_form
from bot.cogs.ui import PersistentButton, respond_privately
from bot.errors import RefusedError, error_text
from bot.store import Lesson
from personas.errors import RequestError
from personas.home.rights import OPT_IN_COMMAND
from personas.schemas.chat import Persona

TEACH_FORM_PREFIX = "teach:"  # prefix of the form's custom id; the persona's id follows
FORM_SOURCE = "form"  # the right to what was typed into it
MAX_LESSONS = 500  # maximum per member; training caps each member's share of all preferences, so more would be ignored
MAX_SHOWN_LESSONS, MAX_EXCERPT_CHARS = 10, 90


class TeachCommands(commands.Cog):
    """Commands of the group `/persona`, and their form: a base of its cog."""

    @app_commands.command(description="Teach a persona what it should answer: you write both (moderators, opted-in).")
    @app_commands.describe(persona="Whom (this channel's persona if left out)")
    async def teach(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        whom = persona or channel_persona(interaction)
        check_teacher(interaction)
        await interaction.response.send_modal(TeachForm(whom))

    @app_commands.command(description="What a persona was taught here: by you; by all, if you are a moderator.")
    @app_commands.describe(persona="Whom (this channel's persona if left out)")
    async def taught(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        whom = persona or channel_persona(interaction)
        mine = _visible_lessons(interaction, whom)
        lines = [f"`{one.seq}` {_excerpt(one.prompt)} → {_excerpt(one.reply)}" for one in mine[-MAX_SHOWN_LESSONS:]]
        count = "1 reply" if len(mine) == 1 else f"{len(mine)} replies"
        head = f"**{whom.name}** was taught {count} here. `/persona unteach` takes one back by its number."
        await interaction.response.send_message(
            "\n".join([head, *lines])[:2000], ephemeral=True, allowed_mentions=NO_MENTIONS, suppress_embeds=True
        )

    @app_commands.command(description="Take back a reply that a persona was taught.")
    @app_commands.describe(number="Its number, as `/persona taught` shows it")
    async def unteach(self, interaction: Interaction, number: app_commands.Range[int, 1]) -> None:
        await interaction.response.send_message(_remove_lesson(interaction, number), ephemeral=True)

    @commands.Cog.listener("on_interaction")
    async def on_teach_form(self, interaction: Interaction) -> None:
        """A form was sent."""
        if sent := submitted_form(interaction, TEACH_FORM_PREFIX):
            try:
                await _store_lesson(interaction, *sent)
            except Exception as error:
                await respond_privately(interaction, error_text(error))


class TeachForm(discord.ui.Modal):
    """Form for a prompt, the reply that the persona should give, and one that it should not."""

    def __init__(self, persona: Persona) -> None:
        super().__init__(title=f"Teach {persona.name}"[:45], custom_id=f"{TEACH_FORM_PREFIX}{persona.id}")
        long, most = discord.TextStyle.paragraph, 1500
        self.add_item(discord.ui.TextInput(label="Somebody says", custom_id="prompt", style=long, max_length=most))
        self.add_item(discord.ui.TextInput(label="It should answer", custom_id="reply", style=long, max_length=most))
        self.add_item(
            discord.ui.TextInput(
                label="It should not answer (optional)",
                custom_id="instead",
                style=long,
                max_length=most,
                required=False,
            )
        )


class UnteachButton(PersistentButton, template=r"unteach:(?P<seq>[0-9]+)"):
    """Takes back what was taught."""

    def __init__(self, seq: str) -> None:
        self.seq = int(seq)
        super().__init__(discord.ui.Button(custom_id=f"unteach:{seq}", label="Undo"))

    @classmethod
    def alone(cls, seq: int) -> discord.ui.View:
        """A view of this button."""
        view = discord.ui.View(timeout=None)
        view.add_item(cls(str(seq)))
        return view

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.edit_message(content=_remove_lesson(interaction, self.seq), view=None)


TEACH_BUTTONS = (UnteachButton,)


def check_teacher(interaction: Interaction) -> bool:
    """Report whether the teacher is a moderator. Raises `RefusedError` for members who may not teach."""
    if interaction.guild_id is None:
        raise RefusedError("Personas are taught in a server.", "Try it in one of its channels.")
    if permissions.is_moderator(interaction.user):
        return True
    decision = interaction.client.services.store.people.decision(interaction.user.id)
    if decision is None or not decision.opted_in:
        raise RefusedError(
            "Members may teach once they have agreed that characters learn from what they write.",
            f"`{OPT_IN_COMMAND}` does that; it is explained before you press the button.",
        )
    return False


async def _store_lesson(interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
    whom, is_moderator = require_persona(interaction, persona_id), check_teacher(interaction)
    store, user_id = interaction.client.services.store, interaction.user.id
    if store.lessons.count(user_id) >= MAX_LESSONS:
        raise RefusedError(f"You have taught {MAX_LESSONS} replies already.", "Take some back: `/persona taught`.")
    prompt, reply, instead = (values.get(name, "").strip() for name in ("prompt", "reply", "instead"))
    if not (prompt and reply):
        raise RequestError("Both what is said and what is answered are needed.", "Fill in both fields.")
    if reply == instead:
        raise RequestError("What it should answer is what it should not.", "Change one of them.")
    lesson = Lesson(
        interaction.guild_id or 0, whom.id, user_id, is_moderator, prompt, reply, instead, FORM_SOURCE, time.time()
    )
    seq = store.lessons.add(lesson)
    await interaction.response.send_message(
        f"Kept: what **{whom.name}** should answer to that (number {seq}). It learns from it when a moderator starts a "
        "training of the type `preference`; `/privacy forget` takes it back with everything else of yours.",
        view=UnteachButton.alone(seq),
        ephemeral=True,
        allowed_mentions=NO_MENTIONS,
    )


def _visible_lessons(interaction: Interaction, whom: Persona) -> list[Lesson]:
    """List the lessons of this guild that the member may see."""
    if interaction.guild_id is None:
        raise RefusedError("Personas are taught in a server.", "Try it in one of its channels.")
    lessons = interaction.client.services.store.lessons.of_persona(whom.id, interaction.guild_id)
    return [one for one in lessons if _may_change(interaction, one)]


def _may_change(interaction: Interaction, lesson: Lesson) -> bool:
    is_here = lesson.guild_id == interaction.guild_id
    return is_here and (lesson.user_id == interaction.user.id or permissions.is_moderator(interaction.user))


def _remove_lesson(interaction: Interaction, seq: int) -> str:
    """Take it back, and say so. Raises `RefusedError` for somebody else's, or where there is no such."""
    taught = interaction.client.services.store.lessons
    lesson = taught.get(seq)
    if lesson is None or not _may_change(interaction, lesson):
        raise RefusedError(f"There is no taught reply {seq} of yours here.", "`/persona taught` shows those there are.")
    taught.delete(seq)
    return f"Taken back (number {seq}). Versions that have learned from it stay as they are."


def _excerpt(text: str) -> str:
    line = discord.utils.escape_markdown(" ".join(text.split()))
    return line if len(line) <= MAX_EXCERPT_CHARS else f"{line[:MAX_EXCERPT_CHARS]}…"
