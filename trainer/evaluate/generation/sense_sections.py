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
    talks: int = 4
    probes: int = 4
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
    """A reply to a probe at a turn of talk `talk`, after the persona's `earlier` replies."""

    turn: int
    talk: int
    answer: GeneratedReply
    earlier: tuple[str, ...]


class TalkRun:
    """Scripted talks with the new version, each with its own seed and as fast as it goes.

    At `TALK_TURNS`, probes are asked beside the script's line. The number of a prompt is its probe's, and of a script's
    line that after all probes.
    """

    def __init__(self, inputs: SenseInputs, budget: TimeBudget) -> None:
        rows = read_jsonl(TALKS_FILE, inputs.data.language)
        limits, self._inputs, self._budget = inputs.limits, inputs, budget
        scripts: list[list[str]] = [row["lines"] for row in rows if row["kind"] == "talk"]
        self._talks = [scripts[talk % len(scripts)] for talk in range(limits.talks)]
        self._probes: list[str] = next(row["lines"] for row in rows if row["kind"] == "probes")[: limits.probes]
        self._histories: list[list[Turn]] = [[] for _ in self._talks]
        self._generator = replace(inputs.generator, adapters={NEW: inputs.generator.adapters[NEW]})
        self._found: list[TalkReply] = []

    def replies(self) -> list[TalkReply]:
        """Return the replies to all probes of the turns that the time allows, at least of the first."""
        first = [prompt for talk in range(len(self._talks)) for prompt in self._ask(talk)]
        between, unlimited = (lambda done, of: self._inputs.between()), TimeBudget(float("inf"))
        self._inputs.report(f"talks: turn 1 of {TALK_TURNS[-1]}")
        with self._generator.loaded():
            self._generator.generate(first, unlimited, between, follow_up=self._go_on)
        return sorted(self._found, key=lambda it: (it.turn, it.talk, it.answer.prompt.number))

    def _ask(self, talk: int) -> list[EvaluationPrompt]:
        """Return the prompts of a talk's next turn."""
        turn = self._turn(talk)
        prompts = [self._prompt(talk, n, line) for n, line in enumerate(self._probes)] if turn in TALK_TURNS else []
        if turn <= len(self._talks[talk]) and turn < TALK_TURNS[-1]:
            prompts.append(self._prompt(talk, len(self._probes), self._talks[talk][turn - 1]))
        return prompts

    def _go_on(self, answer: GeneratedReply) -> list[EvaluationPrompt]:
        """Keep a reply; after a script's line, return the prompts of the next turn."""
        talk, history = answer.seed % len(self._talks), self._histories[answer.seed % len(self._talks)]
        turn = int(answer.prompt.task.removeprefix(TALK_TASK))
        if answer.prompt.number < len(self._probes):
            earlier = tuple(it.text for it in history[: 2 * (turn - 1)] if it.by_persona)
            self._found.append(TalkReply(turn, talk, answer, earlier))
            return []
        name = self._inputs.persona.name
        history += [Turn(EXAMPLE_USER, answer.prompt.message), Turn(name, answer.text, by_persona=True)]
        if self._budget.is_spent:
            return []
        if turn + 1 in TALK_TURNS:
            self._inputs.report(f"talks: turn {turn + 1} of {TALK_TURNS[-1]}")
        return self._ask(talk)

    def _turn(self, talk: int) -> int:
        return len(self._histories[talk]) // 2 + 1

    def _prompt(self, talk: int, number: int, line: str) -> EvaluationPrompt:
        """Render a line after the part of its talk that the bot would show, with matching lore."""
        builder, turns = self._inputs.builder, [*self._histories[talk], Turn(EXAMPLE_USER, line)]
        lore = builder.lore.search(self._inputs.persona.id, line) if builder.lore else []
        task = f"{TALK_TASK} {self._turn(talk)}"
        prompt = builder.from_turns(task, number, turns[recent_start(len(turns)) :], lore)
        return replace(prompt, own_seeds=(self._generator.seeds[0] * len(self._talks) + talk,))


def measure_talks(replies: Sequence[TalkReply], judge: VoiceJudge) -> MeasuredShares:
    """Measure voice and repetition by turn, the latter of the reply's own words and of the persona's earlier ones."""
    found = MeasuredShares()
    for turn in TALK_TURNS:
        own = [it for it in replies if it.turn == turn]
        if not own:
            continue
        answers, units = [it.answer for it in own], [f"talk {it.answer.seed}" for it in own]
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
