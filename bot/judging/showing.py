"""One comparison for one member: the open one again, else a new one; the same rules wherever it is asked for."""

from __future__ import annotations

import time

from bot.errors import RefusedError
from bot.house import House
from bot.judging.pairs import Contest, made_comparison
from bot.store import Comparison

DAY_S = 86_400.0


async def shown_comparison(house: House, contest: Contest, user_id: int, guild_id: int) -> Comparison:
    """The comparison that a member has not voted on yet, else a new one, noted as shown now.

    One at a time is made for each member. Raises `RefusedError` where they have voted as often as one may, or where
    their replies are being written, and `UnderstudyError` where none can be made.
    """
    require_votes_left(house, user_id)
    now, pair = time.time(), (contest.version, contest.against)
    one = house.store.comparisons.open_of(user_id, guild_id, contest.persona.id, pair, now)
    if one is None:
        return await _new(house, contest, user_id, guild_id)
    house.store.comparisons.shown_again(one.seq, now)
    return one


def require_votes_left(house: House, user_id: int) -> None:
    """Raise `RefusedError` where a member has voted as often as one may in 24 hours."""
    most = house.comparisons_per_day
    if house.store.comparisons.votes_since(user_id, time.time() - DAY_S) >= most:
        often = "once" if most == 1 else f"{most} times"
        raise RefusedError(f"You have voted {often} in the last 24 hours, as often as one may.", "Come back tomorrow.")


async def _new(house: House, contest: Contest, user_id: int, guild_id: int) -> Comparison:
    if user_id in house.comparing:
        raise RefusedError("Your two replies are being written.", "They come in a moment.")
    house.comparing.add(user_id)
    try:
        made = await made_comparison(house, contest, user_id, guild_id)
    finally:
        house.comparing.discard(user_id)
    return house.store.comparisons.show(made, time.time())
