"""Broken and hostile cards: each is refused with words that say what, where and what to do; nothing
crashes.
"""

import base64
import io
import json
import stat
import zipfile
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from personas.card import charx, png
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card, read_card_file
from personas.card.card_writer import write_card
from personas.card.png import PngChunk, join, split
from personas.errors import CardError
from tests.personas.cards import PIXEL, V2, as_json, v3

CARD_PNG = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content
CARD_ZIP = charx.write(as_json(v3()), {"embeded://assets/icon/images/main.png": PIXEL})


def with_data(**changed: object) -> bytes:
    return as_json({**V2, "data": {**V2["data"], **changed}})


def png_with(kind: bytes, data: bytes, picture: bytes = PIXEL) -> bytes:
    chunks = split(picture, "it")
    return join([chunks[0], PngChunk(kind, data), *chunks[1:]])


def zipped(*entries: tuple[str, bytes], link: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = (
                stat.S_IFLNK if link and name != "card.json" else stat.S_IFREG
            ) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a character card"),
        (b"just some text", "not a character card"),
        (b"a = [", "not valid TOML"),
        (b"{", "not valid JSON .line 1"),
        (b"[]", "not an object"),
        (b"{}", "not a character card; it contains nothing"),
        (
            b'{"spec": "lorebook_v3", "data": {}}',
            "a lorebook of the card specification V3, not a character card",
        ),
        (b'{"spec": "chara_card_v2", "data": []}', "data must be an object"),
        (b'{"name": "Mira", "description": "\xff"}', "not UTF-8 .byte 33"),
        (b'{"name": "Mira", "description": NaN}', "a number that is not valid JSON"),
        (b'{"name": "Mira", "description": 1e999}', "too large"),
        (b'{"name": "M", "x": ' + b"[" * 200_000, "nested too deeply"),
        (as_json(V2).decode().encode("utf-16"), "UTF-16"),
        (b"\xff\xd8\xff\xe0JFIF", "JPEG picture"),
        (with_data(name=""), "data.name must be a non-empty text"),
        (with_data(description=["a"]), r"data.description must be a text, not \['a'\]"),
        (with_data(alternate_greetings="hi"), "data.alternate_greetings must be a list of texts"),
        (with_data(character_book=[]), "data.character_book must be an object"),
        (
            with_data(character_book={"entries": [{"content": 3}]}),
            r"entries\[0\].content must be a text",
        ),
        (PIXEL, "without a card"),
        (CARD_PNG[:-20], "cut off"),
        (CARD_PNG.replace(b"chara\0e", b"chara\0f"), "'tEXt' at byte .* has a wrong checksum"),
        (png_with(b"tEXt", b"chara\0%%%"), "not base64"),
        (png_with(b"tEXt", b"chara\0rcc||abc"), "encrypted"),
        (png_with(b"zTXt", b"chara\0\0" + b"not deflated"), "cannot be decompressed"),
        (png_with(b"zTXt", b"chara\0\0" + zlib.compress(b"A" * 30_000_000)), "too large"),
        (png_with(b"zTXt", b"chara\0\0" + zlib.compress(b"A" * 999)[:9]), "cut off"),
        (CARD_ZIP[:200], "damaged zip"),
        (zipped(("other.json", b"{}")), "without card.json"),
        (zipped(("card.json", b"{")), "card.json in it is not valid JSON"),
        (zipped(("card.json", as_json(v3())), ("../../evil.png", b"x")), "leads out of its folder"),
        (zipped(("card.json", as_json(v3())), ("/etc/evil", b"x")), "leads out of its folder"),
        (zipped(("card.json", as_json(v3())), ("a\\..\\evil", b"x")), "has a backslash"),
        (zipped(("card.json", as_json(v3())), ("C:/evil", b"x")), "begins with a drive letter"),
        (
            zipped(("card.json", as_json(v3())), ("link", b"/etc/passwd"), link=True),
            "is a link or device",
        ),
        (
            zipped(("card.json", as_json(v3())), *((str(n), b"") for n in range(2001))),
            "holds 2,002 files; 2,000",
        ),
    ],
)
def test_each_fault_is_named(data, words):
    with pytest.raises(CardError, match=words) as caught:
        parse_card(data, "it")
    assert "it" in caught.value.message and caught.value.advice


def test_a_zip_that_lies_about_its_sizes_is_refused():
    bomb = zipped(("card.json", as_json(v3())), ("bomb", bytes(3_000_000)))
    with pytest.raises(CardError, match="unpacks to too much"):
        parse_card(bomb, "it", 1_000_000)
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        entry = archive.getinfo("bomb")
    small = bomb.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert entry.file_size == 3_000_000 and small != bomb
    with pytest.raises(CardError, match=r"too large|damaged"):
        parse_card(small, "it", 1_000_000)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_the_assets_of_a_picture_share_one_limit(kind):
    asset = base64.b64encode(bytes(300_000))
    text = b"\0" + zlib.compress(asset) if kind == b"zTXt" else asset
    bomb = CARD_PNG
    for number in range(4):
        bomb = png_with(kind, b"chara-ext-asset_:%d\0" % number + text, picture=bomb)
    assert len(parse_card(bomb, "it", 1_200_000).files) == 4
    with pytest.raises(CardError, match=r"'chara-ext-asset_:\d' in the picture is too large"):
        parse_card(bomb, "it", 1_199_999)


def test_a_picture_of_countless_chunks_is_refused(monkeypatch):
    monkeypatch.setattr(png, "MAX_CHUNKS", 4)
    with pytest.raises(CardError, match="more than 4 PNG chunks"):
        parse_card(CARD_PNG, "it")


def test_an_encrypted_zip_is_refused():
    data = bytearray(CARD_ZIP)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    with pytest.raises(CardError, match="encrypted"):
        parse_card(bytes(data), "it")


def test_itxt_and_ztxt_are_read_and_a_zip_behind_a_jpeg_too():
    text = base64.b64encode(as_json(V2))
    for kind, data in (
        (b"iTXt", b"chara\0\0\0\0\0" + text),
        (b"iTXt", b"chara\0\1\0en\0card\0" + zlib.compress(text)),
        (b"zTXt", b"Chara\0\0" + zlib.compress(text)),
        (b"tEXt", b"chara\0" + text.rstrip(b"=")[:-1] + text.rstrip(b"=")[-1:] + b"\n"),
    ):
        card = parse_card(png_with(kind, data), "it")
        assert card.document == V2 and card.picture == PIXEL
    assert parse_card(b"\xff\xd8\xff\xe0 a face" + CARD_ZIP, "it").container == "charx"


def test_odd_but_readable_cards_are_read():
    odd = {
        "data": {
            "name": " Mira ",
            "tags": "sea, night",
            "description": None,
            "character_book": None,
            "extensions": None,
        }
    }
    card = parse_card(b"\xef\xbb\xbf" + json.dumps(odd).encode(), "it")
    assert card.version == 2 and card.tags == ("sea", "night") and card.text("description") == ""
    world_info = with_data(character_book={"entries": {"0": {"key": ["k"], "content": "c"}}})
    assert [entry["content"] for entry in parse_card(world_info, "it").book] == ["c"]


@pytest.mark.parametrize(
    "sound",
    [
        as_json(V2),
        CARD_PNG,
        CARD_ZIP,
        write_card(parse_card(as_json(V2), "x"), "toml", "x").content,
    ],
)
def test_a_damaged_file_is_refused_or_read_and_never_crashes(sound):
    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def damaged(data):
        kept = bytearray(sound)
        for _ in range(data.draw(st.integers(1, 4))):
            kept[data.draw(st.integers(0, len(kept) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(kept)) | st.just(len(kept)))
        try:
            card = parse_card(bytes(kept[:cut]), "it")
        except CardError as error:
            assert error.message
        else:
            assert card.name

    damaged()


@settings(max_examples=40, deadline=None)
@example(b"PK\x05\x06" + bytes(18))
@example(b"\x89PNG\r\n\x1a\n" + bytes(12))
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.binary(max_size=60).map(lambda b: b"PK\x03\x04" + b)
)
def test_garbage_never_crashes(data):
    try:
        parse_card(data, "it")
    except CardError as error:
        assert error.message


def test_files_that_cannot_be_opened(tmp_path):
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "no.png", "no card at")):
        with pytest.raises(CardError, match=words):
            read_card_file(path)
