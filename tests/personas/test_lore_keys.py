"""Keys of lore: comments below headings, what gives a passage, its place among others, and slow
expressions.
"""

import pytest

from personas.errors import LoreError
from personas.lore.entry_rules import (
    MAX_ALWAYS_WORDS,
    EntryRules,
    format_rules,
)
from personas.lore.index import LoreIndex
from personas.lore.key_regex import compile_regex
from personas.lore.key_search import KeySearch
from personas.lore.lore_folder import scan_lore
from personas.lore.passages import split_passages

LORE = """# Mill

## The wheel

<!-- lore
keys: wheel, sluice, /mill-?(?:race|pond)s?/i
-->

Nine paddles of elm turn below the house.

## The ledger
<!-- lore
keys: [ledger]
and any: [debt, owed]
-->
A page is torn out of the year of the flood.

## The cat

Pim sleeps on the flour sacks.
"""


def index_of(text):
    return LoreIndex(split_passages("ada", "ada/mill.md", text))


def given(text, message, limit=2):
    return [hit.text for hit in index_of(text).search("ada", message, limit)]


def section(title, rules, text):
    return f"\n## {title}\n\n<!-- lore\n{rules}\n-->\n\n{text}\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("nice wheels", "Nine paddles"),
        ("SLUICE!", "Nine paddles"),
        ("he fell into the mill-pond", "Nine paddles"),
        ("the ledger of who owed what", "torn out"),
    ],
)
def test_each_key_gives_its_passage(message, words):
    assert any(words in text for text in given(LORE, message))


@pytest.mark.parametrize(
    "message", ["the ledger", "owed", "a flywheels-free day", "torn out pages of the flood year"]
)
def test_a_passage_with_secondary_keys_is_given_by_its_keys_only(message):
    assert not any("torn out" in text for text in given(LORE, message))


@pytest.mark.parametrize(
    ("logic", "allowed"),
    [
        ("and any", {"fog", "frost", "fog frost"}),
        ("and all", {"fog frost"}),
        ("not any", {""}),
        ("not all", {"", "fog", "frost"}),
    ],
)
def test_secondary_keys_follow_their_logic(logic, allowed):
    rules = EntryRules(("lamp",), ("fog", "frost"), logic)
    messages = ("", "fog", "frost", "fog frost")
    assert {more for more in messages if KeySearch(f"the lamp {more}").match(rules).keys} == allowed
    assert not any(KeySearch(more).match(rules).keys for more in messages)


@pytest.mark.parametrize(
    ("key", "more", "message", "is_found"),
    [
        ("cat", {}, "the cats' bowl", True),
        ("cat", {}, "a category", False),
        ("cat", {"part_of_words": True}, "a category", True),
        ("Cat", {"match_case": True}, "a cat", False),
        ("Cat", {"match_case": True}, "Cat!", True),
        ("long  winter", {}, "the Long\nWinter came", True),
        ("Oda's ladle", {}, "where is Oda’s ladle?", True),
        ("灯塔", {}, "昨天灯塔亮了", True),
        ("राम", {}, "रामायण पढ़ो", False),
        ("राम", {}, "राम कहाँ है?", True),
        ("কম", {}, "কমা দাও", False),
        ("கல", {}, "கலி", False),
        ("ที", {}, "ที่นี่", False),
        ("ประตู", {}, "เปิดประตูหน่อย", True),
        ("سلام", {}, "سلامٌ عليكم", False),
        ("등대", {}, "등대는 어디", True),
        ("/^who/i", {}, "Who is it", True),
        ("/Who/", {}, "who is it", False),
        ("C++", {}, "she writes C++ at night", True),
    ],
)
def test_keys_match_words_or_parts_in_either_case(key, more, message, is_found):
    assert bool(KeySearch(message).match(EntryRules((key,), **more)).keys) == is_found


def test_what_is_always_given_has_its_order_and_its_room():
    words = " ".join(["sand"] * 80)
    text = "# Mill\n"
    for order in (30, 10, 20):
        text += section(f"S{order}", f"always: yes\norder: {order}", f"{words} {order}.")
    shown = [text.split()[-1] for text in given(text, "hello")]
    assert MAX_ALWAYS_WORDS == 180 and shown == ["20.", "30."], (
        "the lowest order has no room; the order ascends"
    )
    assert [hit.text for hit in index_of(text).always_given("ada")] == given(text, "hello"), (
        "as samples have it"
    )
    text += section("Small", "always: yes\npriority: 1", "Bells.")
    assert given(text, "hello")[-1] == "Bells.", "100, the usual order, comes last"


def test_keys_come_before_meaning_and_compete_by_priority_then_order():
    text = LORE
    for title, rules in (("A", "order: 1"), ("B", "order: 9"), ("C", "order: 0\npriority: 5")):
        text += section(title, f"keys: barge\n{rules}", f"The barge {title} lies in the reeds.")
    assert given(text, "where is the barge, and where does Pim sleep?") == [
        "The barge C lies in the reeds.",
        "The barge B lies in the reeds.",
    ]
    assert any("Pim" in text for text in given(text, "Where does Pim sleep?"))


def test_a_slow_or_wrong_expression_is_refused():
    for key in ("/(a+)+$/", "/(x+x+)+y/", "/((a{99}){99}){99}/"):
        with pytest.raises(LoreError, match=r"takes too long|repeats too often"):
            compile_regex(key)
    with pytest.raises(LoreError, match="no valid regular expression"):
        split_passages("ada", "x", section("T", "keys: /(/", "text"))


class SlowPattern:
    """An expression that takes its whole time on each text."""

    def search(self, text, **limits):
        assert limits["timeout"] > 0
        raise TimeoutError


def test_an_expression_that_is_slow_on_a_message_is_skipped_there(monkeypatch, caplog):
    monkeypatch.setattr("personas.lore.key_search.compile_regex", lambda key: SlowPattern())
    assert KeySearch("a lamp").match(EntryRules(("/(l|la)+x/", "lamp"))).keys == ("lamp",)
    assert "/(l|la)+x/ of a lore entry takes too long" in caplog.text


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("keyz: lamp", "`keyz`. Known: keys, and any"),
        ("keys: {a: b}", "keys must be keys"),
        ("always: maybe", "always must be yes or no"),
        ("order: first", "order must be a whole number"),
        ("and any: fog", "without `keys`"),
        ("keys: a\nand any: b\nnot any: c", "both `and any` and `not any`"),
        ("keys: [a", "is not YAML"),
        ("just words", "has no names"),
    ],
)
def test_a_wrong_comment_is_refused_with_its_heading(comment, words):
    with pytest.raises(LoreError) as refused:
        split_passages("ada", "x", section("The lamp", comment, "text"))
    assert words in str(refused.value) and "The lamp" in str(refused.value)


def test_a_folder_of_lore_skips_a_wrong_comment_with_its_reason(tmp_path):
    (tmp_path / "ada.md").write_text(section("The lamp", "keyz: lamp", "text"))
    [document] = scan_lore(tmp_path, ["ada"])
    assert "unknown name, `keyz`" in document.skipped


def test_rules_are_read_as_they_were_written():
    keys = ("lamp", 'a-->b "q"', "/x{1,2}/i", "yes", "3", "c: d", "灯塔", "#x", "- y", "🌊 wave")
    rules = EntryRules(
        keys,
        ("z, a",),
        "not all",
        always=True,
        order=-3,
        priority=2,
        match_case=True,
        part_of_words=True,
    )
    [passage] = split_passages("ada", "x", f"# H\n\n{format_rules(rules)}\n\nText.\n")
    assert passage.rules == rules and passage.text == "Text."
    assert format_rules(EntryRules()) == ""
    [plain] = split_passages("ada", "x", "# H\n\n<!-- lore from the wiki -->\n\nText.\n")
    assert plain.rules is None
