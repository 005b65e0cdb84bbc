"""The pages' frame: layout, what is said once, problems as pages, files; and the overview."""

import io
import re
from contextlib import suppress
from pathlib import Path

import pytest
from jinja2.defaults import DEFAULT_FILTERS

import bot
from bot.operations.web import overview_pages
from bot.platform.web_kit.templating import (
    STATIC_FOLDER,
    FlashMessages,
    _environment,
    format_bytes,
    format_inline_code,
    format_percent,
    format_seconds,
    format_time,
)
from bot.store import Channel
from bot.training.backend_protocol import TrainingFailed
from bot.training.queue import JobQueue
from bot.web_server import SECTIONS
from personas.schemas.training_events import Phase, Progress
from tests.bot.version_rows import install
from tests.fakes import until
from tests.samples import SCORECARD

GUILD = 9
PROGRESS = Progress(
    step=30,
    of=120,
    epoch=0.5,
    loss=2.5,
    lr=3e-4,
    tokens_per_s=400,
    eta_s=65,
    done=0.6,
    left_s=125,
    memory_bytes=2**30,
)
GOOD = SCORECARD.model_copy(update={"verdict": "promote"})
BOT = Path(bot.__path__[0])


async def test_where_there_is_no_other_page_the_root_leads_to_the_overview(dashboard):
    status, _, headers = await dashboard.page("/")
    assert (status, headers["Location"]) == (302, "/dashboard")


async def test_the_overview_tells_who_lives_where_in_which_version(dashboard):
    dashboard.store.guilds.record_present([GUILD], 1)
    dashboard.store.channels.assign(Channel(GUILD, 5, "oda", "mentions", 1, 1.0))
    install(dashboard.store, "oda")
    dashboard.store.versions.promote("oda", "v1", 1, 2.0)
    status, text, headers = await dashboard.page("/dashboard")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    oda = next(card for card in text.split("<article")[1:] if "/dashboard/personas/oda" in card)
    assert ">v1<" in oda and f"server {GUILD}" in oda and "answers when it is mentioned" in oda
    assert text.count("Not in any channel") == 2 and "Nothing is being trained" in text
    assert 'href="/dashboard" aria-current="page"' in text and 'href="/"' not in text


async def test_a_page_marks_its_section_and_has_its_style_sheet(dashboard):
    for name, label in SECTIONS.items():
        _, text, _ = await dashboard.page(f"/dashboard/{name}")
        assert f'<a href="/dashboard/{name}" aria-current="page">{label}</a>' in text
        has_styles = f'href="/dashboard/static/{name}.css"' in text
        assert has_styles == (STATIC_FOLDER / f"{name}.css").is_file(), name


async def test_the_overview_tells_what_trains_and_what_waits(dashboard, monkeypatch):
    first = (await dashboard.start())[1]["job_id"]
    second = (await dashboard.start(job_name="other"))[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.on_event(PROGRESS)
    await until(lambda: dashboard.store.jobs.get(first).progress == PROGRESS)
    text = (await dashboard.page("/dashboard"))[1]
    trains = text[text.index('id="now-trains"') : text.index('id="persona-cards"')]
    running, waiting = trains.split("<table")
    assert f"/dashboard/training/{first}" in running and "running" in running
    assert 'value="0.6"' in running
    assert "<b>60 %</b> · training · ready in about <b>2 min</b>" in running
    assert "requested by the operator" in running
    assert f"/dashboard/training/{second}" in waiting and 'data-label="Place">1<' in waiting
    dashboard.backend.on_event(PROGRESS.model_copy(update={"most_left_s": 290}))
    assert "training · ready in about <b>2–5 min</b>" in (await dashboard.page("/dashboard"))[1]
    monkeypatch.setattr(JobQueue, "is_late", lambda queue, job_id: job_id == first)
    assert "training · it takes longer than expected<" in (await dashboard.page("/dashboard"))[1]


async def test_a_score_card_that_is_measured_in_the_background_is_no_idle_trainer(dashboard):
    job_id = (await dashboard.start())[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.finish()
    jobs = dashboard.store.jobs
    await until(lambda: jobs.get(job_id).state == "done")
    phase = Phase(name="measuring the adapter", share=0.4, eta_s=300)
    for change, bar, words in (
        (lambda: jobs._set_card(job_id, "waiting"), 0, "is measured once nothing is trained."),
        (lambda: jobs.claim_card(job_id), 0, "is being measured: it begins."),
        (
            lambda: jobs.report_card(job_id, phase),
            1,
            "is being measured: 40%, at most 5 min 0 s left",
        ),
    ):
        change()
        for path in ("/dashboard", "/dashboard/training"):
            text = (await dashboard.page(path))[1]
            trains = text[text.index('id="now-trains"') :].partition("</section>")[0]
            assert f"The rest of its score card {words}" in trains
            assert "Nothing is being trained" not in trains
            assert trains.count("<progress") == bar and f"/dashboard/training/{job_id}" in trains
    jobs.end_card(job_id, "cancelled")
    assert "Nothing is being trained" in (await dashboard.page("/dashboard"))[1]


async def test_what_wants_attention_is_reported_until_it_is_seen_to(dashboard):
    job_id = (await dashboard.start())[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.finish(
        TrainingFailed(
            f"<b>{dashboard.home}/full</b> is full.", "Free some space.", can_resume=True
        )
    )
    await until(lambda: dashboard.store.jobs.get(job_id).state == "failed")
    install(
        dashboard.store,
        "oda",
        card=SCORECARD.model_copy(update={"verdict": "hold", "reasons": ("It repeats.",)}),
    )
    dashboard.store._connection.write(
        "update jobs set finished_at = unixepoch() where job_id = :j", j=job_id
    )
    text = (await dashboard.page("/dashboard"))[1]
    assert "v1 of Oda Marrow is held" in text and "It repeats." in text
    assert "&lt;b&gt;UNDERSTUDY_HOME/full" in text and str(dashboard.home) not in text
    assert "It can go on where it was." in text and f"/dashboard/training/{job_id}" in text
    dashboard.store.versions.promote("oda", "v1", 1, 2.0)
    dashboard.store._connection.write("update jobs set finished_at = 1 where job_id = :j", j=job_id)
    text = (await dashboard.page("/dashboard"))[1]
    assert "Needs attention" not in text and "Waiting for you" not in text


async def test_the_overview_counts_the_versions_that_wait_and_have_no_room(dashboard, monkeypatch):
    monkeypatch.setattr(overview_pages, "MAX_DECISIONS", 1)
    held = SCORECARD.model_copy(update={"verdict": "hold"})
    install(dashboard.store, "oda", card=held)
    for number in range(overview_pages.MAX_ALERTS):
        install(dashboard.store, f"somebody-gone-{number}", card=held, at=0.0)
    text = (await dashboard.page("/dashboard"))[1]
    assert text.count("a moderator decides") == 1 and "more version" not in text
    install(dashboard.store, "ballast", card=held, at=2.0)
    text = (await dashboard.page("/dashboard"))[1]
    assert text.count("a moderator decides") == 1
    more = '<a href="/dashboard/personas">1 more version waits, below its persona.</a>'
    assert more in text
    install(dashboard.store, "thrip", card=held, at=3.0)
    assert "2 more versions wait, below their personas." in (await dashboard.page("/dashboard"))[1]


async def test_what_may_be_promoted_is_promoted_on_the_overview(dashboard):
    good = {"verdict": "promote", "reasons": ("Its loss is `lower`.",)}
    install(dashboard.store, "oda", card=SCORECARD.model_copy(update=good))
    text = (await dashboard.page("/dashboard"))[1]
    assert "v1 of Oda Marrow may be promoted" in text and "<code>lower</code>" in text
    form = r'<form method="post" action="([^"]*)"><button class="primary">Promote v1'
    action = re.search(form, text)
    status, _, _ = await dashboard.submit(action[1])
    assert status == 303 and dashboard.store.versions.live("oda", 0) == "v1"
    assert "Waiting for you" not in (await dashboard.page("/dashboard"))[1]


async def test_what_is_live_where_is_said_alike_on_every_page(dashboard):
    for _ in range(2):
        install(dashboard.store, "oda", card=GOOD)
    promote = dashboard.store.versions.promote
    pages = ("/dashboard", "/dashboard/personas", "/dashboard/personas/oda/versions")

    async def said():
        texts = set()
        for path in pages:
            html = (await dashboard.page(path))[1]
            html = html[html.index("/dashboard/personas/oda/face") :]
            words = html[html.index('<span class="spoken">') :].splitlines()[0]
            words = re.split(r'</p>|</dd>|<span class="muted">', words)[0]
            texts.add(" ".join(re.sub(r"<[^>]*>", " ", words).replace(" ,", ",").split()))
        return texts

    assert await said() == {"base model"}
    promote("oda", "v1", 1, 2.0, guild_id=GUILD)
    assert await said() == {f"v1 in server {GUILD}, base model elsewhere"}
    assert "may be promoted" in (await dashboard.page("/dashboard/personas"))[1]
    promote("oda", "v2", 1, 2.0, guild_id=GUILD)
    assert await said() == {f"v2 in server {GUILD}, base model elsewhere"}
    for path in pages:
        html = (await dashboard.page(path))[1]
        newest = html.partition('scope="row">v1')[0] if path == pages[2] else html
        assert "may be promoted" not in newest, "it is live"
    promote("oda", "v2", 1, 2.0, guild_id=0)
    assert await said() == {"v2"}


async def test_pages_run_and_load_nothing_but_the_bots_own(dashboard):
    for path in ("/dashboard", "/dashboard/nowhere", "/dashboard/sign-in?to=/dashboard/x"):
        _, text, headers = await dashboard.page(path)
        policy = headers["Content-Security-Policy"]
        if text:
            assert (
                "script-src 'self'" in policy
                and "unsafe" not in policy
                and "default-src 'none'" in policy
            )
            assert " style=" not in text and not re.search(r"\son\w+=", text)
            assert all(
                address.startswith("/")
                for address in re.findall(r'(?:src|href)="([^#][^"]*)"', text)
            )
        assert (
            headers["X-Content-Type-Options"] == "nosniff"
            and headers["Cache-Control"] == "no-store"
        )


async def test_a_problem_is_a_page_for_a_browser_and_json_for_everybody_else(dashboard):
    status, text, headers = await dashboard.page("/dashboard/nowhere")
    assert status == 404 and "Not found" in text and headers["Content-Type"].startswith("text/html")
    status, body, headers = await dashboard.ask("GET", "/dashboard/nowhere")
    assert (status, body["type"]) == (404, "/problems/not-found")
    assert headers["Content-Type"] == "application/problem+json"
    status, _, headers = await dashboard.page("/nowhere")
    assert status == 404 and headers["Content-Type"] == "application/problem+json", (
        "only the dashboard has pages"
    )


async def test_before_the_bot_is_in_a_page_says_so(dashboard):
    dashboard.front.close()
    status, text, headers = await dashboard.page("/dashboard")
    assert status == 503 and headers["Retry-After"] and "starting or stopping" in text


async def test_files_of_the_pages_come_with_their_types_and_only_those(dashboard):
    async with dashboard.session.get("/dashboard/static/base.css") as answer:
        assert answer.status == 200 and answer.content_type == "text/css"
        tag = answer.headers["ETag"]
    async with dashboard.session.get(
        "/dashboard/static/base.css", headers={"If-None-Match": tag}
    ) as again:
        assert again.status == 304
    for name in (
        "none.css",
        "..%2Fframe.py",
        "%2e%2e%2fframe.py",
        "frame.py",
        ".css",
        "base.css%00.js",
    ):
        assert (await dashboard.ask("GET", f"/dashboard/static/{name}"))[0] == 404


FOREIGN = [
    {},
    {"Origin": "https://example.org"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
]


async def test_a_form_that_does_not_come_from_a_page_of_ours_is_refused(dashboard):
    for headers in FOREIGN:
        status, body, _ = await dashboard.ask(
            "POST", "/dashboard/sign-in", data={"token": "x"}, headers=headers
        )
        assert status == 403 and body["type"] == "/problems/not-from-here", headers


async def test_a_form_that_is_too_large_or_does_not_say_how_large_is_refused(dashboard):
    own = {"Origin": dashboard.url, "Content-Type": "application/x-www-form-urlencoded"}

    async def endless():
        yield b"token=x"

    for data in (io.BytesIO(b"token=" + b"x" * 2**20), endless()):
        status, body, _ = await dashboard.ask("POST", "/dashboard/sign-in", data=data, headers=own)
        assert status == 413 and body["type"] == "/problems/too-large"
    many = "&".join(f"f{n}=" for n in range(2001)).encode()
    assert (await dashboard.ask("POST", "/dashboard/sign-in", data=many, headers=own))[0] == 413


def test_what_was_said_is_taken_once_and_not_kept_without_end():
    said = FlashMessages()
    first = said.keep("done")
    assert said.take(first) == "done" and said.take(first) == "" and said.take("none") == ""
    numbers = [said.keep(str(n)) for n in range(101)]
    assert said.take(numbers[0]) == "" and said.take(numbers[100]) == "100"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Try `/finetune start`.", "Try <code>/finetune start</code>."),
        ("`<b>` and <b>", "<code>&lt;b&gt;</code> and &lt;b&gt;"),
        ("one ` alone", "one ` alone"),
        ("", ""),
    ],
)
def test_what_stands_in_backticks_is_shown_as_code(text, shown):
    assert format_inline_code(text) == shown


def test_no_filter_escapes_what_another_has_escaped(monkeypatch):
    monkeypatch.setattr("sys.argv", ["understudy"])
    environment = _environment()
    own = [
        name for name, does in environment.filters.items() if does is not DEFAULT_FILTERS.get(name)
    ]
    assert {"inline_code", "as_typed"} <= {*own}
    for name in own:
        with suppress(AttributeError, TypeError, ValueError):  # filters of numbers and times
            source = f"{{{{ text | e | {name} }}}}"
            shown = environment.from_string(source).render(text="it's <b> `python -m bot`")
            assert "it&#39;s &lt;b&gt;" in shown, name


def test_times_sizes_and_shares_are_written_for_people():
    assert [format_seconds(s) for s in (None, 0.42, 59.6, 125, 3725, 90_000)] == [
        "–", "0.4 s", "1 min 0 s", "2 min 5 s", "1 h 2 min", "1 d 1 h",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (None, 0, 1023, 1536, 3 * 2**30, 500 * 2**30)] == [
        "–", "0 bytes", "1023 bytes", "1.5 KiB", "3.0 GiB", "500 GiB",
    ]  # fmt: skip
    assert (format_percent(0.425, 1), format_percent(None)) == ("42.5 %", "–")
    assert (
        format_time(0) == '<time datetime="1970-01-01T00:00:00+00:00">1 Jan 1970, 00:00 UTC</time>'
        and format_time(None) == "–"
    )


@pytest.mark.parametrize(
    "file", sorted(BOT.rglob("templates/*.html")), ids=lambda file: file.relative_to(BOT).as_posix()
)
def test_templates_escape_everything_and_carry_no_script_or_style_of_their_own(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", text)
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


@pytest.mark.parametrize("file", sorted(STATIC_FOLDER.glob("*.js")), ids=lambda file: file.name)
def test_scripts_make_no_markup_or_code_out_of_text(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
