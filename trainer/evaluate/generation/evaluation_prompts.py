"""Prompts for all candidates, rendered as served, selected deterministically, interleaved by
task.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from personas.lore.index import LoreIndex
from personas.prompt.renderer import CONTEXT_TOKENS, EXAMPLE_USER, Renderer, TokenizedSample
from personas.schemas.chat import LoreHit, Persona, SamplingParams, Turn
from personas.schemas.scorecard import (
    FACTS_TASK,
    FACTS_WITHOUT_LORE_TASK,
    HELDOUT_TASK,
    REWORDED_TASK,
    SMALL_TALK_TASK,
)
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.evaluate.generation.lore_facts import FactQuestion
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, read_small_talk
from trainer.languages import may_be_in_language
from trainer.schemas import PromptReply

MAX_PROMPTS_BY_TASK = {HELDOUT_TASK: 24, SMALL_TALK_TASK: 10}
"""The largest number that a seed answers; facts and safety have none."""
TASK_PRIORITY = {HELDOUT_TASK: 0.5}
"""The voice is judged by held-out prompts alone: all of them have been generated when half of the
others have.
"""


@dataclass(frozen=True)
class PromptBuilder:
    """Renders prompts as the bot does, with room for a reply of `new_tokens`. `lore` is None if
    there is none.
    """

    renderer: Renderer
    persona: Persona | None
    lore: LoreIndex | None
    new_tokens: int = SamplingParams().max_new_tokens

    def from_turns(
        self,
        task: str,
        number: int,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit] = (),
        *,
        once: bool = False,
    ) -> EvaluationPrompt:
        """Build a prompt from turns."""
        ids = self.renderer.prompt(self.persona, turns, lore, CONTEXT_TOKENS - self.new_tokens).ids
        names = dict.fromkeys(turn.name for turn in turns if not turn.by_persona)
        last = turns[-1]
        return EvaluationPrompt(
            task=task,
            number=number,
            ids=ids,
            message=last.text,
            asker=last.name,
            speakers=tuple(names),
            once=once,
            card=self.renderer.card_prompt(self.persona, last.name),
        )

    def from_message(
        self, task: str, number: int, message: str, *, with_lore: bool = True, once: bool = False
    ) -> EvaluationPrompt:
        """Build a prompt of one message by a guest, with matching lore."""
        lore: Sequence[LoreHit] = ()
        if with_lore and self.lore and self.persona:
            lore = self.lore.search(self.persona.id, message)
        return self.from_turns(task, number, [Turn(EXAMPLE_USER, message)], lore, once=once)

    def from_sample(
        self, task: str, number: int, sample: TokenizedSample, pair: PromptReply
    ) -> EvaluationPrompt:
        """Build the exact prompt of a sample."""
        ids = sample.ids[: len(sample.ids) - sample.reply_tokens]
        author = ""
        speakers: tuple[str, ...] = ()
        if self.persona:
            author = _author_name(self.renderer.tokenizer.decode(ids), pair.message)
        if author:
            speakers = (author,)
        return EvaluationPrompt(
            task=task,
            number=number,
            ids=ids,
            message=pair.message,
            asker=author,
            speakers=speakers,
            card=self.renderer.card_prompt(self.persona, author),
        )


def heldout_prompts(
    builder: PromptBuilder, data: Dataset, seeds: Sequence[int]
) -> list[EvaluationPrompt]:
    """Return the prompts of held-out replies, numbered by their index in the data.

    None is plainly in another language than the persona's replies, unless all are.

    Each seed answers other ones, as far as there are enough: they tell more than the same ones with
    several seeds. The seeds take turns, so that all have about as many when time runs out.
    """
    pairs = data.heldout_prompt_replies
    most = MAX_PROMPTS_BY_TASK[HELDOUT_TASK]
    own = []
    for number, pair in enumerate(pairs):
        if pair.by_persona or builder.persona is None:
            own.append(number)
    if builder.persona is not None:
        language = data.language
        own = [n for n in own if may_be_in_language(pairs[n].message, language)] or own
    ranked = select_places(own, pairs, len(own))
    seeds_by_number: dict[int, list[int]] = {}
    # Each seed's prompts follow those of the seed before; with few of them, they begin anew.
    for place, seed in product(range(min(most, len(ranked))), seeds):
        number = ranked[(seed * most + place) % len(ranked)]
        seeds_by_number.setdefault(number, []).append(seed)
    prompts = []
    for number, own_seeds in seeds_by_number.items():
        prompt = builder.from_sample(HELDOUT_TASK, number, data.heldout[number], pairs[number])
        prompts.append(replace(prompt, own_seeds=tuple(own_seeds)))
    return prompts


def fact_prompts(
    builder: PromptBuilder, questions: Sequence[FactQuestion]
) -> list[EvaluationPrompt]:
    """Return the questions, once with the lore found for them and once without."""
    build = builder.from_message
    prompts = []
    for number, question in enumerate(questions):
        prompts.append(build(FACTS_TASK, number, question.text))
    for number, question in enumerate(questions):
        text = question.text
        prompts.append(build(FACTS_WITHOUT_LORE_TASK, number, text, with_lore=False, once=True))
    return prompts


def reworded_prompts(
    builder: PromptBuilder, questions: Sequence[FactQuestion]
) -> list[EvaluationPrompt]:
    """Return the questions in other words, once each with the lore found for them."""
    prompts = []
    for number, question in enumerate(questions):
        if question.reworded:
            text = question.reworded
            prompts.append(builder.from_message(REWORDED_TASK, number, text, once=True))
    return prompts


def small_talk_prompts(builder: PromptBuilder, language: str = "en") -> list[EvaluationPrompt]:
    """Return greetings and similar messages in a language; empty if there are none."""
    lines = read_small_talk(language)[: MAX_PROMPTS_BY_TASK[SMALL_TALK_TASK]]
    return [builder.from_message(SMALL_TALK_TASK, n, line) for n, line in enumerate(lines)]


def interleave_tasks(prompts: Iterable[EvaluationPrompt]) -> list[EvaluationPrompt]:
    """Interleave tasks so that generation can stop anywhere after a like share of each, but for
    `TASK_PRIORITY`.
    """
    listed = list(prompts)
    counts = Counter(prompt.task for prompt in listed)
    so_far = Counter[str]()
    ranks = []
    for place, prompt in enumerate(listed):
        share = so_far[prompt.task] / counts[prompt.task]
        # The place decides between equal shares: prompts themselves have no order.
        ranks.append((share * TASK_PRIORITY.get(prompt.task, 1.0), place))
        so_far[prompt.task] += 1
    return [listed[place] for _, place in sorted(ranks)]


def select_places(places: Iterable[int], pairs: Sequence[PromptReply], most: int) -> list[int]:
    """Select at most `most` indices by a hash of the texts."""

    def order_key(place: int) -> tuple[float, int]:
        pair = pairs[place]
        return hash_fraction("spoken", f"{pair.message}\n{pair.reply}"), place

    return sorted(places, key=order_key)[:most]


def _author_name(prompt: str, message: str) -> str:
    """Find the author of a message in a rendered prompt; empty if unknown."""
    first_line = message.strip().split("\n")[0]
    names = re.findall(rf"([^\n\]>:]{{1,64}}): {re.escape(first_line)}", prompt)
    if not names or not first_line:
        return ""
    # The last of them: the message may be quoted earlier in the prompt.
    return str(names[-1]).strip()
