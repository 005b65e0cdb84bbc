"""Long talks: scripted conversations with the new version, measured at some of their turns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from personas.lore.earlier_talk import MAX_EARLIER_LOOKED_AT, earlier_hits
from personas.lore.semantic import match_earlier, pack_vectors
from personas.prompt.renderer import EXAMPLE_USER, recent_start
from personas.schemas.chat import LoreHit, Turn
from personas.schemas.scorecard import (
    REPETITION_AT_TURN,
    TALK_TASK,
    TALK_TURNS,
    VOICE_AT_TURN,
    WRONG_AT_TURN,
)
from trainer.evaluate.candidates import NEW
from trainer.evaluate.generation.lore_facts import FactQuestion
from trainer.evaluate.generation.reply_tasks import (
    TALKS_FILE,
    EvaluationPrompt,
    GeneratedReply,
    MeasuredShares,
    read_jsonl,
    reply_values,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs, shortage
from trainer.evaluate.generation.text_metrics import repeated_share
from trainer.evaluate.generation.voice_sections import VoiceJudge
from trainer.evaluate.time_budget import TimeBudget


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
        probes: list[str] = next(row["lines"] for row in rows if row["kind"] == "probes")
        # With more talks than scripts, a script is held again, with another seed.
        self._talks: list[list[str]] = []
        self._beside: list[list[tuple[str, FactQuestion | None]]] = []
        for talk in range(limits.talks):
            self._talks.append(scripts[talk % len(scripts)])
            beside: list[tuple[str, FactQuestion | None]] = []
            beside += [(line, None) for line in probes[: limits.probes]]
            beside += [(question.text, question) for question in self._questions(talk)]
            self._beside.append(beside)
        self._histories: list[list[Turn]] = [[] for _ in self._talks]
        self._generator = replace(inputs.generator, adapters={NEW: inputs.generator.adapters[NEW]})
        self._replies: list[TalkReply] = []

    def replies(self) -> list[TalkReply]:
        """Return the replies to all that is asked at the turns that the time allows, at least at
        the first.
        """
        first: list[EvaluationPrompt] = []
        for talk in range(len(self._talks)):
            first += self._ask(talk)

        def between(done: int, of: int) -> None:
            self._inputs.between()

        def order_key(reply: TalkReply) -> tuple[int, int, int]:
            return reply.turn, reply.talk, reply.answer.prompt.number

        # Between two turns, `_go_on` looks at the time: a turn that has begun is answered whole.
        unlimited = TimeBudget(float("inf"))
        self._inputs.report(f"talks: turn 1 of {TALK_TURNS[-1]}")
        with self._generator.loaded():
            self._generator.generate(first, unlimited, between, follow_up=self._go_on)
        return sorted(self._replies, key=order_key)

    @property
    def left_out(self) -> dict[str, str]:
        """The turns that not all talks reached in time."""
        wanted = sum(map(len, self._beside))
        reached = Counter(reply.turn for reply in self._replies)
        left_out: dict[str, str] = {}
        for turn in TALK_TURNS:
            left_out |= shortage(f"talks, turn {turn}", reached[turn], wanted)
        return left_out

    def _ask(self, talk: int) -> list[EvaluationPrompt]:
        """Return the prompts of a talk's next turn."""
        turn = self._turn(talk)
        beside = self._beside[talk]
        prompts = []
        if turn in TALK_TURNS:
            for number, (line, _) in enumerate(beside):
                prompts.append(self._prompt(talk, number, line))
        if turn <= len(self._talks[talk]) and turn < TALK_TURNS[-1]:
            prompts.append(self._prompt(talk, len(beside), self._talks[talk][turn - 1]))
        return prompts

    def _questions(self, talk: int) -> list[FactQuestion]:
        questions = self._inputs.questions
        count = self._inputs.limits.questions
        first = talk * count
        numbers = range(first, first + min(count, len(questions)))
        return [questions[number % len(questions)] for number in numbers]

    def _go_on(self, answer: GeneratedReply) -> list[EvaluationPrompt]:
        """Keep a reply; after a script's line, return the prompts of the next turn."""
        talk = answer.seed % len(self._talks)
        history = self._histories[talk]
        turn = int(answer.prompt.task.removeprefix(TALK_TASK))
        if answer.prompt.number < len(self._beside[talk]):
            said = history[: 2 * (turn - 1)]
            reply = TalkReply(
                turn=turn,
                talk=talk,
                answer=answer,
                earlier=tuple(line.text for line in said if line.by_persona),
                question=self._beside[talk][answer.prompt.number][1],
            )
            self._replies.append(reply)
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
        # The seed carries the talk: `_go_on` takes its remainder.
        seed = self._generator.seeds[0] * len(self._talks) + talk
        return replace(prompt, own_seeds=(seed,))


def _find_earlier(
    turns: Sequence[Turn], line: str, lore: Sequence[LoreHit], encoder: str
) -> list[LoreHit]:
    """Find the exchanges of a talk that a line takes up, as the bot does in its store."""
    said = turns[::2]
    replies = turns[1::2]
    vectors = {number: _pack_vector(turn.text, encoder) for number, turn in enumerate(said)}
    scores = match_earlier(_pack_vector(line, encoder), vectors, encoder)
    exchanges = []
    for number in sorted(list(scores)[:MAX_EARLIER_LOOKED_AT]):
        exchanges.append((said[number].text, replies[number].text, scores[number]))
    return earlier_hits(exchanges, EXAMPLE_USER, lore)


# Cached, because every turn compares its line with all that was said before.
@lru_cache(maxsize=1024)
def _pack_vector(text: str, encoder: str) -> bytes:
    (vector,) = pack_vectors([text], encoder)
    return vector


def measure_talks(replies: Sequence[TalkReply], judge: VoiceJudge) -> MeasuredShares:
    """Measure by turn voice, contradictions of the lore, and repetition of the reply's own and the
    persona's words.
    """
    shares = MeasuredShares()

    def add(measure: str, talk_replies: Sequence[TalkReply], values: Sequence[float]) -> None:
        if talk_replies:
            answers = [reply.answer for reply in talk_replies]
            # By talk: one that loses the voice loses it for all its lines.
            units = [f"talk {answer.seed}" for answer in answers]
            shares.add(measure, NEW, reply_values(answers, values, units))

    for turn in TALK_TURNS:
        at_turn = [reply for reply in replies if reply.turn == turn]
        probes = [reply for reply in at_turn if reply.question is None]
        if not probes:
            continue
        texts = [reply.answer.text for reply in probes]
        voice = VOICE_AT_TURN.format(turn)
        add(voice, probes, judge.is_own(texts))
        judge.bound(shares, voice, judge.is_own)

        asked = []
        wrong = []
        for reply in at_turn:
            if reply.question:
                asked.append(reply)
                wrong.append(reply.question.contradicts(reply.answer.text))
        add(WRONG_AT_TURN.format(turn), asked, wrong)

        repeated = [repeated_share(reply.answer.text, reply.earlier) for reply in probes]
        add(REPETITION_AT_TURN.format(turn), probes, repeated)
    return shares
