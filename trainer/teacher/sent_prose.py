"""Takes the speakers of a log out of the card and lore that leave this machine for a teacher's server."""

from collections.abc import Sequence
from dataclasses import replace

from personas.card.prose_edit import edit_persona
from personas.cli_common import read_setting
from personas.lore.index import LoreIndex
from personas.prompt.macros import edit_between_marks
from personas.schemas.chat import Persona
from trainer.anonymise.anonymiser import Anonymiser
from trainer.dataset.job_inputs import JobInputs
from trainer.sources.conversation import Conversation


def without_speakers(
    inputs: JobInputs, persona: Persona, talk: Sequence[Conversation]
) -> tuple[JobInputs, Persona]:
    """Return inputs and persona with the pseudonyms of a log's speakers in place of their names, and
    without ids of Discord. Names of a persona stay.
    """
    anonymiser = Anonymiser(inputs.keys.pseudonyms, persona=persona)
    for conversation in talk:
        anonymiser.register(conversation)
    replaced = anonymiser.replace_speakers
    persona = edit_persona(persona, replaced)
    lore = inputs.lore
    if lore:
        passages = []
        for passage in lore.passages:
            heading = replaced(passage.heading)
            text = edit_between_marks(passage.text, replaced)
            passages.append(replace(passage, heading=heading, text=text))
        lore = LoreIndex(passages, encoder=read_setting("LORE_ENCODER"))
    return replace(inputs, persona=persona, lore=lore), persona
