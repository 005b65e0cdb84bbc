"""`/finetune promote|rollback|remove|promotion`, and the buttons that change the live version."""

from typing import Literal

import discord
from discord import app_commands

from bot.chat.model_names import version_label
from bot.guild_settings.definitions import IS_PROMOTION_AUTOMATIC
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    persona_option,
    request_origin,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    MENU_NUMBER,
    PersistentButton,
    PersistentPersonaSelect,
    button_view,
    defer,
    edit_response,
    respond,
)
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.platform.messages import markdown_name
from bot.store import TrainingJob
from bot.training.discord_options import job_labels, select_job
from bot.versions.actions import (
    ObjectionSource,
    PromotionObjectedError,
    PromotionObjections,
    PromotionResult,
)
from personas.errors import RequestError
from personas.home.adapters import DIALOGUE_PREFIX
from personas.schemas.chat import Persona

PROMOTION_TEXTS = {
    False: gettext_lazy(
        "Ask: a new version goes live only when a moderator presses Promote, even if the gate "
        "approves it."
    ),
    True: gettext_lazy(
        "Automatic: a new version that the gate would promote goes live at once; a message says "
        "so, with a button to roll it back. All others need a moderator."
    ),
}
OBJECTION_TEXTS: dict[ObjectionSource, str] = {
    "gate": gettext_noop("The gate rejects {version} of **{persona}**:"),
    "hold": gettext_noop("The gate holds {version} of **{persona}**:"),
    "members": gettext_noop("Members speak against {version} of **{persona}**:"),
}
PROMOTION_RECORDS = {
    "ask": gettext_lazy("made new versions wait for a moderator"),
    "automatic": gettext_lazy("made new versions that the gate would promote go live at once"),
}


def usable_versions(interaction: Interaction, persona: Persona) -> list[str]:
    """The versions of a persona that the server may use, newest first."""
    versions = interaction.client.services.store.versions
    names = [
        version.version for version in versions.installed(persona.id, interaction.guild_id or 0)
    ]
    return names[::-1]


def _promotable_versions(interaction: Interaction) -> list[str]:
    """Suggest the persona's versions, newest first, and the dialogue adapters, that the server may
    use.
    """
    services = interaction.client.services
    suggestions = usable_versions(interaction, persona_option(interaction))
    for name in services.catalogue.dialogue_adapters(interaction.guild_id or 0):
        suggestions.append(f"{DIALOGUE_PREFIX}{name}")
    return suggestions


def _jobs_of_versions(interaction: Interaction) -> list[TrainingJob]:
    return interaction.client.services.store.jobs.of_versions(interaction.guild_id or 0)


PromotableOption = app_commands.Transform[str, SuggestionTransformer(_promotable_versions)]
OwnVersionOption = app_commands.Transform[
    str,
    SuggestionTransformer(
        lambda interaction: job_labels(interaction, _jobs_of_versions(interaction))
    ),
]


@FINETUNE.command(description=gettext_noop("Make a trained version live from the next reply on."))
@app_commands.describe(
    persona=CHANNEL_PERSONA_HELP,
    version=gettext_noop(
        "Which version (the newest if left out); dialogue/NAME: this dialogue adapter, with its "
        "card"
    ),
)
async def promote(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    version: PromotableOption | None = None,
) -> None:
    await defer(interaction, ephemeral=True)
    persona = persona or channel_persona(interaction)
    if version:
        version = await install_named_dialogue(interaction, persona, version)
    else:
        usable = usable_versions(interaction, persona)
        if not usable:
            raise RequestError(
                gettext_lazy(
                    "{persona} has no trained version yet.", persona=markdown_name(persona)
                ),
                gettext_lazy("Train one with `/finetune start`."),
            )
        version = usable[0]
    await promote_or_confirm(interaction, persona, version)


@FINETUNE.command(description=gettext_noop("Go back to the previous live version."))
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def rollback(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    await defer(interaction, ephemeral=True)
    reply = roll_back_with_reply(interaction, persona or channel_persona(interaction))
    await respond(interaction, reply, ephemeral=False)


@FINETUNE.command(
    description=gettext_noop(
        "Delete a version that this server has imported or trained, to make room."
    )
)
@app_commands.describe(version=gettext_noop("Which version; one that is live stays"))
async def remove(interaction: Interaction, version: OwnVersionOption) -> None:
    job = _select_version(interaction, version)
    interaction.client.services.versions.require_removable(job)
    question = gettext_lazy(
        "Delete {version} of `{name}` for good? Only importing or training it again brings it "
        "back.",
        version=job.version,
        name=job.name,
    )
    button = RemoveVersionButton(job.job_id)
    await respond(interaction, question, button_view(button))


def _select_version(interaction: Interaction, wanted: str) -> TrainingJob:
    """Return the job of a version of the server. Raises `RequestError`."""
    return select_job(
        _jobs_of_versions(interaction),
        wanted,
        none=gettext_lazy("There is no version of this server."),
        none_such=gettext_lazy("There is no such version of this server."),
    )


@FINETUNE.command(
    description=gettext_noop(
        "Choose whether a measurably better version goes live automatically in this server."
    )
)
@app_commands.describe(
    way=gettext_noop("ask (the default) or automatic; left out, the current choice is shown")
)
async def promotion(
    interaction: Interaction, way: Literal["ask", "automatic"] | None = None
) -> None:
    store = interaction.client.services.store
    guild_id = interaction.guild_id or 0
    if way:
        IS_PROMOTION_AUTOMATIC.write(store, way == "automatic", guild_id)
        interaction.client.services.audit.record(
            guild_id, interaction.user.id, PROMOTION_RECORDS[way]
        )
    await respond(interaction, PROMOTION_TEXTS[IS_PROMOTION_AUTOMATIC.held(store, guild_id)])


async def install_named_dialogue(interaction: Interaction, persona: Persona, version: str) -> str:
    """Install `dialogue/NAME` as a version of a persona; returns the version. Any other version is
    returned as it is.

    Raises `RequestError` for an adapter that the server may not use, and `AdapterError` for a
    damaged one.
    """
    if not version.startswith(DIALOGUE_PREFIX):
        return version
    services = interaction.client.services
    origin = request_origin(interaction)
    adapter = services.catalogue.find_dialogue_adapter(
        version.removeprefix(DIALOGUE_PREFIX), origin.guild_id
    )
    return await services.versions.install_dialogue(persona.id, adapter, origin)


async def promote_or_confirm(interaction: Interaction, persona: Persona, version: str) -> None:
    """Promote a version, or ask for confirmation where it meets objections. The interaction is
    acknowledged.
    """
    versions = interaction.client.services.versions
    try:
        result = await versions.promote(persona.id, version, request_origin(interaction))
    except PromotionObjectedError as error:
        button = PromoteAnywayButton(persona.id, version)
        question = _objections_text(error.objections, persona)
        await respond(interaction, question, button_view(button))
    else:
        await respond(interaction, promotion_text(result, persona), ephemeral=not result.is_new)


def _objections_text(objections: PromotionObjections, persona: Persona) -> str:
    head = gettext_lazy(
        OBJECTION_TEXTS[objections.source],
        version=objections.version,
        persona=markdown_name(persona),
    )
    reasons = [gettext_lazy("- {reason}", reason=reason) for reason in objections.reasons]
    return join_texts(head, *reasons, separator="\n")


def promotion_text(result: PromotionResult, persona: Persona) -> str:
    """Tell moderators what a promotion has changed."""
    if not result.is_new:
        return gettext_lazy(
            "{version} of **{persona}** is live already.",
            version=result.version,
            persona=markdown_name(persona),
        )
    text = gettext_lazy(
        "{version} of **{persona}** is live from the next reply on.",
        version=result.version,
        persona=markdown_name(persona),
    )
    if not result.dialogue:
        return text
    return join_texts(
        text, gettext_lazy("It is the dialogue adapter `{name}`.", name=result.dialogue)
    )


def roll_back_with_reply(interaction: Interaction, persona: Persona) -> str:
    """Roll a persona back; returns the reply to the moderator."""
    versions = interaction.client.services.versions
    result = versions.roll_back(persona, request_origin(interaction))
    text = gettext_lazy(
        "Rolled back: {version} answers for **{persona}** from the next reply on.",
        version=version_label(result.speaking),
        persona=markdown_name(persona),
    )
    return join_texts(text, *result.notes)


class PromoteButton(
    PersistentButton, template=r"promote:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"
):
    """Makes a version live."""

    label = gettext_lazy("Promote")
    moderators_only = True
    actions = ("promote",)
    style = discord.ButtonStyle.success
    persona_id: str
    version: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, thinking=True)
        await promote_or_confirm(
            interaction, require_persona(interaction, self.persona_id), self.version
        )


class PromoteAnywayButton(
    PersistentButton, template=r"promote-anyway:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"
):
    """Makes a version live to which there are objections."""

    label = gettext_lazy("Promote anyway")
    moderators_only = True
    actions = ("promote",)
    style = discord.ButtonStyle.danger
    persona_id: str
    version: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, thinking=True)
        persona = require_persona(interaction, self.persona_id)
        result = await interaction.client.services.versions.promote(
            persona.id, self.version, request_origin(interaction), anyway=True
        )
        await respond(interaction, promotion_text(result, persona), ephemeral=False)


class PromoteDialogueButton(PersistentButton, template=r"promote-dialogue:(?P<name>[\w-]+)"):
    """Asks for the persona that gets a dialogue adapter."""

    label = gettext_lazy("Promote…")
    moderators_only = True
    actions = ("promote",)
    style = discord.ButtonStyle.success
    name: str

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        guild_id = interaction.guild_id or 0
        services.catalogue.find_dialogue_adapter(self.name, guild_id)
        question = gettext_lazy(
            "Which persona gets the dialogue adapter `{name}`? It becomes a version of that "
            "persona.",
            name=self.name,
        )
        personas = list(services.personas.of(guild_id).values())
        menus = DialoguePersonaSelect.menus(personas, self.name)
        await respond(interaction, question, button_view(*menus))


class DialoguePersonaSelect(
    PersistentPersonaSelect,
    template=rf"promote-dialogue-to:(?P<name>[\w-]+){MENU_NUMBER}",
):
    """Makes a dialogue adapter the live version of the persona that is chosen."""

    moderators_only = True
    actions = ("promote",)
    name: str

    async def chosen(self, interaction: Interaction, persona_id: str) -> None:
        await defer(interaction, thinking=True)
        persona = require_persona(interaction, persona_id)
        version = await install_named_dialogue(
            interaction, persona, f"{DIALOGUE_PREFIX}{self.name}"
        )
        await promote_or_confirm(interaction, persona, version)


class RollbackButton(PersistentButton, template=r"rollback:(?P<persona_id>[\w-]+)"):
    """Goes back to the previous live version."""

    label = gettext_lazy("Roll back")
    moderators_only = True
    actions = ("promote",)
    persona_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, thinking=True)
        reply = roll_back_with_reply(interaction, require_persona(interaction, self.persona_id))
        await respond(interaction, reply, ephemeral=False)


class RemoveVersionButton(PersistentButton, template=r"remove-version:(?P<job_id>[\w.-]+)"):
    """Deletes the version of a job."""

    label = gettext_lazy("Delete")
    moderators_only = True
    style = discord.ButtonStyle.danger
    job_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction)
        job = _select_version(interaction, self.job_id)
        await interaction.client.services.versions.remove(job, by=interaction.user.id)
        text = gettext_lazy("{version} of `{name}` is deleted.", version=job.version, name=job.name)
        await edit_response(interaction, content=text, view=None)


VERSION_BUTTONS = (
    PromoteButton,
    PromoteAnywayButton,
    PromoteDialogueButton,
    DialoguePersonaSelect,
    RollbackButton,
    RemoveVersionButton,
)
