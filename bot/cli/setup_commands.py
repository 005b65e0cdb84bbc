"""Commands for setting up: `invite` prints the bot's invite URL, `completion` prints shell completion scripts."""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bot.cli import ask
from bot.doctor.discord_checks import fetch_application_id
from bot.permissions import MESSAGE_CONTENT, REQUIRED_PERMISSIONS, RequiredPermission, invite_url, permission_title
from personas.cli_common import SHELLS, CommandParsers, add_command, completion_script
from personas.errors import RequestError

INVITE_NOTES = """\
examples:
  python -m bot invite                                     the bot of DISCORD_TOKEN
  python -m bot invite --application 1100000000000000001   without a token: the Application ID of the Developer Portal
  python -m bot invite --json

Open the URL with an account that has Manage Server in the target server. Discord lists the same permissions; each can
be unticked, and the list here says what does not work without it."""
PROGRAM_NAME = "understudy"  # the name for shells: they complete by the first word, and `python` is too general
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
    command = add_command(commands, "invite", "the invite URL, with the reason for each permission", INVITE_NOTES)
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
                "Set it, or name the application with --application (Developer Portal → General Information).",
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


def add_completion_command(commands: CommandParsers, parser: Callable[[str], argparse.ArgumentParser]) -> None:
    """Add `completion`, which needs no settings; `parser` builds the whole parser under a name."""
    command = add_command(commands, "completion", "print a shell completion script", COMPLETION_NOTES)
    command.add_argument("shell", choices=SHELLS, help="which shell")

    def run(arguments: argparse.Namespace) -> int:
        print(completion_script([parser(PROGRAM_NAME), ask.build_ask_parser()], arguments.shell))
        return 0

    command.set_defaults(before_settings=run)
