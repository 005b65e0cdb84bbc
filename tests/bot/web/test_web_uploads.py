"""Files that are brought in: streamed, bounded, named and kept apart; and whose they are."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from yarl import URL

from bot.data import upload_stream
from bot.data.errors import InvalidFieldsError
from bot.data.inspections import save_inspection
from bot.data.rights import parse_rights
from personas.home.column_maps import read_mapping
from personas.home.data_subjects import NO_CONSENT
from personas.home.dataset_catalogue import read_catalogue
from personas.home.job_material import catalogue_material
from tests.bot.web.dataset_folders import TRAINER
from tests.fakes import until

RIGHT = {
    "right": "licensed:CC-BY-4.0",
    "stated_by": "Mina Vale",
    "stated_on": "2026-11-20",
    "why": "All agreed.",
}
ASKED = {"role": "user", "content": "What of day {}?"}
REPLY = {"role": "assistant", "content": "{}, as ever."}
TALK = "".join(
    json.dumps(
        {"messages": [{**one, "content": one["content"].format(n)} for one in (ASKED, REPLY)]}
    )
    + "\n"
    for n in range(24)
).encode()

UNCLEAR = b"wer,was\nWenda Quill,The ferry is late.\n"


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(
        "bot.data.jobs.TRAINER_COMMAND", (sys.executable, str(tmp_path / "trainer.py"))
    )


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "home" / "uploads"


async def put(dashboard, name="talk.jsonl", data=TALK, *, replace=False):
    """Upload as the page's script does; gives the status and the answer."""
    path = f"/dashboard/data/uploads/{name}" + ("?replace=true" if replace else "")
    status, answer, _ = await dashboard.ask("PUT", path, data=data)
    return status, answer


async def upload_of(dashboard, name="talk.jsonl"):
    return await dashboard.services.data.upload(name)


async def state(dashboard, right=RIGHT, name="talk.jsonl"):
    return await dashboard.services.data.set_right(name, parse_rights(right))


def inspect(dashboard, name="talk.jsonl"):
    return dashboard.services.data.inspect_upload(name)


async def delete(dashboard, name="talk.jsonl"):
    status, _, _ = await dashboard.submit(f"/dashboard/data/uploads/{name}/delete")
    assert status == 303


async def ended(dashboard, name="talk.jsonl"):
    """An upload once it was inspected."""
    for _ in range(200):
        source = await upload_of(dashboard, name)
        if source.about:
            return source
        await asyncio.sleep(0.05)
    raise AssertionError("it has not ended")


async def test_a_file_is_streamed_to_its_place_and_said_back(dashboard, uploads):
    pieces = [b"PK\x03\x04", *(bytes([n]) * 300_000 for n in range(9))]

    async def body():
        for piece in pieces:
            yield piece

    status, result = await put(dashboard, "talk of the quay.zip", body())
    assert (status, result) == (201, {"name": "talk of the quay.zip", "bytes": 2_700_004})
    assert (uploads / "talk of the quay.zip").read_bytes() == b"".join(pieces)
    assert (uploads / "talk of the quay.zip").stat().st_mode & 0o077 == 0, (
        "for the bot's owner alone"
    )
    assert "nobody" in (await upload_of(dashboard, "talk of the quay.zip")).refused


async def test_a_name_that_exists_is_asked_about_and_what_replaces_it_has_no_right(
    dashboard, uploads
):
    await put(dashboard)
    source = await state(dashboard)
    assert not source.refused and source.statement.stated_by == "Mina Vale"
    status, _ = await put(dashboard, data=b"other")
    assert status == 409 and (uploads / "talk.jsonl").read_bytes() == TALK
    status, _ = await put(dashboard, data=b"other", replace=True)
    source = await upload_of(dashboard)
    assert (status, source.bytes, source.statement) == (201, 5, None) and source.refused


async def test_names_that_lead_elsewhere_and_kinds_that_are_not_read_are_refused(
    dashboard, uploads
):
    for name, status in [
        ("..%2Fescape.json", 422),
        (".hidden.json", 422),
        ("con.json", 422),
        ("a%00b.json", 422),
        ("a=b.json", 422),
        ("x" * 130 + ".json", 422),
        ("港" * 80 + ".json", 422),
        ("run.exe", 415),
        ("rights.toml", 415),
        ("talk.jsonl.part", 415),
        ("talk", 415),
        ("talk.tar.gz", 415),
    ]:
        path = f"{dashboard.url}/dashboard/data/uploads/{quote(name, safe='%')}"
        found, result, _ = await dashboard.ask("PUT", URL(path, encoded=True), data=b"{}")
        assert found == status and result["advice"] and not uploads.exists(), name


async def test_a_link_and_the_name_of_a_device_are_refused_in_words(dashboard, uploads, tmp_path):
    uploads.mkdir()
    (tmp_path / "far.jsonl").write_text("{}")
    (uploads / "linked.jsonl").symlink_to(tmp_path / "far.jsonl")
    for method, path in (("GET", ""), ("POST", "/delete")):
        path = f"/dashboard/data/uploads/linked.jsonl{path}"
        status, result, _ = await dashboard.ask(method, path)
        assert status == 422 and "is behind a link" in result["detail"] and result["advice"]
    assert (await dashboard.page("/dashboard/data/sets/nul"))[0] in (404, 422)
    assert (tmp_path / "far.jsonl").exists()


async def test_packed_text_and_names_in_any_script_are_taken(dashboard, uploads):
    wide = "name,words".encode("utf-16")
    beginnings = {
        "talk.json.gz": b"\x1f\x8bx",
        "trò chuyện.CSV": b"x",
        "港 (2).parquet": b"PAR1",
        "wide.csv": wide,
    }
    for name, data in beginnings.items():
        assert (await put(dashboard, name, data))[0] == 201
    assert len(list(uploads.glob("[!.]*"))) == 4


async def test_a_file_that_is_not_what_its_name_says_is_refused_and_leaves_nothing(
    dashboard, uploads
):
    for name, data, said in [
        ("true.jsonl", b"\x7fELF\x02\x01\x01", "is a program, not text"),
        ("talk.json", b"PK\x03\x04rest", "is a ZIP archive"),
        ("talk.csv", b"SQLite format 3\0", "is a database"),
        ("talk.txt", b"words\0words", "holds zero bytes"),
        ("talk.txt", b"\x1f\x8b\x08", "is packed with gzip"),
        ("talk.zip", b"no archive", "not begin as .zip"),
        ("talk.parquet", b"{}", "not begin as .parquet"),
        ("talk.jsonl.gz", b"{}", "not begin as .gz"),
    ]:
        status, result = await put(dashboard, name, data)
        assert (
            status == 415 and result["type"] == "/problems/wrong-kind" and said in result["detail"]
        ), name
        assert list(uploads.iterdir()) == [], name


async def test_a_file_larger_than_the_operator_lets_in_is_refused_before_and_while_it_comes(
    dashboard, uploads
):
    dashboard.front.open(dataclasses.replace(dashboard.services, max_upload_bytes=1000))
    status, result = await put(dashboard, "talk.json", b"x" * 1001)
    assert status == 413 and "MAX_UPLOAD_GIB" in result["advice"] and not uploads.exists()

    async def unsaid():
        for _ in range(40):
            yield b"x" * 100_000

    status, result = await put(dashboard, "talk.json", unsaid())
    assert status == 413 and list(uploads.iterdir()) == []
    status, page, _ = await send_form(dashboard, ("file", "talk.json", b"x" * 1001))
    assert status == 413 and "larger than" in page and list(uploads.iterdir()) == []


async def test_what_breaks_off_leaves_nothing(dashboard, uploads):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(dashboard.url.rpartition(":")[2])
    )
    writer.write(
        b"PUT /dashboard/data/uploads/talk.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
        + b"x" * 2_000_000
    )
    await writer.drain()
    for _ in range(100):
        if uploads.exists() and any(uploads.iterdir()):
            break
        await asyncio.sleep(0.01)
    assert [path.suffix for path in uploads.iterdir()] == [".part"]
    status, result = await put(dashboard, "talk.json", b"{}")
    assert status == 409 and "being uploaded" in result["detail"], "one at a time of each name"
    writer.transport.abort()
    for _ in range(200):
        if not list(uploads.iterdir()):
            break
        await asyncio.sleep(0.01)
    assert list(uploads.iterdir()) == []
    del reader


async def test_what_a_killed_bot_left_half_is_cleared_away(dashboard, uploads):
    uploads.mkdir()
    (uploads / ".old.json.abcd.part").write_bytes(b"half")
    await put(dashboard, "talk.json", b"{}")
    assert [path.name for path in uploads.iterdir()] == ["talk.json"]


async def test_a_file_larger_than_the_disk_has_room_for_is_refused_before_and_while_it_comes(
    dashboard, uploads, monkeypatch
):
    monkeypatch.setattr(upload_stream, "max_upload_bytes", lambda place: 1000)
    status, result = await put(dashboard, "talk.json", b"x" * 1001)
    assert status == 507 and "room" in result["detail"] and not uploads.exists()

    async def unsaid():
        for _ in range(40):
            yield b"x" * 100_000

    status, result = await put(dashboard, "talk.json", unsaid())
    assert status == 507 and list(uploads.iterdir()) == []


async def test_the_rooms_reserve_stays_free(tmp_path, monkeypatch):
    monkeypatch.setattr(
        upload_stream.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 5 * 2**30})
    )
    assert upload_stream.max_upload_bytes(tmp_path / "not there yet") == 3 * 2**30


async def test_an_upload_trains_nothing_until_somebody_states_the_right(dashboard, uploads):
    await put(dashboard)
    status, result, _ = await dashboard.start(dataset=None, dataset_path="uploads/talk.jsonl")
    assert status == 422 and "nobody has stated a right" in result["detail"]
    await state(dashboard)
    status, result, _ = await dashboard.start(dataset=None, dataset_path="uploads/talk.jsonl")
    assert status == 202
    source = await dashboard.services.data.set_right("talk.jsonl", None)
    assert source.refused and not (uploads / "rights.toml").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"right": "mine"}, "right"),
        ({"right": "licensed:"}, "licence"),
        ({"stated_on": "soon"}, "stated_on"),
        ({"stated_on": "2999-01-01"}, "stated_on"),
        ({"why": "because\u0007"}, "why"),
    ],
)
def test_a_statement_that_says_nothing_is_refused_by_field(changes, field):
    with pytest.raises(InvalidFieldsError) as refused:
        parse_rights(RIGHT | changes)
    assert [name for name, _ in refused.value.errors] == [field]


def test_each_wrong_field_of_a_statement_is_named():
    wrong = {"right": "licensed", "stated_by": "", "stated_on": "soon", "why": " "}
    with pytest.raises(InvalidFieldsError) as refused:
        parse_rights(wrong)
    assert [name for name, _ in refused.value.errors] == [
        "licence",
        "stated_by",
        "stated_on",
        "why",
    ]


async def test_a_right_may_hold_any_words(dashboard, uploads):
    await put(dashboard)
    why = 'She said "yes" \\ in writing,\nbổ sung 🙂'
    source = await state(dashboard, RIGHT | {"why": why})
    assert source.statement.why == why and not source.refused


async def test_what_came_through_discords_api_is_not_trained_on(dashboard):
    await put(dashboard)
    assert "Discord" in (await state(dashboard, RIGHT | {"right": "discord-api"})).refused


async def test_a_broken_rights_file_is_reported_and_left(dashboard, uploads):
    await put(dashboard)
    (uploads / "rights.toml").write_text("[[broken")
    path = "/dashboard/data/uploads/talk.jsonl/right"
    _, page, _ = await dashboard.submit(path, **RIGHT)
    assert "cannot be read" in page and (uploads / "rights.toml").read_text() == "[[broken"


async def test_an_upload_is_looked_into_by_the_trainer_and_its_figures_are_kept(dashboard, uploads):
    await put(dashboard)
    await dashboard.submit("/dashboard/data/uploads/talk.jsonl/inspect")
    about = (await ended(dashboard)).about
    assert about.format == "sharegpt" and about.reasons == {"no answer": 2}
    kept = (uploads / ".talk.jsonl.about.json").read_text()
    assert "Mina" not in kept, "figures only: nobody's words"
    _, page, _ = await dashboard.page("/dashboard/data/uploads/talk.jsonl")
    assert "5 with 12 turns" in page and "no answer" in page and "Mina &lt;i&gt;" in page
    await put(dashboard, data=b"other", replace=True)
    assert (await upload_of(dashboard)).about is None


async def test_why_an_upload_could_not_be_looked_into_is_kept(dashboard):
    await put(dashboard, "talk.jsonl.gz", b"\x1f\x8b, and nothing packed")
    job = await looked_into(dashboard, "talk.jsonl.gz")
    assert (await upload_of(dashboard, "talk.jsonl.gz")).about is None
    assert job.state == "failed" and "gz" in job.error


async def looked_into(dashboard, name):
    """The job that inspects an upload once it has ended, well or not."""
    job = inspect(dashboard, name)
    await until(lambda: not job.is_open, 60)
    return job


async def test_a_long_refusal_keeps_its_beginning_and_its_end_and_is_no_file_that_nobody_looked_into(
    dashboard,
):
    await put(dashboard, "odd.json", b'{"a": [1')
    page = (await dashboard.page("/dashboard/data/uploads/odd.json"))[1]
    assert "It has not been inspected" in page
    error = (await looked_into(dashboard, "odd.json")).error.splitlines()
    assert "odd.json is in no known format" in error[0] and error[-1] == "format-39"
    assert error[7:10] == ["format-6", "…", "format-28"]
    page = (await dashboard.page("/dashboard/data/uploads/odd.json"))[1]
    assert "no known format" in page and "could not be inspected" in page
    assert "It has not been inspected" not in page


async def test_an_upload_goes_with_all_that_is_known_of_it(dashboard, uploads):
    await put(dashboard)
    await state(dashboard)
    inspect(dashboard)
    await ended(dashboard)
    await delete(dashboard)
    assert list(uploads.iterdir()) == []
    assert (await dashboard.page("/dashboard/data/uploads/talk.jsonl"))[0] == 404


async def test_a_deleted_or_replaced_upload_comes_back_with_what_was_stated_of_it(
    dashboard, uploads
):
    await put(dashboard)
    await state(dashboard)
    await delete(dashboard)
    assert "Bring talk.jsonl back" in (await dashboard.page("/dashboard/data"))[1]
    (undo,) = await undo_addresses(dashboard)
    assert (await dashboard.submit(undo))[0] == 303
    found = await ended(dashboard)
    assert (uploads / "talk.jsonl").read_bytes() == TALK
    assert found.statement.right == RIGHT["right"]
    status, said, _ = await dashboard.submit(undo)
    assert status == 404 and "brought back already" in said


async def undo_addresses(dashboard):
    """The forms that bring uploads and data sets back, newest first."""
    page = (await dashboard.page("/dashboard/data"))[1]
    return re.findall(r'action="(/dashboard/data/trash/[^"]+)"', page)


async def test_every_replaced_upload_is_brought_back_whatever_is_being_inspected(
    dashboard, uploads
):
    texts = [TALK.replace(b"tide", word) + TALK for word in (b"wind", b"rain", b"snow")]
    for text in texts:
        status, said = await put(dashboard, data=text, replace=True)
        assert status == 201, said
    second, first = await undo_addresses(dashboard)
    for undo, text in ((first, texts[0]), (second, texts[1])):
        assert (await dashboard.submit(undo))[0] == 303
        assert (uploads / "talk.jsonl").read_bytes() == text
    assert len(await undo_addresses(dashboard)) == 2, "what was there is in the trash in turn"
    third = (await undo_addresses(dashboard))[1]
    assert (await dashboard.submit(third))[0] == 303
    assert (uploads / "talk.jsonl").read_bytes() == texts[2]
    await ended(dashboard)


# --------------------------------------------------------------------------------- the page's forms


async def send_form(dashboard, *parts, origin=True):
    """A multipart form as a browser sends it: pairs of name and text, or name, file name and
    bytes.
    """
    mark = b"----form"
    lines = b""
    for name, *rest in parts:
        head = f'Content-Disposition: form-data; name="{name}"' + (
            f'; filename="{rest[0]}"' if len(rest) > 1 else ""
        )
        value = rest[-1] if isinstance(rest[-1], bytes) else rest[-1].encode()
        lines += b"--" + mark + b"\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"
    headers = {
        "Content-Type": f"multipart/form-data; boundary={mark.decode()}",
        "Accept": "text/html",
    }
    headers |= {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"} if origin else {}
    async with dashboard.session.post(
        "/dashboard/data/uploads",
        data=lines + b"--" + mark + b"--\r\n",
        headers=headers,
        allow_redirects=False,
    ) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_a_form_without_scripts_brings_a_file_in(dashboard, uploads):
    status, _, headers = await send_form(
        dashboard, ("name", ""), ("file", "talk.jsonl", TALK), ("text", "")
    )
    assert status == 303 and headers["Location"] == "/dashboard/data/uploads/talk.jsonl"
    assert (uploads / "talk.jsonl").read_bytes() == TALK
    assert (await ended(dashboard)).about.rows == 7, "it is looked into at once"


async def test_what_is_pasted_gets_the_name_that_is_given(dashboard, uploads):
    status, _, headers = await send_form(
        dashboard, ("name", "chat.txt"), ("file", "", b""), ("text", "Mina: hello\n" * 50_000)
    )
    assert status == 303 and headers["Location"].endswith("/chat.txt")
    assert (uploads / "chat.txt").stat().st_size == 600_000
    status, _, headers = await send_form(dashboard, ("text", "Mina: hello"))
    assert headers["Location"].endswith("/pasted.txt")


async def test_a_form_that_brings_nothing_usable_is_answered_with_a_page(dashboard, uploads):
    for parts, status in [
        ((("name", "x.txt"), ("file", "", b""), ("text", "")), 422),
        ((("name", "x" * 5000), ("text", "a")), 413),
        ((("name", "../x.txt"), ("text", "a")), 422),
        ((("file", "virus.exe", b"MZ"),), 415),
        ((("file", "true.jsonl", b"\x7fELF"),), 415),
    ]:
        found, text, _ = await send_form(dashboard, *parts)
        assert found == status and "<html" in text and not list(uploads.glob("*")), parts


async def test_another_sites_form_brings_nothing(dashboard, uploads):
    status, _, _ = await send_form(dashboard, ("file", "talk.jsonl", TALK), origin=False)
    assert status == 403 and not uploads.exists()


async def test_the_right_is_stated_in_a_form_and_a_wrong_field_is_reported_at_its_place(dashboard):
    await put(dashboard)
    path = "/dashboard/data/uploads/talk.jsonl/right"
    given = {
        "right": "licensed",
        "licence": "",
        "stated_by": "Mina <b>",
        "stated_on": "2026-11-20",
        "why": "All agreed.",
    }
    status, page, _ = await dashboard.submit(path, **given)
    assert status == 422 and 'id="licence-error"' in page and 'value="Mina &lt;b&gt;"' in page, (
        "what was written stays"
    )
    status, _, headers = await dashboard.submit(path, **given | {"licence": "CC-BY-4.0"})
    assert status == 303 and headers["Location"] == "/dashboard/data/uploads/talk.jsonl"
    _, page, _ = await dashboard.page("/dashboard/data/uploads/talk.jsonl")
    assert "can be trained on" in page and 'value="CC-BY-4.0"' in page
    await dashboard.submit(path, take_back="yes")
    assert "cannot be trained on" in (await dashboard.page("/dashboard/data/uploads/talk.jsonl"))[1]


async def test_what_was_said_to_the_bot_is_a_source_under_discords_rules(dashboard):
    sources = {source.id: source for source in await dashboard.services.data.sources()}
    history = sources["history"]
    assert history.refused and "DISCORD_PERMISSION" in history.advice
    fields = {"name": "x", "source": "history"}
    status, page, _ = await dashboard.submit("/dashboard/data/build", **fields)
    assert status == 422 and "no file" in page


async def test_the_first_page_lists_sources_with_their_rights(dashboard, tmp_path):
    home = tmp_path / "home"
    (home / "mine.jsonl").write_bytes(TALK)
    (home / "catalogue.toml").write_text(
        '[harbour]\npath = "mine.jsonl"\nright = "form"\nstated_by = "Olga"\nstated_on = 2026-11-20\nwhy = "so"\n'
        '[gone]\npath = "gone.jsonl"\nright = "form"\nstated_by = "Olga"\nstated_on = 2026-11-20\nwhy = "so"\n'
        '[odd]\npath = "mine.jsonl"\n'
    )
    await put(dashboard)
    status, page, _ = await dashboard.page("/dashboard/data")
    assert status == 200
    for words in (
        "harbour",
        "Olga",
        "talk.jsonl",
        "general-dialogue",
        "ballast",
        "leaves out",
        "does not exist",
        "None yet",
        'Cannot be trained on yet: <a href="/dashboard/data/uploads/talk.jsonl">',
    ):
        assert words in page, words


async def test_columns_of_an_unknown_table_are_asked_for_kept_and_used(dashboard, uploads):
    await put(dashboard, "unclear.csv", UNCLEAR)
    await state(dashboard, name="unclear.csv")
    await looked_into(dashboard, "unclear.csv")
    asked = (await upload_of(dashboard, "unclear.csv")).about.question
    assert asked.proposal == {"speaker": "wer", "text": "was"}
    assert "Wenda" not in (uploads / ".unclear.csv.about.json").read_text(), (
        "looks only: nobody's words"
    )
    page = (await dashboard.page("/dashboard/data/uploads/unclear.csv"))[1]
    assert "which column is what" in page
    assert (
        "2 names that recur" in page
        and "Wenda Quill" in page
        and ">speaker=wer\ntext=was</textarea>" in page
    )
    offer = "/dashboard/data/uploads/unclear.csv/catalogue"
    _, page, _ = await dashboard.submit(offer, name="ferry")
    assert "say which column is what" in page

    columns = "/dashboard/data/uploads/unclear.csv/columns"
    _, page, _ = await dashboard.submit(columns, map="speaker")
    assert "role=column" in page
    pairs = ("speaker=wer", "text=was")
    await dashboard.submit(columns, map="\n".join(pairs))
    about = (await ended(dashboard, "unclear.csv")).about
    assert about.question is None and about.turns == 7
    assert read_mapping(uploads / "unclear.csv") == pairs
    page = (await dashboard.page("/dashboard/data/uploads/unclear.csv"))[1]
    assert "Taken as is" in page and "column id: it has no role" in page and "Withdraw" in page
    assert (await dashboard.submit(offer, name="ferry"))[0] == 303
    material = catalogue_material(
        "log", read_catalogue(uploads.parent).entries["ferry"], NO_CONSENT
    )
    assert material.mapping == pairs, "a job reads it the same way"

    await put(dashboard, "unclear.csv", b"other", replace=True)
    assert not (await upload_of(dashboard, "unclear.csv")).mapping
    assert not (uploads / "columns.toml").exists()


async def test_columns_are_stated_and_withdrawn_on_the_page(dashboard, uploads):
    await put(dashboard, "unclear.csv", UNCLEAR)
    path = "/dashboard/data/uploads/unclear.csv/columns"
    _, page, _ = await dashboard.submit(path, map="speaker=wer\nspeaker=was")
    assert "&#39;speaker&#39; twice" in page and "speaker=wer\nspeaker=was</textarea>" in page
    await dashboard.submit(path, map="speaker=wer\r\n text=was \r\n")
    assert read_mapping(uploads / "unclear.csv") == ("speaker=wer", "text=was")
    await dashboard.submit(path, map="", take_back="yes")
    assert read_mapping(uploads / "unclear.csv") == ()


async def test_columns_are_asked_for_after_a_restart_too(dashboard, uploads):
    await put(dashboard, "unclear.csv", b"Wenda Quill,The ferry is late.\n")
    columns = [{"name": "1", "looks_like": "2 names that recur"}]
    found = {"format": "columns", "question": {"columns": columns}}
    save_inspection(uploads / "unclear.csv", found)  # its job, which had examples, is forgotten
    status, page, _ = await dashboard.page("/dashboard/data/uploads/unclear.csv")
    assert status == 200 and "2 names that recur" in page
