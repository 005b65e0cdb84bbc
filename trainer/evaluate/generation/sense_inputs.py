"""The inputs of the score card sections on sense."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from personas.schemas.chat import Persona
from trainer.dataset.dataset import Dataset
from trainer.evaluate.generation.author_texts import AuthorTexts
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder
from trainer.evaluate.generation.lore_facts import FactQuestion
from trainer.evaluate.generation.reply_generator import ReplyGenerator


@dataclass(frozen=True)
class SenseLimits:
    """Numbers that bound the time: prompts under pressure, talks, and probes and questions about
    the lore at a turn.
    """

    pressure: int = 25
    talks: int = 4
    probes: int = 8
    questions: int = 4


@dataclass(frozen=True)
class SenseInputs:
    """All that the sections read: the job's data, its prompts' sources, and the candidates'
    generator. What `is_copy` counts as nobody's voice.
    """

    data: Dataset
    persona: Persona
    builder: PromptBuilder
    questions: Sequence[FactQuestion]
    voices: Mapping[str, AuthorTexts]
    generator: ReplyGenerator
    limits: SenseLimits = SenseLimits()
    report: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None
    is_copy: Callable[[str], bool] = lambda text: False


def shortage(what: str, done: int, wanted: int) -> dict[str, str]:
    """Return what time left out, if anything, as an entry of the card."""
    if done >= wanted:
        return {}
    return {what: f"There was time for {done:,} of {wanted:,} replies."}
