"""Lorebooks of other programs: each key gives its entry, and the list says what else became of
it.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.card.card_book import card_book
from personas.card.card_cli import main
from personas.card.card_reader import parse_card
from personas.errors import CardError, LoreError
from personas.lore.index import LoreIndex
from personas.lore.key_search import KeySearch
from personas.lore.lore_folder import scan_lore
from personas.lore.lorebook_entry import MAX_REFUSED_REGEXES
from personas.lore.lorebook_markdown import lorebook_as_markdown
from personas.lore.lorebooks import find_lorebook_kind, parse_lorebook, read_lorebook
from personas.lore.passages import split_passages
from tests.personas.cards import V2, as_json
from tests.personas.lorebook_samples import (
    AGNAI,
    KOBOLD,
    LEDGER,
    NOVEL_AI,
    RISU,
    RULES,
    SILLY_TAVERN,
    V3,
    WHEEL,
    silly_tavern_entry,
)

ALL = {
    "sillytavern": SILLY_TAVERN,
    "novelai": NOVEL_AI,
    "agnai": AGNAI,
    "risu": RISU,
    "kobold": KOBOLD,
    "v3": V3,
}
NIGHT = RULES.replace("{{char}}", "Ada")


def read(document):
    return read_lorebook(json.loads(json.dumps(document)), "Ada", "Guest")


def given_for(document, message):
    """The texts that a message is given of a lorebook, as from its markdown."""
    [text] = lorebook_as_markdown(read(document).entries, "Mill")
    hits = LoreIndex(split_passages("ada", "ada/mill.md", text)).search("ada", message)
    return [hit.text for hit in hits]


def items(document):
    return {(item.outcome, item.what, item.why) for item in read(document).report().items}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("message", ["that wheel", "who opened the sluice"])
def test_each_key_of_an_entry_gives_it_with_or_without_a_name(kind, message):
    assert find_lorebook_kind(ALL[kind]) == kind
    assert WHEEL in given_for(ALL[kind], message)


@pytest.mark.parametrize("kind", ["sillytavern", "novelai", "risu"])
def test_secondary_keys_must_match_too(kind):
    assert LEDGER in given_for(ALL[kind], "the debt owed in the ledger")
    assert LEDGER not in given_for(ALL[kind], "the ledger")


def test_what_is_constant_is_given_with_any_message():
    assert given_for(SILLY_TAVERN, "hello") == given_for(NOVEL_AI, "hello") == [NIGHT]
    assert given_for(V3, "hello") == ["Bells ring at dusk."]


def test_the_list_says_what_of_world_info_has_no_effect():
    found = items(SILLY_TAVERN)
    assert ("as_is", "entry 1 “The wheel”", "") in found
    (why,) = (
        why
        for outcome, what, why in found
        if (outcome, what) == ("other_meaning", "entry 2 “ledger”")
    )
    assert "probability" in why
    assert ("not_taken", "entry 4 “draft”", "disabled in the file") in found
    reasons = {what: why for outcome, what, why in found if outcome == "not_taken"}
    assert "too long" in reasons["key /(a+)+$/ of entry 5 “reeds”"]
    assert "message" in reasons["position, depth and role"]
    settings_of_4 = [why for outcome, what, why in found if what == "a setting of entry 3"]
    assert sorted(why.split()[0] for why in settings_of_4) == ["its", "sticky,"]
    assert given_for(SILLY_TAVERN, "overreedshaped") == [NIGHT, "Reeds grow by the weir."]


def test_keys_have_names_and_novelais_may_ask_for_several_words():
    book = {
        "entries": {
            "0": silly_tavern_entry(0, ["{{Char}}'s boat", "{{user}}", "rock & roll"], WHEEL)
        }
    }
    assert read(book).entries[0].rules.keys == ("Ada's boat", "rock & roll")
    assert ("not_taken", "key {{user}} of entry 1 “Ada's boat”", "keys name no members") in items(
        book
    )
    entry = {
        "text": WHEEL,
        "displayName": "",
        "keys": ["weir", "mill & c/o & flood"],
        "enabled": True,
    }
    book = {"lorebookVersion": 5, "entries": [entry]}
    rules = read(book).entries[0].rules
    found = [
        bool(KeySearch(text).match(rules).keys)
        for text in ("FLOOD, c/o the Mill", "the mill", "a weir")
    ]
    assert found == [True, False, True]


def test_a_book_of_slow_expressions_costs_those_that_are_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(
        "personas.lore.key_regex.is_slow", lambda pattern, source: not tried.append(source)
    )
    entries = {
        str(n): silly_tavern_entry(n, [f"/(a+)+{n}-{k}/" for k in range(9)], WHEEL)
        for n in range(9)
    }
    unused = [
        item
        for item in read({"entries": entries}).report().with_outcome("not_taken")
        if "key" in item.what
    ]
    assert len(tried) == MAX_REFUSED_REGEXES and "too many regular expressions" in unused[-1].why
    assert "and 6 more of entry 9" in unused[-1].what


def test_the_list_shows_names_that_neither_hide_nor_turn_text():
    entry = silly_tavern_entry(0, ["wheel"], WHEEL, comment="Wheel\u202e\x1b[2J\nx")
    assert "entry 1 “Wheel [2J x”" in {what for _, what, _ in items({"entries": {"0": entry}})}


def test_an_entry_at_its_defaults_is_taken_as_is():
    book = {"entries": {"0": silly_tavern_entry(0, ["wheel"], WHEEL)}}
    assert {outcome for outcome, what, _ in items(book) if what.startswith("entry 1")} == {"as_is"}


def test_the_other_kinds_keep_what_they_can():
    reasons = {what: why for outcome, what, why in items(NOVEL_AI) if outcome == "not_taken"}
    assert "category is disabled" in reasons["entry 4 “Draft”"]
    assert ("not_taken", "entry 3 “A folder”", "a folder") in items(RISU)
    wheel = read(AGNAI).entries[0].rules
    assert (wheel.order, wheel.priority) == (7, 5)
    assert read(KOBOLD).entries[0].rules.logic == "not any"
    assert WHEEL not in given_for(KOBOLD, "a wheel of the steam mill")
    assert WHEEL not in given_for(V3, "oil the wheel")
    assert any(what == "@@depth in entry 1 “wheel”" for _, what, _ in items(V3))


@pytest.mark.parametrize(
    ("more", "unused"),
    [
        ({"enabled": False}, "disabled in the card"),
        ({"extensions": {"probability": 0, "useProbability": True}}, "its probability is 0"),
        ({"content": "@@dont_activate\nx"}, "@@dont_activate: never given"),
        ({"content": " "}, "no text"),
    ],
)
def test_an_unused_entry_says_why(more, unused):
    entry = {
        "keys": ["wheel"],
        "content": WHEEL,
        "enabled": True,
        "insertion_order": 1,
        "extensions": {},
        **more,
    }
    card = parse_card(
        as_json({**V2, "data": {**V2["data"], "character_book": {"entries": [entry]}}}), "it"
    )
    assert [item.unused for item in card_book(card).entries] == [unused]


def test_a_book_in_a_card_keeps_what_its_extensions_say():
    entry = {
        "keys": ["wheel", "(sluice|weir) gate", "C++", "[*+]+x"], "secondary_keys": ["night"], "selective": True,
        "content": WHEEL, "enabled": True, "insertion_order": 3, "priority": 2, "case_sensitive": True,
        "use_regex": True, "extensions": {"selectiveLogic": 2, "match_whole_words": False},
    }  # fmt: skip
    book = {"entries": [entry], "scan_depth": 4, "token_budget": 500, "recursive_scanning": True}
    card = parse_card(as_json({**V2, "data": {**V2["data"], "character_book": book}}), "it")
    rules = card_book(card).entries[0].rules
    assert (
        rules.keys == ("wheel", "/(sluice|weir) gate/", "C++", "/[*+]+x/")
        and rules.logic == "not any"
        and rules.order == 3
    )
    assert rules.match_case and rules.part_of_words and rules.priority == 2
    unused = {item.what for item in card_book(card).report().with_outcome("not_taken")}
    assert unused == {"scan depth", "token budget", "recursive scanning"}


def test_what_has_no_room_to_be_always_given_is_named():
    entries = {
        str(n): silly_tavern_entry(n, [f"k{n}"], " ".join(["sand"] * 85), constant=True)
        for n in range(3)
    }
    crowded = [
        what
        for _, what, why in items({"entries": entries})
        if why == "always given only as far as it has room"
    ]
    assert crowded == ["entry 3 “k2”"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.json", b"{", "a.json is not valid JSON"),
        (
            "a.json",
            b'{"messages": []}',
            "is JSON, but no lorebook",
        ),
        ("mira.json", as_json(V2), "is a character card"),
        ("notes.md", b'[{"conversations": []}]', "is JSON, but no lorebook"),
    ],
)
def test_other_json_is_no_lore(name, data, words):
    with pytest.raises(LoreError, match=words):
        parse_lorebook(data, name)


def test_markdown_stays_markdown_and_a_lorebook_is_no_card():
    assert parse_lorebook(b"[the wheel](x) turns", "notes.md") is None
    assert parse_lorebook(b"# Mill\n", "notes.md") is None
    for document in ALL.values():
        with pytest.raises(CardError, match=r"not a character card.*lore"):
            parse_card(as_json(document), "it")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("/(a/"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    [*silly_tavern_entry(0, [], ""), "extensions", "keys", "secondkey", "contextConfig", "mode"]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, VALUES, max_size=5), max_size=3))
def test_whatever_a_lorebook_holds_is_listed_and_its_markdown_is_read(entries):
    book = read_lorebook({"lorebookVersion": 5, "entries": entries}, "Ada", "Guest")
    listed = " ".join(item.what for item in book.report().items)
    assert all(f"entry {number}" in listed for number in range(1, len(entries) + 1))
    for text in lorebook_as_markdown(book.entries, "Mill"):
        found = split_passages("ada", "x", text)
        assert all(
            it.rules is None or it.rules in {entry.rules for entry in book.used} for it in found
        )


def test_the_command_writes_markdown_and_prints_the_list(tmp_path, capsys):
    file = tmp_path / "mill.lorebook"
    out = tmp_path / "mill.md"
    file.write_bytes(as_json(NOVEL_AI))
    assert main(["lore", "convert", str(file), str(out), "--name", "Ada", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"kind", "entries", "file", "imported"} and shown["kind"] == "novelai"
    assert set(shown["imported"]) == {"as_is", "other_meaning", "not_taken"}
    assert NIGHT in out.read_text()
    assert (
        main(["lore", "convert", str(file), str(out)]) == 1
        and "exists already" in capsys.readouterr().err
    )


def test_a_folder_of_lore_names_a_lorebook_in_it(tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "mill.lorebook").write_bytes(as_json(NOVEL_AI))
    (tmp_path / "ada" / "other.json").write_bytes(b"{}")
    [document] = scan_lore(tmp_path, ["ada"])
    assert document.owners == ("ada",) and "personas lore convert" in document.skipped


def test_numbers_that_json_should_not_have_count_as_none():
    entry = silly_tavern_entry(0, ["wheel"], WHEEL, order=float("nan"), probability=10**400)
    [read_entry] = read_lorebook({"entries": {"0": entry}}, "Ada", "Guest").entries
    assert read_entry.rules.order == 100 and not read_entry.unused
