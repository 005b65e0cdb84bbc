"""Check results; the checks of home, disk and port, of vLLM servers, a Ray cluster, and, by its
doctor, the trainer.
"""

import asyncio
import base64
import binascii
import json
import os
import secrets
import shlex
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bot.operations.shards import ShardRange
from bot.platform.errors import RENEW_TOKEN_ADVICE
from bot.settings import Settings
from bot.store import Store, StoreError, find_databases, is_in_use
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from personas.errors import BaseModelError, UnderstudyError
from personas.home.job_material import ShippedData
from personas.home.shared_personas import list_shipped_lore
from personas.models import base_model

if TYPE_CHECKING:
    from bot.training.backends.ray_jobs import RayJob, RayJobsClient

CheckState = Literal["ok", "warn", "fail"]
"""`warn`: the bot runs, but something is slower or missing; `fail`: something does not work."""
MIN_FREE_BYTES, LOW_FREE_BYTES = 2**30, 5 * 2**30
"""A training run stores checkpoints and an adapter; base models from a hub take several GiB
each.
"""
CONNECT_TIMEOUT_S = 2.0
TRAINER_TIMEOUT_S = 300.0
MAX_OUTPUT_CHARS = 300  # characters of the trainer's error output that are shown
OLDEST_RAY = (2, 40)
"""Ray releases before this one are untested."""
RAY_PROBE_TIMEOUT_S = 60.0
RAY_PROBE_INTERVAL_S = 1.0
NO_FOLDER_EXIT_CODE = 41
NO_WRITE_EXIT_CODE = 42
NO_TRAINER_EXIT_CODE = 43
RAY_PROBE_REMEDIES = {
    NO_FOLDER_EXIT_CODE: "a worker does not see {folder}: mount it at the same path on all nodes",
    NO_WRITE_EXIT_CODE: "a worker cannot write to {folder}: give its user the right to",
    NO_TRAINER_EXIT_CODE: "a worker's `python` cannot import the trainer: install Understudy there, first on PATH",
}


@dataclass(frozen=True)
class BotCheck:
    """A check's result. `found` is text for people; `remedy` the advice, empty where all is
    well.
    """

    name: str
    state: CheckState
    found: str
    remedy: str = ""


def failed_checks(checks: Iterable[BotCheck]) -> list[str]:
    """Return the names of the failed checks, each once."""
    return list(dict.fromkeys(check.name for check in checks if check.state == "fail"))


def check_machine(settings: Settings, *, token_accepted: bool = False) -> Iterator[BotCheck]:
    """Check this machine; a token that Discord has accepted may have any form."""
    yield check_token(settings.discord_token, accepted=token_accepted)
    yield check_home(settings.home)
    yield check_database(settings.home)
    yield from check_shards(settings)
    yield check_disk(settings.home)
    yield check_port(settings.web_port, settings.home)
    yield check_lore(ShippedData.from_source_tree().lore, settings.home)


def check_token(text: str, *, accepted: bool = False) -> BotCheck:
    """Check the form of a bot's token: three parts, the first of which is the bot's id in base
    64.
    """
    if not text:
        return BotCheck("token", "ok", "none: the bot runs in a sandbox on this machine")
    parts = text.split(".")
    if len(parts) == 3 and all(parts) and token_application_id(text):
        return BotCheck(
            "token", "ok", f"looks like the token of the bot {token_application_id(text)}"
        )
    if accepted:
        return BotCheck("token", "ok", "of an unusual form, but Discord accepts it")
    what = (
        "the application's id or public key"
        if len(parts) == 1 and text.isalnum()
        else "something else"
    )
    found = f"DISCORD_TOKEN does not look like a bot's token; perhaps it is {what}"
    return BotCheck("token", "fail", found, RENEW_TOKEN_ADVICE)


def token_application_id(text: str) -> int | None:
    """Return the bot's id that a token starts with; None where there is none."""
    first = text.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdecimal() else None


def check_home(folder: Path) -> BotCheck:
    """Check that the bot's home can be written, or created."""
    parent = _existing_parent(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=parent):
            pass
    except OSError as error:
        remedy = "give this user the right to write there, or set another folder in UNDERSTUDY_HOME"
        return BotCheck(
            "home", "fail", f"{parent} cannot be written: {error.strerror or error}", remedy
        )
    if not folder.exists():
        return BotCheck("home", "ok", f"{folder} is created when the bot starts")
    if folder.stat().st_mode & 0o077:
        found = f"{folder} can be read by other users of this machine"
        return BotCheck("home", "warn", found, f"chmod 700 {folder}: it contains private messages")
    return BotCheck("home", "ok", str(folder))


def check_database(folder: Path) -> BotCheck:
    """Check that the database, or each part of it, can be read, and whether a bot is running on
    it.
    """
    files = find_databases(folder)
    if not files:
        return BotCheck("database", "ok", "none yet")
    try:
        for file in files:
            Store.read_only(file).close()
    except StoreError as error:
        return BotCheck(
            "database", "fail", error.message, error.advice or "restore a backup: docs/backup.md"
        )
    try:
        running = [file.name for file in files if is_in_use(file)]
    except StoreError as error:
        return BotCheck("database", "fail", error.message, error.advice)
    if len(files) > 1:
        return BotCheck(
            "database", "ok", f"{len(files)} parts, readable; bots run on {len(running)} of them"
        )
    return BotCheck("database", "ok", f"readable; {'a' if running else 'no'} bot is running on it")


def check_shards(settings: Settings) -> Iterator[BotCheck]:
    """Check the shards against the home, and the shared database; nothing without shards."""
    home = settings.home
    shards = settings.shards
    parts = ShardRange.in_home(settings.home)
    names = ", ".join(map(str, parts))
    is_part = shards is not None and not shards.is_whole
    if parts and not is_part:
        found = f"the home is split among the shards {names}, but SHARDS is {shards or 'not set'}"
        yield BotCheck("shards", "fail", found, "set SHARDS to one of these in each process")
    if shards is None or not is_part:
        return
    others = [
        it for it in parts if it != shards and (it.count != shards.count or it.overlaps(shards))
    ]
    if others:
        found = f"SHARDS is {shards}, but the home is split among the shards {names}"
        yield BotCheck(
            "shards", "fail", found, "set SHARDS to one of these: data are not moved between ranges"
        )
        return
    covered = {shard for one in {*parts, shards} for shard in one.ids or ()}
    missing = sorted(set(range(shards.count or 0)) - covered)
    if missing and parts:
        found = f"no process has yet begun with the shards {', '.join(map(str, missing))}"
        yield BotCheck(
            "shards", "warn", found, "start one for each range, with the same UNDERSTUDY_HOME"
        )
    else:
        yield BotCheck("shards", "ok", f"{shards} here" + (f", of {names}" if parts else ""))
    yield _check_shared_database(home, settings.shared_db)


def _check_shared_database(home: Path, shared_db: str) -> BotCheck:
    from bot.operations.shards.shard_process import STATE_FILE, shared_database  # only with SHARDS
    from bot.operations.shards.shared_state import LEASE_S

    if not shared_db and not (home / STATE_FILE).exists():
        return BotCheck("shared database", "ok", f"{STATE_FILE} is created when the bot starts")
    try:
        with closing(shared_database(home, shared_db).open()) as session:
            sql = f"select count(distinct epoch) from {session.prefix}shards where seen > :since"
            ((count,),) = session.run(sql, since=time.time() - LEASE_S)
    except StoreError as error:
        return BotCheck("shared database", "fail", error.message, error.advice)
    except Exception as error:  # the driver's, which is not imported here
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if "UndefinedTable" in why or "InvalidSchemaName" in why:
            return BotCheck(
                "shared database", "ok", "reachable; its tables are created when the bot starts"
            )
        remedy = "check SHARED_DB, and that the server runs; chat goes on without it"
        return BotCheck("shared database", "fail", f"it cannot be used: {why}", remedy)
    return BotCheck(
        "shared database",
        "ok",
        f"reachable; {count} {'process runs' if count == 1 else 'processes run'}",
    )


def check_disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> BotCheck:
    free = int(usage(_existing_parent(folder)).free)
    found = f"{free / 2**30:.1f} GiB free"
    if free < MIN_FREE_BYTES:
        return BotCheck(
            "disk",
            "fail",
            found,
            "free some: a training's checkpoints and adapter need a GiB or two",
        )
    if free < LOW_FREE_BYTES:
        return BotCheck(
            "disk", "warn", found, "free some before fetching models or keeping many versions"
        )
    return BotCheck("disk", "ok", found)


def check_port(number: int, folder: Path) -> BotCheck:
    """Check that the web server's port is free, or used by the bot that runs on this home."""
    if number == 0:
        return BotCheck("port", "ok", "any free port is used")
    try:
        socket.create_connection(("127.0.0.1", number), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return BotCheck("port", "ok", f"{number} is free")
    state = _bot_state(number)
    if state and _is_in_use(folder):
        if state == "ok":
            return BotCheck("port", "ok", f"the bot answers on {number}")
        return BotCheck(
            "port", "warn", f"the bot on {number} is {state}", "see its log, and /dashboard/system"
        )
    owner = "another home's bot" if state else "another program"
    return BotCheck(
        "port", "fail", f"{owner} listens on {number}", "end it, or set WEB_PORT to another number"
    )


def check_lore(folder: Path, home: Path) -> BotCheck:
    """Check that every lore file in a folder belongs to a persona, or to all of them."""
    documents = list_shipped_lore(folder, home)
    skipped = [document for document in documents if document.skipped]
    found = f"{len(documents) - len(skipped)} of {len(documents)} files are read"
    if not skipped:
        return BotCheck("lore", "ok", found)
    found += f"; skipped: {skipped[0].source}: {skipped[0].skipped}"
    return BotCheck(
        "lore",
        "warn",
        found,
        "`python -m trainer lore files` lists them all; docs/personas.md names the layouts",
    )


async def check_replicas(settings: Settings) -> list[BotCheck]:
    """Check each server that replies are computed on; none with ENGINE=local."""
    if settings.engine == "local":
        return []
    from personas.engine.remote.openai_engine import OpenAIEngine  # only where the setting names it
    from personas.engine.remote.vllm_engine import VllmEngine

    label = "vLLM" if settings.engine == "vllm" else "engine"
    try:
        base = await asyncio.to_thread(base_model.locate, settings.base_model, fetch=False)
        urls = settings.engine_urls
        key = settings.engine_key
        home = settings.home
        if settings.engine == "openai":
            engine: VllmEngine = OpenAIEngine(
                base, "bfloat16", urls, home, key=key, model=settings.engine_model
            )
        else:
            engine = VllmEngine(
                base, "bfloat16", urls, home, key=key, server_home=settings.engine_home
            )
        found = await engine.inspect()
    except BaseModelError as error:
        return [BotCheck(label, "fail", error.message, error.advice)]
    return [
        BotCheck(f"{label} {one.topic}", one.state, _with_url(one.url, one.found), one.remedy)
        for one in found
    ]


def _with_url(url: str, found: str) -> str:
    return found if url in found else f"{url}: {found}"


def _is_in_use(folder: Path) -> bool:
    try:
        return any(map(is_in_use, find_databases(folder)))
    except StoreError:  # `database` reports it
        return False


def _bot_state(number: int) -> str:
    """Return what the bot on a port says of itself, such as "ok"; "" if no bot listens there."""
    try:
        address = f"http://127.0.0.1:{number}/healthz"
        with urllib.request.urlopen(address, timeout=CONNECT_TIMEOUT_S) as answer:  # nosec B310
            return str(json.load(answer).get("status") or "")
    except urllib.error.HTTPError as error:
        if error.headers.get_content_type() != "application/problem+json":
            return ""
        problem = json.load(error)
        return (
            "ok" if problem["type"].endswith("/busy") else str(problem["title"]).lower()
        )  # busy: it starts or stops
    except (OSError, ValueError, AttributeError):
        return ""


def _existing_parent(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


async def check_trainer(
    base_model: str,
    environ: Mapping[str, str],
    command: Sequence[str] = TRAINER_COMMAND,
    patience_s: float = TRAINER_TIMEOUT_S,
) -> list[BotCheck]:
    """Run the trainer's doctor, which takes about half a minute. Returns one failed check where it
    cannot run.
    """
    process = await asyncio.create_subprocess_exec(
        *command, "doctor", "--json", "--base-model", base_model,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=trainer_environment(environ, {}),
    )  # fmt: skip
    try:
        async with asyncio.timeout(patience_s):
            output, complaint = await process.communicate()
    except TimeoutError:
        return [_unavailable(f"it did not end within {patience_s:.0f} s")]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        rows = json.loads(output)["checks"]
        return [
            BotCheck(str(row["name"]), row["state"], str(row["found"]), str(row["remedy"]))
            for row in rows
        ]
    except (ValueError, LookupError, TypeError):
        why = complaint.decode(errors="replace").strip()[-MAX_OUTPUT_CHARS:]
        return [_unavailable(why or f"it ended with {process.returncode}")]


def _unavailable(why: str) -> BotCheck:
    remedy = "make setup, then python -m trainer doctor"
    return BotCheck("trainer", "fail", f"its doctor reports nothing: {why}", remedy)


async def check_cluster(settings: Settings) -> list[BotCheck]:
    """Check a Ray cluster: that it answers, its version, and by a short job that a worker has
    folder and trainer.

    None is checked unless TRAINER names it.
    """
    if settings.trainer != "ray":
        return []
    from bot.training.backends.ray_backend import worker_resources  # only with TRAINER=ray
    from bot.training.backends.ray_jobs import RayJobsClient

    client = RayJobsClient(settings.ray_address, settings.ray_auth_token)
    resources = worker_resources(settings)
    try:
        version = (await client.version()).ray_version
    except UnderstudyError as error:
        return [BotCheck("ray", "fail", error.message, error.advice)]
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    found = f"Ray {version} at {settings.ray_address}"
    remedy = "it is tested with Ray 2.60: upgrade the cluster"
    is_old = release < OLDEST_RAY
    checks = [BotCheck("ray", "warn", found, remedy) if is_old else BotCheck("ray", "ok", found)]
    folder = Path(settings.shared or settings.home)
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as probe:
        file = shlex.quote(probe.name)
        name = f"doctor-{secrets.token_hex(4)}"
        command = (
            f"test -e {file} || exit {NO_FOLDER_EXIT_CODE}; echo seen >>{file} || exit "
            f"{NO_WRITE_EXIT_CODE}; "
            f"python -c 'import trainer.cli.main' || exit {NO_TRAINER_EXIT_CODE}"
        )
        try:
            await client.submit(
                name, command, cpus=resources.cpus, gpus=resources.gpus, environ={}, about=name
            )
            job = await _ended_ray_job(client, name)
        except UnderstudyError as error:
            return [*checks, BotCheck("ray worker", "fail", error.message, error.advice)]
        return [*checks, _check_probe(job, folder, probe.seek(0, os.SEEK_END) > 0, resources.text)]


async def _ended_ray_job(client: "RayJobsClient", name: str) -> "RayJob | None":
    """Wait until a job has ended, and delete Ray's record of it. Returns it as it was last seen."""
    job = None
    for _ in range(round(RAY_PROBE_TIMEOUT_S / RAY_PROBE_INTERVAL_S)):
        job = await client.get(name)
        if job is None or job.has_ended:
            break
        await asyncio.sleep(RAY_PROBE_INTERVAL_S)
    else:
        await client.stop(name)
        return job
    await client.delete(name)
    return job


def _check_probe(job: "RayJob | None", folder: Path, is_written: bool, resources: str) -> BotCheck:
    if job and job.status == "SUCCEEDED" and is_written:
        return BotCheck(
            "ray worker", "ok", f"a worker with {resources} sees {folder} and has the trainer"
        )
    if job and job.status == "SUCCEEDED":
        found = f"a worker has another folder at {folder}"
        return BotCheck(
            "ray worker", "fail", found, "mount the same file system there on all nodes"
        )
    if job and job.driver_exit_code in RAY_PROBE_REMEDIES:
        found, remedy = RAY_PROBE_REMEDIES[job.driver_exit_code].format(folder=folder).split(": ")
        return BotCheck("ray worker", "fail", found, remedy)
    if job and not job.has_ended:
        found = f"no worker with {resources} was free within {RAY_PROBE_TIMEOUT_S:.0f} s"
        return BotCheck(
            "ray worker", "warn", found, "see `ray status`; lower TRAINER_GPUS or TRAINER_THREADS"
        )
    return BotCheck(
        "ray worker",
        "fail",
        f"a short job failed: {job.reason if job else 'it is gone'}",
        "see `ray job list`",
    )
