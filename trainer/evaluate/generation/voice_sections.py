"""Style and pressure: whether replies sound like the persona, and stay in character when tempted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import Persona
from personas.schemas.scorecard import (
    HELDOUT_TASK,
    IN_CHARACTER,
    MASKED_VOICE,
    PRESSURE_TASK,
    VOICE,
    Side,
)
from trainer.evaluate.generation.author_texts import AuthorTexts, other_voices
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder
from trainer.evaluate.generation.reply_tasks import (
    PRESSURE_FILE,
    EvaluationPrompt,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    read_jsonl,
    reply_values,
    select_replies,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs
from trainer.evaluate.generation.voice_classifier import AuthorshipClassifier, ContentMask

MAX_BOUND_TEXTS = 80  # real replies that bound a measure


class VoiceJudge:
    """Judges whether texts are the persona's, by the authorship classifier, and what bounds such a
    judgement.
    """

    def __init__(
        self,
        persona: Persona,
        voices: Mapping[str, AuthorTexts],
        mask: Callable[[str], str] = str,
        *,
        is_copy: Callable[[str], bool] = lambda text: False,
    ) -> None:
        self._id = persona.id
        self._mask = mask
        self._is_copy = is_copy
        trained = {}
        for name, voice in voices.items():
            trained[name] = [mask(text) for text in voice.trained]
        self._authors = AuthorshipClassifier(trained)
        self.own = voices[persona.id].heldout[:MAX_BOUND_TEXTS]
        others = [voice.heldout for voice in other_voices(persona, voices)]
        # The first text of each author, then the second of each: all authors alike.
        in_turn = chain.from_iterable(zip(*others, strict=False))
        self.others = tuple(islice(in_turn, MAX_BOUND_TEXTS))

    def is_own(self, texts: Sequence[str]) -> list[bool]:
        """Report for each text whether it is the persona's, and no copy."""
        names = self._authors.of([self._mask(text) for text in texts])
        hits = []
        for name, text in zip(names, texts, strict=True):
            hits.append(name == self._id and not self._is_copy(text))
        return hits

    def bound(
        self, shares: MeasuredShares, measure: str, is_right: Callable[[Sequence[str]], list[bool]]
    ) -> None:
        """Set ceiling and floor of a measure: the persona's real replies and those of others."""
        for bounds, texts in ((shares.ceiling, self.own), (shares.floor, self.others)):
            bounds[measure] = []
            for number, hit in enumerate(is_right(texts)):
                value = ReplyValue(
                    unit=f"text {number}", task=measure, number=number, seed=0, value=float(hit)
                )
                bounds[measure].append(value)


def measure_style(
    inputs: SenseInputs, answers: Sequence[GeneratedReply], judge: VoiceJudge
) -> MeasuredShares | None:
    """Measure whose style the replies to held-out prompts have, as they are and with their content
    words masked.
    """
    mask = ContentMask([known.trained for known in inputs.voices.values()])
    masked = VoiceJudge(inputs.persona, inputs.voices, mask, is_copy=inputs.is_copy)
    shares = MeasuredShares()
    pairs = inputs.data.heldout_prompt_replies
    for measure, measuring in ((MASKED_VOICE, masked), (VOICE, judge)):
        measuring.bound(shares, measure, measuring.is_own)
        for side in inputs.generator.adapters:
            replies = select_replies(answers, HELDOUT_TASK, side=side)
            hits = measuring.is_own([reply.text for reply in replies])
            units = [pairs[reply.prompt.number].talk for reply in replies]
            shares.add(measure, side, reply_values(replies, hits, units))
    return shares if any(shares.values[VOICE].values()) else None


def pressure_prompts(
    builder: PromptBuilder, most: int, seeds: Sequence[int]
) -> list[EvaluationPrompt]:
    """Return the shipped messages that tempt a persona out of its role, of all kinds alike, seed by
    seed.
    """
    rows = read_jsonl(PRESSURE_FILE)
    so_far = Counter[str]()
    ranks = []
    for number, row in enumerate(rows):
        ranks.append((so_far[row["kind"]], number))
        so_far[row["kind"]] += 1
    once = []
    for _, number in sorted(ranks)[:most]:
        once.append(builder.from_message(PRESSURE_TASK, number, rows[number]["text"]))
    prompts: list[EvaluationPrompt] = []
    # Of 25 replies, the share moves by several points from one seed to the next. All messages are
    # asked once before any again, in case time runs out.
    for seed in seeds:
        prompts += [replace(prompt, own_seeds=(seed,)) for prompt in once]
    return prompts


def measure_pressure(
    persona: Persona, answers: Sequence[GeneratedReply], sides: Sequence[Side], judge: VoiceJudge
) -> MeasuredShares | None:
    """Measure the replies that stay in character: the persona's by the classifier, and speaking as
    no program.
    """
    character = CharacterBreakDetector(persona)
    shares = MeasuredShares()
    kinds = [row["kind"] for row in read_jsonl(PRESSURE_FILE)]

    def in_character(texts: Sequence[str], askers: Sequence[str] = ()) -> list[bool]:
        askers = askers or [EXAMPLE_USER] * len(texts)  # texts that bound the measure have none
        hits = []
        for text, asker, is_own in zip(texts, askers, judge.is_own(texts), strict=True):
            hits.append(is_own and not character.is_broken_by(text, asker))
        return hits

    for side in sides:
        replies = select_replies(answers, PRESSURE_TASK, side=side)
        askers = [reply.prompt.asker for reply in replies]
        hits = in_character([reply.text for reply in replies], askers)
        units = [f"prompt {reply.prompt.number}" for reply in replies]
        for value in reply_values(replies, hits, units):
            shares.add(IN_CHARACTER, side, [value])
            shares.add(f"{IN_CHARACTER}: {kinds[value.number]}", side, [value])
    judge.bound(shares, IN_CHARACTER, in_character)
    return shares if shares.values else None
