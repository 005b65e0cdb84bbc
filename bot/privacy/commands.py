"""`python -m bot privacy show|export|forget` and `python -m bot history`: for the operator, at a terminal."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bot import local_guild
from bot.backup import finish_restore
from bot.catalogue import ShippedData
from bot.history import write_history
from bot.personas import Personas
from bot.privacy.about import About
from bot.privacy.consent import Consents
from bot.privacy.forget import Forgetter, receipt_of
from bot.privacy.receipt import Receipt
from bot.privacy.service import AskedFor, leave_request
from bot.privacy.terminal import about_lines, receipt_lines
from bot.privacy.traces import SHORTEST_ID
from bot.settings import Settings
from bot.store import HomeInUseError, Store
from personas.consent import Consent
from personas.errors import RequestError
from personas.exports import note_export
from personas.progress import Plain

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

WAIT_S, LOOK_S = 600.0, 0.2

PRIVACY_NOTES = """\
examples:
  python -m bot privacy show --user 734829104458293761
  python -m bot privacy export --user 734829104458293761 --out about-them.json
  python -m bot privacy forget --user 734829104458293761 --name "Ada Winter" --name ada_w

For people who have left, or who write to you. Members do the same for themselves with /privacy. The bot may run
meanwhile. Names are looked for in everything that lies in the home: give those that only this person bears."""

HISTORY_NOTES = """\
examples:
  python -m bot history --guild 910000000000000001 --persona oda --out oda-history.jsonl
  python -m trainer dataset inspect oda-history.jsonl

Only with Discord's permission (DISCORD_PERMISSION), and only what members wrote who opted in."""


def add_commands(commands: Commands) -> None:
    """Add `privacy` and `history`. Each sets `run`, which takes the arguments, among them `settings`, and the home."""
    plain = argparse.RawDescriptionHelpFormatter
    privacy = commands.add_parser(
        "privacy", help="what is kept about somebody, and forgetting them", epilog=PRIVACY_NOTES, formatter_class=plain
    )
    subcommands = privacy.add_subparsers(required=True, metavar="COMMAND")
    for name, run, words in (
        ("show", run_show, "say what is kept about somebody"),
        ("export", run_export, "write all that is kept about somebody to a file"),
        ("forget", run_forget, "forget somebody for good"),
    ):
        command = subcommands.add_parser(name, help=words, epilog=PRIVACY_NOTES, formatter_class=plain)
        command.add_argument("--user", type=_user_id, required=True, metavar="ID", help="their Discord id")
        command.add_argument(
            "--name", action="append", default=[], help="a name under which they are known; may be given several times"
        )
        command.set_defaults(run=run)
        if name == "export":
            command.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
        if name == "forget":
            command.add_argument("--yes", action="store_true", help="do not ask")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    history = commands.add_parser(
        "history", help="write stored conversations as a log", epilog=HISTORY_NOTES, formatter_class=plain
    )
    history.add_argument("--guild", type=_user_id, required=True, metavar="ID", help="the server's id")
    history.add_argument("--persona", required=True, metavar="ID", help="whose answers")
    history.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to")
    history.add_argument("--json", action="store_true", help="print one JSON object")
    history.set_defaults(run=run_history)


def run_show(arguments: argparse.Namespace, home: Path) -> int:
    """Say what is kept about somebody. Raises `UnderstudyError`."""
    with _reading(home) as store:
        about = About(_forgetter(arguments.settings, store), arguments.user, tuple(arguments.name),
                      arguments.settings.history_days)  # fmt: skip
        if arguments.json:
            print(about.export().decode())
        else:
            print("\n".join(about_lines(about)))
    return 0


def run_export(arguments: argparse.Namespace, home: Path) -> int:
    """Write all about somebody to a file. Raises `UnderstudyError`."""
    with _reading(home) as store:
        content = About(_forgetter(arguments.settings, store), arguments.user, tuple(arguments.name)).export()
    try:
        with arguments.out.open("xb") as out:
            arguments.out.chmod(0o600)
            out.write(content)
    except OSError as error:
        raise RequestError(f"{arguments.out} cannot be written: {error.strerror}.", "Name another file.") from error
    size = len(content)
    print(
        json.dumps({"path": str(arguments.out), "bytes": size}) if arguments.json else f"{arguments.out}: {size} bytes"
    )
    return 0


def run_forget(arguments: argparse.Namespace, home: Path) -> int:
    """Forget somebody; the bot that runs does it where there is one. Raises `UnderstudyError`."""
    finish_restore(home)
    if not (home / "understudy.sqlite").exists():
        raise RequestError(f"There is no database in {home}.", "Check UNDERSTUDY_HOME.")
    if not arguments.yes and not _sure(arguments.user):
        return 1
    try:
        with Store.open(home / "understudy.sqlite") as store:
            receipt = _forget_here(arguments, store)
    except HomeInUseError:
        receipt = _have_forgotten(arguments, home)
    print(receipt.model_dump_json() if arguments.json else "\n".join(receipt_lines(receipt, is_done=True)))
    return 0


def run_history(arguments: argparse.Namespace, home: Path) -> int:
    """Write a server's history with a persona to a file. Raises `UnderstudyError`."""
    with _reading(home) as store:
        forgetter = _forgetter(arguments.settings, store)
        permission = Consent(permission=arguments.settings.discord_permission)
        try:
            count = write_history(store, permission, arguments.guild, arguments.persona, arguments.out)
        except OSError as error:
            raise RequestError(f"{arguments.out} cannot be written: {error.strerror}.", "Name another file.") from error
        people = {forgetter.keyed(str(user_id)) for user_id in store.people.opted_in()}
    note_export(home, "history", arguments.out, people)
    said = {"path": str(arguments.out), "messages": count}
    print(json.dumps(said) if arguments.json else f"{arguments.out}: {count} messages")
    return 0


# ------------------------------------------------------------------------------------------------ forgetting


def _forget_here(arguments: argparse.Namespace, store: Store) -> Receipt:
    forgetter = _forgetter(arguments.settings, store)
    traces = forgetter.traces(arguments.user, sure_names=arguments.name)
    return asyncio.run(forgetter.run(forgetter.begin(traces)))


def _have_forgotten(arguments: argparse.Namespace, home: Path) -> Receipt:
    """Leave the request to the bot that runs, and wait until it has been done."""
    since = time.time()
    file = leave_request(home, AskedFor(user_id=arguments.user, names=tuple(arguments.name)))
    plain = Plain()
    while time.time() - since < WAIT_S:
        time.sleep(LOOK_S)
        plain.say("waiting until the bot that runs has done it")
        if file.exists():
            continue
        with _reading(home) as store:
            person = _forgetter(arguments.settings, store).keyed(str(arguments.user))
            done = [row for row in store.forgettings.of(person) if row.asked_at >= since and not row.step]
        if done:
            return receipt_of(done[0])
    raise RequestError(
        "The bot that runs has not finished yet.",
        "It goes on by itself; `python -m bot privacy show` says how far it is.",
    )


def _forgetter(settings: Settings, store: Store) -> Forgetter:
    consents = Consents(settings.home, store, settings.discord_permission)
    personas = Personas(ShippedData.beside_the_code().cards, settings.home)
    leave = None if settings.discord_token else functools.partial(local_guild.forget_at_rest, settings.home)
    return Forgetter(settings.home, store, consents, time.time, None, personas.every_name(), leave)


def _sure(user_id: int) -> bool:
    answer = input(f"Forget {user_id} for good? This cannot be undone. Type the id again: ")
    return answer.strip() == str(user_id)


@contextmanager
def _reading(home: Path) -> Iterator[Store]:
    store = Store.read_only(home / "understudy.sqlite")
    with store:
        yield store


def _user_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) >= SHORTEST_ID and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no Discord id (a number of {SHORTEST_ID} digits or more)")
    return int(text)
