"""What each side says: one batch of replies, and everything that is measured of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from personas.contracts import Persona
from personas.prompt import Renderer
from personas.scorecard import Facts, Safety, SideBySide, TextScores, Voice
from trainer.dataset import Dataset
from trainer.job import Job
from trainer.scorecard.budget import Budget
from trainer.scorecard.spoken.answers import FACTS, GENERAL, HELDOUT, SMALL_TALK, Answer, Asked
from trainer.scorecard.spoken.character import Character
from trainer.scorecard.spoken.facts import Question, measure_facts, questions_for
from trainer.scorecard.spoken.generate import Speakers
from trainer.scorecard.spoken.prompts import (
    Asking,
    fact_prompts,
    general_prompts,
    heldout_prompts,
    in_turn,
    nearest_replies,
    small_talk_prompts,
)
from trainer.scorecard.spoken.safety import Trial, measure_safety, safety_prompts, trials
from trainer.scorecard.spoken.side_by_side import side_by_side
from trainer.scorecard.spoken.text import References, text_scores
from trainer.scorecard.spoken.voice import FEWEST, MEMBERS, measure_voice, voices_of

if TYPE_CHECKING:
    from trainer.scorecard.sides import Sides

MEASURING_S, MEASURING = 6.0, 0.4
"""What of the time is kept for measuring the replies: so many seconds, and no more than this share."""
NOBODY = "The run trains no persona."
TOLD_EVERY_S = 5.0
"""Seconds between two words on how far it is."""


@dataclass(frozen=True)
class Spoken:
    """The sections of the card that are measured of generated replies.

    `replies` are those of the new version, each after the whole prompt it was given. `left_out` says what could not be
    measured, or not by all that there is, and why.
    """

    voice: Voice | None = None
    facts: Facts | None = None
    text: tuple[TextScores, ...] = ()
    safety: Safety | None = None
    side_by_side: tuple[SideBySide, ...] = ()
    replies: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def measure_spoken(
    sides: Sides,
    job: Job,
    budget: Budget,
    seeds: tuple[int, ...],
    progress: Callable[[str], None] = lambda told: None,
    others: Mapping[str, Dataset] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Spoken:
    """All replies of all sides, with each of the seeds, and what they are like.

    `others` are other personas' data, by which voices are told apart; without any those that ship are taken.
    `progress` is told how far it is, `between` called after each token.
    """
    renderer = Renderer(job.tokenizer)
    session = _Session.of(job.data, renderer)

    last = time.monotonic()

    def told(done: int, of: int) -> None:
        nonlocal last
        between()
        if time.monotonic() - last > TOLD_EVERY_S:
            last = time.monotonic()
            progress(f"{done:,} of {of:,} replies")

    assert sides.parts  # whoever asks for replies has loaded sides that speak
    speakers = Speakers(sides.parts, renderer, {side: sides.ref(side) for side in sides.names}, seeds)
    tasks = len({it.task for it in session.asked})
    speaking = budget.part(1 - min(MEASURING, MEASURING_S / max(budget.left, MEASURING_S)))
    session.answers = speakers.answers(session.asked, speaking, told, least=tasks)
    progress(f"{len(session.answers):,} replies are measured")
    return session.measured(sides, seeds, others or {})


@dataclass
class _Session:
    """What was asked, of what, and what was answered."""

    data: Dataset
    renderer: Renderer
    asked: list[Asked]
    questions: list[Question] = field(default_factory=list)
    tried: list[Trial] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @classmethod
    def of(cls, data: Dataset, renderer: Renderer) -> _Session:
        """All prompts there are for this job."""
        asking = Asking(renderer, data.persona, data.lore)
        unasked = Asking(renderer, None, None)
        asked = heldout_prompts(asking, data) + general_prompts(unasked, data)
        if data.persona is None:
            return cls(data, renderer, in_turn(asked))
        questions = questions_for(data.persona, data.lore) if data.lore else []
        tried = trials(data.persona)
        own = (fact_prompts(asking, questions), small_talk_prompts(asking), safety_prompts(asking, tried))
        return cls(data, renderer, in_turn([*asked, *(it for some in own for it in some)]), questions, tried)

    def measured(self, sides: Sides, seeds: tuple[int, ...], others: Mapping[str, Dataset]) -> Spoken:
        left_out = self._unasked()
        persona = self.data.persona
        if persona is None:
            left_out |= dict.fromkeys(("voice", "facts", "safety"), NOBODY)
        elif not self.questions:
            left_out["facts"] = "There is no lore, or nothing in it that a question can be made of."
        return Spoken(
            voice=self._voice(persona, sides, seeds, others, left_out) if persona else None,
            facts=measure_facts(self.questions, self.answers, sides.names, Character(persona)) if persona else None,
            text=self._text(sides, seeds),
            safety=measure_safety(persona, self.tried, self.answers, sides.names) if persona else None,
            side_by_side=side_by_side(
                self.data.said_heldout, self.answers, {side: sides.made(side) for side in sides.names}, seeds[0]
            ),
            replies=self._replies(sides),
            left_out=left_out,
        )

    def _voice(
        self,
        persona: Persona,
        sides: Sides,
        seeds: tuple[int, ...],
        others: Mapping[str, Dataset],
        left_out: dict[str, str],
    ) -> Voice | None:
        voices = voices_of(self.data, others)
        own = voices[persona.id]
        if len(own.trained) < FEWEST or not own.heldout or not voices.keys() - {persona.id, MEMBERS}:
            left_out["voice"] = (
                f"It takes {FEWEST} replies of {persona.name}, and of somebody else, to tell them apart."
            )
            return None
        return measure_voice(persona, voices, self.answers, sides.names, seeds)

    def _text(self, sides: Sides, seeds: Sequence[int]) -> tuple[TextScores, ...]:
        small_talk = [it for it in self.asked if it.task == SMALL_TALK]
        references: dict[str, Mapping[int, References]] = {
            HELDOUT: {n: [said.reply] for n, said in enumerate(self.data.said_heldout)},
            FACTS: {n: [question.reference] for n, question in enumerate(self.questions)},
            SMALL_TALK: nearest_replies(small_talk, [it for it in self.data.said_train if it.by_persona]),
            GENERAL: {n: [said.reply] for n, said in enumerate(self.data.said_general)},
        }
        known = [(task, of) for task, of in references.items() if of]
        found = [text_scores(task, self.answers, sides.names, seeds, of) for task, of in known]
        return tuple(scores for scores in found if scores)

    def _replies(self, sides: Sides) -> tuple[tuple[str, str], ...]:
        decode = self.renderer.tokenizer.decode
        new = [it for it in self.answers if it.side == sides.names[-1]]
        return tuple((str(decode(it.asked.ids)), it.text) for it in new)

    def _unasked(self) -> dict[str, str]:
        """By task, how many of its prompts there was time for, where that were not all."""
        there = Counter(it.task for it in self.asked)
        answered = Counter(it.task for it in {answer.asked for answer in self.answers})
        return {
            f"{task} prompts": f"{answered[task]} of {count} were asked: there was no time for more."
            for task, count in there.items()
            if answered[task] < count
        }
