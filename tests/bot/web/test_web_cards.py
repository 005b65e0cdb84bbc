"""A persona's card by its page: read, checked, heard, rewritten, brought back, as a file."""

import html
import io
import json
import re
import time
from html.parser import HTMLParser

import aiohttp
import pytest

from bot.personas.creation import PersonaForm
from bot.personas.registry import PersonaRegistry
from bot.personas.web.lore_files import lore_store
from bot.personas.web.new_persona import create_owned
from bot.store import Channel
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.errors import EngineBusyError
from personas.home.trash import KEPT_S
from personas.prompt.renderer import MAX_CARD_TOKENS
from personas.schemas.chat import LoreHit
from tests.bot.version_rows import install
from tests.bot.web.training_runs import put_job
from tests.fakes import until
from tests.personas.cards import PIXEL, V2, as_json, v3

MIRA = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content
PAGE = "/dashboard/personas/ballast"


def personas_of(dashboard):
    return dashboard.front._context.services.personas


def lore_names(dashboard, persona_id):
    """The names of a persona's own files of lore."""
    return list(lore_store(dashboard.services).files(0, persona_id))


class FormReader(HTMLParser):
    """Reads the fields of the card's form as they stand in the page, as a browser would send
    them.
    """

    def __init__(self):
        super().__init__()
        self.fields = []
        self._inside = False
        self._area = None

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "form":
            self._inside = "editor" in given.get("class", "")
        elif self._inside and tag == "input":
            self.fields.append((given["name"], given["value"]))
        elif self._inside and tag == "textarea":
            self.fields.append((given["name"], ""))
            self._area = given["name"]

    def handle_data(self, data):
        if self._area:
            self.fields[-1] = (self._area, self.fields[-1][1] + data)

    def handle_endtag(self, tag):
        if tag == "textarea" and self._area:
            self.fields[-1] = (self._area, self.fields[-1][1].removeprefix("\n"))
            self._area = None
        elif tag == "form":
            self._inside = False


def form_in(page):
    reader = FormReader()
    reader.feed(page)
    return reader.fields


async def sent(dashboard, path, fields, status=303):
    own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    data = aiohttp.FormData([(name, value.replace("\n", "\r\n")) for name, value in fields])
    async with dashboard.session.post(
        path, data=data, headers=own, allow_redirects=False
    ) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return text


def changed(fields, **new):
    return [(name, new.get(name, value)) for name, value in fields]


async def upload(dashboard, path, name, content, **fields):
    form = aiohttp.FormData()
    for key, value in fields.items():
        form.add_field(key, value)
    form.add_field("file", io.BytesIO(content), filename=name)
    own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    async with dashboard.session.post(
        path, data=form, headers=own, allow_redirects=False
    ) as answer:
        return answer.status, answer.headers.get("Location"), await answer.text()


async def rewrite(dashboard, persona="ballast", status=303, **fields):
    """Save a card with these fields by its page's form."""
    path = f"/dashboard/personas/{persona}"
    form = form_in((await dashboard.page(path))[1])
    return await sent(dashboard, path, changed(form, **fields), status)


# ---------------------------------------------------------------------------------- its script


async def test_what_is_saved_speaks_at_once_and_after_a_restart_and_what_shipped_stays(dashboard):
    before = read_card(SHIPPED_CARDS / "ballast.toml")
    await rewrite(dashboard, tagline="A crane.", tags="iron")
    for personas in (personas_of(dashboard), PersonaRegistry(SHIPPED_CARDS, dashboard.home)):
        now = personas.get("ballast", 9)
        assert (now.tagline, now.tags) == (
            "A crane.",
            ("iron",),
        ) and now.avatar.read_bytes() == before.avatar.read_bytes()
        assert (now.description, now.mes_example, now.first_mes) == (
            before.description, before.mes_example, before.first_mes,
        )  # fmt: skip
    assert read_card(SHIPPED_CARDS / "ballast.toml") == before
    assert dashboard.engine.prepared[-1] == ("ballast", None)
    assert (await dashboard.ask("GET", "/personas/ballast"))[1]["edited"] is True


async def test_what_cannot_be_is_named_by_its_field_and_changes_nothing(dashboard):
    for card, field in [
        ({"name": "Clyde"}, "name"),
        ({"name": ""}, "name"),
        ({"tagline": "x" * 201}, "tagline"),
        ({"mes_example": "no talk"}, "mes_example"),
        ({"more": "{"}, "more"),
        ({"description": "word " * 3000}, ""),
        ({"first_mes": "x" * 6001}, "first_mes"),
        ({"tagline": "A\0B"}, "tagline"),
        ({"tags": ["a\0"]}, "tags"),
        ({"alternate_greetings": ["\0"]}, "alternate_greetings"),
    ]:
        status, result, _ = await dashboard.ask("POST", f"{PAGE}/card/check", json=card)
        assert status == 200 and list(result["wrong"]) == [field], field
        if "\0" not in str(card.values()) and field not in ("tags", "alternate_greetings"):
            assert (result["tokens"]["tokens"] is not None) == (field in ("", "first_mes")), (
                "what is too long is counted"
            )
        assert not personas_of(dashboard).has_copy("ballast"), field


async def test_tokens_are_those_of_the_served_model(dashboard):
    status, result, _ = await dashboard.ask(
        "POST", "/dashboard/tokens", json={"texts": {"a": "", "b": "Mind the hook, please."}}
    )
    assert status == 200 and result["tokens"]["a"] == 0 and 4 <= result["tokens"]["b"] <= 8
    _, card, _ = await dashboard.ask(
        "POST", f"{PAGE}/card/check", json={"scenario": "Mind the hook, please."}
    )
    assert card["tokens"]["fields"]["scenario"] == result["tokens"]["b"]
    assert card["tokens"]["share"] == pytest.approx(card["tokens"]["tokens"] / 2048)
    assert card["tokens"]["context_tokens"] == dashboard.engine.context_tokens == 2048
    talk = "{{user}}: word\n{{char}}: word\n<START>\n" * 500
    _, card, _ = await dashboard.ask(
        "POST", f"{PAGE}/card/check", json={"mes_example": talk[: -len("<START>\n")]}
    )
    assert (
        card["tokens"]["examples_used"]
        == MAX_CARD_TOKENS - card["tokens"]["prose"]
        < card["tokens"]["examples"]
    )


async def test_a_card_goes_out_as_a_file_and_reads_the_same(dashboard):
    for form in ["png", "v2", "v3", "charx", "toml"]:
        async with dashboard.session.get(
            "/dashboard/personas/oda/card", params={"format": form}
        ) as answer:
            content = await answer.read()
            assert answer.status == 200 and answer.headers["Content-Disposition"].startswith(
                'attachment; filename="oda.'
            ), form
        card = parse_card(content, "oda")
        assert (
            card.name == "Oda Marrow"
            and card.text("description") in (SHIPPED_CARDS / "oda.toml").read_text()
        ), form


# ---------------------------------------------------------------------------------------- the voice


async def received(dashboard, **body):
    async with dashboard.session.post(
        f"{PAGE}/preview/events", json={"message": "who are you?", **body}
    ) as answer:
        text = await answer.text()
        return answer.status, [
            (n, json.loads(d)) for n, d in re.findall(r"event: (\w+)\ndata: (.*)\n", text)
        ]


async def test_a_voice_is_played_by_the_card_that_is_not_kept(dashboard):
    install(dashboard.store)
    dashboard.store.versions.promote("ballast", "v1", 0, 2.0)
    status, events = await received(dashboard, card={"name": "Bollard", "tagline": "Not kept."})
    assert status == 200 and [name for name, _ in events] == ["text", "text", "reply"]
    assert (
        events[-1][1]["text"]
        == "Bollard hears: who are you?"
        == "".join(one["text"] for _, one in events[:2])
    )
    assert (
        events[-1][1]["version"] == "v1"
        and dashboard.engine.requests[-1].persona.tagline == "Not kept."
    )
    assert personas_of(dashboard).get("ballast", 0).name == "Ballast" and not personas_of(
        dashboard
    ).has_copy("ballast")
    assert (await received(dashboard, version="base"))[1][-1][1]["version"] is None
    assert (await received(dashboard, version="v7"))[0] == 404
    assert (await received(dashboard, card={"name": ""}))[0] == 422


async def test_what_was_taken_out_of_the_reply_is_said_where_it_is_played(dashboard):
    assert not (await received(dashboard))[1][-1][1]["repeated"]
    room = LoreHit("room.md", "It had room", "x", 1.0)
    dashboard.engine.reply_flags = {"repeated": True, "shortened": True, "lore": (room,)}
    assert [hit["source"] for hit in (await received(dashboard))[1][-1][1]["lore"]] == ["room.md"]
    assert (await received(dashboard))[1][-1][1].items() >= {
        ("repeated", True),
        ("shortened", True),
        ("finish", "stop"),
    }
    fields = form_in((await dashboard.page(PAGE))[1])
    page = await sent(dashboard, f"{PAGE}/preview", changed(fields, message="evening"), 200)
    for fact in ("1 new tokens", "1 in the prompt", "lore: room.md", "repetition", "left out"):
        assert fact in page


async def test_what_fails_while_it_is_played_is_reported_where_it_was_asked(dashboard):
    dashboard.engine.failure = EngineBusyError(
        "9 replies are waiting already.", "Try again in a minute."
    )
    failure = dashboard.engine.failure
    _, events = await received(dashboard)
    assert events == [("problem", {"detail": failure.message, "advice": failure.advice})]


# ----------------------------------------------------------------------------------------- the page


async def test_the_form_saves_what_stands_in_it_and_nothing_else(dashboard):
    status, page, _ = await dashboard.page(PAGE)
    assert status == 200 and "came with the bot" in page
    fields = form_in(page)
    assert {"name", "tagline", "description", "mes_example", "more", "stamp"} <= {
        name for name, _ in fields
    }
    await sent(dashboard, PAGE, fields)
    assert not personas_of(dashboard).has_copy("ballast"), (
        "saved without a change, nothing is written"
    )
    await sent(
        dashboard,
        PAGE,
        [*changed(fields, tagline='"Quoted" & <b>'), ("alternate_greetings", "Hoy!\nYou there!")],
    )
    now = personas_of(dashboard).get("ballast", 0)
    assert now.tagline == '"Quoted" & <b>' and now.alternate_greetings[-1] == "Hoy!\nYou there!"
    page = (await dashboard.page(PAGE))[1]
    assert (
        "&#34;Quoted&#34; &amp; &lt;b&gt;" in page
        and "<b>" not in page
        and "in place of the card" in page
    )
    assert dict(form_in(page))["description"] == dict(fields)["description"]


async def test_a_fault_is_reported_at_its_field_with_all_that_was_written(dashboard):
    fields = form_in((await dashboard.page(PAGE))[1])
    page = await sent(dashboard, PAGE, changed(fields, name="Clyde", scenario="Not lost."), 422)
    assert re.search(r'name="name"[^>]*aria-invalid="true"', page) and "Not lost." in page
    assert re.search(r'id="name-error">[^<]*without &#39;discord&#39; or &#39;clyde&#39;', page)
    page = await sent(dashboard, PAGE, changed(fields, name="Oda Marrow"), 422)
    assert "There is a persona Oda Marrow" in page


async def test_a_fault_far_down_is_reported_at_the_top_and_in_the_title(dashboard):
    for name, value, said in [
        ("more", "{bad json", "JSON"),
        ("first_mes", "x" * 20_000, "20000 characters"),
    ]:
        fields = form_in((await dashboard.page(PAGE))[1])
        page = await sent(dashboard, PAGE, changed(fields, **{name: value}), 422)
        assert (
            page.index("<title>Error: ")
            < page.index('role="alert" tabindex="-1" autofocus')
            < page.index("<form")
        ), name
        assert said in re.search(rf'<a href="#{name}">([^<]*)</a>', page)[1], name
        assert re.search(
            rf'id="{name}"[^>]*aria-describedby="[^"]*{name}-error" aria-invalid="true"', page
        ), name


async def test_a_card_that_is_too_long_shows_how_long_it_is(dashboard):
    fields = form_in((await dashboard.page(PAGE))[1])
    page = await sent(dashboard, PAGE, changed(fields, description="word " * 3000), 422)
    shown = re.search(
        r'data-room="tokens">([\d,]+)</strong> of 2,048 tokens, <span data-room="share">(\d+) %',
        page,
    )
    assert f"would take about {shown[1].replace(',', '')} tokens" in page and int(shown[2]) > 100


async def test_who_saves_over_another_change_is_asked_first(dashboard):
    fields = form_in((await dashboard.page(PAGE))[1])
    await rewrite(dashboard, tagline="Meanwhile.")
    page = await sent(dashboard, PAGE, changed(fields, tagline="Mine."), 409)
    assert (
        "Someone else" in page and personas_of(dashboard).get("ballast", 0).tagline == "Meanwhile."
    )
    await sent(dashboard, PAGE, form_in(page))
    assert personas_of(dashboard).get("ballast", 0).tagline == "Mine."


async def test_what_was_said_before_is_shown_and_brought_back(dashboard):
    shipped = personas_of(dashboard).get("ballast", 0).tagline
    for tagline in ("First.", "Second."):
        await rewrite(dashboard, tagline=tagline)
    newest, oldest = re.findall(rf'href="({PAGE}/earlier/[^"]+)"', (await dashboard.page(PAGE))[1])
    page = (await dashboard.page(newest))[1]
    other = (await dashboard.page(oldest))[1]
    titles = [re.search("<title>(.*)</title>", one)[1] for one in (page, other)]
    assert all(one.startswith("The card of Ballast until ") for one in titles)
    assert (
        "<pre>First.</pre>" in page and "<pre>Second.</pre>" in page and "Personality" not in page
    )
    assert (await dashboard.submit(newest))[0] == 303 and personas_of(dashboard).get(
        "ballast", 0
    ).tagline == "First."
    assert (await dashboard.submit(f"{PAGE}/as-shipped"))[0] == 303
    assert personas_of(dashboard).get("ballast", 0).tagline == shipped and not personas_of(
        dashboard
    ).has_copy("ballast")
    assert PersonaRegistry(SHIPPED_CARDS, dashboard.home).get("ballast", 0).tagline == shipped
    await dashboard.submit(newest)
    assert personas_of(dashboard).get("ballast", 0).tagline == "First."
    assert (await dashboard.page(f"{PAGE}/earlier/20260101T000000.000000"))[0] == 404
    assert (await dashboard.page(f"{PAGE}/earlier/..%2F..%2Fcard"))[0] == 404


async def test_without_scripts_the_voice_is_played_on_the_page(dashboard):
    fields = form_in((await dashboard.page(PAGE))[1])
    page = await sent(
        dashboard, f"{PAGE}/preview", changed(fields, message="evening", tagline="Not kept."), 200
    )
    assert (
        "Ballast hears: evening" in page
        and "Not kept." in page
        and not personas_of(dashboard).has_copy("ballast")
    )
    page = await sent(
        dashboard, f"{PAGE}/preview", changed(fields, message="evening", name=""), 422
    )
    assert "needs a name" in page
    page = await sent(dashboard, f"{PAGE}/preview", changed(fields, tagline="Not lost."), 422)
    assert (
        '<a href="#message">Message: Write what it is to answer.</a>' in page
        and "Not lost." in page
    )
    dashboard.engine.full = True
    page = await sent(
        dashboard, f"{PAGE}/preview", changed(fields, message="evening", tagline="Not lost."), 503
    )
    assert "9 replies are waiting" in page and "Not lost." in page


# ------------------------------------------------------------------------------------------ files


async def test_a_card_that_comes_in_is_everybodys_and_lasts(dashboard):
    status, where, _ = await upload(dashboard, "/dashboard/personas", "mira.png", MIRA)
    assert (status, where) == (303, "/dashboard/personas/mira")
    for personas in (personas_of(dashboard), PersonaRegistry(SHIPPED_CARDS, dashboard.home)):
        assert personas.get("mira", 77).name == "Mira" and personas.find_owner("mira")[0] == 0
    async with dashboard.session.get("/dashboard/personas/mira/face") as answer:
        assert await answer.read() == PIXEL and answer.content_type == "image/png"
    listed = (await dashboard.ask("GET", "/personas"))[1]["personas"]
    assert [(one["id"], one["ships"], one["guild"]) for one in listed][-1] == ("mira", False, "0")
    assert lore_names(dashboard, "mira") == ["character-book-1.md"]
    page = (await dashboard.page("/dashboard/personas"))[1]
    assert ">Mira</a>" in page and "the operator" in page


async def undo_addresses(dashboard, persona_id):
    """The forms of a persona's page that bring its replaced cards back, newest first."""
    page = (await dashboard.page(f"/dashboard/personas/{persona_id}"))[1]
    return re.findall(rf'action="(/dashboard/personas/{persona_id}/file/undo/[^"]+)"', page)


async def test_a_file_replaces_a_card_once_that_is_ticked_and_it_can_be_brought_back(dashboard):
    await upload(dashboard, "/dashboard/personas", "mira.png", MIRA)
    newer = v3() | {}
    newer["data"] = newer["data"] | {"name": "Nadia", "description": "Keeps two lighthouses."}
    page = (await dashboard.page("/dashboard/personas/mira"))[1]
    assert "Replace the card of Mira. It has 1 lore file: they stay" in page
    address = "/dashboard/personas/mira/file"
    status, _, page = await upload(dashboard, address, "mira.json", as_json(newer))
    assert status == 422 and "Tick that the card of Mira is replaced." in page
    assert personas_of(dashboard).get("mira", 0).name == "Mira"
    status, where, said = await upload(
        dashboard, address, "mira.json", as_json(newer), replace="mira"
    )
    assert (status, where) == (303, "/dashboard/personas/mira"), said
    assert personas_of(dashboard).get("mira", 0).description == "Keeps two lighthouses."
    page = (await dashboard.page(where))[1]
    assert "The card of Mira was replaced" in page
    assert re.search(r'href="(/dashboard/personas/mira/earlier/[^"]+)"', page)
    (undo,) = await undo_addresses(dashboard, "mira")
    assert (await dashboard.submit(undo))[0] == 303
    back = personas_of(dashboard).get("mira", 0)
    assert back.description == "{{char}} keeps the lighthouse." and back.avatar.is_file()
    assert lore_names(dashboard, "mira") == ["character-book-1.md"]
    status, said, _ = await dashboard.submit(undo)
    assert status == 409 and "brought back already" in said
    (again,) = await undo_addresses(dashboard, "mira")
    assert (await dashboard.submit(again))[0] == 303
    assert personas_of(dashboard).get("mira", 0).description == "Keeps two lighthouses."


async def test_a_bundled_card_is_used_again_where_its_replacement_is_undone(dashboard):
    shipped = personas_of(dashboard).get("oda", 0)
    address = "/dashboard/personas/oda/file"
    status, _, said = await upload(dashboard, address, "mira.png", MIRA, replace="oda")
    assert status == 303, said
    assert personas_of(dashboard).get("oda", 0).name == "Mira"
    for expected in (shipped.name, "Mira", shipped.name):
        (undo,) = await undo_addresses(dashboard, "oda")
        assert (await dashboard.submit(undo))[0] == 303
        assert personas_of(dashboard).get("oda", 0).name == expected
    assert personas_of(dashboard).get("oda", 0) == shipped


@pytest.mark.parametrize("wanted", ["", "mira"])
async def test_an_import_never_replaces_another_persona(dashboard, wanted):
    await upload(dashboard, "/dashboard/personas", "mira.png", MIRA)
    other = v3() | {}
    other["data"] = other["data"] | {"name": "Mírá"}
    content = as_json(other)
    status, where, page = await upload(
        dashboard, "/dashboard/personas", "m.json", content, id=wanted
    )
    if wanted:
        assert status == 422 and "There is a persona Mira" in page
    else:
        assert where == "/dashboard/personas/mira-2"
    assert personas_of(dashboard).get("mira", 0).name == "Mira"
    form = PersonaForm(name="Mirá", description="Another keeper.")
    created, _ = await create_owned(dashboard.services, form, guild="0", channel="")
    assert created.id in ("mira-2", "mira-3")
    ids = [persona.id for _, persona in personas_of(dashboard).everybody()]
    assert len(set(ids)) == len(ids)


async def test_a_removed_persona_takes_its_trainings_along(dashboard):
    await upload(dashboard, "/dashboard/personas", "mira.png", MIRA)
    put_job(dashboard, "j1", guild=9, persona="mira")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    put_job(dashboard, "j2", persona="mira")
    put_job(dashboard, "j3", persona="oda")
    _, page, _ = await dashboard.page("/dashboard/personas/mira/remove")
    assert "Its 2 queued or running trainings are cancelled." in page
    _, _, headers = await dashboard.submit("/dashboard/personas/mira/remove")
    _, page, _ = await dashboard.page(headers["Location"])
    assert "Its 2 trainings are cancelled." in page
    states = [dashboard.store.jobs.get(job_id).state for job_id in ("j1", "j2")]
    assert states == ["cancelled", "cancelled"]
    assert dashboard.store.jobs.get("j3").state in ("queued", "running")


async def test_a_persona_that_came_as_a_file_is_removed_with_all_it_had_and_comes_back(dashboard):
    await upload(dashboard, "/dashboard/personas", "mira.png", MIRA)
    mira = personas_of(dashboard).get("mira", 0)
    dashboard.store.channels.assign(Channel(9, 5, "mira", "mentions", 1, 1.0))
    dashboard.store.guilds.record_present([9], 1)
    page = (await dashboard.page("/dashboard/personas/mira/remove"))[1]
    assert "character-book-1.md" in page and "server 9" in page and "undone for a day" in page
    status, _, headers = await dashboard.submit("/dashboard/personas/mira/remove")
    assert (status, headers["Location"]) == (303, "/dashboard/personas#trash")
    assert (
        personas_of(dashboard).find_owner("mira") is None
        and dashboard.store.channels.of_guild(9) == []
    )
    page = (await dashboard.page("/dashboard/personas"))[1]
    assert "Bring Mira back" in page
    address = re.search(r'action="(/dashboard/personas/removed/[^"]+)"', page)[1]
    assert (await dashboard.submit(address))[0] == 303
    assert personas_of(dashboard).get("mira", 0) == mira
    assert [channel.persona_id for channel in dashboard.store.channels.of_guild(9)] == ["mira"]
    assert lore_names(dashboard, "mira") == ["character-book-1.md"]
    assert (await dashboard.submit(address))[0] == 409
    await dashboard.submit("/dashboard/personas/mira/remove")
    await dashboard.services.removal.empty_trash(time.time() + KEPT_S + 1)
    left = [
        path.relative_to(dashboard.home).as_posix()
        for path in dashboard.home.rglob("*")
        if path.is_file()
    ]
    assert not [path for path in left if "mira" in path or "character-book" in path]
    assert (await dashboard.page("/dashboard/personas/oda/remove"))[0] == 409


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"hello", "notes.txt is not"),
        ("empty.png", b"", "No file was chosen."),
        (
            "oda.json",
            as_json({**V2, "data": {**V2["data"], "name": "Oda Marrow"}}),
            "There is a persona Oda Marrow",
        ),
    ],
)
async def test_a_file_that_is_no_card_is_refused(dashboard, name, content, words):
    status, _, page = await upload(dashboard, "/dashboard/personas", name, content, id="mira")
    assert (
        status == 422
        and words in html.unescape(page)
        and len(personas_of(dashboard).everybody()) == 3
    )
    assert ('<a href="#file">File: ' in page and 'value="mira"' in page) or not content
    assert re.search(r'id="file"[^>]*file-error" aria-invalid="true"', page), (
        "the form is still there"
    )
    if "Oda" not in words:
        status, _, page = await upload(
            dashboard, f"{PAGE}/file", name, content, replace=PAGE.rpartition("/")[2]
        )
        assert status == 422 and words in html.unescape(page) and '<a href="#file">File: ' in page
        assert (
            re.search(r'id="file"[^>]*file-error" aria-invalid="true"', page)
            and "Save the card" in page
        )


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(dashboard):
    status, _, page = await upload(
        dashboard, "/dashboard/personas", "a.png", b"x" * (25 * 2**20 + 1)
    )
    assert status == 413 and "a.png has more than 25 MB" in page


async def test_what_is_not_there_is_said(dashboard):
    assert (await dashboard.page("/dashboard/personas/nobody"))[0] == 404
    assert (await dashboard.ask("GET", "/dashboard/personas/nobody/card"))[0] == 404
    path = "/dashboard/personas/oda/card"
    assert (await dashboard.ask("GET", path, params={"format": "gif"}))[0] == 400


HALF = '"\\ud83d"'


async def test_half_a_character_is_refused_wherever_it_stands(dashboard):
    for path, body in [
        (f"{PAGE}/card/check", '{"description": %s}'),
        (f"{PAGE}/card/check", '{"tags": [%s]}'),
        ("/dashboard/tokens", '{"texts": {"a": %s}}'),
        (f"{PAGE}/preview/events", '{"message": "hi", "card": {"description": %s}}'),
        (
            "/v1/chat/completions",
            '{"model": "oda", "messages": [{"role": "user", "name": %s, "content": "hi"}]}',
        ),
    ]:
        headers = {"Content-Type": "application/json"}
        status, result, _ = await dashboard.ask("POST", path, data=body % HALF, headers=headers)
        assert status == 400 and "half a character" in json.dumps(result), path
        whole = body % '"\\ud83d\\ude42"'
        if "preview" not in path:  # that one answers in pieces
            assert (await dashboard.ask("POST", path, data=whole, headers=headers))[0] == 200, path
