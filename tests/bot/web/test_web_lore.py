"""A persona's lore over REST and by its pages: written, left out, brought back; why a message finds
what it does.
"""

import html
import re

from bot.personas import guild_lore
from bot.personas.guild_lore import GuildLore, read_all_lore
from bot.training.request_materials import gather_materials
from personas.card.card_reader import parse_card
from personas.home.job_material import ShippedData
from personas.lore.passages import WORLD
from personas.schemas.training import TrainingRequest
from tests.bot.web.test_web_cards import upload
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


async def ask(dashboard, message=QUESTION, **more):
    status, result, _ = await dashboard.ask(
        "POST", "/personas/ballast/lore/ask", json={"message": message, **more}
    )
    assert status == 200
    return result


def outcomes(result):
    return {(one["source"], one["outcome"]) for one in result["matches"]}


async def test_what_is_written_is_found_at_once_and_in_all_servers_and_after_a_restart(dashboard):
    await furnish(dashboard)
    status, result, _ = await dashboard.ask(
        "PUT", "/personas/ballast/lore/umbrella", json={"text": UMBRELLA}
    )
    assert status == 200 and result == {"name": "umbrella.md", "passages": 1}
    assert (await dashboard.ask("GET", "/personas/ballast/lore/umbrella"))[1]["text"] == UMBRELLA, (
        "where it was put"
    )
    [best, *_] = (await ask(dashboard))["matches"]
    assert (best["source"], best["outcome"]) == (
        "ballast/umbrella.md",
        "given",
    ) and "umbrella" in best["words"]
    assert (
        best["score"] == best["by_words"] + best["by_meaning"] >= 1
        and "among the best 2" in best["why"]
    )
    told = await ask(dashboard, "I am so tired of this umbrella.")
    assert told["weight"] == 0.5 and (await ask(dashboard))["weight"] == 1
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
    path = f"/personas/ballast/lore/{PIANO}"
    shipped = (await dashboard.ask("GET", path))[1]["text"]
    await dashboard.ask(
        "PUT",
        path,
        json={"text": f"{shipped}\n\n## Zebras\n\nNo zebra has ever played that piano.\n"},
    )
    [best, *_] = (await ask(dashboard, "has a zebra played?"))["matches"]
    assert best["heading"].endswith("Zebras") and best["source"] == f"ballast/{PIANO}"
    owners = {
        passage.owner
        for passage in lore_in(dashboard).passages
        if passage.source == f"ballast/{PIANO}"
    }
    assert owners == {"0/ballast"}, "what ships under this name is found no more"
    assert (
        (await dashboard.ask("DELETE", path))[0] == (await dashboard.ask("DELETE", path))[0] == 200
    )
    assert not [
        passage for passage in lore_in(dashboard).passages if passage.source == f"ballast/{PIANO}"
    ]
    [left] = [
        file
        for file in (await dashboard.ask("GET", "/personas/ballast/lore"))[1]["files"]
        if file["name"] == PIANO
    ]
    assert left["left_out"] and left["ships"] and left["passages"] == 0
    shown = read_all_lore(
        dashboard.front._context.services.catalogue.shipped.lore, ["ballast"], dashboard.home
    )
    assert f"ballast/{PIANO}" not in {passage.source for passage in shown}
    assert (await dashboard.submit(f"{PAGE}/0/{PIANO}/bring-back"))[0] == 303
    assert (await dashboard.ask("GET", path))[1]["text"] == shipped
    assert {p.owner for p in lore_in(dashboard).passages if p.source == f"ballast/{PIANO}"} == {
        "ballast"
    }


async def test_why_a_passage_is_found_but_left_over_or_not_found_is_said(dashboard):
    sections = "".join(
        f"## Umbrella {n}\n\nThe violet umbrella number {n} hangs in cab {n}.\n\n"
        for n in range(1, 5)
    )
    await dashboard.ask(
        "PUT", "/personas/ballast/lore/umbrellas", json={"text": f"# Umbrellas\n\n{sections}"}
    )
    await dashboard.ask(
        "PUT", "/personas/ballast/lore/soup", json={"text": "# Soup\n\nTurnips boil on Tuesdays.\n"}
    )
    await dashboard.ask(
        "PUT", "/personas/ballast/lore/chinese", json={"text": "# 茶\n\n钟楼下卖茶。\n"}
    )
    result = await ask(dashboard, "where is the violet umbrella?")
    assert [one["outcome"] for one in result["matches"]].count("given") == result["most"] == 2
    left = next(one for one in result["matches"] if one["outcome"] == "left over")
    assert "room for 2 passages" in left["why"] and left["tokens"] > 5
    soup = next(one for one in result["matches"] if one["source"] == "ballast/soup.md")
    assert (
        soup["outcome"] == "not found"
        and "they share no meaningful word" in soup["why"]
        and soup["words"] == {}
    )
    foreign = next(one for one in result["matches"] if one["source"] == "ballast/chinese.md")
    assert foreign["cosine"] is None and "its meaning was not compared" in foreign["why"]


async def test_a_lorebook_is_lore_over_rest_and_on_the_page_with_what_became_of_it(dashboard):
    text = as_json(NOVEL_AI).decode()
    status, result, _ = await dashboard.ask(
        "PUT", "/personas/ballast/lore/mill", json={"text": text}
    )
    assert status == 200 and (result["name"], result["files"], result["passages"]) == (
        "mill.md",
        ["mill.md"],
        3,
    )
    assert set(result["imported"]) == {"as_is", "other_meaning", "not_taken"}
    why = "its category is disabled in the file"
    assert {"what": "entry 4 “Draft”", "why": why} in result["imported"]["not_taken"]
    [night, wheel] = [
        one for one in (await ask(dashboard, "the sluice"))["matches"] if one["outcome"] == "given"
    ]
    assert wheel["keys"] == ["sluice"] and "has its keys: sluice" in wheel["why"]
    assert night["is_always"] and "given with every message" in night["why"]
    ledger = next(
        one for one in (await ask(dashboard, "the ledger"))["matches"] if "torn" in one["text"]
    )
    assert ledger["outcome"] == "not found" and "only its keys give it" in ledger["why"]
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


async def test_the_page_and_rest_list_what_is_used_of_a_card(dashboard):
    data = {**V2["data"], "scenario": "At {{time}}."}
    await upload(dashboard, "/dashboard/personas", "mira.json", as_json({**V2, "data": data}))
    status, listed, _ = await dashboard.ask("GET", "/personas/mira/card/imported")
    assert status == 200 and {"what": "scenario", "why": ""} in listed["as_is"]
    assert "{{time}} in scenario" in [one["what"] for one in listed["other_meaning"]]
    assert "{{original}} in system_prompt" in [one["what"] for one in listed["not_taken"]]
    page = html.unescape((await dashboard.page("/dashboard/personas/mira"))[1])
    assert "What is used of the card" in page
    assert "Taken with another meaning: {{time}} in scenario" in page
    assert "Not taken: {{original}} in system_prompt" in page


async def test_lore_of_a_server_counts_there_and_can_be_mended(dashboard):
    services = dashboard.front._context.services
    await GuildLore(services.home, lore_in(dashboard)).add(
        77, "ballast", "umbrella", UMBRELLA.encode()
    )
    assert ("ballast/umbrella.md", "given") not in outcomes(await ask(dashboard))
    assert ("ballast/umbrella.md", "given") in outcomes(await ask(dashboard, guild="77"))
    page = (await dashboard.submit(PAGE, ask=QUESTION, guild="77"))[1]
    assert "server 77" in page and "<mark>violet</mark>" in page and ">given<" in page
    await dashboard.submit(f"{PAGE}/77/umbrella.md", text=UMBRELLA.replace("violet", "scarlet"))
    assert ("ballast/umbrella.md", "given") in outcomes(
        await ask(dashboard, "whose scarlet umbrella?", guild="77")
    )
    assert (await dashboard.page(f"{PAGE}/78/umbrella.md"))[0] == 404


async def test_by_its_pages_a_file_is_added_changed_removed_and_brought_back(dashboard):
    assert (await dashboard.submit(PAGE, name="The umbrella", text="It is of violet silk."))[
        0
    ] == 303
    path = f"{PAGE}/0/the-umbrella.md"
    page = (await dashboard.page(path))[1]
    assert "# The umbrella\n\nIt is of violet silk." in page
    await dashboard.submit(path, text="# The umbrella\r\n\r\nIt is of red silk.")
    assert (await dashboard.ask("GET", "/personas/ballast/lore/the-umbrella.md"))[1][
        "text"
    ].endswith("red silk.")
    [number] = re.findall(r'name="number" value="([^"]+)"', (await dashboard.page(path))[1])
    await dashboard.submit(f"{path}/remove")
    files = (await dashboard.ask("GET", "/personas/ballast/lore"))[1]["files"]
    assert all(file["ships"] for file in files) and len(files) == 5
    page = (await dashboard.page(PAGE))[1]
    assert f'href="{path}"' in page and "can be restored" in page
    await dashboard.submit(f"{path}/bring-back", number=number)
    assert (await dashboard.ask("GET", "/personas/ballast/lore/the-umbrella.md"))[1][
        "text"
    ].endswith("violet silk.")
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
    await dashboard.ask("PUT", f"/personas/{mira}/lore/umbrella", json={"text": long})
    await dashboard.ask("PUT", f"/personas/{mira}/lore/umbrella", json={"text": UMBRELLA})
    await GuildLore(services.home, lore_in(dashboard)).add(
        77, "ballast", "umbrella", UMBRELLA.encode()
    )
    monkeypatch.setattr(guild_lore, "MAX_GUILD_BYTES", 4 * len(UMBRELLA))
    before = {path: path.read_bytes() for path in dashboard.home.glob("lore/*/*/*.md")}
    [number] = re.findall(
        r'name="number" value="([^"]+)"', (await dashboard.page(f"{page}/77/umbrella.md"))[1]
    )
    answers = [
        await dashboard.ask("PUT", f"/personas/{mira}/lore/more", json={"text": long}),
        await dashboard.ask("PUT", f"/personas/{mira}/lore/umbrella", json={"text": long}),
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
    assert (await dashboard.ask("PUT", "/personas/ballast/lore/more", json={"text": long}))[
        0
    ] == 200, "the operator's"


async def test_what_cannot_be_is_refused(dashboard):
    for path in ("..%2Fx.md", "card.toml", ".md", "nowhere.md"):
        assert (await dashboard.page(f"{PAGE}/0/{path}"))[0] == 404, path
        assert (await dashboard.ask("GET", f"/personas/ballast/lore/{path}"))[0] == 404, path
        assert (await dashboard.ask("DELETE", f"/personas/ballast/lore/{path}"))[0] == 404, path
    for path in ("..%2Fx.md", "sub%2Fx", "a%5Cb", "X Y"):
        status, refused, _ = await dashboard.ask(
            "PUT", f"/personas/ballast/lore/{path}", json={"text": "# X\n\nWords."}
        )
        assert status == 422 and "can be called" in refused["detail"], path
    status, refused, _ = await dashboard.ask(
        "PUT", "/personas/ballast/lore/x", json={"text": "# Nothing"}
    )
    assert status == 422 and "holds no text" in refused["detail"]
    assert (await dashboard.ask("POST", "/personas/ballast/lore/ask", json={"message": ""}))[
        0
    ] == 422


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
    await dashboard.ask(
        "PUT", f"/personas/ballast/lore/{PIANO}", json={"text": "# The piano\n\nIt was sold.\n"}
    )
    await dashboard.ask("DELETE", "/personas/ballast/lore/lifts-and-lanterns.md")
    await dashboard.ask("PUT", "/personas/ballast/card", json={"tagline": "A crane."})
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
    status, result, _ = await dashboard.ask(
        "PUT", f"/personas/{WORLD}/lore/umbrella", json={"text": UMBRELLA}
    )
    assert status == 200 and result["name"] == "umbrella.md"
    assert {lore.search(who, QUESTION)[0].source for who in ("ballast", "oda", "thrip")} == {
        f"{WORLD}/umbrella.md"
    }
    files = (await dashboard.ask("GET", f"/personas/{WORLD}/lore"))[1]["files"]
    ships = next(file["name"] for file in files if file["origin"] == "came with the bot")
    status, page = (await dashboard.submit(f"/dashboard/personas/{WORLD}/lore", ask="umbrella"))[:2]
    assert (
        status == 200
        and "besides their own: Ballast, Oda Marrow" in page
        and page.count("1 passage") <= 2
        and ships in page
    )
    before = [p for p in lore.passages if p.source == f"{WORLD}/{ships}"]
    assert (await dashboard.ask("DELETE", f"/personas/{WORLD}/lore/{ships}"))[0] == 200
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
    body = {"name": "Wick", "description": "A keeper."}
    assert (await dashboard.ask("POST", "/personas", json=body))[0] == 201
    await dashboard.ask(
        "PUT", "/personas/wick/lore/cat", json={"text": "# Cat\nTallow eats at six."}
    )
    await dashboard.ask("PUT", f"/personas/{WORLD}/lore/umbrella", json={"text": UMBRELLA})
    assert lore.search("oda", QUESTION) and not lore.search("wick", QUESTION)
    assert [hit.source for hit in lore.search("wick", "When does Tallow eat?")] == ["wick/cat.md"]
    status, listed, _ = await dashboard.ask("GET", "/personas/wick/lore-sets")
    (world,) = listed["sets"]
    assert status == 200 and (world["id"], world["name"], world["taken"]) == (
        WORLD,
        "Skerrow Harbour",
        False,
    )
    path = "/dashboard/personas/wick/lore"
    assert "not used" in (await dashboard.page(path))[1]
    status, _, headers = await dashboard.submit(f"{path}-sets/{WORLD}", taken="yes")
    assert status == 303 and headers["Location"] == f"{path}#shared-title"
    assert lore.search("wick", QUESTION) and "Do not use it" in (await dashboard.page(path))[1]
    own = f"/personas/wick/lore-sets/{WORLD}"
    listed = (await dashboard.ask("PUT", own, json={"taken": False}))[1]
    assert not listed["sets"][0]["taken"] and not lore.search("wick", QUESTION)
    for wrong in ("/personas/wick/lore-sets/_atlantis", "/personas/nobody/lore-sets/_world"):
        assert (await dashboard.ask("PUT", wrong, json={"taken": True}))[0] == 404
    elsewhere = {"taken": True, "guild": "77"}
    assert (await dashboard.ask("PUT", own, json=elsewhere))[0] == 404
    await dashboard.ask("PUT", own, json={"taken": True})
    await dashboard.submit("/dashboard/personas/wick/remove")
    status, made, _ = await dashboard.ask("POST", "/personas", json=body)
    assert (status, made["id"]) == (201, "wick-2"), "the removed one can be brought back"
    assert not lore.search("wick-2", QUESTION), "a choice goes with its persona"


async def test_a_set_is_made_on_the_page_and_used_at_once(dashboard):
    lore = lore_in(dashboard)
    status, _, headers = await dashboard.submit("/dashboard/lore-sets", name="Salt Marsh")
    assert status == 303 and headers["Location"] == "/dashboard/personas/_salt-marsh/lore"
    await dashboard.submit(headers["Location"], name="umbrella", text=UMBRELLA)
    assert lore.search("oda", QUESTION) == []
    used = await dashboard.ask("PUT", "/personas/oda/lore-sets/_salt-marsh", json={"taken": True})
    assert used[0] == 200 and lore.search("oda", QUESTION)[0].source == "_salt-marsh/umbrella.md"
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
    await dashboard.ask("PUT", "/personas/oda/lore-sets/_salt-marsh", json={"taken": True})
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


async def test_sets_are_made_renamed_and_removed_over_rest(dashboard):
    lore_in(dashboard)
    status, made, _ = await dashboard.ask("POST", "/lore-sets", json={"name": "Salt Marsh"})
    assert status == 201 and made == {"id": "_salt-marsh", "name": "Salt Marsh", "about": ""}
    assert (await dashboard.ask("POST", "/lore-sets", json={"name": "salt marsh"}))[0] == 422
    renamed = await dashboard.ask("PATCH", "/lore-sets/_salt-marsh", json={"name": "Reeds"})
    assert renamed[0] == 200 and renamed[1]["name"] == "Reeds"
    for wrong, status in ((WORLD, 409), ("_atlantis", 404)):
        assert (await dashboard.ask("PATCH", f"/lore-sets/{wrong}", json={"name": "x"}))[
            0
        ] == status
        assert (await dashboard.ask("DELETE", f"/lore-sets/{wrong}"))[0] == status
    status, removed, _ = await dashboard.ask("DELETE", "/lore-sets/_salt-marsh")
    assert (status, removed) == (200, {"removed": "_salt-marsh"})
    listed = (await dashboard.ask("GET", "/personas/oda/lore-sets"))[1]["sets"]
    assert [one["id"] for one in listed] == [WORLD]
