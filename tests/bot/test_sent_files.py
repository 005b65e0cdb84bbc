"""Files that members send: what of them is given to the model, and what becomes of them."""

import asyncio
import io
import struct
import threading
import time
import zlib
from functools import partial
from types import SimpleNamespace

import discord
import pytest
from aiohttp import web
from PIL import Image

from bot.chat import file_content, file_download
from bot.chat.file_content import MAX_TEXT_BYTES, ReadFile, quoted_file
from bot.chat.file_download import FileDownloadError, download, is_file_address
from bot.chat.picture_content import MAX_PICTURE_BYTES, shrink_picture
from bot.chat.sent_files import KEPT_S, SentFiles
from bot.store import Channel
from personas.schemas.formatting import format_size
from sandbox.object_store import StoredFile
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.test_shown_context import TOBIAS, answered, given
from tests.fakes import until

read_limit = partial(file_content.read_limit, sees_pictures=False)
read_file = partial(file_content.read_file, sees_pictures=False)
NOTES = StoredFile.named("notes.txt", b"Two crabs.\r\nOne eel.\n")
QUOTED = "[notes.txt:\nTwo crabs.\nOne eel.\nend of notes.txt]"


@pytest.fixture
async def stage(tmp_path):
    async with on_stage(tmp_path) as made:
        made.engine.script = lambda request: ["Aye."]
        yield made


def last_turn(stage):
    return stage.engine.requests[-1].turns[-1].text


async def test_a_text_is_quoted_with_its_message_for_as_long_as_that_is_there(stage, tmp_path):
    said = await answered(stage, stage.member.say(QUAY, "what is it?", files=[NOTES]))
    asked = f"{QUOTED}\nwhat is it?\n[a file: notes.txt, 21 B]"
    assert last_turn(stage) == asked
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("understudy.sqlite*"))
    assert b"notes.txt, 21 B" in stored and b"crabs" not in stored
    await answered(stage, stage.member.say(QUAY, "and the eel?"))
    assert given(stage)[-4:-1] == [(TOBIAS, asked), ("Ballast", "Aye."), (TOBIAS, "and the eel?")]
    prepared = stage.engine.prepared_talks[-1][2]
    assert asked in [turn.text for turn in prepared]
    await stage.member.delete(said)
    await until(lambda: stage.store.messages.is_deleted(int(said["id"])))
    await answered(stage, stage.member.say(QUAY, "and now?"))
    assert "crabs" not in str(given(stage))
    assert not stage.client.services.request_builder.files._messages


async def test_the_lore_is_searched_for_the_words_alone(stage, monkeypatch):
    searched = []
    builder = type(stage.client.services.request_builder)
    find = builder._find_lore

    async def note(self, turn, memories):
        searched.append(turn.text)
        return await find(self, turn, memories)

    monkeypatch.setattr(builder, "_find_lore", note)
    await answered(stage, stage.member.say(QUAY, "what is it?", files=[NOTES]))
    assert searched == ["what is it?\n[a file: notes.txt, 21 B]"]


async def test_the_file_of_a_quoted_message_and_of_the_lines_before_is_quoted(stage):
    elsewhere = await stage.moderator.say(OFFICE, "the list", files=[NOTES])
    place = int(stage.sandbox.channel(OFFICE)["id"])
    row = Channel(stage.sandbox.guild_id, place, "ballast", "mentions", 0, 0.0)
    stage.store.channels.assign(row)
    asked = stage.member.say(OFFICE, "@Understudy what is it?", reply_to=elsewhere)
    await answered(stage, asked, OFFICE)
    quote = "[replying to Mina Vale: the list [a file: notes.txt, 21 B]]"
    assert last_turn(stage) == f"{QUOTED}\n{quote}\nwhat is it?"


async def test_a_file_is_read_again_for_a_reply_after_a_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        await answered(stage, stage.member.say(QUAY, "what is it?", files=[NOTES]))
    async with on_stage(tmp_path) as stage:
        answer = stage.sandbox.messages(QUAY)[-1]
        mark = stage.mark
        await stage.member.click(answer, "Regenerate")
        await stage.finished(QUAY, mark)
        assert last_turn(stage).startswith(QUOTED)


async def test_a_file_that_cannot_be_had_is_said_to_the_persona(stage):
    store = stage.sandbox._container.shared.store
    put = store.put_file

    def lose(file):
        file_id = put(file)
        store.delete_file(int(file_id))
        return file_id

    store.put_file = lose
    await answered(stage, stage.member.say(QUAY, "what is it?", files=[NOTES]))
    assert last_turn(stage).startswith("[notes.txt could not be read]\nwhat is it?")


async def test_a_file_that_could_not_be_reached_is_tried_again_and_one_that_is_no_use_is_not(
    stage, monkeypatch
):
    stage.engine.sees_pictures = True
    tried = []

    async def download(url, limit_of):
        tried.append(url)
        if "a.txt" in url:
            raise FileDownloadError("the file server answers 503")
        return b"\xff\xd8\xff" + bytes(50)

    monkeypatch.setattr("bot.chat.sent_files.download", download)
    files = [StoredFile.named(name, b"x") for name in ("a.txt", "b.jpg")]
    await answered(stage, stage.member.say(QUAY, "look", files=files))
    answer = stage.sandbox.messages(QUAY)[-1]
    mark = stage.mark
    await stage.member.click(answer, "Regenerate")
    await stage.finished(QUAY, mark)
    assert len([url for url in tried if "a.txt" in url]) == 2
    assert len([url for url in tried if "b.jpg" in url]) == 1
    assert last_turn(stage).startswith(
        "[a.txt could not be read]\n[b.jpg cannot be looked at: it is damaged"
    )


async def test_words_like_the_name_of_a_file_are_looked_up_once_and_few_at_a_time():
    fetched = []

    class Place:
        async def fetch_message(self, message_id):
            fetched.append(message_id)
            return SimpleNamespace(id=message_id, attachments=[], message_snapshots=[])

    client = SimpleNamespace(get_partial_messageable=lambda channel_id: Place())
    files = SentFiles(client, sees_pictures=lambda: False)
    texts = dict.fromkeys(range(1, 20), "[a file: x, 1 B]")
    assert not await files.read(1, texts)
    assert fetched == [1, 2, 3, 4, 5]
    assert not await files.read(1, {1: texts[1], 2: "hello", 3: texts[3]})
    assert fetched == [1, 2, 3, 4, 5]


async def test_pictures_are_decoded_one_at_a_time(stage, monkeypatch):
    stage.engine.sees_pictures = True
    shrink = file_content.shrink_picture
    busy = threading.Lock()

    def alone(name, data):
        assert busy.acquire(blocking=False)
        try:
            time.sleep(0.05)
            return shrink(name, data)
        finally:
            busy.release()

    monkeypatch.setattr(file_content, "shrink_picture", alone)
    files = [StoredFile.named(f"{n}.png", painted(size=(20, 10))) for n in range(3)]
    await answered(stage, stage.member.say(QUAY, "look", files=files))
    assert len(stage.engine.requests[-1].pictures) == 3


async def test_files_leave_the_memory_where_nothing_more_is_said(monkeypatch):
    monkeypatch.setattr("bot.chat.sent_files.KEPT_S", 0.1)
    files = SentFiles(None, sees_pictures=lambda: False)
    attachment = SimpleNamespace(
        id=1, filename="a.txt", title=None, size=1, url="", content_type="", is_voice_message=bool
    )
    files.note(SimpleNamespace(id=1, attachments=[attachment], message_snapshots=[]))
    assert files._messages
    await until(lambda: not files._messages)


async def test_files_leave_the_memory_after_a_while_and_when_there_are_too_many(stage, monkeypatch):
    files = stage.client.services.request_builder.files
    await answered(stage, stage.member.say(QUAY, "one", files=[NOTES]))
    assert files._messages
    monkeypatch.setattr(files, "_clock", lambda: asyncio.get_running_loop().time() + KEPT_S + 1)
    assert files.known(0) == [] and not files._messages
    monkeypatch.setattr("bot.chat.sent_files.MAX_KEPT_BYTES", 30)
    await answered(stage, stage.member.say(QUAY, "two", files=[NOTES]))
    await answered(stage, stage.member.say(QUAY, "three", files=[NOTES]))
    assert len(files._messages) == 1


# ----------------------------------------------------------------------------------------- pictures


def painted(kind="PNG", size=(2000, 1000), **options):
    image = Image.new("RGB", size, "teal")
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def shown(picture):
    return Image.open(io.BytesIO(picture.data), formats=["JPEG"])


async def test_a_model_that_sees_gets_the_pictures_of_the_talk_small(stage):
    stage.engine.sees_pictures = True
    stage.engine.context_tokens = 8192
    mark = stage.mark
    quay = StoredFile.named("quay.png", painted())
    said = await answered(stage, stage.member.say(QUAY, "what is it?", files=[quay]))
    request = stage.engine.requests[-1]
    [picture] = request.pictures
    assert (picture.name, picture.media_type) == ("quay.png", "image/jpeg")
    assert shown(picture).size == (1024, 512)
    assert request.context_tokens == 8192 - 1400
    assert request.turns[-1].text.startswith("what is it?\n[a picture: quay.png, ")
    await answered(stage, stage.member.say(QUAY, "and the colour?"))
    assert stage.engine.requests[-1].pictures == (picture,)
    await stage.member.delete(said)
    await until(lambda: stage.store.messages.is_deleted(int(said["id"])))
    await answered(stage, stage.member.say(QUAY, "and now?"))
    assert stage.engine.requests[-1].pictures == ()
    assert "I cannot look at pictures" not in str(stage.sandbox.events[mark:])


async def test_at_most_four_pictures_go_along_the_latest(stage):
    stage.engine.sees_pictures = True
    names = [f"{number}.png" for number in range(6)]
    for first in (0, 3):
        files = [
            StoredFile.named(name, painted(size=(9, 9 + int(name[0]))))
            for name in names[first : first + 3]
        ]
        await answered(stage, stage.member.say(QUAY, "look", files=files))
    assert [it.name for it in stage.engine.requests[-1].pictures] == names[2:]


async def test_a_model_that_does_not_see_gets_the_description_and_that_is_said_once(
    stage, monkeypatch
):
    async def download(url, limit_of):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr("bot.chat.sent_files.download", download)
    mark = stage.mark
    quay = StoredFile.named("quay.png", painted(size=(9, 9)))
    for _ in range(2):
        said = stage.member.say(QUAY, "look", files=[quay], descriptions=["the quay at\nlow tide"])
        await answered(stage, said)
    size = format_size(len(quay.data))
    words = f"look\n[a picture: quay.png, {size}, described as: the quay at low tide]"
    assert last_turn(stage) == words and not stage.engine.requests[-1].pictures
    notices = [
        message
        for kind, message in stage.sandbox.events[mark:]
        if kind == "message" and "I cannot look at pictures" in message["content"]
    ]
    assert len(notices) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_pictures_are_told_by_their_content(kind):
    data = painted(kind, (40, 20))
    file = file_content.read_file("x.txt", len(data), data, sees_pictures=True)
    assert shown(file.picture).size == (40, 20)
    limit = file_content.read_limit(data[:512], sees_pictures=True)
    assert limit == MAX_PICTURE_BYTES + 1 and read_limit(data[:512]) == 0


def test_of_a_moving_picture_the_first_is_shown_and_what_is_seen_through_is_white():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    red, _, blue = shown(shrink_picture("x", moving.getvalue())).getpixel((4, 4))
    assert red > 200 and blue < 60
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    assert min(shown(shrink_picture("x", clear.getvalue())).getpixel((4, 4))) > 240


def test_a_picture_is_turned_as_its_camera_says_and_nothing_of_the_camera_is_kept():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    exif[0x010F] = "A Camera"
    picture = shrink_picture("x", painted("JPEG", (40, 20), exif=exif))
    assert shown(picture).size == (20, 40) and b"A Camera" not in picture.data


def test_what_is_damaged_or_too_large_is_no_picture_and_said():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk))
    for data in (bomb, painted()[:300], b"\xff\xd8\xff" + bytes(50), b"RIFF\0\0\0\0WEBP"):
        file = file_content.read_file("x", len(data), data, sees_pictures=True)
        assert file.picture is None and "cannot be looked at" in quoted_file(file, 100, words)
    large = painted(size=(9, 9)) + bytes(MAX_PICTURE_BYTES)
    file = file_content.read_file("x", len(large), large, sees_pictures=True)
    assert quoted_file(file, 100, words) == "[x is too large to be looked at]"


# ------------------------------------------------------------------------------------------ content


def words(text):
    return len(text.split())


def test_a_long_text_is_cut_at_a_line_with_a_note():
    text = "\n".join(f"line {number} of many" for number in range(100))
    file = read_file("long.txt", len(text), text.encode())
    quoted = quoted_file(file, 30, words)
    lines = quoted.split("\n")
    assert lines[:2] == ["[long.txt:", "line 0 of many"]
    assert lines[-3] == "line 6 of many" and lines[-1] == "end of long.txt]"
    assert lines[-2] == f"(only the first {15 * 7 - 1} B of 1.6 kB)"
    assert words(quoted) <= 30 + 12
    assert quoted_file(file, 0, words) == "[long.txt is too long to be shown]"


def test_what_is_beyond_the_limit_of_bytes_is_not_read_and_said():
    data = "é".encode() * MAX_TEXT_BYTES
    assert read_limit(b"a" + data[:511]) == MAX_TEXT_BYTES  # half a character at the end
    file = read_file("e.txt", len(data), data[: MAX_TEXT_BYTES + 1])
    assert "only the first 65.5 kB of 131.1 kB" in quoted_file(file, 10**6, words)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n", b"a\0b", b"\xff\xfea\0", b"caf\xe9 ", b""])
def test_what_is_no_text_in_utf_8_is_not_read(data):
    assert read_limit(data) == 0
    assert quoted_file(read_file("x", len(data), data), 100, words) == ""


def test_a_text_has_no_control_characters_and_no_mark_of_its_order():
    data = "\ufeffa\x1b[31m\rb\x07\tc".encode()
    assert read_file("x", 1, data) == ReadFile("x", 1, text="a[31m\nb\tc")


# ----------------------------------------------------------------------------------------- download


@pytest.mark.parametrize(("url", "is_one"), [
    ("https://cdn.discordapp.com/attachments/1/2/a.txt?ex=1&is=2&hm=3", True),
    ("https://media.discordapp.net/attachments/1/2/a.txt", True),
    ("http://cdn.discordapp.com/attachments/1/2/a.txt", False),
    ("https://cdn.discordapp.com:8443/a.txt", False),
    ("https://cdn.discordapp.com@evil.example/a.txt", False),
    ("https://x@cdn.discordapp.com/a.txt", False),
    ("https://cdn.discordapp.com.evil.example/a.txt", False),
    ("http://127.0.0.1:8420/attachments/1/2/a.txt", False),
    ("https://169.254.169.254/latest", False),
    ("file:///etc/passwd", False),
    ("a.txt", False),
])  # fmt: skip
def test_files_come_from_discords_servers_alone(url, is_one):
    assert is_file_address(url) is is_one


async def test_the_local_guild_has_its_own_address_only_while_the_bot_is_connected_to_it(stage):
    url = stage.sandbox.url
    assert is_file_address(f"{url}/attachments/1/2/a.txt")
    assert not is_file_address(f"{url}9/attachments/1/2/a.txt")


async def test_a_server_that_redirects_stalls_or_never_ends_is_cut_short(
    aiohttp_server, monkeypatch
):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    async def stalling(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(10)
        return response

    async def elsewhere(request):
        raise web.HTTPFound("https://cdn.discordapp.com/a.txt")

    app = web.Application()
    for name, handler in (("e", endless), ("s", stalling), ("r", elsewhere)):
        app.router.add_get(f"/{name}", handler)
    server = await aiohttp_server(app)
    url = str(server.make_url("/"))
    monkeypatch.setattr(discord.http.Route, "BASE", url)
    monkeypatch.setattr(file_download, "DOWNLOAD_TIMEOUT_S", 0.2)
    assert len(await download(f"{url}e", lambda head: 10_000)) == 10_000
    assert len(await download(f"{url}e", lambda head: 0)) == 512
    for path in ("s", "r", "nothing"):
        with pytest.raises(FileDownloadError):
            await download(f"{url}{path}", lambda head: 10_000)
    for other in ("http://other.example/a", "http://[other/a"):
        with pytest.raises(FileDownloadError, match="not one of Discord's"):
            await download(other, lambda head: 1)
