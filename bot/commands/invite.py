"""`python -m bot invite`: the address at which an owner of a server lets the bot in, and what it asks for."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.doctor.on_discord import application_id_of
from bot.permissions import MESSAGE_CONTENT, NEEDS, Need, invite_url, title_of
from personas.errors import RequestError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

NOTES = """\
examples:
  python -m bot invite                                     the bot that DISCORD_TOKEN is of
  python -m bot invite --application 1100000000000000001   without a token: the Application ID of the Developer Portal
  python -m bot invite --json

Open the address as somebody who has Manage Server there. Discord shows the same permissions once more, each with a tick
that can be taken away; what is lost then stands beside it here."""


def add_commands(commands: Commands) -> None:
    """Add `invite`."""
    command = commands.add_parser(
        "invite",
        help="the address that lets the bot into a server, and why it asks for what",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--application", type=_id, metavar="ID", help="of this application (default: the token's)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, home: Path) -> int:
    """Print the address. Raises `UnderstudyError` where it is not known whose."""
    application_id = arguments.application
    if application_id is None:
        if not (token := arguments.settings.discord_token):
            raise RequestError(
                "Whom to invite is not known: there is no DISCORD_TOKEN.",
                "Set it, or name the application with --application (Developer Portal → General Information).",
            )
        application_id = asyncio.run(application_id_of(token))
    url = invite_url(application_id)
    print(json.dumps(_as_json(url), indent=1) if arguments.json else "\n".join(_told(url)))
    return 0


def _told(url: str) -> Iterator[str]:
    yield url
    yield ""
    yield "It asks for:"
    yield from (f"  {title_of(need):<26} to {need.why}; without it {need.cost}" for need in NEEDS)
    yield "And, in the Developer Portal under Bot → Privileged Gateway Intents, if you like:"
    yield f"  {title_of(MESSAGE_CONTENT):<26} to {MESSAGE_CONTENT.why}; without it {MESSAGE_CONTENT.cost}"


def _as_json(url: str) -> dict[str, Any]:
    def told(need: Need) -> dict[str, str]:
        return {"name": need.permission, "why": need.why, "without": need.cost}

    return {"url": url, "permissions": [told(need) for need in NEEDS], "intents": [told(MESSAGE_CONTENT)]}


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no Discord id (a number)")
    return int(text)
