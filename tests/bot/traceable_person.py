"""A home in which one person is everywhere, and a scan that finds them wherever they are left.

The person is invented; every string of theirs stands nowhere else.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import sqlite3
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_runner import ErasureRunner
from bot.store import (
    Channel,
    ConsentDecision,
    Contribution,
    Lesson,
    Memory,
    Mute,
    NewBlindComparison,
    Store,
)
from bot.training.store import JobResult, NewTrainingJob
from personas.home.data_subjects import Consent, write_consent, write_people
from personas.home.external_files import record_export, record_review_file
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Phase
from tests.personas.test_adapters import write_adapter
from tests.samples import SCORECARD

GUILD = 910_000_000_000_000_001
CHANNEL = 910_000_000_000_000_002
DIRECT = 910_000_000_000_000_003
WHO = 734_829_104_458_293_761
OTHER = 734_829_104_458_293_999
USERNAME = "quillverne_77"
DISPLAY = "Ottoline Quillverne"
NICKNAME = "Quill-of-Tamsin"
SAID = "My sister keeps the brass heron on Tallowmere Street, you know."
LINE = "Nobody at Fennimore wharf has paid the heron tax since Lent."
PACKAGE_LINE = "Remember to water Aunt Petronella's moonflowers on Sunday."
REVIEW_LINE = "Write to ottoline at the pewter mailbox before noon."
TAUGHT = "The wherry sails when the ostler of Pemberlow whistles twice."
REMEMBERED = "The samphire recipe of Wexcombe needs no salt at all."
GIVEN = "The xandorel hangs in the third boathouse."
TRACES = (
    str(WHO), USERNAME, DISPLAY, NICKNAME, SAID, LINE, PACKAGE_LINE, REVIEW_LINE, GIVEN, TAUGHT, REMEMBERED,
    "Quillverne", "brass heron", "xandorel", "Pemberlow", "Wexcombe",
)  # fmt: skip
OTHERS_LINE = "The ferry is late again, as ever."
RIGHTS = '["{name}"]\nright = "own-writing"\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "ours"\n'


def plant(home: Path) -> None:
    """Fill a home: the store, lore, logs, a data package, a job, adapters v1 (clean), v2 and v3
    (with the person).
    """
    home.mkdir(parents=True, exist_ok=True)
    with Store.open(home / "understudy.sqlite") as store:
        _talk(store)
        _acts(store)
        _versions(home, store)
        ConsentMirror(home, store, "By letter of Discord, 3 March 2026.").mirror()
    _lore(home)
    _logs(home)
    _package(home)
    _made(home)
    people = {_key(home, str(WHO)), _key(home, f"name:{DISPLAY.casefold()}")}
    record_export(home, "data set", "/elsewhere/harbour.jsonl", people, "0" * 64)
    record_export(home, "data set", "/elsewhere/other.jsonl", {_key(home, str(OTHER))}, "0" * 64)


def forgetter(home: Path, store: Store, **more) -> ErasureRunner:
    """As the bot at rest makes it."""
    return ErasureRunner(
        home,
        store,
        ConsentMirror(home, store),
        time.time,
        personas=frozenset({"Oda Marrow", "oda"}),
        **more,
    )


def begin(home: Path, store: Store):
    """The request, with the names that Discord has of the member."""
    one = forgetter(home, store)
    return one.begin(one.traces(WHO, [USERNAME, DISPLAY, NICKNAME]))


def _key(home, who):
    return keyed_person(HomeKey.of(home).people(), who)


def _talk(store):
    def say(
        text, author, name, channel=CHANNEL, guild=GUILD, message_id=None, persona=None, at=0.0
    ):
        return store.messages.append(
            guild_id=guild, channel_id=channel, author_id=author, author_name=name, text=text,
            at=at or time.time() - 60, discord_message_id=message_id, persona_id=persona,
        )  # fmt: skip

    say(OTHERS_LINE, OTHER, "Wendell Park", message_id=1)
    seq = say(SAID, WHO, NICKNAME, message_id=2)
    store.replies.begin(
        2,
        guild_id=GUILD,
        channel_id=CHANNEL,
        persona_id="oda",
        at=1.0,
        asked_by=WHO,
        trigger_seq=seq,
    )
    store.replies.record_parts(2, [3])
    store.replies.finish(2, "done")
    store.replies.vote(2, WHO, 1, 2.0)
    say(f"Ah, {NICKNAME}: {SAID} So you said.", 0, "Oda Marrow", message_id=3, persona="oda")
    say(f"I agree with {DISPLAY} and <@{WHO}>.", OTHER, "Wendell Park", message_id=4)
    seq = say(LINE, WHO, DISPLAY, DIRECT, 0, message_id=5)
    store.replies.begin(
        6,
        guild_id=GUILD,
        channel_id=CHANNEL,
        persona_id="oda",
        at=1.0,
        asked_by=OTHER,
        trigger_seq=1,
    )
    store.replies.finish(6, "done")
    store.replies.vote(6, WHO, -1, 2.0)
    store.replies.vote(6, OTHER, 1, 2.0)


def _acts(store):
    store.people.decide(ConsentDecision(WHO, True, 3.0, "en"))
    store.people.decide(ConsentDecision(OTHER, True, 3.0, "en"))
    store.channels.assign(Channel(GUILD, CHANNEL, "oda", "everything", WHO, 4.0))
    store.channels.assign(Channel(0, DIRECT, "oda", "everything", WHO, 4.0))
    store.mutes.add(Mute(GUILD, CHANNEL, "thrip", WHO, 5.0))
    store.people.add_contribution(Contribution(GUILD, "oda", "harbour.md", WHO, 5.0))
    for member in (WHO, OTHER):
        said = f"Ask {DISPLAY} about the lamp."
        new = NewBlindComparison(
            GUILD, "oda", member, "p1", "Who knows?", "v1", None, said, "Nobody.", 1, 2
        )
        store.comparisons.vote(store.comparisons.show(new, 6.0).seq, member, "a", 7.0)
    store.memories.add(Memory(GUILD, "oda", WHO, REMEMBERED, False, None, 5.0))
    store.memories.add(Memory(0, "oda", WHO, f"Good day, {NICKNAME}.", True, 6, 5.0))
    store.memories.add(
        Memory(GUILD, "oda", OTHER, f"{DISPLAY} said: {REMEMBERED}", False, None, 5.0)
    )
    store.lessons.add(
        Lesson(GUILD, "oda", WHO, False, "When does it sail?", TAUGHT, "", "form", 5.0)
    )
    store.lessons.add(
        Lesson(GUILD, "oda", OTHER, True, f"Who is {DISPLAY}?", "A guest.", TAUGHT, "form", 5.0)
    )


def _versions(home, store):
    for number, by in enumerate((OTHER, OTHER, WHO), start=1):
        job_id = f"job{number}"
        request = TrainingRequest(
            job_name=f"quillverne_77-{number}" if by == WHO else f"j{number}", persona="oda"
        )
        store.jobs.add(NewTrainingJob(job_id, GUILD, CHANNEL, by, request), 10.0 + number)
        claimed = store.jobs.claim(store.jobs.get(job_id), f"token{number}", 11.0)
        folder = home / "models" / "persona_adapters" / "oda" / f"v{number}"
        write_adapter(folder)
        result = JobResult(adapter=str(folder), seconds=1.0, scorecard=SCORECARD)
        store.jobs.complete(job_id, claimed.attempt_token, result, 12.0 + number)
        if number > 1:  # sealed or not: what counts is the list
            write_people(folder, {_key(home, str(WHO)): 3, _key(home, str(OTHER)): 2})
        store.versions.promote("oda", f"v{number}", WHO, 20.0 + number, f"{DISPLAY} wished it")
    request = TrainingRequest(job_name="manners", task_type="dialogue", dataset="harbour")
    store.jobs.add(NewTrainingJob("job9", GUILD, CHANNEL, OTHER, request), 30.0)
    claimed = store.jobs.claim(store.jobs.get("job9"), "token9", 31.0)
    folder = home / "models" / "dialogue" / "manners"
    write_adapter(folder)
    write_people(folder, {_key(home, f"name:{USERNAME.casefold()}"): 1})
    first_card = SCORECARD.model_copy(update={"pending": True})
    done = JobResult(adapter=str(folder), seconds=1.0, scorecard=first_card)
    store.jobs.complete("job9", claimed.attempt_token, done, 32.0)
    store.jobs.claim_card("job9")
    store.jobs.report_card("job9", Phase(name="measuring the adapter", detail=DISPLAY))
    store.jobs.end_card("job9", "failed", f"There is no file {DISPLAY}.")


def _lore(home):
    folder = home / "lore" / str(GUILD) / "oda"
    folder.mkdir(parents=True)
    (folder / "harbour.md").write_text(f"# The wharf\n{DISPLAY} painted the doors. {GIVEN}\n")
    (folder / "tides.md").write_text("# Tides\nThe tide turns twice a day, and the inn with it.\n")
    (folder / "notes.md").write_text(f"# Notes\nAsk {USERNAME} (<@{WHO}>) about the lamp.\n")
    index = LoreIndex(read_lore(folder.parent, ["oda"]), home / "cache" / "lore.sqlite")
    index.close()


def _logs(home):
    logs = home / "talk"
    logs.mkdir()
    export = {
        "guild": {"id": str(GUILD), "name": "Skerrow"},
        "channel": {"id": str(CHANNEL), "name": "quay"},
        "messages": [
            _exported("11", WHO, USERNAME, NICKNAME, LINE),
            _exported("12", OTHER, "wendell", "Wendell Park", OTHERS_LINE),
            _exported(
                "13",
                OTHER,
                "wendell",
                "Wendell Park",
                f"> {LINE}\nthat was <@{WHO}>, alias {DISPLAY}",
            ),
        ],
    }
    (logs / "harbour.json").write_text(json.dumps(export, indent=2))
    (logs / "packed.json.gz").write_bytes(gzip.compress(json.dumps(export).encode()))
    rows = [{"name": DISPLAY, "text": LINE}, {"name": "Wendell Park", "text": OTHERS_LINE}]
    (logs / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = (
        f"AuthorID,Author,Date,Content\n{WHO},{USERNAME},2026-01-01,{LINE}\n"
        f"{OTHER},wendell,2026-01-01,{OTHERS_LINE}\n"
    )
    (logs / "table.csv").write_text(table)
    chat = [
        f"01/02/26, 10:00 - {DISPLAY}: {LINE}",
        "and on the next line too",
        f"01/02/26, 10:01 - Wendell Park: {OTHERS_LINE}",
    ]
    (logs / "WhatsApp Chat.txt").write_text("\n".join(chat) + "\n")
    (logs / "scan.bin").write_bytes(b"\xff\xfe\x00" + DISPLAY.encode())
    (home / "catalogue.toml").write_text(
        '[harbour]\npath = "talk/harbour.json"\n' + RIGHTS.format(name="x")[6:]
    )
    (logs / "rights.toml").write_text(RIGHTS.format(name="harbour.json"))


def _exported(message_id, author, name, nickname, content):
    who = {
        "id": str(author),
        "name": name,
        "discriminator": "0000",
        "nickname": nickname,
        "isBot": False,
    }
    stamp = "2026-01-01T10:00:00+00:00"
    return {
        "id": message_id,
        "type": "Default",
        "timestamp": stamp,
        "content": content,
        "author": who,
        "mentions": [],
    }


def _package(home):
    root = home / "packages" / "mine"
    (root / "account").mkdir(parents=True)
    (root / "account" / "user.json").write_text(json.dumps({"id": str(WHO), "username": USERNAME}))
    channel = root / "messages" / f"c{CHANNEL}"
    channel.mkdir(parents=True)
    (channel / "messages.csv").write_text(
        f"ID,Timestamp,Contents,Attachments\n1,2026-01-01,{PACKAGE_LINE},\n"
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            "package/account/user.json", json.dumps({"id": str(WHO), "username": USERNAME})
        )
        archive.writestr(
            f"package/Messages/c{CHANNEL}/messages.json",
            json.dumps([{"ID": 1, "Contents": PACKAGE_LINE}]),
        )
    (home / "packages" / "package.zip").write_bytes(packed.getvalue())


def _made(home):
    job = home / "jobs" / "job3"
    (job / "material").mkdir(parents=True)
    (job / "request.json").write_text("{}")
    (job / "material" / "log.json").write_text(json.dumps({"said": LINE}))
    (job / "trainer.log").write_text(f"warning: a sample by {NICKNAME}\n")
    (job / "checkpoint").mkdir()
    (job / "checkpoint" / "state.json").write_text("{}")
    write_people(job, {_key(home, str(WHO)): 3})
    clean = home / "jobs" / "job1"
    clean.mkdir()
    (clean / "trainer.log").write_text("all is well\n")
    # Who had opted in when it was created; nothing of them is in it.
    opted_in = frozenset({str(WHO), str(OTHER)})
    write_consent(clean, Consent(permission="By letter of Discord.", opted_in=opted_in))
    dataset = home / "datasets" / "harbour"
    dataset.mkdir(parents=True)
    (dataset / "train.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "masked beyond finding"}]})
    )
    write_people(dataset, {_key(home, f"name:{DISPLAY.casefold()}"): 1})
    kept = home / "datasets" / "kept"
    kept.mkdir()
    (kept / "train.jsonl").write_text(json.dumps({"messages": []}))
    write_people(kept, {_key(home, str(OTHER)): 1})
    review = [
        {"text": REVIEW_LINE, "speaker": DISPLAY},
        {"text": OTHERS_LINE, "speaker": "Wendell Park"},
    ]
    (home / "review.jsonl").write_text("".join(json.dumps(row) + "\n" for row in review))
    record_review_file(home, home.parent / "elsewhere.review.jsonl", 1e12)
    (home.parent / "elsewhere.review.jsonl").write_text(json.dumps(review[0]) + "\n")
    (home / "cache").mkdir(exist_ok=True)
    (home / "cache" / "embeddings.json").write_text(json.dumps([PACKAGE_LINE]))


# ----------------------------------------------------------------------------------------- the scan


def left_of_them(home: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Every place under a home in which a string of theirs is, packed and in databases too; `but`
    are paths.
    """
    found = []
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if name.startswith(but) if but else False:
            continue
        found += [
            f"{name}: the path itself" for trace in TRACES if trace.casefold() in name.casefold()
        ]
        if path.is_file():
            found += [f"{name}: {trace!r}" for trace in _within(path.name, path.read_bytes())]
    return found


def _within(name, data):
    pieces = [data, *_unpacked(name, data)]
    whole = b"\0".join(pieces).lower()
    for trace in TRACES:
        forms = {trace, json.dumps(trace)[1:-1], trace.replace("ä", "\\u00e4")}
        number = [int(trace).to_bytes(8, "big")] if trace.isdigit() else []  # as SQLite stores it
        if any(form in whole for form in [form.lower().encode() for form in forms]) or any(
            n in data for n in number
        ):
            yield trace


def _unpacked(name, data):
    if name.endswith(".gz"):
        yield gzip.decompress(data)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in archive.namelist():
                yield inner.encode()
                yield archive.read(inner)
                yield from _unpacked(inner, archive.read(inner))


def rows(home: Path, sql: str) -> list[tuple]:
    """What stands in the store's file now."""
    with sqlite3.connect(home / "understudy.sqlite") as raw:
        return raw.execute(sql).fetchall()


# ------------------------------------------------------------------------------------- being killed


def killed(home: Path, at: Callable[[Store], None]) -> int:
    """Forget in a process of its own; `at` arranges its death. Gives the exit code: 9 when it died
    so, else 0.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with Store.open(home / "understudy.sqlite") as store:
                begin(home, store)
                at(store)
                asyncio.run(forgetter(home, store).finish())
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_step(step: str, moment: str) -> Callable[[Store], None]:
    """Die when a step has been taken: before or after that is noted."""

    def arrange(store: Store) -> None:
        advance = store.erasure_requests.advance

        def die(seq, following, receipt, traces=None):
            (now,) = [row.step for row in store.erasure_requests.unfinished() if row.seq == seq]
            taken = now == step and traces is not None
            if taken and moment == "before":
                os._exit(9)
            done = advance(seq, following, receipt, traces)
            if taken:
                os._exit(9)
            return done

        store.erasure_requests.advance = die

    return arrange


def at_file(number: int) -> Callable[[Store], None]:
    """Die in the middle of changing files: just before the change with this number."""

    def arrange(store: Store) -> None:
        count = 0

        def counted(real):
            def change(*arguments, **more):
                nonlocal count
                count += 1
                if count == number:
                    os._exit(9)
                return real(*arguments, **more)

            return change

        for name in ("rename", "replace", "unlink"):
            setattr(Path, name, counted(getattr(Path, name)))
        shutil.rmtree = counted(shutil.rmtree)

    return arrange
