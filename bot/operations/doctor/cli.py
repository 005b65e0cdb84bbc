"""`python -m bot doctor`, which checks everything the bot needs, and `python -m bot invite`, which
prints its URL.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bot.operations.doctor import local_checks, server_checks, trainer_check
from bot.operations.doctor.checks import BotCheck, failed_checks
from bot.operations.doctor.connection_checks import check_discord, fetch_application_id
from bot.platform.permissions import (
    MEMBERS,
    MESSAGE_CONTENT,
    REQUIRED_PERMISSIONS,
    RequiredPermission,
    invite_url,
    permission_title,
)
from bot.settings import SettingsError, load_settings
from personas.cli_common import as_typed, supports_colour
from personas.errors import RequestError, UnderstudyError
from personas.shipped_folders import SETUP_COMMAND

STATE_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
NAME_WIDTH_CHARS = 22  # the longest name is "llama.cpp candidates"


def run_doctor(arguments: argparse.Namespace) -> int:
    """Run all checks and print them. Returns the exit code."""
    checks = []
    for check in run_checks(arguments):
        checks.append(check)
        if not arguments.json:
            lines = "\n".join(_check_lines(check, coloured=supports_colour()))
            print(as_typed(lines), flush=True)
    wrong = failed_checks(checks)
    if arguments.json:
        print(
            json.dumps(
                {"well": not wrong, "checks": [asdict(check) for check in checks]},
                ensure_ascii=False,
            )
        )
    elif wrong:
        print(
            f"The bot does not work here yet: {', '.join(wrong)}. See the advice above.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def run_checks(arguments: argparse.Namespace) -> Iterator[BotCheck]:
    """Yield each check as it finishes; none further where the settings cannot be read."""
    try:
        settings = load_settings(arguments.env, os.environ)
    except SettingsError as error:
        yield BotCheck("settings", "fail", error.message, error.advice)
        return
    source = "the environment alone"
    if arguments.env.exists():
        source = f"read from {arguments.env}"
    yield BotCheck("settings", "ok", source)
    at_discord: list[BotCheck] = []
    if settings.discord_token and not arguments.quick:
        _print_status("asking Discord …")
        at_discord = asyncio.run(check_discord(settings))
    accepted = any(check.name == "Discord" and check.state == "ok" for check in at_discord)
    yield from local_checks.check_machine(settings, token_accepted=accepted)
    yield from at_discord
    if arguments.quick:
        return
    if settings.engine != "local":
        _print_status("asking the engine's servers …")
        yield from asyncio.run(server_checks.check_replicas(settings))
    if settings.trainer == "ray":
        _print_status("asking the Ray cluster …")
        yield from asyncio.run(server_checks.check_cluster(settings))
    _print_status("checking what this machine can train, half a minute …")
    yield from _trainer_checks(settings.base_model)


def _trainer_checks(base_model: str) -> Iterable[BotCheck]:
    try:
        return asyncio.run(trainer_check.check_trainer(base_model, os.environ))
    except (OSError, UnderstudyError) as error:
        return [BotCheck("trainer", "fail", f"it cannot be started: {error}", SETUP_COMMAND)]


def _check_lines(check: BotCheck, *, coloured: bool) -> Iterator[str]:
    state = f"{check.state:<4}"
    if coloured:
        state = f"\x1b[{STATE_COLOURS[check.state]}m{state}\x1b[0m"
    yield f"{state}  {check.name:<{NAME_WIDTH_CHARS}}{check.found}"
    if check.remedy:
        yield f"{'':<{NAME_WIDTH_CHARS + 6}}→ {check.remedy}"


def _print_status(what: str) -> None:
    """Print to a terminal only: programs read the results alone."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


def run_invite(arguments: argparse.Namespace, home: Path) -> int:
    """Print the URL. Raises `UnderstudyError` where the application is unknown."""
    application_id = arguments.application
    if application_id is None:
        if not (token := arguments.settings.discord_token):
            raise RequestError(
                "The application is unknown: there is no DISCORD_TOKEN.",
                "Set it, or name the application with --application (Developer Portal → General "
                "Information).",
            )
        application_id = asyncio.run(fetch_application_id(token))
    url = invite_url(application_id)
    if arguments.json:
        print(json.dumps(_as_json(url), indent=1))
    else:
        print("\n".join(_invite_lines(url)))
    return 0


def _invite_lines(url: str) -> Iterator[str]:
    yield url
    yield ""
    yield "It asks for:"
    yield from map(_permission_line, REQUIRED_PERMISSIONS)
    yield "And, in the Developer Portal under Bot → Privileged Gateway Intents, if you like:"
    yield _permission_line(MESSAGE_CONTENT)
    yield _permission_line(MEMBERS)


def _permission_line(need: RequiredPermission) -> str:
    return f"  {permission_title(need):<26} to {need.why}; without it {need.cost}"


def _as_json(url: str) -> dict[str, Any]:
    def describe_need(need: RequiredPermission) -> dict[str, str]:
        return {"name": need.permission, "why": need.why, "without": need.cost}

    return {
        "url": url,
        "permissions": [describe_need(need) for need in REQUIRED_PERMISSIONS],
        "intents": [describe_need(need) for need in (MESSAGE_CONTENT, MEMBERS)],
    }
