"""A home with something of everything in it, and what can be said of one afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json

from bot.operations.backup.create import create_backup
from bot.operations.backup.restore import restore_backup
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_runner import ErasureRunner
from bot.store import ConsentDecision, JobResult, Store
from bot.training.store import NewTrainingJob
from personas.home.data_subjects import Consent, read_consent, write_consent
from personas.home.pseudonyms import HomeKey
from personas.schemas.training import TrainingRequest
from tests.samples import SCORECARD

DATABASE = "understudy.sqlite"
NOW = 1_795_000_000.0
GUILD = 1_234_567_890_123_456
ADA = 700_000_000_000_000_007
BEN = 800_000_000_000_000_008
KEPT = {
    "catalogue.toml": b"# the operator's own",
    "personas/77/mira-25/card.toml": b'name = "Mira"',
    "lore/77/mira-25/soup.md": b"# Soup\nNever ask.",
    "earlier/lore/77/mira-25/soup.md/20261120T010203.000000.md": b"# Soup\nAsk once.",
    "models/persona_adapters/oda/v1/adapter_model.safetensors": bytes(range(256)) * 300,
    "models/persona_adapters/oda/v1/manifest.json": b"{}",
    "models/persona_adapters/oda/v1/effect_probe.json": b"what it is measured by",
    "heldout/oda.bin": b"what was held out",
}
MADE_ANEW = {
    "jobs/j1/request.json": b"{}",
    "cache/lore.sqlite": b"vectors",
    "cache/effects/one.json": b"what an engine showed",
    "commands.sha256": b"0",
    "models/persona_adapters/oda/.v2.half": b"copied until the power failed",
    "personas/77/mira-25/card.toml.part": b"half",
    "heldout/.oda.bin.lock": b"",
}
STAYS = {"sandbox.sqlite": b"Discord's stand-in", "reviews.json": b'{"format":1,"reviews":[]}'}


def put(home, files):
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


def say(store, text, author=ADA, name="Ada Wick", message_id=None, at=100.0, guild=GUILD):
    return store.messages.append(
        guild_id=guild,
        channel_id=5,
        author_id=author,
        author_name=name,
        text=text,
        at=at,
        discord_message_id=message_id,
    )


def train(store, job_id, *, guild=GUILD, persona="oda", by=ADA, dataset=None, done=True):
    """A job, and its version where it is done."""
    request = TrainingRequest(job_name="manners", persona=persona, dataset=dataset)
    job = store.jobs.add(NewTrainingJob(job_id, guild, 5, by, request), 50.0)
    if done:
        claimed = store.jobs.claim(job, "token", 51.0)
        result = JobResult(adapter="somewhere", seconds=1.0, scorecard=SCORECARD)
        return store.jobs.complete(claimed.job_id, "token", result, 52.0)
    return job


def fill(home):
    """The home, with a store that is closed again."""
    put(home, KEPT | MADE_ANEW | STAYS)
    HomeKey.of(home)
    with Store.open(home / DATABASE) as store:
        write_consent(
            home,
            Consent(permission="Permission 7 of Discord, 2026", opted_in=frozenset({str(ADA)})),
        )
        say(store, "the lanterns are lit", message_id=901)
        say(store, "the tide is late", BEN, "Ben Arkwright", message_id=902)
        store.people.decide(ConsentDecision(ADA, True, 10.0, "en"))
        train(store, "j1")
    return home


def tree(folder, without=("understudy.lock",)):
    """Every file below a folder, by path, with the digest of what is in it. A database is told by
    its rows.
    """
    return {
        path.relative_to(folder).as_posix(): rows(path) if path.name == DATABASE else digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without and not path.name.endswith(("-wal", "-shm"))
    }


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(database):
    with Store.read_only(database) as store:
        return json.dumps(
            {
                table: store._connection.read(f"select * from {table}")
                for table in ("messages", "jobs", "versions", "consents")
            }
        )


def where(folder, *needles):
    """The files below a folder in whose bytes, or names, one of these stands."""
    raw = [needle.encode() for needle in needles]
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and any(needle in path.read_bytes() or needle in str(path).encode() for needle in raw)
    ]


def quiet(start_progress):
    """No progress."""
    return lambda more: None


def put_back(backup, home, replay=lambda home, store: None, keep=False):
    return restore_backup(
        backup, home, now=NOW + 60, keep_previous=keep, replay=replay, start_progress=quiet
    )


def texts(home):
    with Store.read_only(home / DATABASE) as store:
        return [
            row["text"] for row in store._connection.read("select text from messages order by seq")
        ]


def forget(home, user_id):
    with Store.open(home / DATABASE) as store:
        forgetter = ErasureRunner(
            home, store, ConsentMirror(home, store, read_consent(home).permission), lambda: NOW + 30
        )

        async def run():
            await forgetter.run(forgetter.begin(forgetter.traces(user_id)))

        asyncio.run(run())


PLANTED = ("Philippa Quist", "quist-of-the-weir", str(ADA))


def planted_backup(home, file):
    """A backup with somebody in it who is forgotten afterwards."""
    with Store.open(home / DATABASE) as store:
        say(store, "the heron at quist-of-the-weir has a limp, poor thing", name="Philippa Quist")
    put(home, {"lore/77/mira-25/guests.md": b"# Guests\nPhilippa Quist brought the jam.\n"})
    backup = create_backup(home, file, NOW, quiet).path
    forget(home, ADA)
    return backup
