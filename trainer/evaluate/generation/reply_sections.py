"""Score card sections from generated replies: voice, facts, text, safety, side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from personas.prompt import Renderer
from personas.schemas.chat import Persona
from personas.schemas.scorecard import (
    FACTS_TASK,
    GENERAL_TASK,
    HELDOUT_TASK,
    MEMBERS_VOICE,
    SMALL_TALK_TASK,
    AdapterStamp,
    FactScores,
    ReplyText,
    SafetyScores,
    Side,
    SideBySide,
    TextScores,
    VoiceScores,
)
from trainer.data.dataset import Dataset
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    SafetyTrial,
    fact_prompts,
    general_prompts,
    heldout_prompts,
    interleave_tasks,
    measure_safety,
    nearest_replies,
    safety_prompts,
    safety_trials,
    small_talk_prompts,
)
from trainer.evaluate.generation.lore_facts import CharacterBreakDetector, FactQuestion, fact_questions, measure_facts
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, GeneratedReply, select_replies
from trainer.evaluate.generation.text_metrics import References, text_scores
from trainer.evaluate.generation.voice_classifier import MIN_CLASS_TEXTS, collect_voices, measure_voice
from trainer.evaluate.paired_losses import TimeBudget
from trainer.schemas import PromptReply
from trainer.train.job import PreparedJob

if TYPE_CHECKING:
    from trainer.evaluate.candidates import Candidates

MAX_SIDE_BY_SIDE = 8
MAX_SCORING_S, MAX_SCORING_SHARE = 6.0, 0.4
"""Time reserved for scoring replies: seconds, and maximum share of the whole."""
NO_PERSONA_REASON = "The run trains no persona."
PROGRESS_INTERVAL_S = 5.0  # seconds between two words on how far it is


def side_by_side_section(
    said: Sequence[PromptReply], answers: Sequence[GeneratedReply], made: Mapping[Side, AdapterStamp | None], seed: int
) -> tuple[SideBySide, ...]:
    """Return the first answered prompts, in conversation order; `said` are all held-out exchanges."""
    by_number: dict[int, dict[Side, ReplyText]] = {}
    for side, by in made.items():
        for answer in select_replies(answers, HELDOUT_TASK, side=side, seed=seed):
            reply = ReplyText(text=answer.text, made_by=by, seed=seed)
            by_number.setdefault(answer.asked.number, {})[side] = reply
    shown = sorted(by_number)[:MAX_SIDE_BY_SIDE]
    return tuple(SideBySide(prompt=said[n].message, real=said[n].reply, replies=by_number[n]) for n in shown)


@dataclass(frozen=True)
class ReplySections:
    """Score card sections measured on generated replies.

    `replies` pairs each reply of the new version with its full prompt. `left_out` lists the measurements that are
    missing or incomplete, with reasons.
    """

    voice: VoiceScores | None = None
    facts: FactScores | None = None
    text: tuple[TextScores, ...] = ()
    safety: SafetyScores | None = None
    side_by_side: tuple[SideBySide, ...] = ()
    replies: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def measure_replies(
    sides: Candidates,
    job: PreparedJob,
    budget: TimeBudget,
    seeds: tuple[int, ...],
    progress: Callable[[str], None] = lambda told: None,
    others: Mapping[str, Dataset] | None = None,
    between: Callable[[], None] = lambda: None,
) -> ReplySections:
    """Generate the replies of all sides with each seed and measure them.

    `others` is other personas' data for the voice classifier, by default the shipped personas'. `progress` reports
    progress, `between` is called after each token.
    """
    renderer = Renderer(job.tokenizer)
    session = _Session.of(job.data, renderer)

    last = time.monotonic()

    def told(done: int, of: int) -> None:
        nonlocal last
        between()
        if time.monotonic() - last > PROGRESS_INTERVAL_S:
            last = time.monotonic()
            progress(f"{done:,} of {of:,} replies")

    assert sides.parts  # whoever asks for replies has loaded sides that speak
    speakers = ReplyGenerator(sides.parts, renderer, {side: sides.ref(side) for side in sides.names}, seeds)
    tasks = len({it.task for it in session.asked})
    speaking = budget.part(1 - min(MAX_SCORING_SHARE, MAX_SCORING_S / max(budget.left, MAX_SCORING_S)))
    session.answers = speakers.answers(session.asked, speaking, told, least=tasks)
    progress(f"{len(session.answers):,} replies are measured")
    return session.measured(sides, seeds, others or {})


@dataclass
class _Session:
    """The prompts, their sources, and the replies."""

    data: Dataset
    renderer: Renderer
    asked: list[EvaluationPrompt]
    questions: list[FactQuestion] = field(default_factory=list)
    tried: list[SafetyTrial] = field(default_factory=list)
    answers: list[GeneratedReply] = field(default_factory=list)

    @classmethod
    def of(cls, data: Dataset, renderer: Renderer) -> _Session:
        """Build all prompts of this job."""
        asking = PromptBuilder(renderer, data.persona, data.lore)
        unasked = PromptBuilder(renderer, None, None)
        asked = heldout_prompts(asking, data) + general_prompts(unasked, data)
        if data.persona is None:
            return cls(data, renderer, interleave_tasks(asked))
        questions = fact_questions(data.persona, data.lore) if data.lore else []
        tried = safety_trials(data.persona)
        own = (fact_prompts(asking, questions), small_talk_prompts(asking), safety_prompts(asking, tried))
        return cls(data, renderer, interleave_tasks([*asked, *(it for some in own for it in some)]), questions, tried)

    def measured(self, sides: Candidates, seeds: tuple[int, ...], others: Mapping[str, Dataset]) -> ReplySections:
        left_out = self._unasked()
        persona = self.data.persona
        if persona is None:
            left_out |= dict.fromkeys(("voice", "facts", "safety"), NO_PERSONA_REASON)
        elif not self.questions:
            left_out["facts"] = "There is no lore, or nothing in it that a question can be made of."
        return ReplySections(
            voice=self._voice(persona, sides, seeds, others, left_out) if persona else None,
            facts=measure_facts(self.questions, self.answers, sides.names, CharacterBreakDetector(persona))
            if persona
            else None,
            text=self._text(sides, seeds),
            safety=measure_safety(persona, self.tried, self.answers, sides.names) if persona else None,
            side_by_side=side_by_side_section(
                self.data.heldout_prompt_replies,
                self.answers,
                {side: sides.made(side) for side in sides.names},
                seeds[0],
            ),
            replies=self._replies(sides),
            left_out=left_out,
        )

    def _voice(
        self,
        persona: Persona,
        sides: Candidates,
        seeds: tuple[int, ...],
        others: Mapping[str, Dataset],
        left_out: dict[str, str],
    ) -> VoiceScores | None:
        voices = collect_voices(self.data, others)
        own = voices[persona.id]
        if len(own.trained) < MIN_CLASS_TEXTS or not own.heldout or not voices.keys() - {persona.id, MEMBERS_VOICE}:
            left_out["voice"] = (
                f"It takes {MIN_CLASS_TEXTS} replies of {persona.name}, and of somebody else, to tell them apart."
            )
            return None
        return measure_voice(persona, voices, self.answers, sides.names, seeds)

    def _text(self, sides: Candidates, seeds: Sequence[int]) -> tuple[TextScores, ...]:
        small_talk = [it for it in self.asked if it.task == SMALL_TALK_TASK]
        references: dict[str, Mapping[int, References]] = {
            HELDOUT_TASK: {n: [said.reply] for n, said in enumerate(self.data.heldout_prompt_replies)},
            FACTS_TASK: {n: [question.reference] for n, question in enumerate(self.questions)},
            SMALL_TALK_TASK: nearest_replies(
                small_talk, [it for it in self.data.train_prompt_replies if it.by_persona]
            ),
            GENERAL_TASK: {n: [said.reply] for n, said in enumerate(self.data.general_prompt_replies)},
        }
        known = [(task, of) for task, of in references.items() if of]
        found = [text_scores(task, self.answers, sides.names, seeds, of) for task, of in known]
        return tuple(scores for scores in found if scores)

    def _replies(self, sides: Candidates) -> tuple[tuple[str, str], ...]:
        decode = self.renderer.tokenizer.decode
        new = [it for it in self.answers if it.side == sides.names[-1]]
        return tuple((str(decode(it.asked.ids)), it.text) for it in new)

    def _unasked(self) -> dict[str, str]:
        """Return, by task, the number of prompts answered in time, if not all were."""
        there = Counter(it.task for it in self.asked)
        answered = Counter(it.task for it in {answer.asked for answer in self.answers})
        return {
            f"{task} prompts": f"{answered[task]} of {count} were asked: there was no time for more."
            for task, count in there.items()
            if answered[task] < count
        }
