"""The ways to train a persona, with the buttons of those that a member may use here."""

from collections.abc import Iterable

from bot.personas.discord_lore import AddLoreButton, guild_lore
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import PersistentButton, button_view, respond
from bot.platform.localisation import gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.permissions import is_moderator
from bot.training.discord_start import ReadFirstButton, TrainFromCardButton, from_card_request
from bot.training.teacher_text import expectation_texts
from personas.home.persona_ids import short_id
from personas.schemas.chat import Persona


async def show_training_ways(
    interaction: Interaction, persona: Persona, *, problem: str = ""
) -> None:
    """Say how to train a persona, below a problem that there is with another way. The buttons begin
    the way that needs nothing but its card, and add lore where it has none.
    """
    guild_id = interaction.guild_id or 0
    files = guild_lore(interaction.client.services).files(guild_id, persona.id)
    buttons: list[PersistentButton] = [
        TrainFromCardButton(persona.id),
        ReadFirstButton(persona.id),
    ]
    if not files and is_moderator(interaction.user):
        buttons.append(AddLoreButton(persona.id))
    request = from_card_request(interaction, persona.id)
    lines = _way_lines(
        persona,
        short_id(persona, guild_id),
        files=len(files),
        notes=expectation_texts(request, interaction.client.services.models.recommended_title),
    )
    if problem:
        lines = [problem, *lines]
    await respond(interaction, join_texts(*lines, separator="\n"), button_view(*buttons))


def _way_lines(persona: Persona, short_name: str, *, files: int, notes: Iterable[str]) -> list[str]:
    """Say how a persona with so many files of lore is trained; `notes` are on the training from its
    card.
    """
    lines: list[str] = [
        gettext_lazy(
            "A training needs replies for {persona} to learn from:", persona=markdown_name(persona)
        ),
        gettext_lazy(
            "- from its card and lore, which a model writes first: press **{button}** (or type "
            "`{command}`)",
            button=TrainFromCardButton.label,
            command=f"/finetune start persona:{short_name} from:card",
        ),
        gettext_lazy(
            "  - **{button}** stops in between: you change or strike out on the dashboard what was "
            "written.",
            button=ReadFirstButton.label,
        ),
        *(join_texts("  -", note) for note in notes),
    ]
    if files:
        lines.append(
            ngettext_lazy(
                "- from its lore alone (it has {count} file; two texts at least): `{command}`",
                "- from its lore alone (it has {count} files; two texts at least): `{command}`",
                files,
                command=f"/finetune start persona:{short_name} lore_pairs:1",
            )
        )
    lines += [
        gettext_lazy(
            "- or a chat log in which it speaks, which the operator uploads on the dashboard: "
            "`{command}`",
            command=f"/finetune start persona:{short_name} dataset:…",
        ),
        gettext_lazy(
            "It keeps answering meanwhile, and you decide whether the new version goes live. After "
            "that, `/persona teach` corrects single replies."
        ),
    ]
    return lines
