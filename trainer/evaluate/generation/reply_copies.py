"""Detects replies that copy what a version has learned, or what its card says."""

from collections.abc import Iterable, Sequence

from personas.prompt.renderer import system_text
from personas.schemas.scorecard import HELDOUT_TASK, ReplyCounts, Side
from trainer.dataset.dataset import Dataset
from trainer.dataset.synthetic.speaking_notes import spoken_lines
from trainer.evaluate.generation.reply_tasks import GeneratedReply, select_replies, true_share
from trainer.evaluate.generation.text_metrics import (
    SHARED_RUN_WORDS,
    is_unsegmented,
    split_words,
    word_runs,
)

MIN_COPIED_WORDS = 4
"""Words of a whole reply from which it is a copy: anybody says "good morning, duck" twice."""


class CopyDetector:
    """Detects copies of some texts: replies that have eight of their words in a row, or are one of
    them as a whole; in scripts without spaces, sixteen characters.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._copied: set[tuple[str, ...]] = set()
        for text in texts:
            words = tuple(split_words(text))
            length = SHARED_RUN_WORDS * (2 if is_unsegmented([text]) else 1)
            self._copied.update(word_runs(words, length))
            if len(words) >= MIN_COPIED_WORDS:
                self._copied.add(words)

    @classmethod
    def of_data(cls, data: Dataset) -> "CopyDetector":
        """Return the detector of copies of the trained replies, and of the card, of a data set's
        persona.
        """
        texts = [pair.reply for pair in data.train_prompt_replies if pair.by_persona]
        if data.persona:
            texts += [*spoken_lines(data.persona), system_text(data.persona, "")]
        return cls(texts)

    def is_copy(self, reply: str) -> bool:
        """Report whether a reply is a copy."""
        words = tuple(split_words(reply))
        runs = [words]
        for length in (SHARED_RUN_WORDS, 2 * SHARED_RUN_WORDS):
            runs += word_runs(words, length)
        return not self._copied.isdisjoint(runs)


def count_replies(
    copies: CopyDetector, answers: Sequence[GeneratedReply], sides: Iterable[Side]
) -> ReplyCounts | None:
    """Count the replies to held-out prompts that end by themselves, and those that are copies; None
    without replies.
    """
    ended: dict[Side, float] = {}
    copied: dict[Side, float] = {}
    for side in sides:
        replies = select_replies(answers, HELDOUT_TASK, side=side)
        if not replies:
            return None
        ended[side] = true_share(reply.ended for reply in replies)
        copied[side] = true_share(copies.is_copy(reply.text) for reply in replies)
    asked = {answer.prompt.number for answer in answers if answer.prompt.task == HELDOUT_TASK}
    return ReplyCounts(prompts=len(asked), ended=ended, copied=copied)
