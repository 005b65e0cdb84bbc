"""Telegram, Slack, Instagram, Discord's data package and our own log: each in its published shape,
odd and broken.
"""

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.chat_logs import BEGIN_S, VALUES, damaged, outcome, write, write_all
from trainer.sources.formats.instagram import fix_mojibake
from trainer.sources.markup import convert_emphasis, is_command, normalise_discord
from trainer.sources.registry import detect_format

ADA = Persona("ada", "Ada Lace")
QUIET = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# Our own log


def line(id, text, author="mira", minute=0.0, channel="tavern", **fields):
    at = BEGIN_S + 60 * minute
    return {
        "channel": channel,
        "id": id,
        "at": at,
        "author": author,
        "author_id": f"u-{author}",
        "text": text,
        **fields,
    }


def own(tmp_path, *lines, **options):
    return outcome(
        write(tmp_path / "log.json", "\n".join(json.dumps(line) for line in lines)), **options
    )


def test_own_logs_honour_edits_and_deletions(tmp_path):
    found = own(
        tmp_path,
        line("1", "is there sop?"),
        line("2", "I should not have said that.", minute=1),
        line("3", "There is.", "ada", 2, is_bot=True, reply_to="1"),
        line("1", "is there soup?", minute=3),
        {"channel": "tavern", "id": "2", "at": "2026-03-01T09:04:00+00:00", "deleted": True},
        {"channel": "cellar", "id": "3", "at": "2026-03-01T09:04:00Z", "deleted": True},
        line("4", "hello", minute=5),
        line("4", " ", minute=6),
        line("1", "who is down here?", "bo", 7, channel="cellar"),
        line("5", "beep", "robot", 8, is_bot=True),
        persona=ADA,
    )
    assert found.said == [
        [("mira", "is there soup?"), ("Ada Lace", "There is.")],
        [("bo", "who is down here?")],
    ]
    assert found.dropped == {
        "edited later": 2,
        "deleted": 1,
        "says that another was deleted": 2,
        "no text": 1,
        "another bot": 1,
    }
    assert found.rows == 10 and found.talks[0].right == "discord-api"


def test_own_logs_know_the_persona_by_role_and_keep_channels_apart(tmp_path):
    lines = [
        line("1", "hi"),
        line("2", "Aye.", "k", 1, roles=["Keeper"]),
        line("3", "ho", minute=1, channel="cellar"),
    ]
    found = own(tmp_path, *lines, persona_names=("keeper",))
    assert found.said == [[("mira", "hi"), ("k", "Aye.")], [("mira", "ho")]]
    assert [m.speaker.is_persona for m in found.talks[0].messages] == [False, True]


@QUIET
@given(
    st.lists(
        damaged(line("2", "hello", reply_to="1", is_bot=False, roles=[], deleted=False)), max_size=5
    )
)
def test_damaged_lines_are_all_accounted_for(tmp_path, lines):
    whole = [
        line(f"w{number}", "hi") for number in range(6)
    ]  # most lines are objects, so the file is JSON lines
    assert own(tmp_path, *whole, *lines, format="own-log").rows == len(lines) + 6


def test_the_example_in_the_docs_is_such_a_log(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "chats.md").read_text(encoding="utf-8")
    example = page.split("```\n")[1]
    path = write(tmp_path / "log.jsonl", example)
    assert detect_format(path).name == "own-log"
    assert outcome(path).said == [[("Mira", "Is there soup?"), ("Oda", "Always.")]]
    listed = {
        name
        for row in page.split("\n")
        if row.startswith("| `")
        for name in row.split("|")[1].split("`")[1::2]
    }
    assert {"discord", "discord-csv", "own-log", "whatsapp"} < listed


# Discord's data package


def messages_csv(*rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(
        [["ID", "Timestamp", "Contents", "Attachments"], *rows]
    )
    return text.getvalue()


OLD_PACKAGE = {
    "account/user.json": {"id": "41", "username": "mira", "discriminator": "0001"},
    "messages/index.json": {
        "100000000000000001": "Direct Message with bo#0002",
        "100000000000000002": None,
    },
    "messages/c100000000000000001/channel.json": {
        "id": "100000000000000001",
        "type": 1,
        "recipients": ["41", "42"],
    },
    "messages/c100000000000000001/messages.csv": messages_csv(
        ["9", "2021-05-01 10:02:00.123000+00:00", "and <@42>, <:wave:7>", ""],
        ["8", "2021-05-01 10:00:00+00:00", 'two\nlines, "quoted"', ""],
        ["7", "2021-05-01 08:00:00+00:00", "", "https://cdn.example/cat.png"],
    ),
    "messages/100000000000000002/messages.csv": messages_csv(
        ["6", "2021-05-02 08:00:00+00:00", "oldest layout", ""]
    ),
}
NEW_PACKAGE = {
    "Konto/user.json": {"id": "41", "username": "mira", "global_name": "Mira"},
    "Nachrichten/index.json": {"100000000000000001": "general in Skerrow"},
    "Nachrichten/c100000000000000001/channel.json": {
        "id": "100000000000000001",
        "type": "GUILD_TEXT",
    },
    "Nachrichten/c100000000000000001/messages.json": [
        {"ID": 9, "Timestamp": "2024-05-01 10:00:20", "Contents": "hi", "Attachments": ""},
        {
            "ID": 8,
            "Timestamp": "2024-05-01 10:00:00",
            "Contents": "",
            "Attachments": "https://cdn.example/cat.png",
        },
        {"ID": 7, "Timestamp": "long ago", "Contents": "hi", "Attachments": ""},
    ],
    "Nachrichten/c100000000000000002/messages.json": "{",
    "Server/index.json": {},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_a_data_package_holds_one_persons_side(tmp_path, zipped):
    path = write_all(tmp_path / "package", OLD_PACKAGE, zipped=zipped)
    assert detect_format(path).name == "discord-package"
    found = outcome(path)
    assert sorted(found.said) == [
        [("mira", "oldest layout")],
        [("mira", 'two\nlines, "quoted"\nand @someone, :wave:')],
    ]
    assert found.dropped == {"only an attachment": 1} and found.rows == 4
    assert {talk.right for talk in found.talks} == {"data-package"}
    assert not any(m.speaker.is_persona for talk in found.talks for m in talk.messages)


def test_the_person_whose_package_it_is_is_the_persona_and_others_are_unknown(tmp_path):
    def message(id, at, text="hi"):
        return {"ID": id, "Timestamp": f"2024-05-01 {at}", "Contents": text, "Attachments": ""}

    talk = [
        message(1, "10:00:00"),
        message(2, "10:00:50"),
        message(3, "10:05:00", "ho"),
        message(4, "10:06:30", "!go"),
    ]
    files = {
        "Messages/c100000000000000001/messages.json": [*reversed(talk), message(5, "19:00:00", " ")]
    }
    found = outcome(write_all(tmp_path / "package", files, zipped=True), persona=ADA)
    assert found.said == [
        [("someone", "…"), ("Ada Lace", "hi\nhi"), ("someone", "…"), ("Ada Lace", "ho")]
    ]
    assert found.dropped == {"command": 1, "no text": 1} and found.rows == 5
    assert [m.speaker.is_persona for m in found.talks[0].messages] == [False, True, False, True]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_a_newer_data_package_in_another_language(tmp_path, zipped):
    found = outcome(write_all(tmp_path / "package", NEW_PACKAGE, zipped=zipped))
    assert found.said == [[("Mira", "hi")]] and found.rows == 4
    assert [(item.row.split("/", 1)[1], item.reason.split(": ")[0]) for item in found.rejected] == [
        ("c100000000000000001/messages.json row 2", "only an attachment"),
        ("c100000000000000001/messages.json row 3", "Timestamp"),
        ("c100000000000000002/messages.json line 1", "not valid JSON"),
    ]


# Telegram


def telegram(id, text, sender="Mira", minute=0, **fields):
    return {
        "id": id,
        "type": "message",
        "date": f"2026-03-01T{10 + minute // 60:02}:{minute % 60:02}:00",
        "date_unixtime": str(int(BEGIN_S) + 60 * minute),
        "from": sender,
        "from_id": f"user{sum(sender.encode())}" if sender else "user5",
        "text": text,
        **fields,
    }


def result(*messages, **fields):
    return {
        "name": "Tavern",
        "type": "private_group",
        "id": 77,
        "messages": list(messages),
        **fields,
    }


def test_a_telegram_chat(tmp_path):
    mira = {"type": "mention_name", "text": "Mira", "user_id": sum(b"Mira")}
    pieces = [
        "see ",
        {"type": "bold", "text": " this "},
        {"type": "text_link", "text": "page", "href": "https://example.com"},
        " ",
        mira,
        {"type": "mention", "text": "@ada"},
        {"type": "mention", "text": "@stranger"},
        {"type": "custom_emoji", "text": "🎉", "document_id": "9"},
        "\n",
        {"type": "pre", "text": "print( 1 )\n\n\n", "language": "python"},
    ]
    found = outcome(
        write(
            tmp_path / "result.json",
            result(
                {
                    "id": 1,
                    "type": "service",
                    "date": "2026-03-01T09:00:00",
                    "actor": "Mira",
                    "action": "invite_members",
                },
                telegram(2, "hi"),
                telegram(3, pieces, "Ada", 1),
                telegram(4, "", "Mira", 2, photo="photos/1.jpg"),
                telegram(5, "", "Mira", 3),
                telegram(6, "elsewhere", "Mira", 4, forwarded_from="Bo"),
                telegram(7, "a cat", "Mira", 5, via_bot="@gif"),
                telegram(8, [{"type": "bot_command", "text": "/start"}], "Mira", 6),
                telegram(9, "gone", None, 7),
                telegram(10, "late", "Mira", 600, reply_to_message_id=9),
                telegram(11, {"no": "text"}, "Mira", 601),
                telegram(12, [7], "Mira", 601),
            ),
        ),
        persona=ADA,
    )
    assert found.said == [
        [
            ("Mira", "hi"),
            (
                "Ada Lace",
                "see  **this** [page](https://example.com) @Mira@Ada "
                "Lace@someone🎉\n```python\nprint( 1 )\n```",
            ),
            ("Deleted Account", "gone"),
            ("Mira", "late"),
        ]
    ]
    assert found.dropped == {
        "system message": 1,
        "only an attachment": 1,
        "no text": 1,
        "forwarded message": 1,
        "another bot": 1,
        "command": 1,
        "text: a text or a list was expected": 1,
        "text: a piece is neither a text nor an entity": 1,
    }
    assert found.rows == 12 and found.talks[0].right == ""


def test_a_whole_telegram_export(tmp_path):
    bot_chat = result(
        telegram(1, "hi", "Robot", from_id="user88"), telegram(2, "hm"), type="bot_chat", id=88
    )
    saved = {
        "type": "saved_messages",
        "messages": [telegram(1, "note", minute=9), "x"],
        "more": [{"messages": [1]}],
    }
    export = {
        "about": "Here is the data you requested.",
        "contacts": {"about": "", "list": [{"first_name": "Bo"}]},
        "chats": {
            "about": "",
            "list": [result(telegram(1, "hi")), bot_chat, saved, {"type": "empty"}, 5],
        },
        "left_chats": {"about": "", "list": [result(telegram(1, "bye", minute=1), id=78)]},
    }
    found = outcome(write(tmp_path / "result.json", export))
    assert found.said == [[("Mira", "hi")], [("Mira", "hm")], [("Mira", "note")], [("Mira", "bye")]]
    assert found.dropped == {
        "another bot": 1,
        "an object was expected": 1,
        "a text where an object was expected": 1,
    }
    assert found.rows == 7
    assert found.talks[1].messages[0].row == "chats 2, messages 2"
    assert [item.row for item in found.rejected][1:] == [
        "chats 3, messages 2",
        "chats 5, messages 1",
    ]


def test_a_chat_behind_much_else_is_found(tmp_path):
    odd = [
        {"text": '\\"]}' * number, "more": [[], {}, "\\"]} for number in range(700)
    ]  # three MiB, all of it in the way
    export = {
        "contacts": {"list": odd},
        "left_chats": {"more": odd, "list": [result(telegram(1, "bye"))]},
    }
    assert outcome(write(tmp_path / "result.json", export), "telegram").said == [[("Mira", "bye")]]


@QUIET
@given(
    chats=st.lists(
        st.builds(
            lambda rest, rows: rest | {"messages": rows},
            st.dictionaries(st.text(), VALUES),
            st.lists(VALUES),
        )
    ),
    cut=st.integers(0, 40),
)
@pytest.mark.slow
def test_whole_exports_are_read_however_odd_and_wherever_they_end(tmp_path, chats, cut):
    export = json.dumps({"about": "", "chats": {"about": "", "list": chats}})
    path = write(tmp_path / "result.json", export)
    assert outcome(path, "telegram").rows == sum(len(chat["messages"]) for chat in chats)
    with contextlib.suppress(MaterialError):  # so much is missing that nobody would know it
        outcome(write(path, export[: len(export) - cut] or "{"), "telegram")


@QUIET
@given(
    st.lists(
        damaged(telegram(2, [{"type": "bold", "text": "x"}], reply_to_message_id=1, photo="")),
        max_size=4,
    )
)
def test_damaged_telegram_messages_are_all_accounted_for(tmp_path, messages):
    path = write(tmp_path / "result.json", result(telegram(1, "hi"), *messages))
    assert outcome(path, "telegram").rows == len(messages) + 1


# Slack


def slack(text, user="U1", minute=0.0, **fields):
    return {
        "type": "message",
        "user": user,
        "text": text,
        "ts": f"{BEGIN_S + 60 * minute:.6f}",
        **fields,
    }


def ts(minute):
    return f"{BEGIN_S + 60 * minute:.6f}"


WORKSPACE = {
    "users.json": [
        {"id": "U1", "name": "mira", "profile": {"display_name": "", "real_name": "Mira Vale"}},
        {"id": "U2", "name": "ada", "profile": {"display_name": "Ada", "real_name": "Ada Lace"}},
        {"id": "U3", "name": "clock", "is_bot": True, "profile": {"real_name": "Clock"}},
    ],
    "channels.json": [{"id": "C1", "name": "general", "members": ["U1", "U2"]}],
    "integration_logs.json": [{"user_id": "U1"}],
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_a_slack_export(tmp_path, zipped):
    days = {
        "general/2026-03-02.json": [slack("next day", minute=1440)],
        "general/2026-03-01.json": [
            slack("<@U1> has joined the channel", subtype="channel_join"),
            slack(
                "is *this* _it_? <https://example.com/a|example.com/a> in <#C1> &amp; <#C9|old>",
                minute=1,
            ),
            slack(
                "<@U2> <!here> <@U9> <https://example.com|page> &lt;3 :wave::skin-tone-2:", minute=2
            ),
            slack("Yes, `a &lt; *b*`", "U2", 3, thread_ts=ts(1)),
            slack("thread!", "U1", 300, thread_ts=ts(1)),
            slack("tick", "U3", 4),
            slack("tock", None, 5, subtype="bot_message", bot_id="B1", username="hook"),
            slack("", minute=6, files=[{"name": "cat.png"}], subtype="file_share"),
            slack(
                "<@U1> uploaded a file: <https://x.example/f|cat> and commented: look",
                minute=7,
                file={"id": "F"},
            ),
            slack("This message was deleted.", minute=8, subtype="tombstone"),
            slack("", minute=9, attachments=[{"text": "card"}]),
            slack("alas", minute=10),
            {"type": "message", "subtype": "message_deleted", "ts": ts(11), "deleted_ts": ts(10)},
            slack("waht?", minute=12),
            {
                "type": "message",
                "subtype": "message_changed",
                "ts": ts(13),
                "message": slack("what?", minute=12, edited={"user": "U1"}),
            },
            {"type": "message", "text": "nobody", "ts": ts(14)},
            5,
        ],
    }
    days["general/2026-03-01.json"][1]["thread_ts"] = ts(1)
    path = write_all(tmp_path / "export", WORKSPACE | days, zipped=zipped)
    assert detect_format(path).name == "slack"
    found = outcome(path, persona=ADA)
    assert found.said == [
        [
            (
                "Mira Vale",
                "@Ada Lace @here @someone [page](https://example.com) <3 :wave:\nlook\nwhat?",
            )
        ],
        [("Mira Vale", "next day")],
        [
            ("Mira Vale", "is **this** *it*? example.com/a in #general & #old"),
            ("Ada Lace", "Yes, `a < *b*`"),
            ("Mira Vale", "thread!"),
        ],
    ]
    assert found.dropped == {
        "system message": 1,
        "another bot": 2,
        "only an attachment": 1,
        "deleted": 2,
        "says that another was deleted": 1,
        "only an embed": 1,
        "edited later": 1,
        "user: missing": 1,
        "a number where an object was expected": 1,
    }
    assert found.rows == 18


def test_a_slack_bot_can_be_the_persona(tmp_path):
    days = {
        "d/2026-03-01.json": [
            slack("tick?"),
            slack("Tock.", None, 1, subtype="bot_message", bot_id="B1", username="Ada"),
        ]
    }
    found = outcome(write_all(tmp_path / "export", WORKSPACE | days, zipped=True), persona=ADA)
    assert found.said == [[("Mira Vale", "tick?"), ("Ada Lace", "Tock.")]]


@QUIET
@given(
    messages=st.lists(
        damaged(slack("<@U1> hi", subtype="", thread_ts="", message={}, files=[])) | VALUES,
        max_size=4,
    ),
    users=st.lists(VALUES, max_size=2),
)
def test_damaged_slack_messages_are_all_accounted_for(tmp_path, messages, users):
    day = {"general/2026-03-01.json": [slack("hi", minute=999), *messages]}
    path = write_all(tmp_path / "export", WORKSPACE | day | {"users.json": users}, zipped=False)
    assert outcome(path, "slack").rows == len(messages) + 1


# Instagram


def instagram(content, sender="Mira", minute=0, **fields):
    said = {} if content is None else {"content": content}
    return {
        "sender_name": sender,
        "timestamp_ms": int(BEGIN_S + 60 * minute) * 1000,
        **said,
        **fields,
    }


def mangled(text):
    """As the exporter writes it."""
    return text.encode().decode("latin-1")


def talk(*messages):
    return {
        "participants": [{"name": "Mira"}, {"name": "Ada"}],
        "messages": list(messages),
        "thread_path": "inbox/a_1",
    }


def test_an_instagram_talk_is_read_from_its_end_and_repaired(tmp_path):
    found = outcome(
        write(
            tmp_path / "message_1.json",
            talk(
                instagram(
                    "Ada sent an attachment.", "Ada", 9, share={"link": "https://example.com"}
                ),
                instagram("https://example.com", "Ada", 8, share={"link": "https://example.com"}),
                instagram(None, "Ada", 8, photos=[{"uri": "a.jpg"}]),
                instagram(None, "Ada", 8),
                instagram("Liked a message", minute=7),
                instagram(mangled("Reacted 😎 to your message "), minute=7),
                instagram("oops", minute=6, is_unsent=True),
                instagram("Mira started a video chat", minute=5, call_duration=5),
                instagram("second", "Ada", 1),
                instagram("first", "Ada", 1),
                instagram(mangled("café 😎"), mangled("Zoë")),
                instagram("hi") | {"timestamp_ms": "soon"},
            ),
        ),
        persona=ADA,
    )
    assert found.said == [[("Zoë", "café 😎"), ("Ada Lace", "first\nsecond")]]
    assert found.dropped == {
        "only an attachment": 3,
        "no text": 1,
        "system message": 3,
        "deleted": 1,
        "timestamp_ms: a number was expected": 1,
    }
    assert found.rows == 12


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_the_parts_of_an_instagram_talk_come_together(tmp_path, zipped):
    inbox = "your_instagram_activity/messages/inbox"
    files = {
        f"{inbox}/ada_1/message_1.json": talk(instagram("Good day.", "Ada", 1)),
        f"{inbox}/ada_1/message_2.json": talk(instagram("hello")),
        f"{inbox}/bo_2/message_1.json": talk(instagram("ho", "Bo", 1), instagram("hi")),
        "personal_information/personal_information.json": {"profile_user": []},
    }
    path = write_all(tmp_path / "instagram-mira", files, zipped=zipped)
    assert detect_format(path).name == "instagram"
    found = outcome(path, persona=ADA)
    assert found.said == [
        [("Mira", "hello"), ("Ada Lace", "Good day.")],
        [("Mira", "hi"), ("Bo", "ho")],
    ]
    assert found.rows == 4


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_the_exporters_way_of_writing(text):
    assert fix_mojibake(mangled(text)) == text


@pytest.mark.parametrize("text", ["café", "naïve", "日本語", "plain", "Ã", "emoji 😎"])
def test_text_that_is_right_already_is_left_alone(text):
    assert fix_mojibake(text) == text


@QUIET
@given(st.lists(damaged(instagram("hi", share={}, photos=[], is_unsent=False)), max_size=4))
def test_damaged_instagram_messages_are_all_accounted_for(tmp_path, messages):
    path = write(tmp_path / "message_1.json", talk(instagram("hi"), *messages))
    assert outcome(path, "instagram").rows == len(messages) + 1


# Texts


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("<:wave:12> <a:party_1:34>", ":wave: :party_1:"),
        ("in <#5> and <#6>, ask <@&7>", "in #tavern and #channel, ask @role"),
        (
            "at <t:1772355600:R> or <t:1772355600>",
            "at 2026-03-01 09:00 UTC or 2026-03-01 09:00 UTC",
        ),
        ("<t:999999999999>", "<t:999999999999>"),
        ("use </persona set:99> in <id:customize>", "use /persona set in #customize"),
        ("<https://example.com/a?b=c>", "https://example.com/a?b=c"),
        ("a\r\nb\rc\u200b \n\n\n\nd", "a\nb\nc\n\nd"),
        ("x `<:wave:12>` ``<#5>`` y", "x `<:wave:12>` ``<#5>`` y"),
        (
            "```py\nif a:\n    <:wave:12>\n\n\n\n    b  \n```",
            "```py\nif a:\n    <:wave:12>\n\n\n\n    b  \n```",
        ),
        ("```one line```", "```\none line\n```"),
        ("before ```js\nx``` after", "before ```js\nx\n``` after"),
        ("``` never closed", "``` never closed"),
        ("*waves* **loudly** ||secretly||", "*waves* **loudly** ||secretly||"),
        ("a \x02b\x03 c", "a b c"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
    ],
)
def test_discord_markup_is_normalised_outside_of_code(raw, written):
    assert normalise_discord(raw, {"5": "tavern"}) == written


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("*bold* _it_ ~no~", "**bold** *it* ~~no~~"),
        ("*_both_*", "***both***"),
        ("2*3*4 snake_case_name a ~ b ~ c", "2*3*4 snake_case_name a ~ b ~ c"),
        ("* item\n* item", "* item\n* item"),
        ("(*bold*), *b*!", "(**bold**), **b**!"),
    ],
)
def test_other_emphasis_becomes_discords(raw, written):
    assert convert_emphasis(raw) == written


@given(st.text())
def test_no_text_breaks_the_markup(text):
    written = normalise_discord(text)
    assert normalise_discord(written) == written, "what is normalised stays as it is"
    convert_emphasis(text)


@pytest.mark.parametrize("text", ["/play", "!skip 2", "/start@bot now", "!é"])
def test_commands(text):
    assert is_command(text)


@pytest.mark.parametrize(
    "text", ["", "!", "!!!", "/usr/bin", "! no", "/ or", "!?", "and /play", "/7"]
)
def test_no_commands(text):
    assert not is_command(text)


def test_a_file_without_messages_is_no_error_until_a_persona_is_asked_for(tmp_path):
    path = write(
        tmp_path / "result.json", {"name": "x", "type": "private_group", "id": 1, "messages": []}
    )
    assert outcome(path, "telegram").rows == 0
    with pytest.raises(MaterialError, match=r"result\.json contains no messages"):
        outcome(path, "telegram", persona=ADA)


# Sessions


@QUIET
@given(
    gap_s=st.integers(0, 3600),
    steps=st.lists(
        st.tuples(st.integers(0, 7200), st.integers(0, 3), st.none() | st.integers(0, 20)),
        max_size=20,
    ),
)
def test_sessions_end_in_gaps_and_replies_reach_over_them(tmp_path, gap_s, steps):
    minute = 0.0
    lines = []
    for number, (step_s, author, reply_to) in enumerate(steps):
        minute += step_s / 60
        earlier = {} if reply_to is None else {"reply_to": str(reply_to)}
        lines.append(line(str(number), f"said {number}", f"name{author}", minute, **earlier))
    whole = [
        line(f"w{number}", "so", channel="cellar") for number in range(2)
    ]  # a log is at least two lines
    found = own(tmp_path, *lines, *whole, format="own-log", session_gap_s=gap_s)
    assert found.rows == len(lines) + 2 and not found.dropped
    session_of = {
        int(text.removeprefix("said ")): place
        for place, talk in enumerate(found.talks)
        for message in talk.messages
        for text in message.text.split("\n")
        if text.startswith("said ")
    }
    assert len(session_of) == len(lines)
    for number, (step_s, _, reply_to) in enumerate(steps):
        if reply_to is not None and reply_to < number:
            assert session_of[number] == session_of[reply_to]
        elif number:
            goes_on = session_of[number] == session_of[number - 1]
            assert goes_on == (step_s <= gap_s) or abs(step_s - gap_s) <= 1  # times are floats
