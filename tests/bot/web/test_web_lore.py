"""A persona's lore by its pages: written, left out, brought back; why a message finds what it does."""

import html
import re

from bot.personas import guild_lore
from bot.personas.creation import PersonaForm
from bot.personas.guild_lore import GuildLore, read_all_lore
from bot.personas.web import lore_files, lore_matches
from bot.personas.web.lookup import OwnedPersona
from bot.personas.web.new_persona import create_owned
from bot.training.request_materials import gather_materials
from personas.card.card_reader import parse_card
from personas.home.job_material import ShippedData
from personas.lore.passages import WORLD
from personas.schemas.chat import Persona
from personas.schemas.training import TrainingRequest
from tests.bot.web.test_web_cards import rewrite, upload
from tests.personas.cards import V2, as_json, brought_in
from tests.personas.lorebook_samples import NOVEL_AI

UMBRELLA = (
    "# The violet umbrella\n\nAn umbrella of violet silk hangs in the cab. It was the opera's.\n"
)
QUESTION = "whose violet umbrella is that?"
PIANO = "the-piano.md"
PAGE = "/dashboard/personas/ballast/lore"


def lore_in(dashboard):
    return dashboard.front._context.services.lore


async def furnish(dashboard):
    """The shipped lore of Ballast, found as in the running bot."""
    services = dashboard.front._context.services
    await GuildLore(services.home, lore_in(dashboard), services.catalogue.shipped.lore).refresh(
        0, "ballast"
    )


def owned(dashboard, owner="ballast"):
    """A persona, or a set of lore, as its pages know it."""
    services = dashboard.services
    if lore_set := services.lore_sets.sets.get(owner):
        return OwnedPersona(services, 0, Persona(lore_set.id, lore_set.name))
    guild_id, persona = services.personas.find_owner(owner)
    return OwnedPersona(services, guild_id, persona)


async def put(dashboard, name, text, owner="ballast"):
    persona = owned(dashboard, owner)
    return await lore_files.write_lore_file(
        persona, persona.guild_id, name, content=text.encode(), replace=True
    )


def text_of(dashboard, name):
    return lore_files.read_lore_file(owned(dashboard), 0, name)


def files_of(dashboard, owner="ballast"):
    return lore_files.list_lore_files(owned(dashboard, owner))


async def ask(dashboard, message=QUESTION, guild_id=0):
    return await lore_matches.match_lore(owned(dashboard), message, guild_id)


async def matches(dashboard, *asked):
    return (await ask(dashboard, *asked))[1]


def outcomes(found):
    return {(one.match.passage.source, one.outcome) for one in found}


async def test_what_is_written_is_found_at_once_and_in_all_servers_and_after_a_restart(dashboard):
    await furnish(dashboard)
    added = await put(dashboard, "umbrella", UMBRELLA)
    assert (list(added.files), added.passages) == (["umbrella.md"], 1)
    assert text_of(dashboard, "umbrella.md") == UMBRELLA, "where it was put"
    [best, *_] = await matches(dashboard)
    match = best.match
    assert (match.passage.source, best.outcome) == ("ballast/umbrella.md", "given")
    assert "umbrella" in match.words
    assert match.score == match.by_words + match.by_meaning >= 1
    assert "among the best 2" in best.why
    told, _ = await ask(dashboard, "I am so tired of this umbrella.")
    assert told.weight == 0.5 and (await ask(dashboard))[0].weight == 1
    page = (await dashboard.submit(PAGE, ask="I am so tired of this umbrella."))[1]
    assert "scores count half" in page
    found = [hit.source for hit in lore_in(dashboard).search("ballast", QUESTION, guild_id=77)]
    assert found[0] == "ballast/umbrella.md" and not lore_in(dashboard).search("oda", QUESTION)
    again = read_all_lore(
        dashboard.front._context.services.catalogue.shipped.lore, ["ballast"], dashboard.home
    )
    assert "ballast/umbrella.md" in {passage.source for passage in again}


async def test_what_ships_is_written_anew_left_out_and_taken_back(dashboard):
    await furnish(dashboard)
    shipped = text_of(dashboard, PIANO)
    zebras = f"{shipped}\n\n## Zebras\n\nNo zebra has ever played that piano.\n"
    await put(dashboard, PIANO, zebras)
    [best, *_] = await matches(dashboard, "has a zebra played?")
    passage = best.match.passage
    assert passage.heading.endswith("Zebras") and passage.source == f"ballast/{PIANO}"
    owners = {
        passage.owner
        for passage in lore_in(dashboard).passages
        if passage.source == f"ballast/{PIANO}"
    }
    assert owners == {"0/ballast"}, "what ships under this name is found no more"
    for _ in range(2):
        assert (await dashboard.submit(f"{PAGE}/0/{PIANO}/remove"))[0] == 303
    assert not [
        passage for passage in lore_in(dashboard).passages if passage.source == f"ballast/{PIANO}"
    ]
    [left] = [file for file in files_of(dashboard) if file.name == PIANO]
    assert left.left_out and left.ships and left.passages == 0
    shown = read_all_lore(
        dashboard.front._context.services.catalogue.shipped.lore, ["ballast"], dashboard.home
    )
    assert f"ballast/{PIANO}" not in {passage.source for passage in shown}
    assert (await dashboard.submit(f"{PAGE}/0/{PIANO}/bring-back"))[0] == 303
    assert text_of(dashboard, PIANO) == shipped
    assert {p.owner for p in lore_in(dashboard).passages if p.source == f"ballast/{PIANO}"} == {
        "ballast"
    }


async def test_why_a_passage_is_found_but_left_over_or_not_found_is_said(dashboard):
    sections = "".join(
        f"## Umbrella {n}\n\nThe violet umbrella number {n} hangs in cab {n}.\n\n"
        for n in range(1, 5)
    )
    await put(dashboard, "umbrellas", f"# Umbrellas\n\n{sections}")
    await put(dashboard, "soup", "# Soup\n\nTurnips boil on Tuesdays.\n")
    await put(dashboard, "chinese", "# 茶\n\n钟楼下卖茶。\n")
    found = await matches(dashboard, "where is the violet umbrella?")
    assert [one.outcome for one in found].count("given") == 2
    left = next(one for one in found if one.outcome == "left over")
    assert "room for 2 passages" in left.why and left.tokens > 5
    soup = next(one for one in found if one.match.passage.source == "ballast/soup.md")
    assert soup.outcome == "not found" and "they share no meaningful word" in soup.why
    assert soup.words == []
    foreign = next(one for one in found if one.match.passage.source == "ballast/chinese.md")
    assert foreign.match.cosine is None and "its meaning was not compared" in foreign.why


async def test_a_lorebook_is_lore_with_what_became_of_it(dashboard):
    text = as_json(NOVEL_AI).decode()
    added = await put(dashboard, "mill", text)
    assert (list(added.files), added.passages) == (["mill.md"], 3)
    why = "its category is disabled in the file"
    assert {"what": "entry 4 “Draft”", "why": why} in added.report.as_json()["not_taken"]
    asked = await matches(dashboard, "the sluice")
    [night, wheel] = [one for one in asked if one.outcome == "given"]
    assert list(wheel.match.keys) == ["sluice"] and "has its keys: sluice" in wheel.why
    assert night.match.is_always and "given with every message" in night.why
    asked = await matches(dashboard, "the ledger")
    ledger = next(one for one in asked if "torn" in one.match.passage.text)
    assert ledger.outcome == "not found" and "only its keys give it" in ledger.why
    status, _, page = await upload(dashboard, f"{PAGE}-file", "Mill.lorebook", text.encode())
    page = html.unescape(page)
    assert (
        status == 200
        and "It was a lorebook of NovelAI." in page
        and f"entry 4 “Draft” – {why}" in page
    )
    status, _, page = await upload(dashboard, f"{PAGE}-file", "data.json", b'{"messages": []}')
    assert status == 422 and "data.json is JSON" in html.unescape(page)
    assert "<mark>sluice</mark>" in (await dashboard.submit(PAGE, ask="the sluice"))[1]


async def test_the_page_lists_what_is_used_of_a_card(dashboard):
    data = {**V2["data"], "scenario": "At {{time}}."}
    await upload(dashboard, "/dashboard/personas", "mira.json", as_json({**V2, "data": data}))
    page = html.unescape((await dashboard.page("/dashboard/personas/mira"))[1])
    assert "What is used of the card" in page
    assert "Taken with another meaning: {{time}} in scenario" in page
    assert "Not taken: {{original}} in system_prompt" in page


async def test_lore_of_a_server_counts_there_and_can_be_mended(dashboard):
    services = dashboard.front._context.services
    await GuildLore(services.home, lore_in(dashboard)).add(
        77, "ballast", "umbrella", UMBRELLA.encode()
    )
    assert ("ballast/umbrella.md", "given") not in outcomes(await matches(dashboard))
    asked = await matches(dashboard, QUESTION, 77)
    assert ("ballast/umbrella.md", "given") in outcomes(asked)
    page = (await dashboard.submit(PAGE, ask=QUESTION, guild="77"))[1]
    assert "server 77" in page and "<mark>violet</mark>" in page and ">given<" in page
    await dashboard.submit(f"{PAGE}/77/umbrella.md", text=UMBRELLA.replace("violet", "scarlet"))
    asked = await matches(dashboard, "whose scarlet umbrella?", 77)
    assert ("ballast/umbrella.md", "given") in outcomes(asked)
    assert (await dashboard.page(f"{PAGE}/78/umbrella.md"))[0] == 404


async def test_by_its_pages_a_file_is_added_changed_removed_and_brought_back(dashboard):
    assert (await dashboard.submit(PAGE, name="The umbrella", text="It is of violet silk."))[
        0
    ] == 303
    path = f"{PAGE}/0/the-umbrella.md"
    page = (await dashboard.page(path))[1]
    assert "# The umbrella\n\nIt is of violet silk." in page
    await dashboard.submit(path, text="# The umbrella\r\n\r\nIt is of red silk.")
    assert text_of(dashboard, "the-umbrella.md").endswith("red silk.")
    [number] = re.findall(r'name="number" value="([^"]+)"', (await dashboard.page(path))[1])
    await dashboard.submit(f"{path}/remove")
    files = files_of(dashboard)
    assert all(file.ships for file in files) and len(files) == 5
    page = (await dashboard.page(PAGE))[1]
    assert f'href="{path}"' in page and "can be restored" in page
    await dashboard.submit(f"{path}/bring-back", number=number)
    assert text_of(dashboard, "the-umbrella.md").endswith("violet silk.")
    status, page, _ = await dashboard.submit(path, text="# Only a heading")
    assert status == 422 and "holds no text" in page
    status, where, _ = await upload(
        dashboard, "/dashboard/personas/ballast/lore-file", "More.md", UMBRELLA.encode()
    )
    assert (status, where) == (303, PAGE)
    status, _, page = await upload(
        dashboard, "/dashboard/personas/ballast/lore-file", "bad.md", b"caf\xe9"
    )
    assert status == 422 and "bad.md is not UTF-8" in html.unescape(page) and "(byte 3)" in page


async def test_no_way_into_a_servers_lore_passes_its_limit(dashboard, monkeypatch):
    services = dashboard.front._context.services
    long = UMBRELLA * 9
    mira = brought_in(services.personas, 77, parse_card(as_json(V2), "it")).persona.id
    page = f"/dashboard/personas/{mira}/lore"
    said = "The lore of all personas of this server would have"
    await put(dashboard, "umbrella", long, mira)
    await put(dashboard, "umbrella", UMBRELLA, mira)
    await GuildLore(services.home, lore_in(dashboard)).add(
        77, "ballast", "umbrella", UMBRELLA.encode()
    )
    monkeypatch.setattr(guild_lore, "MAX_GUILD_BYTES", 4 * len(UMBRELLA))
    before = {path: path.read_bytes() for path in dashboard.home.glob("lore/*/*/*.md")}
    [number] = re.findall(
        r'name="number" value="([^"]+)"', (await dashboard.page(f"{page}/77/umbrella.md"))[1]
    )
    answers = [
        await dashboard.submit(page, name="More", text=long),
        await dashboard.submit(f"{page}/77/umbrella.md", text=long),
        await dashboard.submit(f"{PAGE}/77/umbrella.md", text=long),
        await dashboard.submit(f"{page}/77/umbrella.md/bring-back", number=number),
        await upload(dashboard, f"{page}-file", "More.md", long.encode()),
    ]
    for status, *answer in answers:
        assert status >= 400 and said in html.unescape(str(answer)), answer
    assert {path: path.read_bytes() for path in dashboard.home.glob("lore/*/*/*.md")} == before
    book = as_json(
        {
            **V2,
            "data": {
                **V2["data"],
                "character_book": {"entries": [{"keys": ["a"], "content": long}]},
            },
        }
    )
    status, _, _ = await upload(
        dashboard, f"/dashboard/personas/{mira}/file", "mira.json", book, replace=mira
    )
    assert status == 303
    assert {path: path.read_bytes() for path in dashboard.home.glob("lore/*/*/*.md")} == before
    status, _, _ = await dashboard.submit(PAGE, name="More", text=long)
    assert status == 303, "the operator's"


async def test_what_cannot_be_is_refused(dashboard):
    for path in ("..%2Fx.md", "card.toml", ".md", "nowhere.md"):
        assert (await dashboard.page(f"{PAGE}/0/{path}"))[0] == 404, path
        assert (await dashboard.submit(f"{PAGE}/0/{path}/remove"))[0] == 404, path


async def test_a_long_message_is_asked_and_stands_in_no_address(dashboard):
    form = re.search(r'<form method="(\w+)" action="([^"#]+)[^>]*>\s*<div class="field">\s*<label for="ask"',
                     (await dashboard.page(PAGE))[1])  # fmt: skip
    assert form.groups() == ("post", PAGE)
    status, page, _ = await dashboard.submit(PAGE, ask="钟" * 2000)
    assert status == 200 and f"\n{'钟' * 2000}</textarea>" in page and "not found" in page
    status, page, _ = await dashboard.submit(PAGE, ask=" ")
    assert status == 422 and '<a href="#ask">Message: ' in page


async def test_what_cannot_be_added_comes_again_in_its_form(dashboard):
    status, page, _ = await dashboard.submit(PAGE, name="The <rope>", text="# Only a heading")
    assert (
        status == 422
        and "<title>Error: Ballast: lore" in page
        and 'value="The &lt;rope&gt;"' in page
    )
    assert (
        "holds no text" in re.search(r'<a href="#text">([^<]*)', page)[1]
        and "# Only a heading</textarea>" in page
    )
    assert re.search(r'id="text"[^>]*text-error" aria-invalid="true"', page)
    status, page, _ = await dashboard.submit(PAGE, name="Rope", text="x" * 100_001)
    assert status == 422 and "100 KB" in page and "x" * 100_001 in page
    status, page, _ = await dashboard.submit(PAGE, name="...", text="Words.")
    assert status == 422 and '<a href="#name">Title: ' in page and "Words.</textarea>" in page
    for content, wanted in ((b"", 422), (b"x" * 100_001, 413)):
        status, _, page = await upload(dashboard, f"{PAGE}-file", "long.md", content)
        assert status == wanted and '<a href="#file">File: ' in page and "0 MB" not in page
        assert re.search(r'id="file"[^>]*file-error" aria-invalid="true"', page)


async def test_what_the_operator_wrote_is_trained_on_in_place_of_what_ships(dashboard):
    services = dashboard.front._context.services
    await put(dashboard, PIANO, "# The piano\n\nIt was sold.\n")
    await dashboard.submit(f"{PAGE}/0/lifts-and-lanterns.md/remove")
    await rewrite(dashboard, tagline="A crane.")
    request = TrainingRequest(job_name="j", persona="ballast")
    by_kind = {one.kind: one for one in gather_materials(services.catalogue, request)}
    card = by_kind["card"]
    lore = dict((name, path) for path, name in by_kind["lore"].copies)
    assert "A crane." in card.copies[0][0].read_text() and card.right == "form"
    assert "It was sold." in lore[f"lore/ballast/{PIANO}"].read_text()
    assert (
        "lore/ballast/lifts-and-lanterns.md" not in lore
        and "lore/ballast/iron-and-workings.md" in lore
    )
    assert (
        any(name.startswith(f"lore/{WORLD}/") for name in lore)
        and by_kind["log"].origin == "logs/ballast.json"
    )


async def test_the_worlds_lore_is_written_found_by_all_and_left_out(dashboard):
    lore = lore_in(dashboard)
    await put(dashboard, "umbrella", UMBRELLA, WORLD)
    assert {lore.search(who, QUESTION)[0].source for who in ("ballast", "oda", "thrip")} == {
        f"{WORLD}/umbrella.md"
    }
    ships = next(file.name for file in files_of(dashboard, WORLD) if file.ships)
    world = f"/dashboard/personas/{WORLD}/lore"
    status, page, _ = await dashboard.submit(world, ask="umbrella")
    assert (
        status == 200
        and "besides their own: Ballast, Oda Marrow" in page
        and page.count("1 passage") <= 2
        and ships in page
    )
    before = [p for p in lore.passages if p.source == f"{WORLD}/{ships}"]
    assert (await dashboard.submit(f"{world}/0/{ships}/remove"))[0] == 303
    assert before and not [p for p in lore.passages if p.source == f"{WORLD}/{ships}"]
    assert (await dashboard.ask("GET", f"/personas/{WORLD}"))[0] == 404, "it is no persona"
    assert (await dashboard.page(f"/dashboard/personas/{WORLD}"))[0] == 404


async def test_the_page_lists_files_that_belong_to_nobody_with_the_reason(dashboard):
    services = dashboard.front._context.services
    shipped = ShippedData.of(dashboard.home / "tree")
    (shipped.lore / "gull").mkdir(parents=True)
    (shipped.lore / "gull" / "net.md").write_text("# Net\nOne foot.", encoding="utf-8")
    services.catalogue.shipped = shipped
    text = html.unescape((await dashboard.page(PAGE))[1])
    assert "Skipped in the lore folder: 1" in text and "gull/net.md" in text
    assert "folder 'gull'" in text


async def test_a_new_persona_uses_no_set_until_somebody_says_so(dashboard):
    lore = lore_in(dashboard)
    form = PersonaForm(name="Wick", description="A keeper.")
    await create_owned(dashboard.services, form, guild="0", channel="")
    await put(dashboard, "cat", "# Cat\nTallow eats at six.", "wick")
    await put(dashboard, "umbrella", UMBRELLA, WORLD)
    assert lore.search("oda", QUESTION) and not lore.search("wick", QUESTION)
    assert [hit.source for hit in lore.search("wick", "When does Tallow eat?")] == ["wick/cat.md"]
    (world,) = lore_files.shared_sets(owned(dashboard, "wick"), 0)
    assert (world.set.id, world.set.name, world.is_taken) == (WORLD, "Skerrow Harbour", False)
    path = "/dashboard/personas/wick/lore"
    assert "not used" in (await dashboard.page(path))[1]
    status, _, headers = await dashboard.submit(f"{path}-sets/{WORLD}", taken="yes")
    assert status == 303 and headers["Location"] == f"{path}#shared-title"
    assert lore.search("wick", QUESTION) and "Do not use it" in (await dashboard.page(path))[1]
    await dashboard.submit(f"{path}-sets/{WORLD}", taken="")
    assert not lore.search("wick", QUESTION)
    for wrong in ("wick/lore-sets/_atlantis", f"nobody/lore-sets/{WORLD}"):
        status, _, _ = await dashboard.submit(f"/dashboard/personas/{wrong}", taken="yes")
        assert status == 404
    await dashboard.submit(f"{path}-sets/{WORLD}", taken="yes")
    await dashboard.submit("/dashboard/personas/wick/remove")
    created, _ = await create_owned(dashboard.services, form, guild="0", channel="")
    assert created.id == "wick-2", "the removed one can be brought back"
    assert not lore.search("wick-2", QUESTION), "a choice goes with its persona"


async def test_a_set_is_made_on_the_page_and_used_at_once(dashboard):
    lore = lore_in(dashboard)
    status, _, headers = await dashboard.submit("/dashboard/lore-sets", name="Salt Marsh")
    assert status == 303 and headers["Location"] == "/dashboard/personas/_salt-marsh/lore"
    await dashboard.submit(headers["Location"], name="umbrella", text=UMBRELLA)
    assert lore.search("oda", QUESTION) == []
    await dashboard.submit("/dashboard/personas/oda/lore-sets/_salt-marsh", taken="yes")
    assert lore.search("oda", QUESTION)[0].source == "_salt-marsh/umbrella.md"
    assert "Salt Marsh" in (await dashboard.page("/dashboard/personas"))[1]
    status, page, _ = await dashboard.submit("/dashboard/lore-sets", name="salt marsh")
    assert status == 422 and 'id="set-name" name="name" value="salt marsh"' in page
    assert 'id="set-name-error">There is a set Salt Marsh already.' in page
    long = (await dashboard.submit("/dashboard/lore-sets", name="x" * 300))[1]
    assert "The name has 300 characters. Use 1 to 80 visible characters." in long
    assert 'maxlength="80" autocomplete' not in long, "a browser would cut it silently"
    assert "1 passage." in (await dashboard.page("/dashboard/personas/oda/lore"))[1]
    assert '<form method="post" action="/dashboard/personas"' in page
    status, _, headers = await dashboard.page("/dashboard/lore-sets?after=oda")
    assert (status, headers["Location"]) == (303, "/dashboard/personas?after=oda")


async def test_a_set_is_renamed_and_its_removal_asks_first_and_can_be_undone(dashboard):
    lore = lore_in(dashboard)
    await dashboard.submit("/dashboard/lore-sets", name="Salt Marsh")
    page = "/dashboard/personas/_salt-marsh/lore"
    await dashboard.submit(page, name="umbrella", text=UMBRELLA)
    await dashboard.submit("/dashboard/personas/oda/lore-sets/_salt-marsh", taken="yes")
    address = "/dashboard/lore-sets/_salt-marsh"
    status, shown, _ = await dashboard.submit(f"{address}/rename", name="skerrow harbour")
    assert status == 422 and 'id="set-name" name="name" value="skerrow harbour"' in shown
    assert "There is a set Skerrow Harbour already." in shown
    for posted, place in ((f"{address}/rename", "set"), (f"{page}-file", "choose")):
        status, _, headers = await dashboard.page(posted)
        assert (status, headers["Location"]) == (303, f"{page}#{place}-title"), "reloaded"
    status, _, headers = await dashboard.submit(f"{address}/rename", name="The Reeds")
    assert (status, headers["Location"]) == (303, page)
    assert "The Reeds" in (await dashboard.page("/dashboard/personas"))[1]
    asked = (await dashboard.page(f"{address}/remove"))[1]
    assert "umbrella.md" in asked and "Oda Marrow" in asked
    assert "This can be undone for a day, with who uses it." in asked
    assert lore.search("oda", QUESTION), "nothing is removed before the answer"
    status, _, headers = await dashboard.submit(f"{address}/remove")
    assert (status, headers["Location"]) == (303, "/dashboard/personas#trash")
    assert not lore.search("oda", QUESTION) and (await dashboard.page(page))[0] == 404
    listed = (await dashboard.page("/dashboard/personas"))[1]
    assert "Bring The Reeds back" in listed
    back = re.search(r'action="(/dashboard/personas/removed-sets/_salt-marsh/[^"]+)"', listed)[1]
    assert (await dashboard.submit(back))[0] == 303
    assert lore.search("oda", QUESTION) and (await dashboard.page(page))[0] == 200
    assert (await dashboard.submit(back))[0] == 409
    world = f"/dashboard/lore-sets/{WORLD}"
    assert (await dashboard.page(f"{world}/remove"))[0] == 409
    assert (await dashboard.submit(f"{world}/remove"))[0] == 409
    assert "This set" not in (await dashboard.page(f"/dashboard/personas/{WORLD}/lore"))[1]
