"""Conversations made of the replies that a model has written from a persona's card
(`personas.home.written_replies`), and what stands in for them before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from personas.home.written_replies import WrittenReply
from personas.prompt.renderer import DATASET_USER, example_turns, system_text
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.question_bank import Question
from trainer.sources.conversation import GUEST_IDS, Conversation, SourceMessage, SourceSpeaker

WRITTEN_SOURCE = "written from the card"
"""The source of the samples in counts and data sheets."""
SHARE_TOLERANCE = 0.9
"""Filters drop replies of either kind: a share that is a little smaller needs no word."""
STAND_IN_WORDS = 30
"""Words of a reply that is not written yet, where the card has no examples."""


def is_written(talk: str) -> bool:
    """Report whether a conversation, by the name that its samples have, is a written reply."""
    return talk.startswith(f"{WRITTEN_SOURCE} ")


def written_count(most: int, own_replies: int, share: float) -> int:
    """Return how many replies to write: the `share` of all replies beside the persona's own, `most`
    at most, or all of them with a share of 1.
    """
    if share >= 1 or not own_replies:
        return most
    return min(most, max(1, math.ceil(own_replies * share / (1 - share))))


def written_caveat(share: float, written: int, samples: int, *, most: int, drawn: int) -> str:
    """Describe a shortage of written replies for the requested share, of which a recipe has `most`
    written; empty if there are enough. `drawn` is the number of samples that were drawn of all to
    train on, 0 where all are taken.
    """
    if share >= 1 or written >= share * samples * SHARE_TOLERANCE:
        return ""
    are = (
        f"Replies written from the card were to be {share:.0%} of the samples, and are "
        f"{written / max(samples, 1):.0%}: {written:,} of {samples:,}."
    )
    if written < most * SHARE_TOLERANCE and drawn:
        return f"{are} Of written and other samples, {drawn:,} are drawn (train_samples)."
    if written < most * SHARE_TOLERANCE or written_count(most, samples - written, share) < most:
        return are  # others were left out: as faulty, or struck out
    return f"{are} At most {most:,} are written (written_replies)."


def written_conversations(
    persona: Persona, replies: Sequence[WrittenReply], right: str, arrived: str = ""
) -> Iterator[Conversation]:
    """Yield a conversation per reply. The guests who ask have changing names, as members have.

    `right` is the card's: what a model writes from it is its author's, through the model.
    """
    speaker = SourceSpeaker(persona.id, (persona.name,), is_persona=True)
    for reply in replies:
        guest = SourceSpeaker(GUEST_IDS[reply.number % len(GUEST_IDS)], (DATASET_USER,))
        row = f"question {reply.number}"
        messages = (
            SourceMessage(guest, reply.question, row),
            SourceMessage(speaker, reply.reply, row),
        )
        yield Conversation(
            messages,
            WRITTEN_SOURCE,
            right,
            raw_text=f"{reply.question}\n{reply.reply}",
            lang=reply.lang,
            arrived=arrived,
        )


def stand_ins(persona: Persona, questions: Sequence[Question], seed: int) -> list[WrittenReply]:
    """Return replies as long as the card's examples, of the card's words: a plan counts with them
    before any reply is written.
    """
    examples = [turn.text.split() for turn in example_turns(persona) if turn.by_persona]
    lengths = [len(words) for words in examples] or [STAND_IN_WORDS]
    words = system_text(persona, "").split() or [persona.name]
    draw = random.Random(seed)  # nosec B311  # repeatable
    replies = []
    for place, question in enumerate(questions):
        length = lengths[place % len(lengths)]
        text = " ".join(draw.choices(words, k=length))
        reply = WrittenReply(place, question.text, text, kind=question.kind, lang=question.lang)
        replies.append(reply)
    return replies
