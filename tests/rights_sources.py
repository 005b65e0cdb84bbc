"""The same talk in every form that material comes in, for the matrix of rights.

Mira and Bo, two members, ask Ada about clocks and about gates; a bot speaks for Ada where the form
can say so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bot.privacy.store.people import ConsentDecision
from bot.store import Store
from bot.training.stored_datasets import write_history
from personas.home.data_subjects import Consent

MIRA = "100000000000000101"
BO = "100000000000000102"
ADA = "100000000000000107"
CARD = 'id = "ada"\nname = "Ada"\ndescription = "You are Ada, a clockmaker."\n'
PERMISSION = (
    "Discord's letter of 3 March 2026 to the operator permits training on this server's messages."
)
BEGIN = datetime(2026, 3, 1, 9, tzinfo=UTC)
GUILD = 7
CHANNEL = 8

ASKED = {
    MIRA: [f"Does clock number {n} ring a quarter tone flat in winter?" for n in (1, 2)],
    BO: [f"Why does the harbour gate {n} creak at every spring tide?" for n in (1, 2)],
}
ANSWERED = {
    MIRA: [f"I mended clock {n} myself, with oil and patience." for n in (1, 2)],
    BO: [f"Gate {n} wants grease, not prayers." for n in (1, 2)],
}
NAMES = {MIRA: "Mira Sandling", BO: "Bo Tarn", ADA: "Ada"}
Said = tuple[str, datetime, str]


def lines() -> list[Said]:
    """Who, when, what: one question and its answer at a time, two hours apart."""
    said: list[Said] = []
    for number in range(2):
        for who in (MIRA, BO):
            at = BEGIN + timedelta(hours=2 * len(said))
            said += [
                (who, at, ASKED[who][number]),
                (ADA, at + timedelta(minutes=1), ANSWERED[who][number]),
            ]
    return said


def own_log(folder: Path) -> Path:
    """Our own log."""
    records = [
        {"channel": "tower", "id": str(n), "at": at.isoformat(), "author": NAMES[who], "author_id": who, "text": text,
         "is_bot": who == ADA}
        for n, (who, at, text) in enumerate(lines())
    ]  # fmt: skip
    return _jsonl(folder / "log.jsonl", records)


def discord_json(folder: Path) -> Path:
    """A server export in JSON."""
    messages = [
        {"id": str(900 + n), "type": "Default", "timestamp": at.isoformat(), "content": text,
         "author": {"id": who, "name": NAMES[who], "nickname": NAMES[who], "isBot": who == ADA}}
        for n, (who, at, text) in enumerate(lines())
    ]  # fmt: skip
    return _json(
        folder / "export.json", {"guild": {"id": "1"}, "channel": {"id": "2"}, "messages": messages}
    )


def discord_csv(folder: Path) -> Path:
    """The same in CSV, which does not say who is a bot."""
    rows = [[who, NAMES[who], at.isoformat(), text, "", ""] for who, at, text in lines()]
    return _csv(
        folder / "export.csv",
        [["AuthorID", "Author", "Date", "Content", "Attachments", "Reactions"], *rows],
    )


def package(folder: Path) -> Path:
    """Mira's data package, in which she plays Ada: only her side is there."""
    messages = [
        {"ID": 5000 + n, "Timestamp": at.isoformat(), "Contents": text, "Attachments": ""}
        for n, (who, at, text) in enumerate(lines())
        if who == ADA
    ]
    _json(folder / "package" / "account" / "user.json", {"id": MIRA, "username": "mira"})
    _json(folder / "package" / "messages" / "c100000000000000001" / "messages.json", messages)
    return folder / "package"


def telegram(folder: Path) -> Path:
    """A Telegram chat."""
    messages = [
        {"id": n, "type": "message", "date": at.strftime("%Y-%m-%dT%H:%M:%S"), "from": NAMES[who],
         "from_id": f"user{who}", "text": text, "text_entities": []}
        for n, (who, at, text) in enumerate(lines(), start=1)
    ]  # fmt: skip
    return _json(
        folder / "result.json",
        {"name": "Tower", "type": "private_group", "id": 3, "messages": messages},
    )


def whatsapp(folder: Path) -> Path:
    """A WhatsApp chat."""
    text = "\n".join(f"[{at:%d.%m.%y, %H:%M:%S}] {NAMES[who]}: {said}" for who, at, said in lines())
    return _text(folder / "_chat.txt", text)


def rows(folder: Path) -> Path:
    """A set of dialogues without names."""
    talks = [
        {
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answered},
            ]
        }
        for who in (MIRA, BO)
        for asked, answered in zip(ASKED[who], ANSWERED[who], strict=True)
    ]
    return _jsonl(folder / "rows.jsonl", talks)


def card(folder: Path) -> Path:
    """A character card with the talks as its examples."""
    examples = "\n".join(
        f"<START>\n{{{{user}}}}: {asked}\n{{{{char}}}}: {answered}"
        for who in (MIRA, BO)
        for asked, answered in zip(ASKED[who], ANSWERED[who], strict=True)
    )
    data = {
        "name": "Ada",
        "description": "A clockmaker.",
        "first_mes": "Mind the oil.",
        "mes_example": examples,
    }
    return _json(
        folder / "card.json", {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}
    )


def history(folder: Path) -> Path:
    """What the bot stored of a server, written when both had opted in."""
    with Store.open(folder / "home" / "understudy.sqlite") as store:
        for who in (MIRA, BO):
            store.people.decide(ConsentDecision(int(who), True, 1.0, "en"))
        put_sources(store)
        write_history(store, Consent(permission=PERMISSION), GUILD, "ada", folder / "history.jsonl")
    return folder / "history.jsonl"


def put_sources(store: Store) -> None:
    """The talk as the bot keeps it."""
    said = lines()
    for number, ((who, at, asked), (_, later, answered)) in enumerate(
        zip(said[::2], said[1::2], strict=True)
    ):
        event = 3000 + number
        message = 4000 + number
        place = {"guild_id": GUILD, "channel_id": CHANNEL}
        seq = store.messages.append(
            **place,
            author_id=int(who),
            author_name=NAMES[who],
            text=asked,
            at=at.timestamp(),
            discord_message_id=event,
        )
        store.replies.begin(
            event, **place, persona_id="ada", at=at.timestamp(), asked_by=int(who), trigger_seq=seq
        )
        store.replies.record_parts(event, [message])
        store.messages.append(
            **place, author_id=0, author_name="Ada", text=answered, at=later.timestamp(), discord_message_id=message,
            persona_id="ada",
        )  # fmt: skip
        store.replies.finish(event, "done")


KINDS: dict[str, Callable[[Path], Path]] = {
    "own log": own_log,
    "Discord JSON": discord_json,
    "Discord CSV": discord_csv,
    "history": history,
    "data package": package,
    "Telegram": telegram,
    "WhatsApp": whatsapp,
    "dialogue set": rows,
    "character card": card,
}


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _json(path: Path, value: Any) -> Path:
    return _text(path, json.dumps(value))


def _jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    return _text(path, "\n".join(map(json.dumps, records)))


def _csv(path: Path, table: list[list[str]]) -> Path:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    return _text(path, out.getvalue())
