"""What of a log that came through Discord's API may be trained on: what opted-in members said, and what answers them.

The persona's own lines are nobody's where a bot said them. Where a person plays it, that person must have opted in too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from personas.rights import DISCORD_API
from trainer.conversation import Rejected
from trainer.sources.cast import Author, Said, rows_of
from trainer.sources.formats import ReadOptions

NOT_OPTED_IN = "said by somebody who has not opted in"
PLAYER_NOT_OPTED_IN = "the persona is played by somebody who has not opted in"
ANSWERS_OTHERS = "answers somebody who has not opted in"
UNANSWERED = "leads to no reply that may be used"
REASONS = (NOT_OPTED_IN, PLAYER_NOT_OPTED_IN, ANSWERS_OTHERS, UNANSWERED)


class Door:
    """Decides line by line; stands open for material under any other right, and where nobody asks."""

    def __init__(self, options: ReadOptions, plays: Callable[[Author], bool]) -> None:
        """`plays` tells whether an author speaks as the persona."""
        self._is_open = options.consent is None or options.right != DISCORD_API
        self._opted_in = options.consent.opted_in if options.consent else frozenset[str]()
        self._plays = plays

    def admits(self, author: Author) -> bool:
        """Whether what an author says may be used. Bots are nobody; those that are not the persona were left out."""
        return self._is_open or author.is_bot or author.id in self._opted_in

    def _lets_in(self, said: Said) -> bool:
        return not said.row or self.admits(said.author)  # what stands for something missing was said by nobody

    def admitted(self, session: list[Said]) -> tuple[list[Said], list[Rejected]]:
        """What may be used of a session, and the rest with its reasons."""
        if self._is_open:
            return session, []
        reasons = self._reasons(session)
        kept = [said for said, reason in zip(session, reasons, strict=True) if not reason]
        has_persona = any(self._plays(said.author) for said in session)
        if has_persona and not any(self._plays(said.author) for said in kept[1:]):
            reasons, kept = [reason or UNANSWERED for reason in reasons], []
        left_out = [
            Rejected(said.row, reason, rows_of([said])) for said, reason in zip(session, reasons, strict=True) if reason
        ]
        return kept, left_out

    def _reasons(self, session: Sequence[Said]) -> list[str]:
        """Of each line why it may not be used. Without a stated reference a reply answers all since the one before."""
        by_id = {said.id: said for said in session if said.id}
        asked: list[Said] = []
        is_answered = False
        reasons = []
        for said in session:
            if not self._plays(said.author):
                asked, is_answered = [said] if is_answered else [*asked, said], False
                reasons.append("" if self._lets_in(said) else NOT_OPTED_IN)
                continue
            is_answered = True
            if not self.admits(said.author):
                reasons.append(PLAYER_NOT_OPTED_IN)
                continue
            target = by_id.get(said.reply_to)
            if said.reply_to and target is None:  # nobody knows whose words these answer
                reasons.append(ANSWERS_OTHERS)
                continue
            answered = [target] if target and not self._plays(target.author) else asked
            reasons.append("" if all(self._lets_in(one) for one in answered) else ANSWERS_OTHERS)
        return reasons
