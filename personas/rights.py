"""Under which right material may be trained on: who states it, and what is decided from that.

A statement stands in `rights.toml` in the file's own folder, a table per file or folder name:

  ["harbour.jsonl"]
  right = "licensed:CC-BY-4.0"        # or own-writing, data-package, form, discord-api
  stated_by = "Mina Vale"
  stated_on = 2026-11-20
  why = "Written for this server; every author agreed."

What came through Discord's API is `discord-api` unless such a statement signs for another right. Discord's developer
policy (8 July 2024, rule 21) forbids training on it without Discord's express permission, anonymised or not.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from personas.consent import Consent
from personas.errors import MaterialError

DISCORD_API = "discord-api"
DATA_PACKAGE = "data-package"
PLAIN = ("own-writing", DATA_PACKAGE, "form", DISCORD_API)
RIGHTS = (*PLAIN, "licensed:<name>")
LICENSED = re.compile(r"licensed:[^\s<>|\x00-\x1f\x7f][^<>|\x00-\x1f\x7f]{0,63}")

RIGHTS_FILE = "rights.toml"
NEEDED = ("stated_by", "stated_on", "why")
FIELDS = frozenset(("right", *NEEDED))
SHIPPED_ON = date(2026, 11, 21)
"""Until then dates count on machines whose clocks are behind, too: what ships states its rights before it."""
ON_THE_COMMAND_LINE = "stated on the command line"
"""Who states a right that `--right` claims."""
SETTING, OPT_IN = "DISCORD_PERMISSION", "/privacy opt-in"


def wrong_right(right: object) -> str:
    """What is wrong with a right, as the end of a sentence; empty when nothing is."""
    if isinstance(right, str) and (right in PLAIN or LICENSED.fullmatch(right)):
        return ""
    if isinstance(right, str) and right.partition(":")[0] == "licensed":
        return "does not name the licence: write licensed:<name>, such as licensed:CC-BY-4.0"
    return f"names an unknown right, {right!r}"


def _known(right: str) -> str:
    if wrong := wrong_right(right):
        raise ValueError(f"it {wrong}")
    return right


Right = Annotated[str, AfterValidator(_known)]
"""One of `RIGHTS`, with the licence's or agreement's own name in place of `<name>`."""


@dataclass(frozen=True)
class Statement:
    """A stated right: by whom, when (ISO 8601 date), and why it is so."""

    right: Right
    stated_by: str
    stated_on: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """What is decided about a source: trained on under `right`, or refused, with what would be needed instead.

    `right` is empty where there is none.
    """

    right: Right
    refused: str = ""
    advice: str = ""

    def require(self) -> Right:
        """The right. Raises `MaterialError` where the source is refused."""
        if self.refused:
            raise MaterialError(self.refused, self.advice)
        return self.right


def decide(name: str, *, by_form: Right = "", signed: Right = "", claimed: Right = "", consent: Consent) -> Verdict:
    """Whether a source may be trained on. Everything that trains, or plans or prepares it, asks here.

    `by_form` is the right that its format says by itself (`discord-api`, `data-package`), empty where it says none;
    `signed` the one in `rights.toml` or the operator's catalogue; `claimed` the one on the command line, which counts
    only where neither says anything. Of `discord-api` only what opted-in members wrote may then be taken.
    """
    right = signed or by_form or claimed
    if not right:
        return Verdict("", f"{name} may not be trained on: nobody has stated a right to it.", how_to_sign(name))
    if right != DISCORD_API or (consent.permission and consent.opted_in):
        return Verdict(right)
    lacking = (
        "nobody has opted in"
        if consent.permission
        else "Discord's developer policy forbids training on that without Discord's permission"
    )
    refused = f"{name} may not be trained on: it came through Discord's API, and {lacking}."
    unheard = f"`--right {claimed}` does not change that. " if claimed and claimed != DISCORD_API else ""
    return Verdict(right, refused, f"{unheard}{what_discord_takes(consent)} {how_to_sign(name, else_=True)}")


def what_discord_takes(consent: Consent) -> str:
    """What has to be there before something that came through Discord's API is trained on, and what of it is."""
    stated = "which is stated" if consent.permission else "which is not stated"
    count = len(consent.opted_in)
    opted_in = f"{count} so far" if count else "nobody so far"
    return (
        f"It takes both Discord's permission, in the operator's setting {SETTING} ({stated}), and members who have "
        f"opted in with {OPT_IN} ({opted_in}); only what they wrote is taken then."
    )


def how_to_sign(name: str, *, else_: bool = False) -> str:
    """How a right is stated for good."""
    lead = "If it did not come through Discord's API, whoever" if else_ else "Whoever"
    return (
        f'{lead} holds the rights states so in {RIGHTS_FILE} beside it: a table ["{name}"] with right (own-writing, '
        "data-package, form or licensed:<name>), stated_by, stated_on and why; the operator's catalogue may, too."
    )


def nobody_opted_in(name: str) -> MaterialError:
    """The refusal of what came through Discord's API and holds nothing by members who opted in."""
    return MaterialError(
        f"Nothing in {name} may be trained on: it came through Discord's API, and of those who are answered in it, or "
        "play the persona, nobody has opted in.",
        f"Members opt in with {OPT_IN}; they are known by their Discord ids.",
    )


# ------------------------------------------------------------------------------------------------ statements


def statement_beside(file: Path) -> Statement | None:
    """What `rights.toml` beside a file or folder states of it, None without a word.

    Raises `MaterialError` when it cannot be read or leaves something out.
    """
    rights = file.parent / RIGHTS_FILE
    short = f"{rights.parent.name}/{rights.name}"  # as members may see it: without the folders of this machine
    try:
        stated = tomllib.loads(rights.read_text(encoding="utf-8-sig")).get(file.name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        raise MaterialError(
            f"{short} cannot be read: {reason}.", "Correct it; nothing is trained until then."
        ) from error
    if not isinstance(stated, dict) or not stated:
        return None
    if unknown := sorted(stated.keys() - FIELDS):
        raise MaterialError(
            f"{short} has unknown fields for {file.name}: {', '.join(unknown)}.", f"Known: {', '.join(sorted(FIELDS))}."
        )
    if not stated.get("right"):
        return None
    if wrong := wrong_statement(stated):
        raise MaterialError(f"{short} {wrong} for {file.name}.", f"Known rights: {', '.join(RIGHTS)}.")
    return statement_of(stated)


def wrong_statement(stated: Mapping[str, object]) -> str:
    """What is wrong with a table that states a right, as the end of a sentence; empty when it is complete."""
    if missing := [key for key in NEEDED if not stated.get(key)]:
        return f"leaves out {', '.join(missing)}"
    return wrong_date(stated["stated_on"]) or wrong_right(stated.get("right"))


def wrong_date(stated_on: object) -> str:
    """What is wrong with the date of a statement, as the end of a sentence; empty when nothing is."""
    if not (on := _date(stated_on)):
        return "has a stated_on that is no date (2026-11-20)"
    if date.fromisoformat(on) > max(datetime.now(UTC).date() + timedelta(days=1), SHIPPED_ON):
        return f"has a stated_on that has not come yet ({on})"
    return ""


def statement_of(stated: Mapping[str, object]) -> Statement:
    """The statement of a complete table."""
    on = _date(stated["stated_on"])
    return Statement(str(stated["right"]), str(stated["stated_by"]), on, str(stated["why"]))


def _date(value: object) -> str:
    """A date as ISO 8601 writes it; empty for what is none."""
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return ""
