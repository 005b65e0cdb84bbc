"""Data sets: built by the trainer's program, shown, reviewed, deleted."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.data.build_request import DatasetBuildBody
from bot.data.errors import DataConflictError, InvalidFieldsError
from bot.data.web import set_pages
from bot.data.web.forms import statement_fields
from bot.data.web.sample_views import split_marked_text
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.validation import parse_body
from bot.training.guild_turns import QueueConflictError
from tests.bot.web.conftest import put_talk
from tests.bot.web.dataset_folders import TRAINER, put_set
from tests.bot.web.test_web_uploads import undo_addresses
from tests.fakes import until

ORDER = {"name": "harbour", "persona": "ballast", "sources": [{"source": "ballast"}]}


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(
        "bot.data.jobs.TRAINER_COMMAND", (sys.executable, str(tmp_path / "trainer.py"))
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def build(dashboard, *, replace=False, **changes):
    """Have a data set built; gives the job."""
    body = parse_body(DatasetBuildBody, ORDER | changes)
    return await dashboard.services.data.build_dataset(body, replace=replace)


async def build_ended(dashboard, name="harbour"):
    """The job of a build once it has ended."""
    job = dashboard.services.data_jobs.latest("build", name)
    await until(lambda: not job.is_open, 15)
    return job


async def delete(dashboard):
    assert (await dashboard.submit("/dashboard/data/sets/harbour/delete"))[0] == 303


async def is_there(dashboard):
    return (await dashboard.page("/dashboard/data/sets/harbour"))[0] == 200


# ----------------------------------------------------------------------------------------- building


async def test_a_data_set_is_built_by_a_process_and_then_there(dashboard, home):
    put_talk(home / "uploads", "talk.jsonl")
    job = await build(
        dashboard,
        sources=[{"source": "uploads/talk.jsonl", "limit": 200}, {"source": "ballast"}],
        names=["Wick"], mix="80:20", languages=["en"], max_length=256,
    )  # fmt: skip
    await build_ended(dashboard)
    assert job.state == "done" and job.said == "reading talk.json: 1,200 rows"
    words = json.loads((home / "said.json").read_text())
    sources = [words[n + 1] for n, word in enumerate(words) if word == "--source"]
    assert sources == ["uploads/talk.jsonl:200", "ballast"] and words[:4] == [
        "dataset",
        "build",
        "--persona",
        "ballast",
    ]
    for option, value in {"--as": "Wick", "--mix": "80:20", "--languages": "en", "--max-length": "256",
                          "--review": "builds/harbour/review.jsonl", "--out": "datasets/harbour"}.items():  # fmt: skip
        assert words[words.index(option) + 1] == value
    built = await dashboard.services.data.dataset("harbour")
    assert built.stats.samples == {"train": 40, "eval": 6}
    assert built.request_field == {"dataset_path": "datasets/harbour"}
    status, result, _ = await dashboard.start(
        dataset=None, dataset_path="datasets/harbour", task_type="persona", persona="ballast"
    )
    assert status == 202, result


async def test_a_set_that_is_there_is_asked_about(dashboard, home):
    put_set(home / "datasets" / "harbour")
    with pytest.raises(DataConflictError, match="already"):
        await build(dashboard)
    await build(dashboard, replace=True)
    assert (await build_ended(dashboard)).state == "done"


async def test_an_order_that_cannot_be_is_refused_by_field(dashboard, home):
    put_talk(home / "uploads", "unsigned.jsonl", signed=False)
    for changes, field in [
        ({"sources": [{"source": "uploads/unsigned.jsonl"}]}, "sources"),
        ({"sources": [{"source": "nowhere"}]}, "sources"),
        ({"sources": []}, "sources"),
        ({"sources": [{"source": "ballast"}, {"source": "ballast"}]}, "sources"),
        ({"persona": "nobody"}, "persona"),
        ({"recipe": "none"}, "recipe"),
        ({"name": "general-dialogue"}, "name"),
        ({"name": "../up"}, "name"),
        ({"mix": "80-20"}, "mix"),
        ({"names": ["--out"]}, "names"),
        ({"languages": ["English"]}, "languages"),
        ({"max_length": 1}, "max_length"),
    ]:
        wrong = set()
        try:
            await build(dashboard, **changes)
        except Problem as problem:
            wrong = {error["field"].partition(".")[0] for error in problem.errors}
        except InvalidFieldsError as error:
            wrong = {name.partition(".")[0] for name, _ in error.errors}
        assert field in wrong, changes
        assert not (home / "said.json").exists(), changes


async def test_what_the_trainer_refuses_is_said_without_the_machines_folders(dashboard, home):
    await build(dashboard, persona="oda")
    job = await build_ended(dashboard)
    assert (job.state, job.error) == (
        "failed",
        "talk.json holds no reply of Oda. Name her: --as",
    )
    _, page, _ = await dashboard.page("/dashboard/data/builds/harbour")
    assert "Name her" in page and "Edit and rebuild" in page
    assert "harbour was not built" in (await dashboard.page("/dashboard/data"))[1]
    _, page, _ = await dashboard.page("/dashboard/data/build?again=harbour")
    assert 'value="oda" selected' in page, "the order is kept, to be changed"


async def test_a_build_is_cancelled_and_its_process_ends(dashboard, home):
    job = await build(dashboard, persona="thrip")
    await until(lambda: job.said, 15)
    with pytest.raises(QueueConflictError):
        await build(dashboard)
    second = await build(dashboard, name="second")
    assert second.state == "waiting"
    began = asyncio.get_running_loop().time()
    await dashboard.submit(f"/dashboard/data/works/{job.id}/cancel")
    assert job.state == "cancelled" and asyncio.get_running_loop().time() - began < 5
    assert (await build_ended(dashboard, "second")).state == "done", "the next one begins"


async def test_events_tell_how_far_it_is_until_it_has_ended(dashboard):
    job = await build(dashboard)
    async with dashboard.session.get(f"/dashboard/data/works/{job.id}/events") as answer:
        text = await answer.text()
    states = [json.loads(row[6:])["state"] for row in text.splitlines() if row.startswith("data: ")]
    assert states[-1] == "done" and set(states) <= {"waiting", "running", "done"}


async def test_the_form_builds_and_shows_the_command_behind_it(dashboard, home):
    fields = {
        "name": "harbour",
        "persona": "ballast",
        "source": "ballast",
        "limit ballast": "12",
        "recipe": "demo-cpu",
    }
    status, page, _ = await dashboard.submit("/dashboard/data/build", **fields, show="yes")
    said = (
        "python -m trainer dataset build --persona ballast --source ballast:12 "
        "--base-model embedded --out datasets/harbour"
    )
    assert (
        status == 200
        and f"<pre>UNDERSTUDY_HOME={home} {said}" in page
        and not (home / "said.json").exists()
    )
    status, page, _ = await dashboard.submit("/dashboard/data/build", **fields | {"mix": "much"})
    assert status == 422 and 'id="mix-error"' in page and 'value="12"' in page, (
        "what was written stays"
    )
    status, _, headers = await dashboard.submit("/dashboard/data/build", **fields)
    assert status == 303 and headers["Location"] == "/dashboard/data/builds/harbour"
    await build_ended(dashboard)
    page = (await dashboard.page(headers["Location"]))[1]
    assert (
        "40 samples to train on" in page
        and f"<pre>UNDERSTUDY_HOME={home} python -m trainer dataset build" in page
    )


# ------------------------------------------------------------------------------------ what is there


async def test_the_page_of_a_set_says_what_it_is_composed_of(dashboard, home):
    put_set(home / "datasets" / "harbour")
    status, page, _ = await dashboard.page("/dashboard/data/sets/harbour")
    assert status == 200 and page.count("Samples by source") >= 2
    for words in (
        "more.jsonl",
        "73.9",
        "Mina Vale",
        "near duplicate",
        "own-writing",
        "the limit is 512",
    ):
        assert words in page, words
    assert "<script>alert" not in page and "<td>1</td>" in page, (
        "the data sheet is rendered, its HTML is not"
    )


async def test_a_set_of_which_a_file_is_gone_says_so_and_what_to_do(dashboard, home):
    name = "eval.jsonl"
    folder = put_set(home / "datasets" / "harbour")
    paths = [f"/dashboard/data/sets/harbour{tab}" for tab in ("", "/samples")]
    assert not [path for path in paths if "gone" in (await dashboard.page(path))[1]]
    (folder / name).unlink()
    for path in paths:
        status, page, _ = await dashboard.page(path)
        assert status == 200 and f"{name} of this data set is gone." in page, path
        assert "/dashboard/data/build?again=harbour" in page


async def test_a_statement_of_a_right_is_proposed_with_the_date_here(dashboard, home, monkeypatch):
    put_set(home / "datasets" / "harbour")
    put_talk(home / "uploads", "talk.jsonl", signed=False)
    with monkeypatch.context() as there:
        there.setenv("TZ", "THERE-23:59")  # where it is tomorrow nearly all day
        time.tzset()
        before = datetime.now(UTC)
        here = statement_fields(None)["stated_on"]
        pages = [
            (await dashboard.page(f"/dashboard/data/{of}"))[1]
            for of in ("sets/harbour", "uploads/talk.jsonl")
        ]
    time.tzset()
    assert here in {
        (moment + timedelta(hours=23, minutes=59)).date().isoformat()
        for moment in (before, datetime.now(UTC))
    }
    assert all(f'type="date" value="{here}"' in page for page in pages)


async def test_a_damaged_set_is_said_and_harms_no_page(dashboard, home):
    put_set(home / "datasets" / "harbour")
    put_set(home / "datasets" / "broken")
    (home / "datasets" / "broken" / "stats.json").write_text("{}")
    assert "broken is damaged" in (await dashboard.page("/dashboard/data"))[1]
    assert (await dashboard.page("/dashboard/data/sets/broken"))[0] == 422
    assert (await dashboard.page("/dashboard/data/sets/broken/samples"))[0] == 422
    assert (await dashboard.page("/dashboard/data/sets/harbour"))[0] == 200


async def test_a_set_is_deleted_with_all_that_belongs_to_it(dashboard, home):
    await build(dashboard)
    await build_ended(dashboard)
    await delete(dashboard)
    assert not any((home / place).exists() for place in ("datasets/harbour", "builds/harbour"))
    assert not await is_there(dashboard)


async def test_a_deleted_or_replaced_set_can_be_brought_back_for_a_day(dashboard, home):
    put_set(home / "datasets" / "harbour")
    samples = (home / "datasets" / "harbour").rglob("*")
    before = {path.name: path.read_bytes() for path in samples if path.is_file()}
    await build(dashboard, replace=True)
    await build_ended(dashboard)
    (undo,) = await undo_addresses(dashboard)
    assert (await dashboard.submit(undo))[0] == 303
    samples = (home / "datasets" / "harbour").rglob("*")
    assert before == {path.name: path.read_bytes() for path in samples if path.is_file()}
    await delete(dashboard)
    undo = (await undo_addresses(dashboard))[0]
    assert (await dashboard.submit(undo))[0] == 303
    assert await is_there(dashboard)
    assert (await dashboard.submit(undo))[0] == 404


async def test_a_failed_rebuild_takes_no_earlier_set_with_it(dashboard, home):
    put_set(home / "datasets" / "harbour")
    await delete(dashboard)
    put_set(home / "datasets" / "harbour")
    await build(dashboard, persona="oda", replace=True)
    assert (await build_ended(dashboard)).state == "failed"
    (undo,) = await undo_addresses(dashboard)
    assert (await dashboard.submit(undo))[0] == 303


# ------------------------------------------------------------------------------------------ samples


async def samples(dashboard, query=""):
    """The articles of the page."""
    status, page, _ = await dashboard.page(f"/dashboard/data/sets/harbour/samples{query}")
    assert status == 200
    return page.split('<article class="card sample"')[1:]


async def test_the_samples_of_each_split_are_shown_with_source_and_right(dashboard, home):
    put_set(home / "datasets" / "harbour")
    first, *_, last = await samples(dashboard)
    assert "more.jsonl, messages 1<" in first and "right own-writing" in first
    assert "lifted crate 19 by dawn" in last
    following = await samples(dashboard, "?split=train&first=20")
    assert len(following) == 20 and "lifted crate 20 by dawn" in following[0]
    assert len(await samples(dashboard, "?split=eval")) == 6
    dropped = await samples(dashboard, "?split=dropped")
    assert len(dropped) == 4 and "dropped text 1" in dropped[1] and "near duplicate" in dropped[1]
    assert await samples(dashboard, "?split=dropped&first=20") == []


async def test_a_query_that_cannot_be_is_refused(dashboard, home):
    put_set(home / "datasets" / "harbour")
    for query in ("split=none", "first=x", "odd=1", "first=-1"):
        status, _, _ = await dashboard.page(f"/dashboard/data/sets/harbour/samples?{query}")
        assert status == 400, query


async def test_a_broken_line_is_a_sample_without_words(dashboard, home):
    folder = put_set(home / "datasets" / "harbour")
    with (folder / "eval.jsonl").open("a") as file:
        file.write('{"messages": [\n[]\n')
    assert len(await samples(dashboard, "?split=eval")) == 8


async def test_the_page_marks_pseudonyms_and_escapes_what_was_said(dashboard, home):
    put_set(home / "datasets" / "harbour")
    first, *_ = await samples(dashboard)
    assert (
        '<mark class="name">Galen</mark>' in first
        and '<mark class="value">galen123@example.com</mark>' in first
    )
    assert "&lt;b&gt;bold" in first and "<b>bold" not in first


def test_pieces_make_the_text_again_and_mark_no_half_words():
    text = "Galen met Galena at [address] of Corin2, call 212-555-0142 or @galen481."
    found = list(split_marked_text(text, ["Galen", "Ballast"]))
    assert "".join(piece for piece, _ in found) == text
    assert [(piece, kind) for piece, kind in found if kind] == [
        ("Galen", "name"), ("[address]", "value"), ("Corin2", "name"), ("212-555-0142", "value"),
        ("@galen481", "value"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- review


async def test_a_reviewer_marks_finds_and_the_next_build_heeds_it(dashboard, home):
    await build(dashboard)
    await build_ended(dashboard)
    path = "/dashboard/data/sets/harbour/review"
    _, page, _ = await dashboard.page(path)
    assert (
        "Wenda Quill" in page
        and "2026-12-05" in page
        and ">3</td>" in page
        and "PERSON (3)" in page
    )
    assert page.count("Not a name") == 1, "an address by its form is replaced in any case"
    assert "Wenda Quill" not in (await dashboard.page(f"{path}?kind=EMAIL_ADDRESS"))[1]
    await dashboard.submit(path, verdict="keep", name="Wenda Quill")
    await dashboard.submit(path, verdict="also", name="  Corvo \n Blake ")
    corrections = home / "builds" / "harbour" / "corrections.txt"
    assert corrections.read_text() == "keep Wenda Quill\nalso Corvo Blake\n"
    status, _, headers = await dashboard.submit("/dashboard/data/builds/harbour/again")
    assert status == 303 and headers["Location"] == "/dashboard/data/builds/harbour"
    await build_ended(dashboard)
    words = json.loads((home / "said.json").read_text())
    assert words[words.index("--corrections") + 1] == "builds/harbour/corrections.txt"
    await dashboard.submit(path, verdict="take_back", name="Wenda Quill")
    assert corrections.read_text() == "also Corvo Blake\n"


async def test_a_verdict_that_cannot_be_is_refused(dashboard, home):
    put_set(home / "datasets" / "harbour")
    for verdict, name in (("keep", ""), ("odd", "Mina"), ("also", "x" * 81), ("also", "a\u0007b")):
        status, _, _ = await dashboard.submit(
            "/dashboard/data/sets/harbour/review", verdict=verdict, name=name
        )
        assert status == 422 and not (home / "builds").exists(), verdict


async def test_without_a_list_of_finds_the_page_says_so(dashboard, home):
    put_set(home / "datasets" / "harbour")
    status, page, _ = await dashboard.page("/dashboard/data/sets/harbour/review")
    assert status == 200 and "There is no review list" in page and "EMAIL_ADDRESS" in page


@pytest.mark.slow
async def test_a_page_over_100_000_samples_takes_little_time(dashboard, home):
    put_set(home / "datasets" / "harbour", 90_000, 10_000, 5_000)
    loop = asyncio.get_running_loop()
    for query in ("", "?split=dropped", "?split=train&first=89980"):
        began = loop.time()
        await samples(dashboard, query)
        assert loop.time() - began < 0.3, query


def test_a_sheets_tables_need_no_style_within_the_page():
    html = set_pages._render_datasheet(
        "# A set\n\n| source | records |\n| --- | ---: |\n| talk | 12 |\n"
    )
    assert 'class="number">12<' in html and "style" not in html and "<h3>A set</h3>" in html
