"""Discord exports in JSON and CSV: sessions, who the persona is, what is left out, and how texts
are normalised.
"""

import csv
import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer import job_folders
from tests.trainer.chat_logs import damaged, outcome, write
from tests.trainer.job_folders import export
from trainer.sources.reader import read_source
from trainer.sources.registry import detect_format
from trainer.sources.source_format import ReadOptions

ADA = Persona("ada", "Ada Lace")


def message(text, author="mira_wet", minute=0.0, **fields):
    """A message of the export; `author` is a name, or all that the export says of somebody."""
    made = job_folders.message(text, author if isinstance(author, str) else "", minute, **fields)
    return made if isinstance(author, str) else made | {"author": author}


def person(id="7", name="understudy", **fields):
    return {"id": id, "name": name, **fields}


def discord(tmp_path, *messages, **options):
    return outcome(write(tmp_path / "talk.json", export(messages)), **options)


def test_a_conversation_ends_after_half_an_hour_of_silence(tmp_path):
    lines = [
        message("hello"),
        message("Good day.", "ada lace", 30),
        message("hi again", minute=60.1),
    ]
    found = discord(tmp_path, *lines, persona=ADA, right="own-writing")
    assert found.said == [
        [("mira_wet", "hello"), ("Ada Lace", "Good day.")],
        [("mira_wet", "hi again")],
    ]
    assert [talk.right for talk in found.talks] == ["own-writing"] * 2
    assert [talk.rows for talk in found.talks] == [2, 1]


def test_a_reply_joins_the_session_of_what_it_replies_to(tmp_path):
    reply = {"type": "Reply", "reference": {"messageId": "1000", "channelId": "2", "guildId": "1"}}
    found = discord(
        tmp_path,
        message("does it ring?"),
        message("anything else?", "bo", 200),
        message("It does, flat.", "ada", 300, **reply),
        message("thanks", minute=301),
        message("no", "bo", 500),
        persona=ADA,
    )
    assert found.said == [
        [("mira_wet", "does it ring?"), ("Ada Lace", "It does, flat."), ("mira_wet", "thanks")],
        [("bo", "anything else?")],
        [("bo", "no")],
    ]


def test_messages_of_one_speaker_in_a_row_are_joined_and_sorted_by_time(tmp_path):
    lines = [message("third", "ada", 3), message("second", minute=2), message("first", minute=1)]
    found = discord(tmp_path, *lines, persona=ADA)
    assert found.said == [[("mira_wet", "first\nsecond"), ("Ada Lace", "third")]]
    assert found.talks[0].messages[0].row == "messages 3"


def test_what_nobody_said_is_dropped_and_counted(tmp_path):
    bot = person(name="MusicBot", isBot=True)
    found = discord(
        tmp_path,
        message("hello"),
        message("joined the server", minute=0.1, type="GuildMemberJoin"),
        message("now playing", bot, 0.2),
        message("  ", minute=0.3),
        message("/persona set", minute=0.4),
        message("!skip", minute=0.5),
        message("", minute=0.6, attachments=[{"id": "1", "fileName": "cat.png"}]),
        message("", minute=0.7, embeds=[{"title": "cat"}]),
        message("", minute=0.8, stickers=[{"name": "cat"}]),
        message("", minute=0.9, reference={"type": "Forward"}, forwardedMessage={"content": "cat"}),
        message("!!! /usr/bin is full", minute=1, attachments=[{"id": "1", "fileName": "cat.png"}]),
        message("Good day.", "Ada Lace", 2, type="Reply"),
        message("As you asked.", "Ada Lace", 3, type="20"),
        persona=ADA,
    )
    assert found.said == [
        [("mira_wet", "hello\n!!! /usr/bin is full"), ("Ada Lace", "Good day.\nAs you asked.")],
    ]
    assert found.dropped == {
        "system message": 1,
        "another bot": 1,
        "no text": 1,
        "command": 2,
        "only an attachment": 1,
        "only an embed": 1,
        "only a sticker": 1,
        "forwarded message": 1,
    }
    assert found.rows == 13


@pytest.mark.parametrize(
    ("who", "options"),
    [
        (person(nickname="ADA", isBot=True), {"persona": ADA}),
        (person(nickname="Crane"), {"persona": ADA, "persona_names": ("crane ",)}),
        (person(), {"persona": ADA, "persona_names": ("7",)}),
        (
            person(roles=[{"id": "5", "name": "Keeper"}]),
            {"persona": ADA, "persona_names": ("keeper",)},
        ),
        (person(roles=[{"id": "5", "name": "Keeper"}]), {"persona": ADA, "persona_names": ("5",)}),
    ],
    ids=["a bot by nickname", "by another name", "by id", "by role", "by the role's id"],
)
def test_who_the_persona_is(tmp_path, who, options):
    found = discord(tmp_path, message("hello"), message("Good day.", who, 1), **options)
    first, second = found.talks[0].messages
    assert (second.speaker.is_persona, second.speaker.name, first.speaker.is_persona) == (
        True,
        "Ada Lace",
        False,
    )


def test_a_role_that_is_called_after_the_persona_makes_nobody_the_persona(tmp_path):
    fan = person(name="bo", roles=[{"id": "5", "name": "ada"}])
    found = discord(
        tmp_path, message("I am a fan.", fan), message("Good day.", "ada", 1), persona=ADA
    )
    assert [m.speaker.is_persona for m in found.talks[0].messages] == [False, True]


def test_without_a_persona_everybody_goes_by_their_own_name(tmp_path):
    found = discord(tmp_path, message("hello"), message("Good day.", "ada", 1))
    assert found.said == [[("mira_wet", "hello"), ("ada", "Good day.")]]
    assert not any(m.speaker.is_persona for m in found.talks[0].messages)
    assert (
        discord(tmp_path, message("hello"), persona_names=("MIRA_wet",))
        .talks[0]
        .messages[0]
        .speaker.is_persona
    )


def test_several_people_are_kept_apart_by_id_whatever_they_call_themselves(tmp_path):
    found = discord(
        tmp_path,
        message("one", person("1", "ann", nickname="Captain")),
        message("two", person("2", "bo", nickname="Captain"), 1),
        message("three", person("1", "ann", nickname="Sailor"), 2),
    )
    speakers = [m.speaker for m in found.talks[0].messages]
    assert [speaker.id for speaker in speakers] == ["1", "2", "1"]
    assert speakers[0].names == ("Sailor", "ann", "Captain"), (
        "the name in use last is shown, the others are known"
    )


def test_mentions_become_names_of_those_who_speak(tmp_path):
    ann = person("41", "ann", nickname="Ann of Ely")
    zoe = person("42", "zoe", nickname="Zoe")
    bo = person("43", "bo")
    found = discord(
        tmp_path,
        message("<@41> <@!41> <@42> <@7>", bo),
        message("@Ann of Ely and @Zoe, @Zoeline `@Zoe`", bo, 1, mentions=[ann, zoe]),
        message("yes?", ann, 2),
        message("Quite.", person("7", "ada"), 3),
        persona=ADA,
    )
    first, *_ = found.said[0]
    assert first == (
        "bo",
        "@Ann of Ely @Ann of Ely @someone @Ada Lace\n@Ann of Ely and @someone, @Zoeline `@someone`",
    )


def test_an_export_counts_as_taken_from_the_api_unless_a_right_is_stated(tmp_path):
    assert discord(tmp_path, message("hello")).talks[0].right == "discord-api"
    assert discord(tmp_path, message("hello"), right="form").talks[0].right == "form"


def test_a_log_without_the_persona_names_who_speaks(tmp_path):
    path = write(
        tmp_path / "talk.json",
        export([message("hi"), message("hello", minute=90), message("hi", "bo", 91)]),
    )
    found = read_source(path, ReadOptions(persona=ADA))
    assert [(next(found).rows, next(found).rows)] == [(1, 2)], "all rows are accounted for first"
    with pytest.raises(MaterialError, match=r"Ada Lace .*talk\.json\..*: mira_wet, bo\."):
        next(found)


def test_channels_without_the_persona_do_not_stop_a_folder(tmp_path):
    write(tmp_path / "logs" / "a.json", export([message("hi", "bo")], channel="3"))
    write(tmp_path / "logs" / "b.json", export([message("hello"), message("Good day.", "ada", 1)]))
    found = outcome(tmp_path / "logs", persona=ADA)
    assert found.said == [[("mira_wet", "hello"), ("Ada Lace", "Good day.")]]
    assert found.rows == 3
    assert re.search(r"Ada Lace .*logs/a\.json", found.rejected[0].reason)
    (tmp_path / "logs" / "b.json").unlink()
    write(tmp_path / "logs" / "c.json", export([message("hi", "bo")], channel="4"))
    with pytest.raises(MaterialError, match=r"Ada Lace .*logs/a\.json"):
        outcome(tmp_path / "logs", persona=ADA)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "talk.json is empty"),
        (b"\n \n", "talk.json is empty"),
        (b"\xff\xfe{\0}\0", "talk.json is not UTF-8"),
        (b'{"guild": {}, "channel": {}, "messages": [', "talk.json contains no messages"),
        (b"[]", "talk.json is in no known"),
        (b'{"guild": {}}', "talk.json is in no known"),
        (b'{"guild": {}, "channel": {}, "messages": []}', "talk.json contains no messages"),
        (
            b'{"guild": 1, "channel": 2, "messages": [{"id": "1"}]}',
            r"messages 1 cannot be read \(timestamp: missing\)",
        ),
    ],
)
def test_a_broken_export_is_named(tmp_path, content, said):
    with pytest.raises(MaterialError, match=said):
        outcome(write(tmp_path / "talk.json", content), persona=ADA)


def test_a_broken_row_is_named_and_does_not_stop_the_rest(tmp_path):
    found = discord(
        tmp_path,
        message("hello"),
        message("hello", minute=1, timestamp="yesterday"),
        message("hello", minute=2, content=None),
        message("hello", minute=3) | {"author": "me"},
        message("hello", {"id": "1"}, 4),
        message("hi", minute=5),
    )
    wrong = [(item.row, item.reason.partition(":")[0]) for item in found.rejected]
    assert wrong == [
        ("messages 2", "timestamp"),
        ("messages 3", "content"),
        ("messages 4", "author"),
        ("messages 5", "name"),
    ]
    assert "'yesterday'" in found.rejected[0].reason
    assert found.said == [[("mira_wet", "hello\nhi")]] and found.rows == 6


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(damaged(message("hello", attachments=[], mentions=[], reference=None)), max_size=4))
def test_damaged_messages_are_all_accounted_for(tmp_path, messages):
    assert discord(tmp_path, message("hello"), *messages).rows == len(messages) + 1


def table(*rows, header="AuthorID,Author,Date,Content,Attachments,Reactions"):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return header + "\r\n" + text.getvalue()


@pytest.mark.parametrize(
    "dates",
    [
        (
            "2026-03-11T09:00:00.0000000+00:00",
            "2026-03-11T09:20:00.0000000+00:00",
            "2026-03-12T10:10:00.0000000+01:00",
        ),
        ("11-Mar-26 09:00 AM", "11-Mar-26 09:20 AM", "12-Mar-26 09:10 AM"),
        ("03/11/2026 9:00 AM", "03/11/2026 9:20 AM", "03/12/2026 9:10 AM"),
        ("11/03/2026 09:00", "11/03/2026 09:20", "12/03/2026 09:10"),
        ("11.03.2026 09:00", "11.03.2026 09:20", "12.03.2026 09:10"),
    ],
    ids=["ISO", "month by name", "month first", "day first", "dots"],
)
def test_a_csv_export_is_read_with_dates_in_any_order(tmp_path, dates):
    path = write(
        tmp_path / "talk.csv",
        table(
            ["1", "mira#0001", dates[0], 'two\nlines, and "quotes"', "", ""],
            ["2", "Ada Lace#0000", dates[1], "Good day <:wave:99>", "", ""],
            ["1", "mira#0001", dates[2], "next day", "", ""],
            ["1", "mira#0001", dates[2], "", "https://cdn.example/cat.png", ""],
            ["3", "bo", dates[2], "Joined the server.", "", ""],
            ["3", "bo", "some day", "hello", "", ""],
        ),
    )
    assert detect_format(path).name == "discord-csv"
    found = outcome(path, persona=ADA)
    assert found.said == [
        [("mira", 'two\nlines, and "quotes"'), ("Ada Lace", "Good day :wave:")],
        [("mira", "next day")],
    ]
    assert found.talks[0].messages[0].speaker.names == ("mira", "mira#0001")
    assert found.dropped == {
        "only an attachment": 1,
        "system message": 1,
        "Date: 'some day' is not a date and time": 1,
    }
    assert found.rows == 6 and found.talks[0].right == "discord-api"


def test_an_old_csv_export_without_ids_is_read(tmp_path):
    rows = [
        ["mira#0001", "11-Mar-26 09:00 AM", "hello", "", ""],
        ["ada#2", "11-Mar-26 09:01 AM", "Good day.", "", ""],
    ]
    path = write(
        tmp_path / "talk.txt", table(*rows, header="Author,Date,Content,Attachments,Reactions")
    )
    assert outcome(path).said == [[("mira", "hello"), ("ada#2", "Good day.")]]
