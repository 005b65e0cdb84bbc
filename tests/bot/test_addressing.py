"""The rules by which a message is said to a persona, each by examples on both sides of its border."""

from datetime import UTC, datetime

import pytest

from bot.answering.actions import EffectiveAnswering
from bot.chat.addressing import ListeningChannel, Rule, SaidMessage, decide
from bot.chat.chat_words import first_named, names_of
from bot.guild_settings.quiet_hours import QuietHours
from bot.platform.errors import RefusedError
from personas.schemas.chat import Persona

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
NIGHTLY = QuietHours.parse("22:00-07:00")


def rule(
    text="hello", *, answers="everything", names=("oda marrow", "oda"), answering=None, **facts
):
    said = SaidMessage(**{"event_id": 1, "text": text, "at": NOON, **facts})
    channel = ListeningChannel(
        answers=answers, names=names, answering=answering or EffectiveAnswering()
    )
    return decide(said, channel).rule


@pytest.mark.parametrize(
    "text",
    [
        "lol", "LOL!!", "loool", "lmao", "rofl", "haha", "hahahaha", "ahahaha", "bahaha", "muahaha", "hehe", "hihi",
        "xD", "xDDD", "jajaja", "kkkkk", "mdr", "хахаха", "ㅋㅋㅋ", "www", "草", "哈哈哈", "555", "😂",
        "😂😂 lol", "👍🏽", "❤️", "🇩🇪", ":)", ":D", "^^", "<3", "T_T", "<:kek:123456789012345678>", "lol 😂 !", "ha ha"
    ],
)  # fmt: skip
def test_laughter_and_emoji_alone_are_left_alone(text):
    assert rule(text) is Rule.REACTION


@pytest.mark.parametrize(
    "text",
    [
        "lol no", "no", "ok", "?", "!", "...", "oh", "hi", "Lola", "this", "well :)", "😂 really?", "ha", "wow",
        "5", "42", "*waves*", "_smiles_", "haha what is that", "http is a protocol", "ok lol", "k",
    ],
)  # fmt: skip
def test_words_beside_it_are_answered(text):
    assert rule(text) is Rule.EVERY_MESSAGE


def test_laughter_beside_a_picture_is_about_the_picture():
    assert rule("lol", has_more=True) is Rule.EVERY_MESSAGE


@pytest.mark.parametrize(
    "text",
    ["!play sea shanties", "/roll 2d6", ".help", "?rank", "$daily", "-skip", ";;queue", "t!catch", "!p", "+rep @x",
     "-play shanties", ";;that was odd", "!hola", "!Help me with this", "?feed <@7>", "!bid 50 on it", "!tally --all",
     "!!watch https://example.org", "t!that was odd"],
)  # fmt: skip
def test_commands_to_other_bots_are_left_alone(text):
    assert rule(text) is Rule.COMMAND


@pytest.mark.parametrize(
    "text",
    [
        "...and then", "- soup", "-milk, please-", "?! what", "$5 for a bowl", "/etc/passwd is a file", "1. soup",
        "?", "!!!", "> soup, you said", "i.e. soup", "+1", ".5 l", "what!is", "-5 degrees",
        "!hola a todos", "?que tal", "?wirklich jetzt", "!that was odd", "?!what is it",
        "-that was odd", ">said so yesterday, too", ",and then?? he left",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_command_is_answered(text):
    assert rule(text) is Rule.EVERY_MESSAGE


@pytest.mark.parametrize(
    "text",
    ["https://example.org/a", "<https://example.org>", "https://a.org https://b.org !", "[x](https://a.org)"],
)  # fmt: skip
def test_links_without_words_are_left_alone(text):
    assert rule(text) is Rule.LINK
    assert rule(f"look: {text}") is Rule.EVERY_MESSAGE


@pytest.mark.parametrize("mention", ["<@7>", "<@!7>", "<@&9>", "@everyone", "@here", "  <@7>,"])
def test_a_leading_mention_of_somebody_else_is_left_alone(mention):
    assert rule(f"{mention} dinner?") is Rule.MENTION_OF_OTHER
    assert rule(f"dinner with {mention}?") is Rule.EVERY_MESSAGE
    assert rule(f"{mention} dinner?", mentions_bot=True) is Rule.MENTION
    assert rule(f"{mention} did Oda call?") is Rule.NAMED


def test_a_reply_to_somebody_else_is_left_alone_unless_it_names_the_persona():
    assert rule("yes", replies_to="other") is Rule.REPLY_TO_OTHER
    assert rule("yes, ask Oda", replies_to="other") is Rule.NAMED
    assert rule("lol", replies_to="persona") is Rule.REPLY
    assert rule("!play", replies_to="persona") is Rule.REPLY


def test_everything_is_answered_in_direct_messages():
    for text in ("lol", "!play", "https://a.org"):
        assert rule(text, is_direct_message=True, answers=None) is Rule.DIRECT_MESSAGE


def test_elsewhere_only_mentions_and_replies_are():
    assert rule(answers="mentions") is Rule.MENTIONS_ONLY
    assert rule("Oda?", answers="mentions") is Rule.MENTIONS_ONLY
    assert rule(answers=None) is Rule.NO_PERSONA
    assert rule(answers=None, mentions_bot=True) is Rule.MENTION
    assert rule("", is_hidden=True) is Rule.HIDDEN


class TestQuietHours:
    """Silent but for mentions, unless those are silent, too."""

    @pytest.mark.parametrize(
        ("hours", "quiet", "loud"),
        [
            ("22:00-07:00", [(22, 0), (23, 59), (0, 0), (6, 59)], [(7, 0), (21, 59)]),
            ("9-17", [(9, 0), (16, 59)], [(8, 59), (17, 0)]),
            ("22:30 to 24:00", [(22, 30), (23, 59)], [(0, 0), (22, 29)]),
        ],
    )
    def test_their_borders(self, hours, quiet, loud):
        parsed = QuietHours.parse(hours)
        for hour, minute in quiet:
            assert parsed.contain(datetime(2026, 3, 1, hour, minute))
        for hour, minute in loud:
            assert not parsed.contain(datetime(2026, 3, 1, hour, minute))

    @pytest.mark.parametrize(
        "hours", ["", "always", "25-7", "22:60-7", "7-7", "22", "22:00-07:00-09:00"]
    )
    def test_what_are_none_is_refused_with_an_example(self, hours):
        with pytest.raises(RefusedError) as refused:
            QuietHours.parse(hours)
        assert refused.value.advice

    def test_a_mention_is_answered_unless_that_is_set_otherwise(self):
        quiet = EffectiveAnswering(quiet_hours=NIGHTLY)
        assert rule(at=NIGHT, answering=quiet) is Rule.QUIET_HOURS
        assert rule("Oda?", at=NIGHT, answering=quiet) is Rule.QUIET_HOURS
        assert rule(at=NIGHT, answering=quiet, mentions_bot=True) is Rule.MENTION
        assert rule(at=NIGHT, answering=quiet, replies_to="persona") is Rule.REPLY
        assert rule(at=NOON, answering=quiet) is Rule.EVERY_MESSAGE
        silent = EffectiveAnswering(quiet_hours=NIGHTLY, quiet_mentions=True)
        assert rule(at=NIGHT, answering=silent, mentions_bot=True) is Rule.QUIET_HOURS
        assert rule(at=NOON, answering=silent, mentions_bot=True) is Rule.MENTION


def test_the_reply_chance_falls_on_its_share_of_messages_and_always_on_the_same():
    some = EffectiveAnswering(reply_chance=30)
    drawn = [rule(answering=some, event_id=event) for event in range(2000)]
    assert 0.26 < drawn.count(Rule.EVERY_MESSAGE) / 2000 < 0.34
    assert set(drawn) == {Rule.EVERY_MESSAGE, Rule.CHANCE}
    assert drawn == [rule(answering=some, event_id=event) for event in range(2000)]
    never = EffectiveAnswering(reply_chance=0)
    assert rule(answering=never, joins_reply=True) is Rule.EVERY_MESSAGE
    assert rule(answering=never) is Rule.CHANCE and rule("Oda!", answering=never) is Rule.NAMED


@pytest.mark.parametrize(
    ("name", "persona_id", "called"),
    [
        ("Oda Marrow", "oda", {"oda marrow", "oda"}),
        ("Sir Aurelio Thrip", "thrip", {"sir aurelio thrip", "aurelio", "thrip"}),
        ("The Harbour Master", "harbour", {"the harbour master"}),
        ("Dr. Wu Li", "x", {"dr. wu li", "wu"}),
        ("Bà Tư", "x", {"bà tư", "tư"}),
        ("You Know Who", "x", {"you know who"}),
        ("小明", "x", {"小明"}),
    ],
)
def test_the_names_by_which_a_persona_is_called(name, persona_id, called):
    assert {*names_of(Persona(persona_id, name))} == called


@pytest.mark.parametrize(
    ("text", "name", "stands"),
    [
        ("ODA!", "oda", True), ("oda's soup", "oda", True), ("is it (Oda)?", "oda", True), ("soda", "oda", False),
        ("odaliscs", "oda", False), ("oda_x", "oda", False), ("https://oda.org/oda", "oda", False),
        ("<:oda:123456789012345678>", "oda", False), ("sir\n aurelio   thrip", "sir aurelio thrip", True),
        ("小明你好", "小明", True), ("チグハグさん", "チグハグ", True), ("Žofie?", "žofie", True),
        ("하루야", "하루", True), ("하루는?", "하루", True), ("하루한테도", "하루", True),
        ("하루님", "하루", True), ("하루였어", "하루", True), ("하루라도", "하루", True),
        ("민준이었는데", "민준", True), ("Петра позови", "пётр", True), ("Петр?", "пётр", True),
        ("Γιώργο, έλα", "γιώργοσ", True), ("行李在那里", "李", False), ("李，你好", "李", True), ("李先生", "李", True),
        ("민준이가", "민준", True), ("하루살이", "하루", False), ("하루종일", "하루", False), ("사하루", "하루", False),
        ("_Ballast_", "ballast", True), ("__Ann__!", "ann", True), ("**_Ann_**", "ann", True), ("~~Ann~~", "ann", True),
        ("||Ann||", "ann", True), ("ballast_tank", "ballast", False), ("x_ann_", "ann", False), 
        ("Спроси Ольгу", "ольга", True), ("с Ольгой", "ольга", True), ("Ольге.", "ольга", True), ("Олю", "оля", True),
        ("Марии", "мария", True), ("Ивану", "иван", True), ("Андрея", "андрей", True), ("с Игорем", "игорь", True),
        ("Тарасові", "тарас", True), ("Маріє", "марія", True), ("Olgę", "olga", True), ("Janovi", "jan", False),
        ("Tomášovi", "tomáš", True), ("левом", "лев", False), ("ольговый", "ольга", False), ("Иванов", "иван", False),
        ("any", "ana", False), ("Марина", "мария", False), ("романтика", "роман", False), ("mine", "mina", False),
        ("ที่รัก", "ที", False),
        ("ओडाजी", "ओड", False), ("ओड जी", "ओड", True), ("cafe\u0301", "cafe", False), ("CAFÉ", "cafe\u0301", True),
    ],
)  # fmt: skip
def test_a_name_stands_between_the_borders_of_words(text, name, stands):
    (folded,) = names_of(Persona("x", name))[:1]
    assert (first_named(text, (folded,)) is not None) is stands
