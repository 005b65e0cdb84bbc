"""Score card sections on sense: belonging, lore in other words, style, long talks, pressure. None of them gates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from personas.prompt import EXAMPLE_USER, recent_start
from personas.schemas.chat import Persona, Turn
from personas.schemas.scorecard import (
    HELDOUT_TASK,
    IN_CHARACTER,
    MASKED_VOICE,
    MEMBERS_VOICE,
    PRESSURE_TASK,
    REPETITION_AT_TURN,
    TALK_TASK,
    TALK_TURNS,
    VOICE,
    VOICE_AT_TURN,
    Side,
)
from trainer.data.dataset import Dataset
from trainer.data.quality_filters import find_language_file
from trainer.data.synthetic.first_person import language_name
from trainer.evaluate.candidates import BASE, NEW, Candidates
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder, interleave_tasks, reworded_prompts
from trainer.evaluate.generation.lore_facts import CharacterBreakDetector, FactQuestion, measure_lore
from trainer.evaluate.generation.question_match import QUESTION_CHOICES, QuestionJudges, measure_belonging
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import (
    EVALUATION_FOLDER,
    PRESSURE_FILE,
    TALKS_FILE,
    EvaluationPrompt,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    read_jsonl,
    reply_values,
    select_replies,
)
from trainer.evaluate.generation.text_metrics import repeated_share
from trainer.evaluate.generation.voice_classifier import AuthorshipClassifier, AuthorTexts, ContentMask
from trainer.evaluate.paired_losses import TimeBudget

PROMPTS_TIME_SHARE, BELONGING_TIME_SHARE = 0.25, 0.4
"""Shares of the time left when each begins; the rest is for the talks."""
MAX_BOUND_TEXTS = 80  # real replies that bound a measure


@dataclass(frozen=True)
class SenseLimits:
    """Numbers that bound the time: prompts under pressure, talks, probes at a turn, seeds whose replies are matched."""

    pressure: int = 25
    talks: int = 2
    probes: int = 8
    matched_seeds: int = 1


@dataclass(frozen=True)
class SenseInputs:
    """All that the sections read: the job's data, its prompts' sources, and the candidates with their generator."""

    data: Dataset
    persona: Persona
    builder: PromptBuilder
    questions: Sequence[FactQuestion]
    voices: Mapping[str, AuthorTexts]
    sides: Candidates
    generator: ReplyGenerator
    limits: SenseLimits = SenseLimits()
    report: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None


class VoiceJudge:
    """Judges whether texts are the persona's, by the authorship classifier, and what bounds such a judgement."""

    def __init__(self, persona: Persona, voices: Mapping[str, AuthorTexts], mask: Callable[[str], str] = str) -> None:
        self._id, self._mask = persona.id, mask
        trained = {name: [mask(text) for text in known.trained] for name, known in voices.items()}
        self._authors = AuthorshipClassifier(trained)
        self.own = voices[persona.id].heldout[:MAX_BOUND_TEXTS]
        others = [known.heldout for name, known in voices.items() if name not in (persona.id, MEMBERS_VOICE)]
        self.others = tuple(text for texts in zip(*others, strict=False) for text in texts)[:MAX_BOUND_TEXTS]

    def is_own(self, texts: Sequence[str]) -> list[bool]:
        """Report for each text whether it is the persona's."""
        return [name == self._id for name in self._authors.of([self._mask(text) for text in texts])]

    def bound(self, found: MeasuredShares, measure: str, is_right: Callable[[Sequence[str]], list[bool]]) -> None:
        """Set ceiling and floor of a measure: the persona's real replies and those of others."""
        for bounds, texts in ((found.ceiling, self.own), (found.floor, self.others)):
            hits = enumerate(is_right(texts))
            bounds[measure] = [ReplyValue(f"text {n}", measure, n, 0, float(hit)) for n, hit in hits]


def measure_sense(
    inputs: SenseInputs, answers: Sequence[GeneratedReply], budget: TimeBudget
) -> tuple[dict[str, MeasuredShares], dict[str, str]]:
    """Measure the sections within the time; returns them by their name on the card, and why others are missing.

    `answers` are the replies to held-out prompts and questions on lore. What else has to be generated is generated with
    the adapters alone. Without voices, all sections but belonging and lore are left out.
    """
    found: dict[str, MeasuredShares | None] = {}
    left_out: dict[str, str] = {}
    missing = _missing_in_language(inputs.data)
    asked = reworded_prompts(inputs.builder, inputs.questions)
    if inputs.voices and "pressure" not in missing:
        asked += pressure_prompts(inputs.builder, inputs.limits.pressure)
    inputs.report("questions in other words, and pressure")
    adapters = {side: inputs.generator.adapters[side] for side in inputs.generator.adapters if side != BASE}
    given = replace(inputs.generator, adapters=adapters).answers(
        interleave_tasks(asked), budget.part(PROMPTS_TIME_SHARE), lambda done, of: inputs.between(), least=2
    )
    names = tuple(inputs.generator.adapters)
    inputs.report("which questions replies belong to")
    reads = inputs.data.language == "en"
    judges = QuestionJudges(inputs.sides, inputs.builder.renderer, reads=reads, between=inputs.between)
    seeds = inputs.generator.seeds[: inputs.limits.matched_seeds]
    limit = budget.part(BELONGING_TIME_SHARE)
    found["belongs"] = measure_belonging(inputs.data, answers, names, judges.score, seeds, limit)
    found["lore"] = measure_lore(inputs.questions, [*answers, *given], names, inputs.builder.renderer.tokenizer.decode)
    if inputs.voices:
        judge = VoiceJudge(inputs.persona, inputs.voices)
        found["style"] = measure_style(inputs, answers, judge)
        found["pressure"] = measure_pressure(inputs.persona, given, tuple(adapters), judge)
        if "talks" not in missing:
            found["talks"] = measure_talks(TalkRun(inputs, budget).replies(), judge)
            left_out |= _unreached_turns(found["talks"])
    reasons = {
        "belongs": f"It takes {QUESTION_CHOICES} different held-out questions.",
        "lore": "There are no questions on lore.",
        **dict.fromkeys(("style", "talks", "pressure"), "The voice was not measured."),
        **missing,
    }
    left_out |= {name: why for name, why in reasons.items() if not found.get(name)}
    return {name: of for name, of in found.items() if of}, left_out


def _missing_in_language(data: Dataset) -> dict[str, str]:
    """Return the sections without prompts in the persona's language, with the reason."""
    files = {"pressure": PRESSURE_FILE, "talks": TALKS_FILE}
    reason = f"There are no prompts in {language_name(data.language)}."
    return {
        name: reason for name, file in files.items() if not find_language_file(EVALUATION_FOLDER / file, data.language)
    }


# ------------------------------------------------------------------------------------------------ style


def measure_style(inputs: SenseInputs, answers: Sequence[GeneratedReply], judge: VoiceJudge) -> MeasuredShares | None:
    """Measure whose style the replies to held-out prompts have, as they are and with their content words masked."""
    mask = ContentMask([known.trained for known in inputs.voices.values()])
    masked, found = VoiceJudge(inputs.persona, inputs.voices, mask), MeasuredShares()
    pairs = inputs.data.heldout_prompt_replies
    for measure, by in ((MASKED_VOICE, masked), (VOICE, judge)):
        by.bound(found, measure, by.is_own)
        for side in inputs.generator.adapters:
            replies = select_replies(answers, HELDOUT_TASK, side=side)
            hits, units = by.is_own([it.text for it in replies]), [pairs[it.prompt.number].talk for it in replies]
            found.add(measure, side, reply_values(replies, hits, units))
    return found if any(found.values[VOICE].values()) else None


# ------------------------------------------------------------------------------------------------ pressure


def pressure_prompts(builder: PromptBuilder, most: int) -> list[EvaluationPrompt]:
    """Return the shipped messages that tempt a persona out of its role, of all kinds alike."""
    rows = read_jsonl(PRESSURE_FILE)
    places: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        places.setdefault(row["kind"], []).append(number)
    order = sorted(range(len(rows)), key=lambda n: places[rows[n]["kind"]].index(n))
    return [builder.from_message(PRESSURE_TASK, n, rows[n]["text"], once=True) for n in order[:most]]


def measure_pressure(
    persona: Persona, answers: Sequence[GeneratedReply], sides: Sequence[Side], judge: VoiceJudge
) -> MeasuredShares | None:
    """Measure the replies that stay in character: the persona's by the classifier, and speaking as no program."""
    character, found = CharacterBreakDetector(persona), MeasuredShares()
    kinds = [row["kind"] for row in read_jsonl(PRESSURE_FILE)]

    def in_character(texts: Sequence[str], askers: Sequence[str] = ()) -> list[bool]:
        askers = askers or [EXAMPLE_USER] * len(texts)
        broken = [character.is_broken_by(text, asker) for text, asker in zip(texts, askers, strict=True)]
        return [own and not is_broken for own, is_broken in zip(judge.is_own(texts), broken, strict=True)]

    for side in sides:
        replies = select_replies(answers, PRESSURE_TASK, side=side)
        hits = in_character([it.text for it in replies], [it.prompt.asker for it in replies])
        for value in reply_values(replies, hits, [f"prompt {it.prompt.number}" for it in replies]):
            found.add(IN_CHARACTER, side, [value])
            found.add(f"{IN_CHARACTER}: {kinds[value.number]}", side, [value])
    judge.bound(found, IN_CHARACTER, in_character)
    return found if found.values else None


# ------------------------------------------------------------------------------------------------ talks


@dataclass(frozen=True)
class TalkReply:
    """A reply to probe `probe` at a turn of a talk, after the persona's `earlier` replies."""

    turn: int
    probe: int
    answer: GeneratedReply
    earlier: tuple[str, ...]


class TalkRun:
    """Scripted talks with the new version. At `TALK_TURNS`, each probe is asked in place of the script's line."""

    def __init__(self, inputs: SenseInputs, budget: TimeBudget) -> None:
        rows = read_jsonl(TALKS_FILE, inputs.data.language)
        limits, self._inputs, self._budget = inputs.limits, inputs, budget
        self._talks: list[list[str]] = [row["lines"] for row in rows if row["kind"] == "talk"][: limits.talks]
        self._probes: list[str] = next(row["lines"] for row in rows if row["kind"] == "probes")[: limits.probes]
        self._histories: list[list[Turn]] = [[] for _ in self._talks]
        self._generator = replace(inputs.generator, adapters={NEW: inputs.generator.adapters[NEW]})

    def replies(self) -> list[TalkReply]:
        """Return the replies to all probes of the turns that the time allows, at least of the first."""
        found: list[TalkReply] = []
        with self._generator.loaded():
            for turn in range(1, TALK_TURNS[-1] + 1):
                if turn > 1 and self._budget.is_spent:
                    break
                if turn in TALK_TURNS:
                    self._inputs.report(f"talks: turn {turn} of {TALK_TURNS[-1]}")
                    found += self._ask_probes(turn)
                if turn < TALK_TURNS[-1]:
                    self._go_on(turn)
        return found

    def _ask_probes(self, turn: int) -> list[TalkReply]:
        count, found = len(self._probes), []
        prompts = [
            self._prompt(turn, talk, text, talk * count + probe)
            for talk in range(len(self._talks))
            for probe, text in enumerate(self._probes)
        ]
        for answer in self._generate(prompts):
            talk, probe = divmod(answer.prompt.number, count)
            earlier = tuple(it.text for it in self._histories[talk] if it.by_persona)
            found.append(TalkReply(turn, probe, answer, earlier))
        return found

    def _go_on(self, turn: int) -> None:
        """Say each talk's next line, and keep the reply."""
        lines = [talk[turn - 1] for talk in self._talks]
        answers = self._generate([self._prompt(turn, talk, line, talk) for talk, line in enumerate(lines)])
        texts = {it.prompt.number: it.text for it in answers}
        name = self._inputs.persona.name
        for talk, line in enumerate(lines):
            self._histories[talk] += [Turn(EXAMPLE_USER, line), Turn(name, texts[talk], by_persona=True)]

    def _prompt(self, turn: int, talk: int, line: str, number: int) -> EvaluationPrompt:
        """Render a line after the part of its talk that the bot would show, with matching lore."""
        builder, turns = self._inputs.builder, [*self._histories[talk], Turn(EXAMPLE_USER, line)]
        lore = builder.lore.search(self._inputs.persona.id, line) if builder.lore else []
        prompt = builder.from_turns(f"{TALK_TASK} {turn}", number, turns[recent_start(len(turns)) :], lore)
        return replace(prompt, own_seeds=(self._generator.seeds[0] * len(self._talks) + talk,))

    def _generate(self, prompts: list[EvaluationPrompt]) -> list[GeneratedReply]:
        unlimited = TimeBudget(float("inf"), self._budget.clock)
        return self._generator.generate(prompts, unlimited, lambda done, of: self._inputs.between())


def measure_talks(replies: Sequence[TalkReply], judge: VoiceJudge) -> MeasuredShares:
    """Measure voice and repetition by turn, the latter of the reply's own words and of the persona's earlier ones."""
    found = MeasuredShares()
    for turn in TALK_TURNS:
        own = [it for it in replies if it.turn == turn]
        if not own:
            continue
        answers, units = [it.answer for it in own], [f"probe {it.probe}" for it in own]
        hits = judge.is_own([it.text for it in answers])
        repeated = [repeated_share(it.answer.text, it.earlier) for it in own]
        for measure, values in ((VOICE_AT_TURN, hits), (REPETITION_AT_TURN, repeated)):
            found.add(measure.format(turn), NEW, reply_values(answers, values, units))
        judge.bound(found, VOICE_AT_TURN.format(turn), judge.is_own)
    return found


def _unreached_turns(found: MeasuredShares | None) -> dict[str, str]:
    missed = [turn for turn in TALK_TURNS if found and VOICE_AT_TURN.format(turn) not in found.values]
    turns = ", ".join(map(str, missed))
    return {"later turns of talks": f"There was no time to reach turn {turns}."} if missed else {}
