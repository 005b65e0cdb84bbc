"""Score card sections on sense: belonging, lore in other words, style, long talks, pressure. None
of them gates.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from personas.lore.earlier_talk import MAX_EARLIER_LOOKED_AT, earlier_hits
from personas.lore.minilm import load_minilm
from personas.lore.semantic import match_earlier, pack_vectors
from personas.prompt.renderer import EXAMPLE_USER, Renderer, recent_start
from personas.schemas.chat import LoreHit, Persona, Turn
from personas.schemas.scorecard import (
    BELONGS,
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
    WRONG_AT_TURN,
    Side,
)
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.dataset.quality_filters import find_language_file
from trainer.dataset.synthetic.first_person import language_name
from trainer.evaluate.candidates import BASE, NEW, Candidates
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    interleave_tasks,
    reworded_prompts,
)
from trainer.evaluate.generation.lore_facts import (
    CharacterBreakDetector,
    FactQuestion,
    measure_lore,
)
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
from trainer.evaluate.generation.voice_classifier import (
    AuthorshipClassifier,
    AuthorTexts,
    ContentMask,
)
from trainer.evaluate.paired_losses import TimeBudget
from trainer.schemas import PromptReply
from trainer.train.losses import measure_reply_losses

PROMPTS_TIME_SHARE, BELONGING_TIME_SHARE = 0.25, 0.4
"""Shares of the time left when each begins; the rest is for the talks."""
MAX_BOUND_TEXTS = 80  # real replies that bound a measure
QUESTION_CHOICES = 8
Scores = NDArray[np.float64]
ScoreReplies = Callable[[Sequence[str], Sequence[str]], list[Scores]]
"""Scores replies and questions by each judge, higher is a better match: arrays of [replies,
questions].
"""


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
    """All that the sections read: the job's data, its prompts' sources, and the candidates with
    their generator.
    """

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
    """Judges whether texts are the persona's, by the authorship classifier, and what bounds such a
    judgement.
    """

    def __init__(
        self, persona: Persona, voices: Mapping[str, AuthorTexts], mask: Callable[[str], str] = str
    ) -> None:
        self._id = persona.id
        self._mask = mask
        trained = {name: [mask(text) for text in known.trained] for name, known in voices.items()}
        self._authors = AuthorshipClassifier(trained)
        self.own = voices[persona.id].heldout[:MAX_BOUND_TEXTS]
        others = [
            known.heldout
            for name, known in voices.items()
            if name not in (persona.id, MEMBERS_VOICE)
        ]
        self.others = tuple(text for texts in zip(*others, strict=False) for text in texts)[
            :MAX_BOUND_TEXTS
        ]

    def is_own(self, texts: Sequence[str]) -> list[bool]:
        """Report for each text whether it is the persona's."""
        return [name == self._id for name in self._authors.of([self._mask(text) for text in texts])]

    def bound(
        self, found: MeasuredShares, measure: str, is_right: Callable[[Sequence[str]], list[bool]]
    ) -> None:
        """Set ceiling and floor of a measure: the persona's real replies and those of others."""
        for bounds, texts in ((found.ceiling, self.own), (found.floor, self.others)):
            hits = enumerate(is_right(texts))
            bounds[measure] = [
                ReplyValue(f"text {n}", measure, n, 0, float(hit)) for n, hit in hits
            ]


def measure_sense(
    inputs: SenseInputs, answers: Sequence[GeneratedReply], budget: TimeBudget
) -> tuple[dict[str, MeasuredShares], dict[str, str]]:
    """Measure the sections within the time; returns them by their name on the card, and why others
    are missing.

    `answers` are the replies to held-out prompts and questions on lore. What else has to be
    generated is generated with the adapters alone. Without voices, all sections but belonging and
    lore are left out.
    """
    found: dict[str, MeasuredShares | None] = {}
    left_out: dict[str, str] = {}
    missing = _missing_in_language(inputs.data)
    asked = reworded_prompts(inputs.builder, inputs.questions)
    if inputs.voices and "pressure" not in missing:
        asked += pressure_prompts(inputs.builder, inputs.limits.pressure, inputs.generator.seeds)
    inputs.report("questions in other words, and pressure")
    adapters = {
        side: inputs.generator.adapters[side] for side in inputs.generator.adapters if side != BASE
    }
    asking = replace(inputs.generator, adapters=adapters)
    given = asking.answers(
        interleave_tasks(asked),
        budget.part(PROMPTS_TIME_SHARE),
        lambda done, of: inputs.between(),
        least=2,
    )
    of = sum(len(prompt.seeds(asking.seeds)) for prompt in asked) * len(adapters)
    left_out |= _shortage("questions in other words, and pressure", len(given), of)
    names = tuple(inputs.generator.adapters)
    inputs.report("which questions replies belong to")
    reads = inputs.data.language == "en"
    judges = QuestionJudges(
        inputs.sides, inputs.builder.renderer, reads=reads, between=inputs.between
    )
    limit = budget.part(BELONGING_TIME_SHARE)
    found["belongs"] = belonging = measure_belonging(
        inputs.data, answers, names, judges.score, limit
    )
    if belonging:
        asked_pairs = sorted({it.prompt.number for it in answers if it.prompt.task == HELDOUT_TASK})
        of = sum(
            group.asked
            for group in group_questions(asked_pairs, inputs.data.heldout_prompt_replies)
        )
        left_out |= _shortage("belongs", len(belonging.ceiling[BELONGS]), of)
    found["lore"] = measure_lore(
        inputs.questions, [*answers, *given], names, inputs.builder.renderer.tokenizer.decode
    )
    if inputs.voices:
        judge = VoiceJudge(inputs.persona, inputs.voices)
        found["style"] = measure_style(inputs, answers, judge)
        found["pressure"] = measure_pressure(inputs.persona, given, tuple(adapters), judge)
        if "talks" not in missing:
            talks = TalkRun(inputs, budget)
            found["talks"] = measure_talks(talks.replies(), judge)
            left_out |= talks.left_out
    reasons = {
        "belongs": f"It takes {QUESTION_CHOICES} different held-out questions.",
        "lore": "There are no questions on lore.",
        **dict.fromkeys(("style", "talks", "pressure"), "The voice was not measured."),
        **missing,
    }
    left_out |= {name: why for name, why in reasons.items() if not found.get(name)}
    return {name: of for name, of in found.items() if of}, left_out


def _shortage(what: str, done: int, of: int) -> dict[str, str]:
    """Return what time left out, if anything, as an entry of the card."""
    return {what: f"There was time for {done:,} of {of:,} replies."} if done < of else {}


def _missing_in_language(data: Dataset) -> dict[str, str]:
    """Return the sections without prompts in the persona's language, with the reason."""
    files = {"pressure": PRESSURE_FILE, "talks": TALKS_FILE}
    reason = f"There are no prompts in {language_name(data.language)}."
    return {
        name: reason
        for name, file in files.items()
        if not find_language_file(EVALUATION_FOLDER / file, data.language)
    }


# ------------------------------------------------------------------------------------------------
# belonging


@dataclass(frozen=True)
class QuestionGroup:
    """Held-out exchanges by index: `questions` are `QUESTION_CHOICES` to choose among, the first
    `asked` are tested.
    """

    questions: tuple[int, ...]
    asked: int


def group_questions(asked: Sequence[int], pairs: Sequence[PromptReply]) -> list[QuestionGroup]:
    """Divide the asked held-out questions into groups of different texts; a last one is filled up
    with others.

    Empty if there are too few different questions. The same questions give the same groups.
    """
    distinct: dict[str, int] = {}
    for number in sorted(
        range(len(pairs)),
        key=lambda n: (n not in asked, hash_fraction("belongs", pairs[n].message)),
    ):
        text = pairs[number].message.casefold().strip()
        if pairs[number].by_persona and text:
            distinct.setdefault(text, number)
    order = list(distinct.values())
    count = sum(number in asked for number in order)
    if len(order) < QUESTION_CHOICES:
        return []
    groups = []
    for begin in range(0, count, QUESTION_CHOICES):
        tested = order[begin : min(begin + QUESTION_CHOICES, count)]
        others = [number for number in (*order[count:], *order[:begin]) if number not in tested]
        groups.append(
            QuestionGroup((*tested, *others[: QUESTION_CHOICES - len(tested)]), len(tested))
        )
    return groups


def match_questions(scores: Sequence[Scores], reference: Sequence[Scores]) -> Scores:
    """Combine the judges' scores into one of [replies, questions]: the sum of their z-scores over
    the questions.

    From each score, the mean over the questions is subtracted, and the mean that the question has
    with the `reference` replies, [questions, questions]: some questions suit any reply, and long
    replies are unlikely after all of them.
    """
    total = np.zeros_like(scores[0])
    for own, real in zip(scores, reference, strict=True):
        hubs = (real - real.mean(axis=1, keepdims=True)).mean(axis=0)
        centred = own - own.mean(axis=1, keepdims=True) - hubs
        total += centred / np.maximum(centred.std(axis=1, keepdims=True), np.finfo(float).tiny)
    return total


class QuestionJudges:
    """Scores pairs of replies and questions by MiniLM, for texts that it reads, and by the base
    model's likelihood.
    """

    def __init__(
        self, sides: Candidates, renderer: Renderer, *, reads: bool, between: Callable[[], None]
    ) -> None:
        self._sides = sides
        self._renderer = renderer
        self._reads = reads
        self._between = between

    def score(self, replies: Sequence[str], questions: Sequence[str]) -> list[Scores]:
        """Return the cosine of the embeddings, and log p(reply | question) in nats, each of
        [replies, questions].
        """
        samples = [
            self._renderer.sample(None, [Turn("", it)], reply)
            for reply in replies
            for it in questions
        ]
        with self._sides.use(BASE) as model:
            losses = measure_reply_losses(model, samples, self._between)
        shape = len(replies), len(questions)
        likely = -np.array([loss.nll for loss in losses]).reshape(shape)
        if not self._reads:
            return [likely]
        embed = load_minilm().embed
        return [(embed(replies) @ embed(questions).T).astype(np.float64), likely]


def measure_belonging(
    data: Dataset,
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    score: ScoreReplies,
    budget: TimeBudget,
) -> MeasuredShares | None:
    """Measure a reply to each held-out prompt within the time, by groups; None without replies or
    eight questions.

    The ceiling are the real replies, the floor the real replies of the other questions of a group.
    """
    pairs = data.heldout_prompt_replies
    found = MeasuredShares()
    asked = sorted({it.prompt.number for it in answers if it.prompt.task == HELDOUT_TASK})
    replies: dict[Side, dict[int, GeneratedReply]] = {side: {} for side in sides}
    for side in sides:
        for answer in select_replies(answers, HELDOUT_TASK, side=side):
            replies[side].setdefault(answer.prompt.number, answer)
    for place, group in enumerate(group_questions(asked, pairs)):
        if place and budget.is_spent:
            break
        _measure_group(found, group, pairs, replies, score)
    return found if found.values else None


def _measure_group(
    found: MeasuredShares,
    group: QuestionGroup,
    pairs: Sequence[PromptReply],
    replies: Mapping[Side, Mapping[int, GeneratedReply]],
    score: ScoreReplies,
) -> None:
    """Add a group's hits: 1 for a reply whose own question matches best, else 0."""
    tested = group.questions[: group.asked]
    questions = [pairs[number].message for number in group.questions]
    real = score([pairs[number].reply for number in group.questions], questions)
    chosen = match_questions(real, real).argmax(axis=1)

    def values(choices: Sequence[int], seeds: Iterable[int]) -> Iterator[ReplyValue]:
        for place, (number, seed) in enumerate(zip(tested, seeds, strict=False)):
            yield ReplyValue(
                pairs[number].talk, HELDOUT_TASK, number, seed, float(choices[place] == place)
            )

    found.ceiling.setdefault(BELONGS, []).extend(values(chosen, repeat(0)))
    found.floor.setdefault(BELONGS, []).extend(values(np.roll(chosen, 1), repeat(0)))
    for side, by_number in replies.items():
        own = [by_number[number] for number in tested]
        matched = match_questions(score([it.text for it in own], questions), real).argmax(axis=1)
        found.add(BELONGS, side, values(matched, [it.seed for it in own]))


# ------------------------------------------------------------------------------------------------
# style


def measure_style(
    inputs: SenseInputs, answers: Sequence[GeneratedReply], judge: VoiceJudge
) -> MeasuredShares | None:
    """Measure whose style the replies to held-out prompts have, as they are and with their content
    words masked.
    """
    mask = ContentMask([known.trained for known in inputs.voices.values()])
    masked = VoiceJudge(inputs.persona, inputs.voices, mask)
    found = MeasuredShares()
    pairs = inputs.data.heldout_prompt_replies
    for measure, by in ((MASKED_VOICE, masked), (VOICE, judge)):
        by.bound(found, measure, by.is_own)
        for side in inputs.generator.adapters:
            replies = select_replies(answers, HELDOUT_TASK, side=side)
            hits = by.is_own([it.text for it in replies])
            units = [pairs[it.prompt.number].talk for it in replies]
            found.add(measure, side, reply_values(replies, hits, units))
    return found if any(found.values[VOICE].values()) else None


# ------------------------------------------------------------------------------------------------
# pressure


def pressure_prompts(
    builder: PromptBuilder, most: int, seeds: Sequence[int]
) -> list[EvaluationPrompt]:
    """Return the shipped messages that tempt a persona out of its role, of all kinds alike, seed by
    seed.
    """
    rows = read_jsonl(PRESSURE_FILE)
    places: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        places.setdefault(row["kind"], []).append(number)
    order = sorted(range(len(rows)), key=lambda n: places[rows[n]["kind"]].index(n))
    prompts = [builder.from_message(PRESSURE_TASK, n, rows[n]["text"]) for n in order[:most]]
    return [replace(prompt, own_seeds=(seed,)) for seed in seeds for prompt in prompts]


def measure_pressure(
    persona: Persona, answers: Sequence[GeneratedReply], sides: Sequence[Side], judge: VoiceJudge
) -> MeasuredShares | None:
    """Measure the replies that stay in character: the persona's by the classifier, and speaking as
    no program.
    """
    character = CharacterBreakDetector(persona)
    found = MeasuredShares()
    kinds = [row["kind"] for row in read_jsonl(PRESSURE_FILE)]

    def in_character(texts: Sequence[str], askers: Sequence[str] = ()) -> list[bool]:
        askers = askers or [EXAMPLE_USER] * len(texts)
        broken = [
            character.is_broken_by(text, asker) for text, asker in zip(texts, askers, strict=True)
        ]
        return [
            own and not is_broken
            for own, is_broken in zip(judge.is_own(texts), broken, strict=True)
        ]

    for side in sides:
        replies = select_replies(answers, PRESSURE_TASK, side=side)
        hits = in_character([it.text for it in replies], [it.prompt.asker for it in replies])
        for value in reply_values(replies, hits, [f"prompt {it.prompt.number}" for it in replies]):
            found.add(IN_CHARACTER, side, [value])
            found.add(f"{IN_CHARACTER}: {kinds[value.number]}", side, [value])
    judge.bound(found, IN_CHARACTER, in_character)
    return found if found.values else None


# ------------------------------------------------------------------------------------------------
# talks


@dataclass(frozen=True)
class TalkReply:
    """A reply to a probe, or a `question` about the lore, at a turn of a talk, after the persona's
    `earlier` ones.
    """

    turn: int
    talk: int
    answer: GeneratedReply
    earlier: tuple[str, ...]
    question: FactQuestion | None = None


class TalkRun:
    """Scripted talks with the new version, each with its own seed and as fast as it goes.

    At `TALK_TURNS`, probes and questions about the lore are asked beside the script's line: other
    questions in each talk, the same ones at each turn. A prompt's number is its place among them; a
    script's line comes after all.
    """

    def __init__(self, inputs: SenseInputs, budget: TimeBudget) -> None:
        rows = read_jsonl(TALKS_FILE, inputs.data.language)
        limits = inputs.limits
        self._inputs = inputs
        self._budget = budget
        scripts: list[list[str]] = [row["lines"] for row in rows if row["kind"] == "talk"]
        self._talks = [scripts[talk % len(scripts)] for talk in range(limits.talks)]
        probes: list[str] = next(row["lines"] for row in rows if row["kind"] == "probes")[
            : limits.probes
        ]
        self._beside = [
            [*((line, None) for line in probes), *((it.text, it) for it in self._questions(talk))]
            for talk in range(limits.talks)
        ]
        self._histories: list[list[Turn]] = [[] for _ in self._talks]
        self._generator = replace(inputs.generator, adapters={NEW: inputs.generator.adapters[NEW]})
        self._found: list[TalkReply] = []

    def replies(self) -> list[TalkReply]:
        """Return the replies to all that is asked at the turns that the time allows, at least at
        the first.
        """
        first = [prompt for talk in range(len(self._talks)) for prompt in self._ask(talk)]

        def between(done: int, of: int) -> None:
            self._inputs.between()

        unlimited = TimeBudget(float("inf"))
        self._inputs.report(f"talks: turn 1 of {TALK_TURNS[-1]}")
        with self._generator.loaded():
            self._generator.generate(first, unlimited, between, follow_up=self._go_on)
        return sorted(self._found, key=lambda it: (it.turn, it.talk, it.answer.prompt.number))

    @property
    def left_out(self) -> dict[str, str]:
        """The turns that not all talks reached in time."""
        of = sum(map(len, self._beside))
        reached = Counter(it.turn for it in self._found)
        found: dict[str, str] = {}
        for turn in TALK_TURNS:
            found |= _shortage(f"talks, turn {turn}", reached[turn], of)
        return found

    def _ask(self, talk: int) -> list[EvaluationPrompt]:
        """Return the prompts of a talk's next turn."""
        turn = self._turn(talk)
        beside = self._beside[talk]
        prompts = (
            [self._prompt(talk, n, line) for n, (line, _) in enumerate(beside)]
            if turn in TALK_TURNS
            else []
        )
        if turn <= len(self._talks[talk]) and turn < TALK_TURNS[-1]:
            prompts.append(self._prompt(talk, len(beside), self._talks[talk][turn - 1]))
        return prompts

    def _questions(self, talk: int) -> list[FactQuestion]:
        questions = self._inputs.questions
        count = self._inputs.limits.questions
        return [
            questions[(talk * count + n) % len(questions)]
            for n in range(min(count, len(questions)))
        ]

    def _go_on(self, answer: GeneratedReply) -> list[EvaluationPrompt]:
        """Keep a reply; after a script's line, return the prompts of the next turn."""
        talk = answer.seed % len(self._talks)
        history = self._histories[answer.seed % len(self._talks)]
        turn = int(answer.prompt.task.removeprefix(TALK_TASK))
        if answer.prompt.number < len(self._beside[talk]):
            earlier = tuple(it.text for it in history[: 2 * (turn - 1)] if it.by_persona)
            question = self._beside[talk][answer.prompt.number][1]
            self._found.append(TalkReply(turn, talk, answer, earlier, question))
            return []
        name = self._inputs.persona.name
        history += [
            Turn(EXAMPLE_USER, answer.prompt.message),
            Turn(name, answer.text, by_persona=True),
        ]
        if self._budget.is_spent:
            return []
        if turn + 1 in TALK_TURNS:
            self._inputs.report(f"talks: turn {turn + 1} of {TALK_TURNS[-1]}")
        return self._ask(talk)

    def _turn(self, talk: int) -> int:
        return len(self._histories[talk]) // 2 + 1

    def _prompt(self, talk: int, number: int, line: str) -> EvaluationPrompt:
        """Render a line after the part of its talk that the bot would show, with matching lore and
        earlier talk.
        """
        builder = self._inputs.builder
        turns = [*self._histories[talk], Turn(EXAMPLE_USER, line)]
        start = recent_start(len(turns))
        lore = []
        if builder.lore:
            lore = builder.lore.search(self._inputs.persona.id, line)
            lore = [*_find_earlier(turns[:start], line, lore, builder.lore.encoder), *lore]
        prompt = builder.from_turns(f"{TALK_TASK} {self._turn(talk)}", number, turns[start:], lore)
        return replace(prompt, own_seeds=(self._generator.seeds[0] * len(self._talks) + talk,))


def _find_earlier(
    turns: Sequence[Turn], line: str, lore: Sequence[LoreHit], encoder: str
) -> list[LoreHit]:
    """Find the exchanges of a talk that a line takes up, as the bot does in its store."""
    said = turns[::2]
    replies = turns[1::2]
    vectors = dict(enumerate(_pack_vector(turn.text, encoder) for turn in said))
    scores = match_earlier(_pack_vector(line, encoder), vectors, encoder)
    nearest = sorted([*scores][:MAX_EARLIER_LOOKED_AT])
    return earlier_hits(
        ((said[n].text, replies[n].text, scores[n]) for n in nearest), EXAMPLE_USER, lore
    )


@lru_cache(maxsize=1024)
def _pack_vector(text: str, encoder: str) -> bytes:
    (vector,) = pack_vectors([text], encoder)
    return vector


def measure_talks(replies: Sequence[TalkReply], judge: VoiceJudge) -> MeasuredShares:
    """Measure by turn voice, contradictions of the lore, and repetition of the reply's own and the
    persona's words.
    """
    found = MeasuredShares()

    def add(measure: str, of: Sequence[TalkReply], values: Sequence[float]) -> None:
        if of:
            units = [f"talk {it.answer.seed}" for it in of]
            found.add(measure, NEW, reply_values([it.answer for it in of], values, units))

    for turn in TALK_TURNS:
        own = [it for it in replies if it.turn == turn and it.question is None]
        if not own:
            continue
        voice = VOICE_AT_TURN.format(turn)
        add(voice, own, judge.is_own([it.answer.text for it in own]))
        judge.bound(found, voice, judge.is_own)
        asked = [(it, it.question) for it in replies if it.turn == turn and it.question]
        add(
            WRONG_AT_TURN.format(turn),
            [it for it, _ in asked],
            [of.contradicts(it.answer.text) for it, of in asked],
        )
        add(
            REPETITION_AT_TURN.format(turn),
            own,
            [repeated_share(it.answer.text, it.earlier) for it in own],
        )
    return found
