"""Commands `python -m bot privacy show|export|forget` and `python -m bot history`, for the
operator.
"""

import argparse
import asyncio
import functools
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bot import demo_guild
from bot.operations.backup.restore import finish_restore
from bot.personas.registry import PersonaRegistry
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_receipt import ErasureReceipt, receipt_of
from bot.privacy.erasure_runner import ErasureRunner
from bot.privacy.erasure_service import OperatorErasureRequest, leave_request
from bot.privacy.member_report import MemberReport
from bot.settings import Settings
from bot.store import HOME_DATABASE, HomeInUseError, Store
from bot.training.stored_datasets import write_history
from personas.cli_common import LogProgress
from personas.errors import RequestError
from personas.home.data_subjects import Consent, ErasureFence
from personas.home.external_files import EVERYBODY, record_export
from personas.home.job_material import ShippedData

ACTION_LABELS = {
    "jobs": "training jobs requested", "promotions": "versions promoted",
    "channels": "channels with a persona assigned", "mutes": "mutes",
}  # fmt: skip
ERASURE_TIMEOUT_S = 600.0
ERASURE_POLL_INTERVAL_S = 0.2


def format_member_report(about: MemberReport) -> list[str]:
    """Format what is stored about a person in the home, and when they were erased."""
    stored = list(_stored_lines(about))
    lines = [f"Stored about {about.user_id} in {about.runner.home}:", *(stored or ["  nothing"])]
    decision = about.store.people.decision(about.user_id)
    if decision and decision.opted_in:
        lines.append(f"  training: opted in on {_day(decision.at)}")
    else:
        lines.append("  training: not opted in; nothing is trained on their messages")
    for row in about.erasures():
        receipt = format_receipt_lines(receipt_of(row), is_done=row.step in ("", "follow"))
        lines += [f"Asked for on {_day(row.asked_at)}:", *receipt]
    return lines


def _stored_lines(about: MemberReport) -> Iterator[str]:
    counts = about.store.erasure.counts(about.user_id)
    oldest = about.store.erasure.since(about.user_id)
    if oldest is not None:
        yield (
            f"  messages: {counts['messages']}, the oldest of {_day(oldest)}; each is kept for "
            f"{about.days} days"
        )
    if counts["votes"]:
        yield f"  votes on replies: {counts['votes']}"
    for gift in about.store.people.contributions_of(about.user_id):
        yield (
            f"  given to the persona {gift.persona_id} of the server {gift.guild_id}: {gift.what}"
        )
    if counts["taught"]:
        yield f"  replies taught to personas: {counts['taught']}"
    if counts["memories"]:
        yield f"  texts that they asked personas to remember: {counts['memories']}"
    if counts["comparisons"]:
        yield f"  comparisons of two replies, with what they chose: {counts['comparisons']}"
    for name, what in ACTION_LABELS.items():
        if counts[name]:
            yield f"  as a moderator: {what} ({counts[name]})"
    yield from (f"  in the training data of {path}" for path in about.trained())


def format_receipt_lines(receipt: ErasureReceipt, *, is_done: bool) -> list[str]:
    lines = [_title(receipt, is_done=is_done)]
    if receipt.scope == "everything":
        rows = Counter(receipt.rows)
        lines.append(
            f"  deleted: {rows['messages']} messages, {rows['replies']} replies to them, "
            f"{rows['votes']} votes; in {rows['mentions']} other texts their name or words were "
            "replaced"
        )
    lines += [f"  deleted: {path}" for path in receipt.deleted]
    lines += [f"  redacted: {path}" for path in receipt.cut]
    lines += [f"  deleted, because it could not be redacted: {path}" for path in receipt.lost]
    for version in receipt.withdrawn:
        line = f"  withdrawn: {version.persona_id} {version.version}"
        if version.now is not None:
            line += f"; {version.now or 'the base model'} answers now"
        lines.append(line)
    for dialogue in receipt.dialogues:
        lines.append(f"  withdrawn: the dialogue adapter {dialogue.persona_id}")
    if receipt.withdrawn or receipt.dialogues:
        lines.append(
            "  When it runs, the bot retrains what was live and announces it in its channels."
        )
    for export in receipt.exports:
        # A backup cannot be searched: it may contain everybody of that time.
        holds = "may contain them" if EVERYBODY in export.people else "holds them"
        what = f"{export.what}, {_day(export.at)}"
        lines.append(f"  has left before and {holds}: {export.path} ({what})")
    if receipt.resumed:
        lines.append("  It was interrupted, so these counts may be too low. Nothing was left out.")
    return lines


def _title(receipt: ErasureReceipt, *, is_done: bool) -> str:
    if not is_done:
        return "Erasure in progress."
    if receipt.scope == "trainings":
        return "Done: everything trained on them is withdrawn."
    return "Done: they are erased."


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def run_show(arguments: argparse.Namespace, home: Path) -> int:
    """Print what is stored about a person. Raises `UnderstudyError`."""
    with _open_report(arguments, home) as report:
        if arguments.json:
            print(report.export().decode())
        else:
            print("\n".join(format_member_report(report)))
    return 0


def run_export(arguments: argparse.Namespace, home: Path) -> int:
    """Write everything about a person to a file. Raises `UnderstudyError`."""
    with _open_report(arguments, home) as report:
        content = report.export()
    try:
        with arguments.out.open("xb") as out:
            arguments.out.chmod(0o600)
            out.write(content)
    except OSError as error:
        raise RequestError(
            f"{arguments.out} cannot be written: {error.strerror}.", "Name another file."
        ) from error
    result = {"path": str(arguments.out), "bytes": len(content)}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{arguments.out}: {len(content)} bytes")
    return 0


def run_forget(arguments: argparse.Namespace, home: Path) -> int:
    """Erase a person; a running bot does it where there is one. Raises `UnderstudyError`."""
    finish_restore(home)
    if not (home / HOME_DATABASE).exists():
        raise RequestError(f"There is no database in {home}.", "Check UNDERSTUDY_HOME.")
    if not arguments.yes and not _sure(arguments.user):
        return 1
    try:
        receipt = _forget_here(arguments, home)
    except HomeInUseError:
        receipt = _have_forgotten(arguments, home)
    if arguments.json:
        print(receipt.model_dump_json())
    else:
        print("\n".join(format_receipt_lines(receipt, is_done=True)))
    return 0


def run_history(arguments: argparse.Namespace, home: Path) -> int:
    """Write a guild's history with a persona to a file. Raises `UnderstudyError`."""
    fence = ErasureFence.begin(home)
    with Store.read_only(home / HOME_DATABASE) as store:
        runner = _erasure_runner(arguments.settings, store)
        permission = Consent(permission=arguments.settings.discord_permission)
        try:
            count = write_history(
                store,
                permission,
                guild_id=arguments.guild,
                persona_id=arguments.persona,
                out=arguments.out,
                storing=fence.storing,
            )
        except OSError as error:
            raise RequestError(
                f"{arguments.out} cannot be written: {error.strerror}.", "Name another file."
            ) from error
        people = {runner.keyed(str(user_id)) for user_id in store.people.opted_in()}
    record_export(home, "history", arguments.out, people)
    result = {"path": str(arguments.out), "messages": count}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{arguments.out}: {count} messages")
    return 0


def _forget_here(arguments: argparse.Namespace, home: Path) -> ErasureReceipt:
    with Store.open(home / HOME_DATABASE) as store:
        runner = _erasure_runner(arguments.settings, store)
        traces = runner.traces(arguments.user, sure_names=arguments.name)
        return asyncio.run(runner.run(runner.begin(traces)))


def _have_forgotten(arguments: argparse.Namespace, home: Path) -> ErasureReceipt:
    """Leave the request for the running bot, and wait until it is done."""
    since = time.time()
    file = leave_request(
        home, OperatorErasureRequest(user_id=arguments.user, names=tuple(arguments.name))
    )
    progress = LogProgress()
    while time.time() - since < ERASURE_TIMEOUT_S:
        time.sleep(ERASURE_POLL_INTERVAL_S)
        progress.update("waiting for the running bot")
        if file.exists():
            continue
        with Store.read_only(home / HOME_DATABASE) as store:
            person = _erasure_runner(arguments.settings, store).keyed(str(arguments.user))
            requests = store.erasure_requests.of(person)
        for request in requests:
            if request.asked_at >= since and not request.step:
                return receipt_of(request)
    raise RequestError(
        "The running bot has not finished yet.",
        "It continues by itself; `python -m bot privacy show` shows the progress.",
    )


def _erasure_runner(settings: Settings, store: Store) -> ErasureRunner:
    consents = ConsentMirror(settings.home, store, settings.discord_permission)
    personas = PersonaRegistry(ShippedData.from_source_tree().cards, settings.home)
    forget_in_sandbox = None
    if not settings.discord_token:
        forget_in_sandbox = functools.partial(demo_guild.forget_in_stored_sandbox, settings.home)
    return ErasureRunner(
        settings.home,
        store,
        consents=consents,
        now=time.time,
        hooks=None,
        personas=personas.all_names(),
        forget_in_sandbox=forget_in_sandbox,
    )


def _sure(user_id: int) -> bool:
    answer = input(f"Erase {user_id} for good? This cannot be undone. Type the id again: ")
    return answer.strip() == str(user_id)


@contextmanager
def _open_report(arguments: argparse.Namespace, home: Path) -> Iterator[MemberReport]:
    settings = arguments.settings
    with Store.read_only(home / HOME_DATABASE) as store:
        runner = _erasure_runner(settings, store)
        yield MemberReport(runner, arguments.user, tuple(arguments.name), settings.history_days)
