"""A model that writes hostile text on every turn mentions nobody, links nowhere, and passes for
nobody else.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.chat import streaming_reply
from bot.chat.discord_questions import MAX_QUESTION_CHARS, quote_member
from bot.chat.markdown_split import closing_of, split_markdown
from bot.chat.reply_text import (
    MAX_FOOTER_CHARS,
    MAX_PART_CHARS,
    discord_text,
    remove_links,
    reply_footer,
    split_message,
)
from bot.platform.messages import MAX_MESSAGE_CHARS
from bot.safety.actions import DISCLOSURE
from bot.versions.blind_test.judgement_text import _quoted
from personas.schemas.chat import ChatReply, LoreHit
from sandbox.traffic_log import HttpExchange, observers
from tests.bot.conftest import INN, QUAY, STAGE, on_stage
from tests.bot.test_direct_messages import chosen
from tests.fake_engine import FakeEngine
from tests.hostile_text import FRAGMENTS, JOINTS, LINK, PHRASES, dangers, hostile_reply

IDS = {"member": 111122223333444455, "role": 222233334444555566, "channel": 333344445555666677}
FOOTER, EMPTY_FOOTER = "-# AI-written · base model", "-# AI-written · nothing came out"
OWN_BUTTONS = re.compile(r"(stop|reply|again|vote[+]1|vote-1):\d+")
FOOTERS = re.compile(f"^({FOOTER}|{EMPTY_FOOTER})", re.MULTILINE)
FEW = {QUAY: 6, INN: 3, STAGE: 2}
MANY = {QUAY: 80, INN: 70, STAGE: 60}
TEXTS = st.lists(
    st.sampled_from([*FRAGMENTS, *JOINTS, *(one[:40] for one in PHRASES)]), max_size=12
).map("".join)


def written(text: str) -> str:
    for name, value in IDS.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@pytest.mark.parametrize("fragment", [*FRAGMENTS, *PHRASES], ids=lambda text: ascii(text)[:50])
def test_each_fragment_is_harmless_alone_and_in_pieces(fragment):
    text = written(fragment)
    whole = discord_text(f"a{text} b", keeps_code=True)
    assert dangers(whole) == [] and not LINK.search(re.sub(r"\]\(|[<>]", "", remove_links(text))), (
        whole
    )
    for end in range(min(len(text), 200)):
        shown = discord_text(text[:end], is_whole=False, keeps_code=True)
        assert dangers(shown) == []
        assert discord_text(text, keeps_code=True).startswith(shown)


@given(TEXTS, st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_what_is_shown_while_it_grows_is_harmless_and_stays(text, middle, end):
    text = written(text)
    whole = discord_text(text, keeps_code=True)
    cuts = sorted((middle, end))
    shown = [discord_text(text[:cut], is_whole=False, keeps_code=True) for cut in cuts]
    assert (
        dangers(whole) == []
        and all(whole.startswith(one) for one in shown)
        and shown[1].startswith(shown[0])
    )
    parts = split_message(text * 9, FOOTER)
    assert all(
        len(part) <= MAX_MESSAGE_CHARS and dangers(part.removesuffix(FOOTER)) == []
        for part in parts
    )
    assert dangers(_quoted(text)) == []


@pytest.mark.parametrize("fragment", [*FRAGMENTS, *PHRASES], ids=lambda text: ascii(text)[:50])
def test_the_bot_quotes_a_member_without_links(fragment):
    quote = quote_member("Wren", written(f"a{fragment} b"))
    assert quote.startswith("**Wren:**") and not LINK.search(re.sub(r"\]\(|[<>]", "", quote)), quote
    assert len(quote_member("n" * 80, (fragment * MAX_QUESTION_CHARS)[:MAX_QUESTION_CHARS])) <= 2000


def test_plain_text_stays_as_it_is():
    text = (
        "Is 3 < 4 @ noon (see [1])? C# - #1: </div> a@b.example <3 <:kek:1> <t:0:R> **bold** 12:30 "
        "中文 👩‍👩‍👧 שלום"
    )
    assert discord_text(text) == text and remove_links(text) == text


CODE = (
    "handlers[name](event)", "-# note", "a<@b and <@1>", "@everyone", "s3://b/k https://a.example/b", "</cmd:1>",
)  # fmt: skip


@pytest.mark.parametrize(
    "frame", ["`{}`", "``{}``", "```\n{}\n```", "```py\n{}```", "*So:* `{}` **now**", "- `{}`"]
)
@pytest.mark.parametrize("code", CODE)
def test_code_is_left_alone(frame, code):
    text = f"See {frame.format(code)} there." if "- " not in frame else frame.format(code)
    assert discord_text(text, keeps_code=True) == text == remove_links(text, keeps_code=True)
    assert split_message(text, FOOTER) == [f"{text}\n{FOOTER}"]
    grown = [discord_text(text[:end], is_whole=False, keeps_code=True) for end in range(len(text))]
    assert all(text.startswith(shown) for shown in grown)


@pytest.mark.parametrize(
    "text",
    [
        "```\nhttps://a.example", "`https://a.example", "**a `b** https://a.example `",
        "> `a\nhttps://a.example `", "> ```\nhttps://a.example\n> ```", "||`|| https://a.example `", "# `a\n<@1> `",
        "\\`https://a.example `", "~~a `b~~ https://a.example `", "`a\nb` https://a.example `",
        "[a `b](c) https://a.example `", "``a` https://a.example `",
    ],
)  # fmt: skip
def test_what_is_no_code_to_clients_has_no_links(text):
    assert dangers(discord_text(text, keeps_code=True)) == [] != dangers(text)


MARKS = st.sampled_from(
    ["`", "`", "``", "```", "```py\n", "**", "*", "_", "__", "||", "~~", "[", "](", "> ", "# ", "- ", "\n", " ", "\\",
    "http://a", "x://b", "<@1>", "-# ", "<", ">", "a", "a b", "@here"]
)  # fmt: skip


@given(st.lists(MARKS, max_size=16).map("".join), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=500, deadline=None)
def test_code_hides_nothing_that_clients_show(text, middle, end):
    whole = discord_text(text, keeps_code=True)
    cuts = sorted((middle, end))
    shown = [discord_text(text[:cut], is_whole=False, keeps_code=True) for cut in cuts]
    assert dangers(whole) == []
    assert whole.startswith(shown[1]) and shown[1].startswith(shown[0])


@pytest.mark.parametrize(
    "piece", ["`", "``a ", "```\n", "`a\n", "**a ", "* ", "[", "<", "||", "\\`", "```a```"]
)
def test_long_replies_are_shown_in_time(piece):
    text = piece * (8000 // len(piece))
    begun = time.process_time()
    for end in range(0, len(text), 1000):
        discord_text(text[:end], is_whole=False, keeps_code=True)
    split_message(text, FOOTER)
    assert time.process_time() - begun < 10


LONG = "word " * 400


@pytest.mark.parametrize(
    ("text", "opening", "closing"),
    [
        (f"||{LONG}||", "||", "||"),
        (f"**{LONG}**", "**", "**"),
        (f"Look: ~~**{LONG}**~~ there", "~~**", "**~~"),
        ("```py\n" + "print(1)\n" * 300 + "```", "```py\n", "```"),
        (f"``{LONG}``", "``", "``"),
        ("||```py\n" + "print(1)\n" * 300 + "```||", "||```py\n", "```||"),
    ],
)
def test_markup_that_is_split_is_closed_and_opened_again(text, opening, closing):
    first, *_, last = split_message(text, FOOTER)
    assert first.endswith(closing) and last.startswith(opening)
    shown = [part.removesuffix(f"\n{FOOTER}") for part in split_message(text, FOOTER)]
    assert sum(part.count("word") + part.count("print") for part in shown) in (300, 400)


@pytest.mark.parametrize("mark", ["> ", ">>> ", "-# ", "## ", "> **", ">>> so\n"])
def test_a_line_that_is_split_keeps_its_markup(mark):
    split = split_markdown(f"{mark}{'word ' * 40}{mark[2:].strip()}", 100)
    assert split.rest.startswith(mark.removesuffix("so\n") + "word ")
    assert split_markdown(f"{'word ' * 15}\n> {'word ' * 9}", 77).rest.startswith("> word")


@pytest.mark.parametrize("limit", range(20, 70))
def test_hidden_code_is_split_into_hidden_code(limit):
    text = "so so so so ||```\n" + "code " * 6 + "\n```||" + " so" * 10
    split = split_markdown(text, limit)
    for part in (split.first, split.rest):
        assert (
            "||||" not in part
            and part.count("||") in (0, 2)
            and part.count("```") == part.count("||")
        )
    assert (split.first + split.rest).count("code") == 6


def test_markup_is_kept_whole_where_there_is_room_before_it():
    text = f"{'word ' * 280}||{'hidden ' * 40}|| and so on"
    first, second = split_message(text, FOOTER)
    assert first.strip() == ("word " * 280).strip() and second.startswith("||hidden")


@pytest.mark.parametrize("sign", ["👩‍👩‍👧", "👍🏽", "🇩🇪", "ที่", "नि", "กำ", "<:kek:123>", "e\u0301"])
def test_no_sign_is_split(sign):
    parts = [part.removesuffix(f"\n{FOOTER}") for part in split_message("a" + sign * 1700, FOOTER)]
    assert len(parts) > 1 and "".join(parts) == "a" + sign * 1700
    assert all(part.removeprefix("a").replace(sign, "") == "" for part in parts)


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("It was ||the cook", "||"),
        ("It was ||the cook|| and ||he", "||"),
        ("So:\n```py\nprint", "\n```"),
        ("It was ||the cook||, `||` and **so", ""),
    ],
)
def test_what_is_hidden_stays_hidden_while_it_grows(text, closing):
    assert closing_of(text) == closing


def test_what_closes_around_a_link_stays():
    text = 'Look ([here](https://a.example/b), or "www.b.example"). Gone: <https://c.example>!'
    left_out = "(link left out)"
    assert remove_links(text) == f'Look ([here]({left_out}), or "{left_out}"). Gone: <{left_out}>!'


def test_a_footer_has_its_place_however_much_it_names():
    lore = tuple(LoreHit(f"a-long-name-of-a-file-{n}.md", "", "x", 1.0) for n in range(30))
    footer = reply_footer(ChatReply("hello", "v1", 7, 1, 1, "stop", lore=lore))
    assert footer.startswith("-# AI-written · v1 · lore: ") and len(footer) <= MAX_FOOTER_CHARS
    assert MAX_PART_CHARS + 1 + MAX_FOOTER_CHARS + len(f"**{'n' * 80}:** ") <= MAX_MESSAGE_CHARS


class Watch:
    """Checks each message that the bot sends or edits, whatever for, and what members then see of a
    persona.
    """

    def __init__(self):
        self.faults = []
        self.edits = 0

    def __call__(self, what):
        body = what.body if isinstance(what, HttpExchange) else None
        if (
            not isinstance(body, dict)
            or "content" not in body
            or what.method not in ("POST", "PATCH")
        ):
            return
        if "/messages" not in what.path and "/webhooks" not in what.path:
            return
        self.edits += what.method == "PATCH"
        if what.status >= 400:
            self.faults.append(f"{what.status}: {body['content'][:80]!r}")
        if (body.get("allowed_mentions") or {}).get("parse") != [] or set(
            body["allowed_mentions"]
        ) - {
            "parse",
            "replied_user",
        }:
            self.faults.append(
                f"{what.method} {what.path} may mention: {body.get('allowed_mentions')}"
            )
        text = str(body["content"] or "")
        disclosed = text.removesuffix("\n" + DISCLOSURE)
        footer = disclosed.rpartition("\n")[2]
        own = footer if footer.startswith("-# ") else ""
        if own and own.partition(" · lore: ")[0].removesuffix(" · earlier talk") not in (
            FOOTER,
            EMPTY_FOOTER,
        ):
            self.faults.append(f"a footer {own!r}")
        if found := dangers(disclosed.removesuffix(own)):
            self.faults.append(f"{found} in {text!r}")
        buttons = re.findall(r"'custom_id': '([^']+)'", str(body.get("components")))
        self.faults += [f"a button {it}" for it in buttons if not OWN_BUTTONS.fullmatch(it)]

    def seen(self, message):
        """Check a message as the sandbox shows it."""
        if (
            message["mentions"]
            or message["mention_roles"]
            or message["mention_everyone"]
            or message["embeds"]
        ):
            self.faults.append(f"mentions or embeds in {message['content']!r}")


@pytest.mark.parametrize(
    "replies", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"]
)
async def test_hostile_replies_mention_nobody_link_nowhere_and_gain_nothing(
    tmp_path, monkeypatch, replies
):
    monkeypatch.setattr(streaming_reply, "FIRST_EDIT_DELAY_S", 0.0)
    monkeypatch.setattr(streaming_reply, "EDIT_INTERVAL_S", 0.0)  # each piece is shown
    engine = FakeEngine()
    seeds = iter(range(10_000))
    async with on_stage(tmp_path, engine=engine) as stage:
        guild = stage.client.guilds[0]
        ids = {
            "member": guild.owner_id,
            "role": guild.roles[-1].id,
            "channel": guild.text_channels[0].id,
        }
        direct = await chosen(stage)  # there the bot speaks itself, without a webhook
        engine.script = lambda request: hostile_reply(next(seeds), **ids)
        before = dump(stage)
        asked = len(engine.requests)
        observers.append(watch := Watch())
        try:
            for place, count in [*replies.items(), (direct, replies[STAGE])]:
                channel_id = (direct if place is direct else stage.sandbox.channel(place))["id"]
                for number in range(count):
                    mark = stage.mark
                    await stage.member.say(place, f"tell me {number}")
                    watch.seen(await ended(stage, channel_id, mark))
        finally:
            observers.remove(watch)
        assert watch.faults == []
        total = sum(replies.values()) + replies[STAGE]
        assert len(engine.requests) - asked == total and watch.edits > 3 * total, (
            "edits in the middle, too"
        )
        assert dump(stage) == before, "no version, job, mute or choice of a persona has changed"


async def ended(stage, channel_id, mark):
    try:
        return await stage.sandbox.wait_for(
            "edit",
            lambda it: it["channel_id"] == channel_id and FOOTERS.search(it["content"]),
            timeout_s=10,
            since=mark,
        )
    except TimeoutError:
        shown = [(kind, it.get("content")) for kind, it in stage.sandbox.events[mark:]]
        pytest.fail(f"no reply has ended: {shown[-3:]}")


def dump(stage):
    """Return the database's rows that give authority or show it."""
    tables = """taught comparisons settings channel_personas
        jobs versions promotions mutes consents gifts memories forgettings withdrawn
        votes""".split()
    tables.append("gone where kind = 'person'")
    return {
        name: [tuple(row) for row in stage.store._connection.read(f"select * from {name}")]
        for name in tables
    }
