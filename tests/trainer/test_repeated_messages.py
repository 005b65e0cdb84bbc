"""A message that is in a log twice, or in several files of a channel, is read once, with its latest
text.
"""

import json
from collections import Counter
from itertools import pairwise

import pytest

from tests.trainer.chat_logs import outcome, write, write_all
from tests.trainer.conversations import sentence, split_conversations
from trainer.dataset.dedup_split import HELD_OUT, TRAIN
from trainer.dataset.quality_filters import QualityFilters
from trainer.sources.conversation import Conversation
from trainer.sources.log_pool import LogPool
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

BEGIN_S = 1_704_189_600
HOUR_S = 3600
NAMES = {"10": "Wick", "20": "Oda"}
ODA = ("Oda",)


def lines(first, end, gap_s=60):
    """Numbered messages of two people in turn: number, author's id, text, time of the edit."""
    return [(n, "20" if n % 2 else "10", sentence(n, 9), n * gap_s) for n in range(first, end)]


def edit(line, text, minutes=1):
    return (*line[:2], text, line[3], minutes)


def iso(seconds):
    return f"2024-01-{2 + seconds // 86400:02}T{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:00+00:00"


def discord(messages, channel="77"):
    rows = []
    for n, author, text, at, *edited in messages:
        rows.append(
            {
                "id": str(1000 + n),
                "type": "Default",
                "timestamp": iso(at),
                "timestampEdited": iso(at + 60 * edited[0]) if edited else None,
                "content": text,
                "author": {"id": author, "name": NAMES[author], "nickname": NAMES[author]},
            }
        )
    return {"guild": {"id": "1"}, "channel": {"id": channel, "name": "tavern"}, "messages": rows}


def telegram(messages):
    rows = []
    for n, author, text, at, *edited in messages:
        row = {"id": n + 1, "type": "message", "date_unixtime": str(BEGIN_S + at), "text": text}
        row |= {"date": iso(at)[:19], "from": NAMES[author], "from_id": f"user{author}"}
        if edited:
            row["edited_unixtime"] = str(BEGIN_S + at + 60 * edited[0])
        rows.append(row)
    return {"name": "Tavern", "type": "private_group", "id": 77, "messages": rows}


def telegram_account(messages):
    return {"about": "…", "chats": {"list": [telegram(messages)]}}


def own_log(messages):
    rows = []
    for n, author, text, at, *_ in messages:
        row = {"channel": "tavern", "id": str(n), "at": BEGIN_S + at, "text": text}
        rows.append(json.dumps(row | {"author": NAMES[author], "author_id": author}))
    return "\n".join(rows)


def slack_day(messages):
    rows = []
    for _, author, text, at, *edited in messages:
        row = {
            "type": "message",
            "user": f"U{author}",
            "text": text,
            "ts": f"{BEGIN_S + at}.000001",
        }
        if edited:
            row["edited"] = {"user": f"U{author}", "ts": f"{BEGIN_S + at + 60 * edited[0]}.000000"}
        rows.append(row)
    return rows


def slack(folder, messages):
    users = [{"id": f"U{id}", "name": name} for id, name in NAMES.items()]
    files = {
        "users.json": users,
        "channels.json": [{"id": "C1", "name": "tavern"}],
        "tavern/2024-01-02.json": slack_day(messages),
    }
    return write_all(folder, files, zipped=True)


def write_parts(folder, write_part, *parts):
    """Write each part as a file, or as an archive of Slack's."""
    for number, messages in enumerate(parts):
        if write_part is slack:
            slack(folder / f"part{number}", messages)
            for path in sorted((folder / f"part{number}").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            (folder / f"part{number}").rmdir()
        else:
            write(folder / f"part{number}.json", write_part(messages))
    return folder


FORMATS = [discord, telegram, telegram_account, slack]


@pytest.mark.parametrize("write_part", FORMATS)
def test_parts_of_a_channel_are_one_conversation_with_the_latest_texts(tmp_path, write_part):
    all_lines = lines(0, 12)
    late = edit(all_lines[5], "What I meant to say is this.", minutes=9)
    first, second = all_lines[:8], all_lines[4:]
    second[1] = late
    for name, parts in (("early", (first, second)), ("late", (second, first))):
        found = outcome(write_parts(tmp_path / name, write_part, *parts), persona_names=ODA)
        (talk,) = found.talks
        texts = [line[2] for line in all_lines]
        texts[5] = late[2]
        assert [message.text for message in talk.messages] == texts
        assert found.dropped == {"the same message again": 3, "edited later": 1}
        assert found.rows == 16
        assert len({message.row for message in talk.messages}) == 12


@pytest.mark.parametrize("write_part", [discord, telegram, slack, own_log])
def test_an_id_that_is_twice_in_a_file_is_one_message(tmp_path, write_part):
    question, reply = lines(0, 2)
    changed = edit(reply, "Not today, dear.")
    messages = [question, reply, reply, changed]
    found = outcome(write_parts(tmp_path / "log", write_part, messages), persona_names=ODA)
    assert found.said == [[("Wick", question[2]), ("Oda", changed[2])]]
    assert found.dropped == {"the same message again": 1, "edited later": 1}


def test_parts_that_share_no_message_are_one_conversation_too(tmp_path):
    folder = write_parts(tmp_path / "log", discord, lines(6, 12), lines(0, 6))
    (talk,) = outcome(folder, persona_names=ODA).talks
    assert len(talk.messages) == 12
    write(folder / "other.json", discord(lines(0, 6), channel="78"))
    assert len(outcome(folder, persona_names=ODA).talks) == 2


def read_all(paths, rights):
    """Read sources of one job together, as a build and a run do."""
    logs = LogPool()
    sources = []
    for path, right in zip(paths, rights, strict=True):
        options = ReadOptions(persona_names=ODA, right=right)
        sources.append(read_usable(path, options, logs=logs))
    return [list(source) for source in sources]


@pytest.mark.parametrize("second_right", ["own-writing", "licensed:CC-BY-4.0"])
def test_no_reply_is_trained_on_and_held_out(tmp_path, second_right):
    """Each reply is in one conversation of all sources, in those of another right too."""
    messages = [(n, author, text, n // 2 * HOUR_S + n % 2) for n, author, text, _ in lines(0, 120)]
    paths = [
        write(tmp_path / "a.json", discord(messages[:80])),
        write(tmp_path / "b.json", discord(messages[41:])),
    ]
    sources = read_all(paths, ("own-writing", second_right))
    assert sum(item.rows for items in sources for item in items) == 80 + 79
    talks = [item for items in sources for item in items if isinstance(item, Conversation)]
    split = split_conversations(talks, QualityFilters(), 0.4)
    sides = {TRAIN: [], HELD_OUT: []}
    for talk, side in zip(talks, split.outcomes, strict=True):
        replies = [message.text for message in talk.messages[1:] if message.speaker.is_persona]
        sides.get(side, []).extend(replies)
    assert all(sides.values())
    assert not set(sides[TRAIN]) & set(sides[HELD_OUT])
    learned = Counter(sides[TRAIN] + sides[HELD_OUT])
    assert max(learned.values()) == 1


def test_a_source_whose_messages_are_all_in_another_is_no_error(tmp_path):
    path = write(tmp_path / "a.json", discord(lines(0, 8)))
    copy = write(tmp_path / "b.json", discord(lines(2, 6)))
    first, second = read_all([path, copy], ["own-writing"] * 2)
    assert [item.rows for item in first] == [8]
    assert {(item.reason, item.row) for item in second} == {
        ("the same message again", f"b.json messages {n}") for n in range(1, 5)
    }


def test_what_is_deleted_in_one_part_is_left_out_of_the_others(tmp_path):
    day = slack_day(lines(0, 4))
    deletion = {"type": "message", "subtype": "message_deleted", "ts": "1704190000.000001"}
    workspace = {"users.json": [{"id": f"U{id}", "name": name} for id, name in NAMES.items()]}
    workspace["channels.json"] = [{"id": "C1", "name": "tavern"}]
    new = [*day, deletion | {"deleted_ts": day[1]["ts"]}]
    for folder, days in (("a", new), ("b", day)):
        files = {f"{folder}/{name}": content for name, content in workspace.items()}
        write_all(tmp_path, files | {f"{folder}/tavern/2024-01-02.json": days}, zipped=False)
    found = outcome(tmp_path, persona_names=ODA)
    (talk,) = found.talks
    assert all(one[2] not in talk.raw_text for one in lines(1, 2))
    assert found.rows == 9 and found.dropped["deleted"] == 2


def test_a_thread_of_a_later_export_takes_its_first_message_along(tmp_path):
    day = slack_day(lines(0, 3))
    root = day[0] | {"thread_ts": day[0]["ts"]}
    reply = day[1] | {"thread_ts": day[0]["ts"]}
    assert all(one["ts"] < other["ts"] for one, other in pairwise(day))
    workspace = {"users.json": [{"id": f"U{id}", "name": name} for id, name in NAMES.items()]}
    workspace["channels.json"] = [{"id": "C1", "name": "tavern"}]
    for folder, days in (("a", [day[0]]), ("b", [root, reply])):
        files = {f"{folder}/{name}": content for name, content in workspace.items()}
        write_all(tmp_path, files | {f"{folder}/tavern/2024-01-02.json": days}, zipped=False)
    found = outcome(tmp_path, persona_names=ODA)
    assert found.said == [[("Wick", day[0]["text"]), ("Oda", day[1]["text"])]]


def whatsapp(messages):
    rows = []
    for _, author, text, at, *_ in messages:
        clock = f"{10 + at // 3600}:{at // 60 % 60:02}"
        rows.append(f"02/01/2024, {clock} - {NAMES[author]}: {text}\n")
    return "".join(rows)


def discord_csv(messages):
    rows = ["AuthorID,Author,Date,Content,Attachments,Reactions\n"]
    for _, author, text, at, *_ in messages:
        rows.append(f'{author},{NAMES[author]},{iso(at)},"{text}",,\n')
    return "".join(rows)


def instagram(messages):
    rows = [
        {"sender_name": NAMES[author], "timestamp_ms": (BEGIN_S + at) * 1000, "content": text}
        for _, author, text, at, *_ in messages
    ]
    return {"participants": [], "thread_path": "inbox/x", "messages": rows[::-1]}


WITHOUT_CHAT_IDS = {
    "log.jsonl": own_log,
    "chat.txt": whatsapp,
    "chat.csv": discord_csv,
    "message_1.json": instagram,
}


@pytest.mark.parametrize("name", WITHOUT_CHAT_IDS)
def test_copies_of_a_chat_are_found_by_their_messages(tmp_path, name):
    write_part = WITHOUT_CHAT_IDS[name]
    first, second = lines(0, 30), lines(20, 50)
    paths = [
        write(tmp_path / "a" / name, write_part(first)),
        write(tmp_path / "b" / name, write_part(second)),
    ]
    found = outcome(tmp_path, persona_names=ODA)
    (talk,) = found.talks
    assert [message.text for message in talk.messages] == [line[2] for line in lines(0, 50)]
    assert found.dropped == {"the same message again": 10} and found.rows == 60
    items = [item for source in read_all(paths, ["own-writing"] * 2) for item in source]
    assert sum(isinstance(item, Conversation) for item in items) == 1
    other = [(n + 100, author, f"{text} too", at) for n, author, text, at in lines(15, 40)]
    other[3:5] = lines(18, 20)
    write(tmp_path / "c" / name, write_part(other))
    assert len(outcome(tmp_path, persona_names=ODA).talks) == 2


def test_an_edit_in_a_later_copy_of_our_own_log_counts(tmp_path):
    all_lines = lines(0, 8)
    later = [edit(line, "It was the tide.") if line[0] == 3 else line for line in all_lines[2:]]
    write(tmp_path / "a.jsonl", own_log(all_lines[:6]))
    write(tmp_path / "b.jsonl", own_log(later))
    found = outcome(tmp_path, persona_names=ODA)
    (talk,) = found.talks
    assert talk.messages[3].text == "It was the tide." and len(talk.messages) == 8
    assert found.dropped == {"the same message again": 3, "edited later": 1}


def iphone(messages):
    rows = []
    for _, author, text, at, *_ in messages:
        clock = f"{10 + at // 3600}:{at // 60 % 60:02}:{17 + at % 40}"
        rows.append(f"[02.01.2024, {clock}] {NAMES[author]}: {text}\n")
    return "".join(rows)


def renamed(messages):
    return whatsapp(messages).replace(" Wick: ", " Wick (ferry): ")


def other_side(messages):
    """The same private chat as Oda's account has it, with numbers of its own."""
    chat = telegram([(n - 15, *more) for n, *more in messages])
    return chat | {"type": "personal_chat", "id": 10}


def one_side(messages):
    return telegram(messages) | {"type": "personal_chat", "id": 20}


def rewritten(messages):
    return own_log([(n, author, text.upper() + "!", at) for n, author, text, at in messages])


@pytest.mark.parametrize(
    ("first", "second", "dropped"),
    [
        (("a.txt", whatsapp), ("b.txt", iphone), "the same message again"),
        (("a.txt", whatsapp), ("b.txt", renamed), "the same message again"),
        (("a.json", one_side), ("b.json", other_side), "the same message again"),
        (("a.json", discord), ("b.csv", discord_csv), "the same message again"),
        (("a.csv", discord_csv), ("b.json", discord), "the same message again"),
        (("a.jsonl", own_log), ("b.jsonl", rewritten), "edited later"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1].__name__,
)
def test_a_chat_in_two_kinds_of_file_is_one(tmp_path, first, second, dropped):
    write(tmp_path / first[0], first[1](lines(0, 30)))
    write(tmp_path / second[0], second[1](lines(20, 50)))
    found = outcome(tmp_path, persona_names=ODA)
    (talk,) = found.talks
    texts = [message.text.casefold().rstrip("!") for message in talk.messages]
    assert texts == [line[2].casefold() for line in lines(0, 50)]
    assert found.dropped == {dropped: 10} and found.rows == 60
