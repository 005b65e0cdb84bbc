"""Commands for setting up: `doctor` checks everything the bot needs, `invite` prints its URL,
`completion` a script.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bot.cli import ask
from bot.operations.doctor import local_checks
from bot.operations.doctor.connection_checks import check_discord, fetch_application_id
from bot.operations.doctor.local_checks import BotCheck, failed_checks
from bot.platform.permissions import (
    MESSAGE_CONTENT,
    REQUIRED_PERMISSIONS,
    RequiredPermission,
    invite_url,
    permission_title,
)
from bot.settings import SettingsError, load_settings
from personas.cli_common import (
    SHELLS,
    CommandParsers,
    add_command,
    completion_script,
    supports_colour,
)
from personas.errors import RequestError, UnderstudyError

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
            print("\n".join(_check_lines(check, coloured=supports_colour())), flush=True)
    wrong = failed_checks(found)
    if arguments.json:
        print(
            json.dumps(
                {"well": not wrong, "checks": [asdict(check) for check in found]},
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
    read = str(arguments.env) if arguments.env.exists() else "the environment alone"
    yield BotCheck("settings", "ok", f"read from {read}" if arguments.env.exists() else read)
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


def _check_lines(check: BotCheck, *, coloured: bool) -> Iterator[str]:
    state = (
        f"\x1b[{STATE_COLOURS[check.state]}m{check.state:<4}\x1b[0m"
        if coloured
        else f"{check.state:<4}"
    )
    yield f"{state}  {check.name:<{NAME_WIDTH_CHARS}}{check.found}"
    if check.remedy:
        yield f"{'':<{NAME_WIDTH_CHARS + 6}}→ {check.remedy}"


def _print_status(what: str) -> None:
    """Print to a terminal only: programs read the results alone."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


INVITE_NOTES = """\
examples:
  python -m bot invite                                     the bot of DISCORD_TOKEN
  python -m bot invite --application 1100000000000000001   without a token: the Application ID of the Developer Portal
  python -m bot invite --json

Open the URL with an account that has Manage Server in the target server. Discord lists the same permissions; each can
be unticked, and the list here says what does not work without it."""
# The name for shells: they complete by the first word, and `python` is too general.
PROGRAM_NAME = "understudy"
COMPLETION_NOTES = """\
examples:
  python -m bot completion bash | tee ~/.local/share/bash-completion/completions/{understudy,model_inference}
  python -m bot completion zsh > ~/.zfunc/_understudy
  python -m bot completion fish | tee ~/.config/fish/completions/{understudy,model_inference}.fish

Completes `understudy`, which is the same as `python -m bot`, and `model_inference`; both are in .venv/bin. The folders
above must exist; in zsh, ~/.zfunc must be in fpath before compinit. bash (with bash-completion) and fish look for files
with the commands' names. For the current terminal only, in bash or zsh: source <(.venv/bin/understudy completion bash),
and in fish: .venv/bin/understudy completion fish | source. The trainer's commands are `understudy-trainer`: python -m
trainer completion bash."""


def add_invite_command(commands: CommandParsers) -> None:
    command = add_command(
        commands, "invite", "the invite URL, with the reason for each permission", INVITE_NOTES
    )
    hint = "of this application (default: the token's)"
    command.add_argument("--application", type=_application_id, metavar="ID", help=hint)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run_invite)


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
    print(json.dumps(_as_json(url), indent=1) if arguments.json else "\n".join(_invite_lines(url)))
    return 0


def _invite_lines(url: str) -> Iterator[str]:
    yield url
    yield ""
    yield "It asks for:"
    yield from map(_permission_line, REQUIRED_PERMISSIONS)
    yield "And, in the Developer Portal under Bot → Privileged Gateway Intents, if you like:"
    yield _permission_line(MESSAGE_CONTENT)


def _permission_line(need: RequiredPermission) -> str:
    return f"  {permission_title(need):<26} to {need.why}; without it {need.cost}"


def _as_json(url: str) -> dict[str, Any]:
    def describe_need(need: RequiredPermission) -> dict[str, str]:
        return {"name": need.permission, "why": need.why, "without": need.cost}

    return {
        "url": url,
        "permissions": [describe_need(need) for need in REQUIRED_PERMISSIONS],
        "intents": [describe_need(MESSAGE_CONTENT)],
    }


def _application_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no Discord id (a number)")
    return int(text)


def add_completion_command(
    commands: CommandParsers, parser: Callable[[str], argparse.ArgumentParser]
) -> None:
    """Add `completion`, which needs no settings; `parser` builds the whole parser under a name."""
    command = add_command(
        commands, "completion", "print a shell completion script", COMPLETION_NOTES
    )
    command.add_argument("shell", choices=SHELLS, help="which shell")

    def run(arguments: argparse.Namespace) -> int:
        print(completion_script([parser(PROGRAM_NAME), ask.build_ask_parser()], arguments.shell))
        return 0

    command.set_defaults(before_settings=run)
