"""What all sides are asked: rendered as it is served, drawn so that it is always the same, in the order of asking."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from personas.contracts import LoreHit, Persona, Sampling, Turn
from personas.lore import LoreIndex
from personas.lore.minilm import minilm
from personas.lore.words import reads_as_english
from personas.prompt import EXAMPLE_USER, Renderer, Sample
from trainer.building.split import drawn
from trainer.dataset import Dataset
from trainer.exchange import Exchange
from trainer.scorecard.spoken.answers import FACTS, GENERAL, HELDOUT, SMALL_TALK, UNAIDED, Asked
from trainer.scorecard.spoken.facts import Question
from trainer.scorecard.spoken.material import small_talk

MOST = {HELDOUT: 24, GENERAL: 10, SMALL_TALK: 10}
"""So many prompts of a task are asked at most; of facts and safety all."""
SOONER = {HELDOUT: 0.5}
"""Voices are told by held-out prompts alone: when half of the others have been asked, all of these have."""
CONTEXT_TOKENS = 2048 - Sampling().max_new_tokens
NEAREST, COMPARED = 3, 200
"""Small talk has so many references, the persona's own replies to what is nearest to it among so many messages."""


@dataclass(frozen=True)
class Asking:
    """Renders prompts as the bot would ask them. `lore` None: there is none to be found."""

    renderer: Renderer
    persona: Persona | None
    lore: LoreIndex | None

    def asked(
        self, task: str, number: int, turns: Sequence[Turn], lore: Sequence[LoreHit] = (), *, once: bool = False
    ) -> Asked:
        """A prompt of these turns."""
        ids = self.renderer.prompt(self.persona, turns, lore, CONTEXT_TOKENS).ids
        askers = dict.fromkeys(turn.name for turn in turns if not turn.by_persona)
        stop = tuple(f"\n{name}:" for name in askers)
        return Asked(task, number, ids, turns[-1].text, turns[-1].name, stop, once)

    def found(self, message: str) -> list[LoreHit]:
        """The lore that would go with a message."""
        return self.lore.search(self.persona.id, message) if self.lore and self.persona else []

    def said(self, task: str, number: int, message: str, *, aided: bool = True, once: bool = False) -> Asked:
        """A prompt of one message, by a guest, with the lore that matches it where it is `aided`."""
        lore = self.found(message) if aided else []
        return self.asked(task, number, [Turn(EXAMPLE_USER, message)], lore, once=once)

    def of_sample(self, task: str, number: int, sample: Sample, said: Exchange) -> Asked:
        """The prompt of a sample, token for token."""
        ids = sample.ids[: len(sample.ids) - sample.reply_tokens]
        asker = _asker(self.renderer.tokenizer.decode(ids), said.message) if self.persona else ""
        return Asked(task, number, ids, said.message, asker, (f"\n{asker}:",) if asker else ())


def heldout_prompts(asking: Asking, data: Dataset) -> list[Asked]:
    """Prompts of held-out replies. Their number is the reply's place in the data."""
    places = [n for n, said in enumerate(data.said_heldout) if said.by_persona or asking.persona is None]
    return [asking.of_sample(HELDOUT, n, data.heldout[n], data.said_heldout[n])
            for n in chosen(places, data.said_heldout, MOST[HELDOUT])]  # fmt: skip


def general_prompts(asking: Asking, data: Dataset) -> list[Asked]:
    """Prompts of general dialogue that is not trained on. Their number is the reply's place in the data."""
    places = chosen(range(len(data.said_general)), data.said_general, MOST[GENERAL])
    return [asking.of_sample(GENERAL, n, data.general[n], data.said_general[n]) for n in places]


def fact_prompts(asking: Asking, questions: Sequence[Question]) -> list[Asked]:
    """The questions, once with the lore that is found for them and once without."""
    aided = [asking.said(FACTS, n, question.text) for n, question in enumerate(questions)]
    return aided + [asking.said(UNAIDED, n, it.text, aided=False, once=True) for n, it in enumerate(questions)]


def small_talk_prompts(asking: Asking) -> list[Asked]:
    """Greetings and the like."""
    lines = [line for line in small_talk() if reads_as_english(line)][: MOST[SMALL_TALK]]
    return [asking.said(SMALL_TALK, n, line) for n, line in enumerate(lines)]


def nearest_replies(asked: Sequence[Asked], known: Sequence[Exchange]) -> dict[int, list[str]]:
    """By the number of each prompt, the replies to those known messages that are nearest to it in meaning."""
    few = [known[n] for n in chosen(range(len(known)), known, COMPARED)]
    if not few or not asked:
        return {}
    vectors = minilm().embed([it.message for it in few])
    near = np.argsort(-(minilm().embed([it.message for it in asked]) @ vectors.T), axis=1, kind="stable")
    return {it.number: [few[n].reply for n in row[:NEAREST]] for it, row in zip(asked, near, strict=True)}


def in_turn(asked: Iterable[Asked]) -> list[Asked]:
    """The first prompt of each task, then the others so that, wherever one stops, of each task about the same share has
    been asked, and of those in `SOONER` a larger one."""
    listed = list(asked)
    counts, so_far, order = Counter(it.task for it in listed), Counter[str](), []
    for place, it in enumerate(listed):
        order.append((so_far[it.task] / counts[it.task] * SOONER.get(it.task, 1.0), place, it))
        so_far[it.task] += 1
    return [it for _, _, it in sorted(order, key=lambda entry: entry[:2])]


def chosen(places: Iterable[int], said: Sequence[Exchange], most: int) -> list[int]:
    """At most so many places, drawn by what was said and nothing else."""
    return sorted(places, key=lambda n: (drawn("spoken", f"{said[n].message}\n{said[n].reply}"), n))[:most]


def _asker(prompt: str, message: str) -> str:
    """Under whose name a message stands in a rendered prompt; empty where that cannot be told."""
    first = message.strip().split("\n")[0]
    found = re.findall(rf"([^\n\]>:]{{1,64}}): {re.escape(first)}", prompt)
    return str(found[-1]).strip() if found and first else ""
