"""Score card sections from generated replies: voice, facts, safety, counts, side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona
from personas.schemas.scorecard import (
    FACTS_TASK,
    HELDOUT_TASK,
    SENSE_SECTIONS,
    AdapterStamp,
    BoundedShares,
    FactScores,
    ReplyCounts,
    ReplyText,
    SafetyScores,
    Side,
    SideBySide,
    VoiceScores,
)
from trainer.dataset.dataset import Dataset
from trainer.dataset.synthetic.language_rules import language_name
from trainer.evaluate.candidates import MAX_BATCH_ROWS
from trainer.evaluate.card_outlook import FIRST_REPLIES_SAMPLES, SCORING_SAMPLES, CardOutlook
from trainer.evaluate.generation.author_texts import MIN_CLASS_TEXTS, AuthorTexts, usable_voices
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    fact_prompts,
    heldout_prompts,
    interleave_tasks,
    small_talk_prompts,
)
from trainer.evaluate.generation.lore_facts import FactQuestion, lore_questions, measure_facts
from trainer.evaluate.generation.reply_copies import CopyDetector, count_replies
from trainer.evaluate.generation.reply_generator import ReplyGenerator, served_sampling
from trainer.evaluate.generation.reply_pace import ReplyPace
from trainer.evaluate.generation.reply_tasks import (
    EVALUATION_FOLDER,
    SAFETY_FILE,
    SMALL_TALK_FILE,
    EvaluationPrompt,
    GeneratedReply,
    select_replies,
)
from trainer.evaluate.generation.safety import (
    SafetyTrial,
    measure_safety,
    safety_prompts,
    safety_trials,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs
from trainer.evaluate.generation.sense_sections import measure_sense
from trainer.evaluate.generation.voice_classifier import measure_voice
from trainer.evaluate.loss_sections import INSTRUCTIONS_FILE
from trainer.evaluate.time_budget import TimeBudget
from trainer.languages import detect_main_language, find_language_file
from trainer.schemas import PromptReply
from trainer.train.job import PreparedJob

if TYPE_CHECKING:
    from trainer.evaluate.candidates import Candidates

MAX_SIDE_BY_SIDE = 8
MAX_SCORING_S = 6.0
"""Time reserved for measuring the replies."""
MAX_SCORING_SHARE = 0.4
"""The largest part of the budget that is reserved."""
NO_PERSONA_REASON = "The run trains no persona."
PROGRESS_INTERVAL_S = 5.0
SENSE_REPLIES = 300
"""The sections on sense take as long as so many replies, if there is time: assumed, not measured."""


def side_by_side_section(
    pairs: Sequence[PromptReply],
    answers: Sequence[GeneratedReply],
    stamps: Mapping[Side, AdapterStamp | None],
    seed: int,
) -> tuple[SideBySide, ...]:
    """Return the first answered prompts, in conversation order; `pairs` are all held-out
    exchanges.
    """
    by_number: dict[int, dict[Side, ReplyText]] = {}
    for side, stamp in stamps.items():
        for answer in select_replies(answers, HELDOUT_TASK, side=side, seed=seed):
            reply = ReplyText(text=answer.text, made_by=stamp, seed=seed)
            by_number.setdefault(answer.prompt.number, {})[side] = reply
    shown = []
    for number in sorted(by_number)[:MAX_SIDE_BY_SIDE]:
        pair = pairs[number]
        shown.append(SideBySide(prompt=pair.message, real=pair.reply, replies=by_number[number]))
    return tuple(shown)


@dataclass(frozen=True)
class ReplySections:
    """Score card sections measured on generated replies.

    `replies` pairs each reply of the new version with its full prompt. `sense` has `SENSE_SECTIONS`
    by name. `left_out` lists the measurements that are missing or incomplete, with reasons.
    """

    voice: VoiceScores | None = None
    facts: FactScores | None = None
    counts: ReplyCounts | None = None
    safety: SafetyScores | None = None
    side_by_side: tuple[SideBySide, ...] = ()
    replies: tuple[tuple[str, str], ...] = ()
    sense: Mapping[str, BoundedShares] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def measure_replies(
    sides: Candidates,
    job: PreparedJob,
    budget: TimeBudget,
    seeds: tuple[int, ...],
    *,
    report: Callable[[str], None] = lambda text: None,
    outlook: CardOutlook | None = None,
    others: Mapping[str, Dataset] | None = None,
    between: Callable[[], None] = lambda: None,
    tasks: Collection[str] = (),
    sense: TimeBudget | None = None,
) -> ReplySections:
    """Generate the replies of all sides with each seed and measure them.

    `others` is other personas' data for the voice classifier, by default the shipped personas'.
    `report` gets the progress, `outlook` foresees the end by the pace of the replies, and `between`
    is called after each token. `tasks` restricts the replies to these. One prompt of each task is
    answered whatever the time. The sections on sense take the rest of the `sense` budget; None
    leaves them out.
    """
    renderer = Renderer(job.tokenizer).with_card(job.card)
    sampling = served_sampling(job.base)
    builder = PromptBuilder(renderer, job.data.persona, job.data.lore, sampling.max_new_tokens)
    session = _Session.from_data(job.data, builder, sides.names, seeds, tasks=tasks)
    outlook = outlook or CardOutlook(budget, lambda left_s: None)
    scoring_share = min(MAX_SCORING_SHARE, MAX_SCORING_S / max(budget.left, MAX_SCORING_S))
    # The rest is for measuring the replies, by libraries that take seconds to load.
    limit = budget.part(1 - scoring_share)
    pace = ReplyPace(
        budget.clock,
        at_once=MAX_BATCH_ROWS // sampling.candidates,
        max_tokens=sampling.max_new_tokens,
    )
    reported_at = time.monotonic()

    def foresee() -> None:
        left_s = pace.left_s(limit.left)
        if left_s is None:
            return
        if sense is None:
            outlook.tell(left_s + SCORING_SAMPLES * outlook.sample_s)
        elif pace.reply_s is not None:
            outlook.tell(min(left_s + SENSE_REPLIES * pace.reply_s, sense.left))

    def after_step(done: int, of: int) -> None:
        nonlocal reported_at
        between()
        pace.step(done, of)
        if time.monotonic() - reported_at > PROGRESS_INTERVAL_S:
            reported_at = time.monotonic()
            foresee()
            report(f"{done:,} of {of:,} replies")

    assert sides.parts  # the candidates were loaded to generate
    refs = {side: sides.ref(side) for side in sides.names}
    generator = ReplyGenerator(
        parts=sides.parts,
        renderer=renderer,
        adapters=refs,
        seeds=seeds,
        sampling=sampling,
        cache=sides.cache,
        models=sides.model_keys,
        first_s=FIRST_REPLIES_SAMPLES * outlook.sample_s,
    )
    one_of_each = _count_until_each_task(session.prompts)
    session.answers = generator.answers(session.prompts, limit, after_step, least=one_of_each)
    report(f"{len(session.answers):,} replies are measured")
    voices = usable_voices(job.data, others or {})
    sections = session.measure({side: sides.stamp(side) for side in sides.names}, voices)
    if job.data.persona is None or sense is None:
        return sections
    if pace.reply_s is not None:
        outlook.tell(min(SENSE_REPLIES * pace.reply_s, sense.left))
    inputs = SenseInputs(
        data=job.data,
        persona=job.data.persona,
        builder=builder,
        is_copy=session.copies.is_copy,
        questions=session.questions,
        voices=voices,
        generator=generator,
        report=report,
        between=between,
    )
    measured, left_out = measure_sense(inputs, session.answers, sense)
    return replace(
        sections,
        sense={name: shares.section() for name, shares in measured.items()},
        left_out={**sections.left_out, **left_out},
    )


def _count_until_each_task(prompts: Sequence[EvaluationPrompt]) -> int:
    """Count the first prompts that have one of each task."""
    missing = {prompt.task for prompt in prompts}
    for place, prompt in enumerate(prompts):
        if not missing:
            return place
        missing.discard(prompt.task)
    return len(prompts)


def missing_in_language(data: Dataset) -> dict[str, str]:
    """Return what is not measured in the persona's language, or in English instead, by
    measurement.
    """
    if data.language == "en":
        return {}
    name = language_name(data.language)
    missing = {}
    prompts = {"safety": EVALUATION_FOLDER / SAFETY_FILE, "instructions": INSTRUCTIONS_FILE}
    for measure, file in prompts.items():
        if not find_language_file(file, data.language):
            reason = f"There are none in {name}: the English ones were used."
            missing[f"{measure} in {name}"] = reason
    if data.persona and not find_language_file(SMALL_TALK_FILE, data.language):
        missing["small talk"] = f"There is no small talk in {name}: not measured."
    spoken = detect_main_language(pair.reply for pair in data.general_prompt_replies)
    if spoken != data.language:
        missing[f"general dialogue in {name}"] = (
            f"The general dialogue is in {language_name(spoken)}: not measured."
        )
    return missing


@dataclass
class _Session:
    """The prompts, their sources, and the replies."""

    data: Dataset
    renderer: Renderer
    sides: tuple[Side, ...]
    seeds: tuple[int, ...]
    prompts: list[EvaluationPrompt]
    questions: list[FactQuestion] = field(default_factory=list)
    trials: list[SafetyTrial] = field(default_factory=list)
    answers: list[GeneratedReply] = field(default_factory=list)

    @cached_property
    def copies(self) -> CopyDetector:
        """What tells copies of the trained replies and of the card."""
        return CopyDetector.of_data(self.data)

    @classmethod
    def from_data(
        cls,
        data: Dataset,
        builder: PromptBuilder,
        sides: tuple[Side, ...],
        seeds: tuple[int, ...],
        *,
        tasks: Collection[str] = (),
    ) -> _Session:
        """Build all prompts of this job, or those of some tasks."""
        prompts = heldout_prompts(builder, data, seeds)
        questions: list[FactQuestion] = []
        trials: list[SafetyTrial] = []
        if data.persona is not None:
            questions = lore_questions(data)
            trials = safety_trials(data.persona, data.language)
            prompts += fact_prompts(builder, questions)
            prompts += small_talk_prompts(builder, data.language)
            prompts += safety_prompts(builder, trials)
        if tasks:
            prompts = [prompt for prompt in prompts if prompt.task in tasks]
        return cls(
            data=data,
            renderer=builder.renderer,
            sides=sides,
            seeds=seeds,
            prompts=interleave_tasks(prompts),
            questions=questions,
            trials=trials,
        )

    def measure(
        self, stamps: Mapping[Side, AdapterStamp | None], voices: Mapping[str, AuthorTexts]
    ) -> ReplySections:
        """Measure all sections but those on sense."""
        left_out = self._unanswered() | missing_in_language(self.data)
        pairs = self.data.heldout_prompt_replies
        sections = ReplySections(
            counts=count_replies(self.copies, self.answers, self.sides),
            side_by_side=side_by_side_section(pairs, self.answers, stamps, self.seeds[0]),
            replies=self._new_replies(),
            left_out=left_out,
        )
        persona = self.data.persona
        if persona is None:
            unmeasured = ("voice", "facts", "safety", *SENSE_SECTIONS)
            left_out |= dict.fromkeys(unmeasured, NO_PERSONA_REASON)
            return sections
        if not self.questions:
            reason = "There is no lore, or nothing in it that a question can be made of"
            if self.data.language != "en":
                reason += f", and no rules for {language_name(self.data.language)}"
            left_out["facts"] = f"{reason}."
        facts = None
        if any(prompt.task == FACTS_TASK for prompt in self.prompts):
            character = CharacterBreakDetector(persona)
            facts = measure_facts(self.questions, self.answers, self.sides, character)
        return replace(
            sections,
            voice=self._voice(persona, voices, left_out),
            facts=facts,
            safety=measure_safety(persona, self.trials, self.answers, self.sides),
        )

    def _voice(
        self, persona: Persona, voices: Mapping[str, AuthorTexts], left_out: dict[str, str]
    ) -> VoiceScores | None:
        if not voices:
            reason = (
                f"It takes {MIN_CLASS_TEXTS} replies of {persona.name} that no model wrote, and as "
                "many of somebody else, to tell them apart."
            )
            left_out["voice"] = reason
            return None
        return measure_voice(
            persona,
            voices,
            answers=self.answers,
            sides=self.sides,
            seeds=self.seeds,
            is_copy=self.copies.is_copy,
        )

    def _new_replies(self) -> tuple[tuple[str, str], ...]:
        decode = self.renderer.tokenizer.decode
        replies = []
        for answer in self.answers:
            if answer.side == self.sides[-1]:  # the new version's
                replies.append((str(decode(answer.prompt.ids)), answer.text))
        return tuple(replies)

    def _unanswered(self) -> dict[str, str]:
        """Return, by task, the number of prompts answered in time, if not all were."""
        counts = Counter(prompt.task for prompt in self.prompts)
        answered_prompts = {answer.prompt for answer in self.answers}
        answered = Counter(prompt.task for prompt in answered_prompts)
        reasons = {}
        for task, count in counts.items():
            if answered[task] < count:
                asked = f"{answered[task]} of {count} were asked"
                reasons[f"{task} prompts"] = f"{asked}: there was no time for more."
        return reasons
