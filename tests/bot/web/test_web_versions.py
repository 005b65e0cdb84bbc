"""Personas and their versions over REST and by their page: listed, promoted, rolled back."""

import asyncio
import re

import aiohttp

from bot.store import Channel
from personas.errors import AdapterError
from tests.bot.conftest import QUAY, on_stage
from tests.bot.retrainings import OTHER_MODEL, put_live_version, serve_another_model
from tests.bot.version_rows import install, rate
from tests.bot.web.test_web_score_cards import CARELESS, careless_verdict, put_card
from tests.fakes import until
from tests.samples import SCORECARD

PAGE = "/dashboard/personas/ballast/versions"
GOOD = SCORECARD.model_copy(update={"verdict": "promote", "reasons": ("It fits better.",)})
BAD = SCORECARD.model_copy(
    update={"verdict": "reject", "reasons": ("It forgot words.",), "advice": ("Mix more.",)}
)


def live(dashboard):
    return dashboard.store.versions.live("ballast", 0)


async def test_every_persona_is_listed_with_who_speaks_and_where(dashboard):
    dashboard.store.guilds.record_present([9], 1)
    dashboard.store.channels.assign(Channel(9, 5, "ballast", "mentions", 1, 1.0))
    install(dashboard.store, card=GOOD)
    dashboard.store.versions.promote("ballast", "v1", 0, 1_795_000_000.0)
    status, first, _ = await dashboard.ask("GET", "/personas", params={"limit": "2"})
    assert status == 200 and [one["id"] for one in first["personas"]] == ["ballast", "oda"]
    here = first["personas"][0]["channels"][0]
    assert (here["guild"], here["version"]) == ("server 9", "v1")
    assert (await dashboard.ask("GET", first["links"]["next"]))[1]["personas"][0]["id"] == "thrip"
    assert (await dashboard.ask("GET", "/personas", params={"after": "nobody"}))[0] == 404
    _, one, _ = await dashboard.ask("GET", "/personas/ballast")
    assert (one["live"], one["since"][:10], one["newest"]) == (
        "v1", "2026-11-18", {"version": "v1", "verdict": "promote"},
    )  # fmt: skip
    page = (await dashboard.page("/dashboard/personas"))[1]
    assert re.search(r">v1</span></span> <span class=\"muted\">since <time", page)
    assert "may be promoted" not in page, "it is live"
    assert "server 9" in page
    install(dashboard.store, card=GOOD)
    dashboard.store.versions.promote("ballast", "v2", 9, 1_795_000_001.0)
    page = (await dashboard.page("/dashboard"))[1]
    assert re.search(r">v2</span></span>.*in server 9, answers when it is mentioned<", page, re.S)


async def test_versions_are_promoted_and_rolled_back_over_rest(dashboard):
    for _ in range(2):
        install(dashboard.store, card=GOOD)
    status, shown_result, _ = await dashboard.ask("POST", "/personas/ballast/versions/v1/promote")
    assert (
        status == 200
        and shown_result["live"]
        and live(dashboard) == "v1"
        and dashboard.engine.loaded[-1].version == "v1"
    )
    await dashboard.ask("POST", "/personas/ballast/versions/v2/promote", json={})
    _, listed, _ = await dashboard.ask("GET", "/personas/ballast/versions")
    assert listed["live"] == "v2" and [one["version"] for one in listed["versions"]] == ["v2", "v1"]
    assert [(one["version"], one["kind"]) for one in listed["changes"]] == [
        ("v1", "promotion"),
        ("v2", "promotion"),
    ]
    for expected in ("v1", None):
        status, shown_result, _ = await dashboard.ask("POST", "/personas/ballast/rollback")
        assert (status, shown_result["version"], live(dashboard)) == (200, expected, expected)
    status, refused, _ = await dashboard.ask("POST", "/personas/ballast/rollback")
    assert status == 409 and "no earlier version" in refused["detail"]
    _, page, _ = await dashboard.ask("GET", "/personas/ballast/versions", params={"limit": "1"})
    assert (await dashboard.ask("GET", page["links"]["next"]))[1]["versions"][0]["version"] == "v1"


async def test_what_is_decided_over_rest_is_seen_on_discord(tmp_path):
    async with on_stage(tmp_path) as stage, aiohttp.ClientSession(stage.sandbox.url) as session:
        await stage.moderator.slash(QUAY, "finetune start")
        await until(lambda: stage.backend.busy)
        stage.backend.finish()
        result = await stage.sees("Promote makes it live")
        async with session.post("/personas/ballast/versions/v1/promote") as answer:
            assert answer.status == 200
        said = await stage.sees("It is live now.")
        assert said["id"] == result["id"] and stage.engine.loaded[-1].version == "v1"
        mark = stage.mark
        await stage.member.say(QUAY, "hello")
        assert "AI-written · v1" in (await stage.finished(QUAY, mark))["content"]
        async with session.post("/personas/ballast/rollback") as answer:
            assert (await answer.json())["version"] is None
        await stage.sees("Promote makes it live", since=mark)


async def test_one_that_the_gate_rejects_takes_a_second_word(dashboard):
    install(dashboard.store, card=BAD)
    status, refused, _ = await dashboard.ask("POST", "/personas/ballast/versions/v1/promote")
    assert status == 409 and "It forgot words." in refused["detail"] and live(dashboard) is None
    status, page, _ = await dashboard.page(f"{PAGE}/v1/promote")
    assert "It forgot words." in page and "Mix more." in page and "Promote anyway" in page
    assert (await dashboard.submit(f"{PAGE}/v1/promote"))[0] == 409 and live(dashboard) is None
    assert (await dashboard.submit(f"{PAGE}/v1/promote", anyway="yes"))[0] == 303 and live(
        dashboard
    ) == "v1"


async def test_one_that_is_held_for_careless_answers_takes_a_second_word(dashboard):
    install(dashboard.store, card=GOOD.model_copy(update={"verdict": "hold"}))
    _, page, _ = await dashboard.page(f"{PAGE}/v1/promote")
    assert "Promote anyway" not in page
    put_card(dashboard.home, "v1", verdict=careless_verdict())
    status, refused, _ = await dashboard.ask("POST", "/personas/ballast/versions/v1/promote")
    assert status == 409 and CARELESS in refused["detail"] and live(dashboard) is None
    _, page, _ = await dashboard.page(f"{PAGE}/v1/promote")
    assert "The gate holds v1" in page and CARELESS in page and "Promote anyway" in page
    assert (await dashboard.submit(f"{PAGE}/v1/promote", anyway="yes"))[0] == 303
    assert live(dashboard) == "v1"


async def test_one_that_members_speak_against_takes_a_second_word_too(dashboard):
    for _ in range(2):
        install(dashboard.store, card=GOOD)
    dashboard.store.versions.promote("ballast", "v1", 1, 2.0)
    rate(dashboard.store, 10)
    status, refused, _ = await dashboard.ask("POST", "/personas/ballast/versions/v2/promote")
    assert status == 409 and "against v2" in refused["detail"] and "disliked" in refused["detail"]
    _, page, _ = await dashboard.page(f"{PAGE}/v2/promote")
    assert (
        "Members speak against v2" in page and "30 👎 and 0 👍" in page and "Promote anyway" in page
    )
    assert live(dashboard) == "v1"
    assert (
        await dashboard.ask("POST", "/personas/ballast/versions/v2/promote", json={"anyway": True})
    )[0] == 200
    assert live(dashboard) == "v2"


async def test_a_damaged_or_withdrawn_version_never_speaks(dashboard):
    install(dashboard.store, card=GOOD)
    dashboard.engine.failure = AdapterError("The adapter is damaged.", "Roll back.")
    status, refused, _ = await dashboard.ask("POST", "/personas/ballast/versions/v1/promote")
    assert (
        status == 409 and refused["detail"] == "The adapter is damaged." and live(dashboard) is None
    )
    dashboard.engine.failure = None
    dashboard.store.versions.withdraw("ballast", "v1", 5.0, "somebody was forgotten")
    assert (await dashboard.ask("POST", "/personas/ballast/versions/v1/promote"))[
        0
    ] == 409 and live(dashboard) is None
    _, one, _ = await dashboard.ask("GET", "/personas/ballast/versions/v1")
    assert one["withdrawn"] and one["full_scorecard"] is None and one["manifest"] is None
    assert (await dashboard.ask("GET", "/personas/ballast/versions/v9"))[0] == 404


async def test_the_page_shows_versions_and_asks_before_it_does_anything(dashboard):
    page = (await dashboard.page(PAGE))[1]
    assert "has no versions yet" in page
    for card in (GOOD, BAD):
        install(dashboard.store, card=card)
    assert (await dashboard.page("/dashboard/personas/ballast/rollback"))[0] == 409
    page = (await dashboard.page(PAGE))[1]
    assert (
        page.count(">Promote<") == 2
        and "Roll back" not in page
        and "3 → 2" in page
        and "rejected" in page
    )
    page = (await dashboard.page(f"{PAGE}/v1/promote"))[1]
    assert "the base model" in page and "It fits better." in page and live(dashboard) is None
    assert (await dashboard.submit(f"{PAGE}/v1/promote"))[0] == 303 and live(dashboard) == "v1"
    page = (await dashboard.page(PAGE))[1]
    assert (
        '<span class="badge good">live</span>' in page
        and 'class="button" href="/dashboard/personas/ballast/rollback"' in page
    )
    page = (await dashboard.page("/dashboard/personas/ballast/rollback"))[1]
    assert "Roll back to the base model" in page and live(dashboard) == "v1"
    assert (await dashboard.submit("/dashboard/personas/ballast/rollback"))[0] == 303 and live(
        dashboard
    ) is None


async def test_a_rollback_to_another_base_models_version_says_who_answers(dashboard):
    for at in (1.0, 2.0):
        put_live_version(dashboard.services, "ballast", at=at)
    serve_another_model(dashboard.services, ("ballast", "v1"))
    path = "/dashboard/personas/ballast/rollback"
    why = f"v1 was made for {OTHER_MODEL}, which is not served here."
    page = (await dashboard.page(path))[1]
    assert f"{why} The base model answers instead." in page and "Roll back to v1" in page
    _, _, headers = await dashboard.submit(path)
    _, page, _ = await dashboard.page(headers["Location"])
    assert f"The base model answers for Ballast from the next reply on. {why}" in page
    assert live(dashboard) == "v1", "it answers again once its base model is served"
    assert "answers instead" not in (await dashboard.page(path))[1], "next is the base model"


async def test_a_servers_own_live_version_is_shown_beside_that_of_all(dashboard):
    for _ in range(2):
        install(dashboard.store, card=GOOD)
    dashboard.store.versions.promote("ballast", "v2", 7, 5.0, guild_id=9)
    assert (await dashboard.ask("POST", "/personas/ballast/versions/v1/promote"))[1]["live"]
    _, one, _ = await dashboard.ask("GET", "/personas/ballast")
    assert (one["live"], one["live_by_guild"]) == ("v1", {"9": "v2"})
    _, listed, _ = await dashboard.ask("GET", "/personas/ballast/versions")
    assert [(it["version"], it["live"], it["live_in"]) for it in listed["versions"]] == [
        ("v2", False, ["9"]), ("v1", True, []),
    ]  # fmt: skip
    assert [(it["version"], it["guild"]) for it in listed["changes"]] == [("v2", "9"), ("v1", "0")]
    page = (await dashboard.page(PAGE))[1]
    assert "live in server 9</span>" in page
    assert "live version of their own: server 9 (v2)" in page
    folder = "UNDERSTUDY_HOME/models/persona_adapters/ballast/v2"
    assert f"python -m trainer export --adapter {folder} --to ollama" in page
    said = '<span class="badge good">v2</span> in server 9, <span class="badge good">v1</span>'
    assert f"{said} elsewhere</span>" in page
    assert (await dashboard.submit("/dashboard/personas/ballast/rollback"))[0] == 303 and live(
        dashboard
    ) is None
    assert dashboard.store.versions.live("ballast", 9) == "v2"


async def test_a_long_version_history_opens_in_time(dashboard):
    for n in range(40):
        install(dashboard.store, card=GOOD, at=1000.0 + n)
    for n in range(500):
        dashboard.store.versions.promote("ballast", f"v{n % 40 + 1}", 0, 2000.0 + n)
    async with asyncio.timeout(20):
        status, page, _ = await dashboard.page(PAGE)
    assert status == 200 and "v40" in page


async def test_a_version_is_deleted_by_its_page_unless_it_is_used(dashboard):
    for _ in range(3):
        install(dashboard.store, card=GOOD)
    folders = [
        dashboard.services.served_versions.adapter("ballast", name).folder
        for name in ("v1", "v2", "v3")
    ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
    await dashboard.ask("POST", "/personas/ballast/versions/v1/promote")
    assert (await dashboard.page(f"{PAGE}/v1/remove"))[0] == 409
    status, page, _ = await dashboard.submit(f"{PAGE}/v1/remove")
    assert status == 409 and "is live" in page and folders[0].exists()
    assert (await dashboard.submit(f"{PAGE}/v2/remove"))[0] == 303 and not folders[1].exists()
    assert (await dashboard.submit(f"{PAGE}/v2/remove"))[0] == 409
    assert (await dashboard.submit(f"{PAGE}/v9/remove"))[0] == 404
    _, page, _ = await dashboard.page(PAGE)
    assert (
        f"{PAGE}/v3/remove" in page
        and f"{PAGE}/v1/remove" not in page
        and f"{PAGE}/v2/remove" not in page
    )
    assert "Delete v3" in (await dashboard.page(f"{PAGE}/v3/remove"))[1]
    assert (
        (await dashboard.submit(f"{PAGE}/v3/remove"))[0] == 303
        and not folders[2].exists()
        and folders[0].exists()
    )
    assert not [*folders[0].parent.glob(".v*")] and live(dashboard) == "v1"
