"""Whom forgetting finds in texts and files, whom it leaves alone, and what is left of a file."""

import csv
import gzip
import io
import json
import tracemalloc
import zipfile

import pytest

from bot.platform.person_names import is_distinctive
from bot.privacy.alias_search import AliasSearch, identify_in_files
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from bot.privacy.redaction import (
    contains_person,
    file_contains_person,
    file_mentions_person,
    mentions_person,
    redact,
    redact_file,
)
from personas.card.toml_card import FIELD_ORDER
from personas.home.pseudonyms import keyed_person

ID = "734829104458293761"
WHO = PersonIdentifiers(ids=(ID,)).with_names(
    ["Ottoline Quillverne", "quillverne_77", "Rose", "Mai"], ["Wendell Park"]
)
NAMED = IdentifierMatcher(WHO.with_parts(["Wendell", "Park"]))
SAID = "My sister keeps the brass heron on Tallowmere Street."
FINDER = IdentifierMatcher(
    WHO.with_texts([SAID, "ok", "你好，我昨天在港口旁边看见了那只铜苍鹭。真的很大！"])
)


def collect_aliases(files, user_id):
    aliases = AliasSearch(user_id)
    aliases.search(files)
    return aliases


@pytest.mark.parametrize(
    "text",
    [
        f"<@{ID}> and "
        f"<@!{ID}>", "Ottoline Quillverne's lamp", "OTTOLINE QUILLVERNE", "Ottoline\nQuillverne",
        "thequillverne_77x", "Rose came by", f"he said: {SAID}", f"…{SAID}",
        "他说你好，我昨天在港口旁边看见了那只铜苍鹭。", json.dumps(SAID), json.dumps("Ottoline Quillverne"),
    ],
)  # fmt: skip
def test_found(text):
    assert FINDER.in_text(text) and FINDER.in_bytes(text.encode())
    assert not FINDER.in_text(FINDER.redacted(text)), FINDER.redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        f"1{ID}", f"{ID}2", "a rose is a rose", "Roses and Rosemary", "Ottoline", "Wendell Park", "ok", "ok then",
        "My sister keeps a cat.", "", "mail, domain, mainland",
    ],
)  # fmt: skip
def test_left_alone(text):
    assert not FINDER.in_text(text) and FINDER.redacted(text) == text


@pytest.mark.parametrize(
    ("name", "telling"),
    [("the", False), ("Will", False), ("jo", False), ("Rose", True), ("rose", False), ("Zyxwv", True), ("Mai", True),
     ("the_will", True), ("Minh Anh", True), ("田中", False), ("田中太郎", True)],
)  # fmt: skip
def test_which_names_tell_whose_they_are(name, telling):
    assert is_distinctive(name) is telling


def test_others_names_are_never_taken_for_ones_own():
    named = PersonIdentifiers(ids=(ID,)).with_names(
        ["Wendell Park", "user", "Zyxwv"], ["wendell park"]
    )
    assert named.names == named.speaker_names == ("Zyxwv",)


def test_what_whoever_runs_the_bot_vouches_for_counts_in_any_case():
    finder = IdentifierMatcher(PersonIdentifiers().with_confirmed_names(["rose"]))
    assert finder.redacted("Rose and ROSE, not Rosemary") == "someone and someone, not Rosemary"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Ottoline keeps it well.", "someone keeps it well."), ("Ottoline! Quillverne's", "someone! someone's"),
        ("ottoline", "ottoline"), ("Ottolines", "Ottolines"), ("Ottoline Harker", "Ottoline Harker"),
        ("Ottoline Quillverne", "someone"), ("down Quillverne Street", "down Quillverne Street"),
    ],
)  # fmt: skip
def test_a_part_of_a_name_is_taken_away_and_decides_nothing_else(text, left):
    assert NAMED.redacted(text) == left
    assert NAMED.in_text(text) == NAMED.in_bytes(text.encode()) == ("Ottoline Quillverne" in text)
    assert not NAMED.is_theirs("Ottoline")


@pytest.mark.parametrize(
    ("name", "others", "parts"),
    [
        ("Mina Vale", [], ("Mina", "Vale")), ("Tobias Reed", ["tobias"], ("Reed",)), ("Wren Castle", [], ("Wren",)),
        ("Will May", [], ()), ("mina vale", [], ()), ("Mina", [], ()), ("Nguyễn Thị Hoa", [], ()),
        ("Oda Quillverne", ["Oda"], ("Quillverne",)), ("Lord Ottoline von Bo", [], ()), ("Ada 77", [], ("Ada",)),
    ],
)  # fmt: skip
def test_which_parts_of_a_name_count(name, others, parts):
    assert PersonIdentifiers().with_names([name], []).with_parts(others).parts == parts


@pytest.mark.parametrize(
    ("name", "data", "left"),
    [
        ("a.md", "Ottoline keeps it.", "someone keeps it."), ("a.log", "08:00 ask Ottoline", "08:00 ask someone"),
        ("a.jsonl", '{"text": "Ottoline, no"}\n{broken Ottoline\n', '{"text": "someone, no"}\n{broken someone\n'),
        ("a.csv", "who,what\nWendell,Ottoline came\n", "who,what\nWendell,someone came\n"),
    ],
)  # fmt: skip
def test_files_lose_the_parts_too(name, data, left):
    assert mentions_person(name, data.encode(), NAMED) and not contains_person(
        name, data.encode(), NAMED
    )
    assert redact(name, data.encode(), NAMED).decode() == left


def test_traces_survive_the_store():
    assert (
        PersonIdentifiers.of_json(WHO.as_json()) == WHO
        and PersonIdentifiers.of_json("{}") == PersonIdentifiers()
    )


# -------------------------------------------------------------------------------------------- files


def left(name, data):
    data = data if isinstance(data, bytes) else data.encode()
    assert contains_person(name, data, FINDER)
    new = redact(name, data, FINDER)
    assert new is None or not contains_person(name, new, FINDER)
    return new


@pytest.mark.parametrize(
    "record",
    [
        {"author": {"id": ID, "name": "x"}, "content": "hm"}, {"author": "Ottoline Quillverne", "text": "hm"},
        {"from_id": int(ID), "text": "hm"}, {"sender_name": "Mai", "content": "hm"}, {"user": ID, "text": "hm"},
        {"speaker": {"username": "Quillverne_77"}, "text": "hm"}, {"Author-ID": ID, "text": "hm"},
    ],
)  # fmt: skip
def test_a_record_of_theirs_is_left_out(record):
    other = {"author": "Wendell Park", "text": f"with {ID}"}
    assert json.loads(left("a.json", json.dumps({"messages": [record, other]}))) == {
        "messages": [{"author": "Wendell Park", "text": "with someone"}]
    }
    assert left("a.jsonl", f"{json.dumps(record)}\n{json.dumps(other)}\n").decode().count("\n") == 1


def test_the_rest_of_json_stays_as_it_was_written():
    data = {
        "a": 1.5,
        "b": [True, None, 12345678901234567890],
        "ü": "ß",
        "who": [{"id": ID}, {"id": "1"}],
    }
    new = left("a.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n").decode()
    assert new == json.dumps({**data, "who": [{"id": "1"}]}, indent=2, ensure_ascii=False) + "\n"


def test_an_id_that_is_a_key_or_a_number_goes_too():
    assert json.loads(left("a.json", json.dumps({"seen": {ID: 3}, "last": int(ID), "n": 3}))) == {
        "seen": {"someone": 3}, "last": 0, "n": 3,
    }  # fmt: skip


def test_tables_keep_their_form():
    rows = [
        ["Date", "Author", "Content"],
        ["1", "Wendell", f'a "quoted", {ID}'],
        ["2", "quillverne_77", "hm"],
    ]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    assert list(csv.reader(io.StringIO(left("a.csv", out.getvalue()).decode()))) == [
        rows[0], ["1", "Wendell", 'a "quoted", someone'],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("log", "rest"),
    [
        (
            "[01.02.26, 10:00:00] Mai: hello\nand on\n[01.02.26, 10:01:00] Bo: hi Mai\n",
            "[01.02.26, 10:01:00] Bo: hi Mai\n",
        ),
        (
            "01/02/26, 10:00 am - Rose: hello\n01/02/26, 10:01 - Bo: hi\n",
            "01/02/26, 10:01 - Bo: hi\n",
        ),
        (
            "2026-01-02T10:00:00Z Rose: hello\n2026-01-02T10:01:00Z Tom: hi\n",
            "2026-01-02T10:01:00Z Tom: hi\n",
        ),
        ("Bo: hi\nRose: hello\ngoing on\n\nBo: bye\n", "Bo: hi\n\nBo: bye\n"),
        ("<quillverne_77> hello\n<bo> hi\n", "<bo> hi\n"),
    ],
)
def test_what_they_say_in_a_chat_log_goes_with_its_further_lines(log, rest):
    assert redact("chat.txt", log.encode(), FINDER).decode().replace("someone", "Mai") == rest


def test_lore_and_cards_lose_the_name_only():
    assert left("a.md", "Rose: keeper of the lamp.\n") == b"someone: keeper of the lamp.\n"
    assert (
        left("card.toml", f'name = "Oda"\ndescription = "Knows Rose and {ID}."\n').count(b"someone")
        == 2
    )


def test_archives_are_cut_member_by_member():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("card.json", json.dumps({"data": {"description": "Rose's friend"}}))
        archive.writestr("Rose.bin", b"\xff" + ID.encode())
        archive.writestr("assets/face.png", b"\x89PNG\xff")
    with zipfile.ZipFile(io.BytesIO(left("a.charx", packed.getvalue()))) as archive:
        assert archive.namelist() == ["card.json", "assets/face.png"]
        assert archive.read("assets/face.png") == b"\x89PNG\xff"
    assert gzip.decompress(left("a.md.gz", gzip.compress(b"about Rose"))) == b"about someone"


@pytest.mark.parametrize("name", ["a.bin", "a.json", "a.zip", "a.gz", "a.toml"])
def test_what_cannot_be_read_goes_as_a_whole_where_they_are_in_it_and_stays_where_not(name):
    damaged = b'\xff{"a": "' + ID.encode()
    assert contains_person(name, damaged, FINDER) and redact(name, damaged, FINDER) is None
    assert not contains_person(name, b'\xff{"a": "', FINDER)


def test_a_short_name_in_weights_is_chance():
    assert not contains_person("adapter_model.safetensors", b"\xff\x00Rose\xfe" * 9, FINDER)
    assert contains_person("adapter_model.safetensors", b"\xff\x00quillverne_77\xfe", FINDER)


def test_names_and_words_are_learned_from_logs_by_the_id(tmp_path):
    record = {"author": {"id": ID, "name": "quill", "nickname": "Tamsin"}, "content": SAID}
    (tmp_path / "a.json").write_text(
        json.dumps({"messages": [record, {"author": {"id": "1", "name": "Bo"}}]})
    )
    (tmp_path / "b.csv").write_text(f"AuthorID,Author,Content\n{ID},Ottilie,hm\n2,Bo,hm\n")
    found = collect_aliases(iter(sorted(tmp_path.iterdir())), ID)
    assert (
        {"quill", "Tamsin", "Ottilie"} <= found.names
        and "Bo" not in found.names
        and SAID in found.texts
    )


def test_who_is_known_by_keys_alone_is_recognised_in_files(tmp_path):
    (tmp_path / "a.md").write_text("The lamp of Ottoline Quillverne, not of 123456789012345678.")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps({"id": ID}).encode()))
    wanted = {
        keyed_person(b"k", ID),
        keyed_person(b"k", "name:ottoline quillverne"),
        keyed_person(b"k", "name:somebody else"),
    }
    ids, names = identify_in_files(iter(sorted(tmp_path.iterdir())), b"k", wanted)
    assert set(ids.values()) == {ID} and set(names.values()) == {"ottoline quillverne"}


def test_lines_are_cut_block_by_block_as_they_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("bot.privacy.redaction.BLOCK_CHARACTERS", 40)
    said = [{"author": "Wendell Park", "text": "hm " * n} for n in range(9)]
    said[4:4] = [{"author": {"id": ID}, "text": "mine"}, {"author": "x", "text": f"says {SAID}"}]
    data = "".join(json.dumps(one) + "\n" for one in said)[:-1]
    file = tmp_path / "a.jsonl"
    out = io.BytesIO()
    file.write_text(data)
    assert (
        file_contains_person(file, FINDER)
        and file_mentions_person(file, FINDER)
        and redact_file(file, out, FINDER)
    )
    assert out.getvalue() == redact("a.jsonl", data.encode(), FINDER)
    file.write_bytes(out.getvalue())
    assert not file_contains_person(file, FINDER) and not file_mentions_person(file, FINDER)


def test_lines_that_are_no_utf8_are_looked_through_as_bytes_and_not_kept(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "fine"}\n{"author": "' + ID.encode() + b'", "text": "\xff"}\n')
    assert file_contains_person(file, FINDER) and not redact_file(file, io.BytesIO(), FINDER)
    assert collect_aliases(iter([file]), ID).names == set()


@pytest.mark.slow
def test_an_upload_of_gigabytes_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("bot.privacy.redaction.BLOCK_CHARACTERS", 2**14)
    line = (
        json.dumps({"author": "Wendell Park", "text": "The mail boat came at six, late. " * 30})
        + "\n"
    )
    file = tmp_path / "upload.jsonl"
    left = tmp_path / "left.jsonl"
    with file.open("w") as out:
        out.writelines([line] * 1_000)
        out.write(
            json.dumps({"author": {"id": ID, "name": "Ottoline Quillverne"}, "text": SAID}) + "\n"
        )
    tracemalloc.start()
    try:
        assert collect_aliases(iter([file]), ID).texts == {SAID} and file_contains_person(
            file, FINDER
        )
        with left.open("wb") as out:
            assert redact_file(file, out, FINDER)
        assert identify_in_files(iter([file]), b"k" * 32, {keyed_person(b"k" * 32, ID)})[0] == {
            keyed_person(b"k" * 32, ID): ID
        }
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert left.stat().st_size == 1_000 * len(line)
    assert peak < file.stat().st_size / 2, f"{peak:,} bytes of {file.stat().st_size:,}"


def test_a_name_that_is_a_field_of_cards_is_never_redacted():
    person = PersonIdentifiers().with_names(FIELD_ORDER, ())
    assert person.speaker_names == (), "or an erasure would leave cards that cannot be read"
