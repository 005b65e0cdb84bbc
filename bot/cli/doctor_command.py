"""`python -m bot doctor`: checks settings, home, Discord permissions and the trainer."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from bot.doctor import discord_checks, local_checks
from bot.doctor.local_checks import BotCheck, failed_checks
from bot.settings import SettingsError, load_settings
from personas.cli_common import CommandParsers, add_command, supports_colour
from personas.errors import UnderstudyError

DOCTOR_NOTES = """\
examples:
  python -m bot doctor
  python -m bot doctor --quick        without Discord, the engine's servers and the trainer; a moment
  python -m bot doctor --json

It looks at the settings, the home and its disk, the port and the token; with a token at what Discord grants; with
ENGINE=vllm or openai at each server, and with TRAINER=ray at the cluster, by a short job; then it asks the trainer's
doctor, half a minute. Nothing is changed, and the bot may run meanwhile.

exit codes: 0 the bot works (something may be missing or slower), 1 something does not work"""
STATE_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
NAME_WIDTH_CHARS = 16


def add_doctor_command(commands: CommandParsers) -> None:
    """Add `doctor`, which also runs when the settings cannot be read."""
    summary = "check settings, home, port, token, permissions and this machine, with remedies"
    doctor = add_command(commands, "doctor", summary, DOCTOR_NOTES)
    doctor.add_argument("--quick", action="store_true", help="only the quick checks")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(before_settings=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Run all checks and print them. Returns the exit code."""
    found = []
    for check in run_checks(arguments):
        found.append(check)
        if not arguments.json:
            print("\n".join(_lines(check, coloured=supports_colour())), flush=True)
    wrong = failed_checks(found)
    if arguments.json:
        print(json.dumps({"well": not wrong, "checks": [asdict(check) for check in found]}, ensure_ascii=False))
    elif wrong:
        print(f"The bot does not work here yet: {', '.join(wrong)}. See the advice above.", file=sys.stderr)
    return 1 if wrong else 0


def run_checks(arguments: argparse.Namespace) -> Iterator[BotCheck]:
    """Yield each check as it finishes; none further where the settings cannot be read."""
    try:
        settings = load_settings(arguments.env, os.environ)
    except SettingsError as error:
        yield BotCheck("settings", "fail", error.message, error.advice)
        return
    read = str(arguments.env) if arguments.env.exists() else "the environment alone"
    yield BotCheck("settings", "ok", f"read from {read}" if arguments.env.exists() else read)
    yield from local_checks.check_machine(settings)
    if arguments.quick:
        return
    if settings.discord_token:
        _print_status("asking Discord …")
        yield from asyncio.run(discord_checks.check_discord(settings))
    if settings.engine != "local":
        _print_status("asking the engine's servers …")
        yield from asyncio.run(local_checks.check_replicas(settings))
    if settings.trainer == "ray":
        _print_status("asking the Ray cluster …")
        yield from asyncio.run(local_checks.check_cluster(settings))
    _print_status("checking what this machine can train, half a minute …")
    yield from _trainer_checks(settings.base_model)


def _trainer_checks(base_model: str) -> Iterable[BotCheck]:
    try:
        return asyncio.run(local_checks.check_trainer(base_model, os.environ))
    except (OSError, UnderstudyError) as error:
        return [BotCheck("trainer", "fail", f"it cannot be started: {error}", "make setup")]


def _lines(check: BotCheck, *, coloured: bool) -> Iterator[str]:
    state = f"\x1b[{STATE_COLOURS[check.state]}m{check.state:<4}\x1b[0m" if coloured else f"{check.state:<4}"
    yield f"{state}  {check.name:<{NAME_WIDTH_CHARS}}{check.found}"
    if check.remedy:
        yield f"{'':<{NAME_WIDTH_CHARS + 6}}→ {check.remedy}"


def _print_status(what: str) -> None:
    """Print to a terminal only: programs read the results alone."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)
