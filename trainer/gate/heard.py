"""What the criteria look at of what members said: blind votes, and 👍 and 👎."""

from __future__ import annotations

from collections.abc import Iterator

from personas.scorecard import FullScoreCard
from trainer.gate.measure import SHARE, TIMES, Measure, rival_of


def of_members(card: FullScoreCard) -> Iterator[Measure]:
    """Nothing for a version that nobody has heard yet."""
    heard = card.heard
    if heard is None:
        return
    whose = "the live version" if rival_of(card) == "live" else "the base model"
    counted = f"{heard.votes} blind votes, {heard.members} members counted"
    yield Measure(
        "members",
        "members do not like the other better",
        SHARE,
        heard.most,
        f"Too few members have compared it with {whose} to be certain of anything ({counted})."
        if heard.least is None or heard.most is None
        else f"Members prefer it to {whose} in {heard.least:.0%} to {heard.most:.0%} of comparisons ({counted}).",
        at_least=True,
    )
    (up, live_up), (down, live_down) = heard.up, heard.down
    yield Measure(
        "thumbs",
        "members do not dislike it more",
        TIMES,
        heard.evidence,
        f"Its replies have {up} 👍 and {down} 👎, those of {whose} {live_up} and {live_down}; the evidence that it is "
        f"disliked more is {heard.evidence:.1f}."
        if heard.evidence is not None
        else f"Its replies have {up} 👍 and {down} 👎; nobody could compare them with those of {whose}.",
    )
