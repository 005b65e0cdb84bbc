"""What a version from a card is distilled with: questions in the prompt that serves, and in its teacher's.

The teacher is the base model under a richer prompt (context distillation, arXiv 2602.12275, 2601.19897).
"""

import hashlib
import itertools
import math
import statistics
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import cached_property

from personas.errors import MaterialError
from personas.home.pseudonyms import INVENTED_NAMES
from personas.lore.ranking import MAX_LORE_PASSAGES
from personas.models.base_model import BaseModel, max_positions
from personas.prompt.renderer import CONTEXT_TOKENS, PromptTooLongError, Renderer
from personas.schemas.chat import LoreHit, Persona, Turn
from trainer.dataset.dedup_split import hash_fraction
from trainer.dataset.job_inputs import JobInputs, questions_to_distil
from trainer.dataset.synthetic.card_replies import ReplyLength
from trainer.dataset.synthetic.question_bank import IN_EARNEST
from trainer.dataset.synthetic.speaking_notes import speaking_notes, with_closing_instructions
from trainer.schemas import Recipe

SURPLUS_PROBES = ("Who are you?", "What do you do all day?", "Tell me about somebody you know.")
"""Questions by which the length of the teacher's prompts is found."""


@dataclass(frozen=True)
class DistillationPrompt:
    """A question in two prompts, as token ids: as a channel has it, and as the teacher gets it."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


@dataclass(frozen=True)
class DistillationSet:
    """The questions that the student replies to, which `render` puts into prompts. A reply ends with
    one of `stop_ids`, or has `max_reply_tokens`.
    """

    questions: tuple[str, ...]
    render: Callable[[str], DistillationPrompt | None] = field(repr=False)
    max_reply_tokens: int
    stop_ids: tuple[int, ...]

    @cached_property
    def prompts(self) -> tuple[DistillationPrompt, ...]:
        """The prompts of the questions that fit. They take seconds, and only a training needs them."""
        return tuple(filter(None, map(self.render, self.questions)))

    @property
    def caveat(self) -> str:
        """How often each question is asked, where there are fewer than replies; else empty."""
        different = len(set(self.questions))
        replies = len(self.questions)
        if different == replies:
            return ""
        return (
            f"There are {different:,} questions to distil {replies:,} replies on: each is asked "
            f"{math.ceil(replies / different):,} times, at most (distilled_replies)."
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the prompts in their order, and of where replies end."""
        content = (self.prompts, self.max_reply_tokens, self.stop_ids)
        return hashlib.sha256(repr(content).encode()).hexdigest()


class _PromptPair:
    """Renders questions to a persona in both prompts."""

    def __init__(
        self,
        persona: Persona,
        inputs: JobInputs,
        renderer: Renderer,
        recipe: Recipe,
        base: BaseModel,
    ) -> None:
        self.max_reply_tokens = ReplyLength.measure(persona).tokens
        self._persona = persona
        self._lore = inputs.lore
        self._notes = speaking_notes(persona, inputs.lore.passages if inputs.lore else ())
        self._between = inputs.between
        self._renderer = renderer
        self._short_card_share = recipe.short_card_share
        self._student_room = recipe.max_length - self.max_reply_tokens
        context = min(CONTEXT_TOKENS, max_positions(base) or CONTEXT_TOKENS)
        self._teacher_room = context - self.max_reply_tokens

    def render(self, question: str) -> DistillationPrompt | None:
        """Return a question in both prompts; None where it does not fit whole into each of them, not
        even without lore.
        """
        self._between()
        persona = self._persona
        guest = INVENTED_NAMES[int(hash_fraction("guest", question) * len(INVENTED_NAMES))]
        turns = [Turn(guest, question)]
        hits: list[LoreHit] = []
        if self._lore:
            hits = self._lore.search(persona.id, question, MAX_LORE_PASSAGES)
        # By the question alone: there is no reply yet, which the draw of trained samples has besides.
        has_short_card = hash_fraction("short card", question) < self._short_card_share
        served = self._renderer.with_card("short" if has_short_card else "full")
        asked, instructions = with_closing_instructions(persona, guest, self._notes)
        try:
            student = served.prompt(persona, turns, hits, self._student_room)
            teacher = self._renderer.prompt(
                asked, turns, hits, self._teacher_room, instructions=instructions
            )
        except PromptTooLongError:
            return None
        if student.shortened or teacher.shortened:
            return None
        return DistillationPrompt(student=student.ids, teacher=teacher.ids)


def make_distillation_set(
    inputs: JobInputs,
    renderer: Renderer,
    recipe: Recipe,
    base: BaseModel,
    held_out: Container[str] = (),
) -> DistillationSet | None:
    """Return as many questions from a persona's card as a recipe distils replies; None if it distils
    none. Those that are `held_out` measure the version. Raises `MaterialError` if no prompt fits.
    """
    if not recipe.distilled_replies or inputs.persona is None:
        return None
    persona = inputs.persona
    pair = _PromptPair(persona, inputs, renderer, recipe=recipe, base=base)
    bank = _questions(inputs, persona, recipe)
    asked = itertools.cycle([question for question in bank if question not in held_out])
    questions = tuple(itertools.islice(asked, recipe.distilled_replies))
    if not any(map(pair.render, questions)):
        raise MaterialError(
            f"No question to {persona.name} fits max_length={recipe.max_length} beside a reply of "
            f"{pair.max_reply_tokens} tokens.",
            "Raise max_length, shorten the card, or use the recipe card.",
        )
    return DistillationSet(
        questions=questions,
        render=pair.render,
        max_reply_tokens=pair.max_reply_tokens,
        stop_ids=renderer.stop_ids,
    )


def teacher_surplus_tokens(
    inputs: JobInputs, renderer: Renderer, recipe: Recipe, base: BaseModel
) -> int | None:
    """Return by how many tokens the teacher's prompts are longer than the served ones; None for a job
    that is not from a card.
    """
    if inputs.persona is None or not inputs.from_card:
        return None
    pair = _PromptPair(inputs.persona, inputs, renderer, recipe=recipe, base=base)
    prompts = list(filter(None, map(pair.render, SURPLUS_PROBES)))
    longer = [len(prompt.teacher) - len(prompt.student) for prompt in prompts]
    return round(statistics.fmean(longer)) if longer else 0


def _questions(inputs: JobInputs, persona: Persona, recipe: Recipe) -> list[str]:
    """Return the questions that a teacher is asked, without those in earnest: there, a model that
    plays a part claims to be human, or jokes.
    """
    questions = questions_to_distil(inputs, persona, recipe)
    return [question.text for question in questions if question.kind not in IN_EARNEST]
