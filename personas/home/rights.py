"""Rights to training material: statements in `rights.toml`, and the decision whether to train on a
source.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from personas.errors import MaterialError
from personas.home.data_subjects import Consent
from personas.schemas.base import DISCORD_API, RIGHTS, Right, right_error

RIGHTS_FILE = "rights.toml"
REQUIRED_FIELDS = ("stated_by", "stated_on", "why")
STATEMENT_FIELDS = frozenset(("right", *REQUIRED_FIELDS))
RELEASE_DATE = date(2026, 11, 21)
"""Dates up to the release are valid even where the clock is behind: shipped files state their
rights before it.
"""

COMMAND_LINE_STATEMENT = "stated on the command line"  # author of a right claimed with `--right`
REQUEST_STATEMENT = "stated with the request"  # author of the `right` of a request
CLAIMS = (COMMAND_LINE_STATEMENT, REQUEST_STATEMENT)
"""Authors of claimed rights, before which a format goes that implies one."""
PERMISSION_SETTING = "DISCORD_PERMISSION"
OPT_IN_COMMAND = "/privacy opt-in"


@dataclass(frozen=True)
class RightsStatement:
    """A stated right: by whom, when (ISO 8601 date), and why."""

    right: Right
    stated_by: str
    stated_on: str
    why: str


@dataclass(frozen=True)
class RightsDecision:
    """Decision on a source: trained on under `right` (empty: none), or `refused` with `advice` on
    what is missing.
    """

    right: Right
    refused: str = ""
    advice: str = ""

    def require(self) -> Right:
        """Return the right. Raises `MaterialError` if the source is refused."""
        if self.refused:
            raise MaterialError(self.refused, self.advice)
        return self.right


def decide_right(
    name: str,
    *,
    format_right: Right = "",
    stated: Right = "",
    claimed: Right = "",
    consent: Consent,
) -> RightsDecision:
    """Decide whether a source may be trained on. Everything that trains, plans or prepares training
    calls this.

    `format_right` is the right implied by its format (`discord-api`, `data-package`) or empty;
    `stated` the one in `rights.toml` or the operator's catalogue; `claimed` the one from the
    command line or a request, used only without the others. Of `discord-api` sources only messages by opted-in
    members may then be used.
    """
    right = stated or format_right or claimed
    if not right:
        refused = f"{name} may not be trained on: nobody has stated a right to it."
        return RightsDecision("", refused, describe_rights_statement(name))
    if right != DISCORD_API or (consent.permission and consent.opted_in):
        return RightsDecision(right)
    missing = "Discord's developer policy forbids training on that without Discord's permission"
    if consent.permission:
        missing = "nobody has opted in"
    refused = f"{name} may not be trained on: it came through Discord's API, and {missing}."
    override = (
        f"`--right {claimed}` does not change that. " if claimed and claimed != DISCORD_API else ""
    )
    advice = (
        f"{override}{describe_discord_requirements(consent)} "
        f"{describe_rights_statement(name, otherwise=True)}"
    )
    return RightsDecision(right, refused, advice)


def describe_discord_requirements(consent: Consent) -> str:
    """Describe what is needed to train on data from Discord's API, and which part of it is then
    used.
    """
    stated = "which is stated" if consent.permission else "which is not stated"
    count = len(consent.opted_in)
    opted_in = f"{count} so far" if count else "nobody so far"
    return (
        f"It takes both Discord's permission, in the operator's setting {PERMISSION_SETTING} "
        f"({stated}), and members "
        f"who have opted in with {OPT_IN_COMMAND} ({opted_in}); only what they wrote is taken then."
    )


def is_published(right: str) -> bool:
    """Report whether texts of this right may be shown to others as they are, or sent to a third
    party: own writing, and what is licensed.

    Texts that members gave for a persona here, or wrote on Discord, were not given to others.
    """
    return right == "own-writing" or right.startswith("licensed:")


def describe_rights_statement(name: str, *, otherwise: bool = False) -> str:
    """Describe how a right is stated in `rights.toml`."""
    lead = "If it did not come through Discord's API, whoever" if otherwise else "Whoever"
    return (
        f'{lead} holds the rights states so in {RIGHTS_FILE} beside it: a table ["{name}"] with right (own-writing, '
        "data-package, form or licensed:<name>), stated_by, stated_on and why; the operator's "
        "catalogue may, too."
    )


def no_consent_error(name: str) -> MaterialError:
    """Build the refusal of data from Discord's API without any message by members who opted in."""
    return MaterialError(
        f"Nothing in {name} may be trained on: it came through Discord's API, and of those who are "
        "answered in it, or "
        "play the persona, nobody has opted in.",
        f"Members opt in with {OPT_IN_COMMAND}; they are known by their Discord ids.",
    )


def read_statement(file: Path) -> RightsStatement | None:
    """Read the statement on a file or folder in `rights.toml` beside it; None without. Raises
    `MaterialError`.
    """
    rights = file.parent / RIGHTS_FILE
    short = f"{rights.parent.name}/{rights.name}"  # members may see it: no paths of this machine
    try:
        stated = tomllib.loads(rights.read_text(encoding="utf-8-sig")).get(file.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = (
            error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        )
        advice = "Correct it; nothing is trained until then."
        raise MaterialError(f"{short} cannot be read: {reason}.", advice) from error
    if not isinstance(stated, dict) or not stated:
        return None
    if unknown := sorted(stated.keys() - STATEMENT_FIELDS):
        raise MaterialError(
            f"{short} has unknown fields for {file.name}: {', '.join(unknown)}.",
            f"Known: {', '.join(sorted(STATEMENT_FIELDS))}.",
        )
    if not stated.get("right"):
        return None
    if wrong := statement_error(stated):
        raise MaterialError(
            f"{short} {wrong} for {file.name}.", f"Known rights: {', '.join(RIGHTS)}."
        )
    return parse_statement(stated)


def statement_error(stated: Mapping[str, object]) -> str:
    """Describe what is wrong with a statement table, as the end of a sentence; empty if it is
    complete.
    """
    if missing := [key for key in REQUIRED_FIELDS if not stated.get(key)]:
        return f"leaves out {', '.join(missing)}"
    return statement_date_error(stated["stated_on"]) or right_error(stated.get("right"))


def statement_date_error(stated_on: object) -> str:
    """Describe what is wrong with the date of a statement, as the end of a sentence; empty if it is
    valid.
    """
    if not (on := _iso_date(stated_on)):
        return "has a stated_on that is no date (2026-11-20)"
    if date.fromisoformat(on) > max(datetime.now(UTC).date() + timedelta(days=1), RELEASE_DATE):
        return f"has a stated_on that has not come yet ({on})"
    return ""


def parse_statement(stated: Mapping[str, object]) -> RightsStatement:
    on = _iso_date(stated["stated_on"])
    return RightsStatement(str(stated["right"]), str(stated["stated_by"]), on, str(stated["why"]))


def _iso_date(value: object) -> str:
    """Format a date as ISO 8601; empty for anything else."""
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return ""
