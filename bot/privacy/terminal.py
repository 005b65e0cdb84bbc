"""What the operator reads at a terminal about somebody: plain English, with paths, in the third person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bot.privacy.forget import receipt_of
from personas.exports import EVERYBODY, Export

if TYPE_CHECKING:
    from bot.privacy.about import About
    from bot.privacy.receipt import Receipt

ACTS = {
    "jobs": "trainings asked for", "promotions": "versions made live", "rollouts": "versions tried out",
    "channels": "channels given a persona", "mutes": "silences",
}  # fmt: skip


def about_lines(about: About) -> list[str]:
    """What is kept about somebody, and when they were forgotten."""
    kept = list(_kept(about))
    lines = [f"What is kept about {about.user_id} in {about.forgetter.home}:", *(kept or ["  nothing"])]
    decision = about.store.people.decision(about.user_id)
    lines.append(
        f"  training: opted in on {_day(decision.at)}"
        if decision and decision.opted_in
        else "  training: not opted in; what they write trains nothing"
    )
    for row in about.forgettings():
        lines += [
            f"Asked for on {_day(row.asked_at)}:",
            *receipt_lines(receipt_of(row), is_done=row.step in ("", "follow")),
        ]
    return lines


def _kept(about: About) -> Iterator[str]:
    counts, since = about.store.erasure.counts(about.user_id), about.store.erasure.since(about.user_id)
    if since is not None:
        yield f"  {counts['messages']} messages, the oldest of {_day(since)}; each is kept for {about.days} days"
    if counts["votes"]:
        yield f"  {counts['votes']} votes on replies"
    for gift in about.store.people.gifts_of(about.user_id):
        yield f"  given to the persona {gift.persona_id} of the server {gift.guild_id}: {gift.what}"
    if counts["taught"]:
        yield f"  {counts['taught']} replies taught to personas"
    if counts["comparisons"]:
        yield f"  {counts['comparisons']} comparisons of two replies, with what they chose"
    for name, what in ACTS.items():
        if counts[name]:
            yield f"  as a moderator: {counts[name]} {what}"
    yield from (f"  in the material of {path}" for path in about.trained())


def receipt_lines(receipt: Receipt, *, is_done: bool) -> list[str]:
    """What a forgetting did, or has done so far."""
    lines = [_title(receipt, is_done=is_done)]
    if receipt.scope == "everything":
        rows = {name: receipt.rows.get(name, 0) for name in ("messages", "replies", "votes", "mentions")}
        lines.append(
            "  deleted: {messages} messages, {replies} replies to them, {votes} votes; in {mentions} other texts their "
            "name or words were replaced".format(**rows)
        )
    lines += [f"  deleted: {path}" for path in receipt.deleted]
    lines += [f"  rewritten: {path}" for path in receipt.cut]
    lines += [f"  deleted, because it could not be cut: {path}" for path in receipt.lost]
    for one in receipt.withdrawn:
        instead = "" if one.now is None else f"; {one.now or 'the base model'} speaks now"
        lines.append(f"  withdrawn: {one.persona_id} {one.version}{instead}")
    lines += [f"  withdrawn: the dialogue adapter {one.persona_id}" for one in receipt.dialogues]
    if receipt.withdrawn or receipt.dialogues:
        lines.append("  The bot trains anew what was live, and says so in its channels, when it runs.")
    lines += [_left(export) for export in receipt.exports]
    if receipt.resumed:
        lines.append("  It was cut off in between, so these counts may be too low. Nothing was left out.")
    return lines


def _title(receipt: Receipt, *, is_done: bool) -> str:
    if not is_done:
        return "Being forgotten now."
    if receipt.scope == "trainings":
        return "Done: what was trained on them is withdrawn."
    return "Done: they are forgotten."


def _left(export: Export) -> str:
    """Of a backup nobody can say whom it holds: everybody of that time."""
    holds = "may hold them" if EVERYBODY in export.people else "holds them"
    return f"  has left before and {holds}: {export.path} ({export.what}, {_day(export.at)})"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
