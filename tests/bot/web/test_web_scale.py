"""What a page costs does not grow with the personas, servers and messages in the home."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.large_home import LargeHome, synthetic_places
from bot.guilds.store.guilds import GUILD_TABLES
from bot.operations.doctor.connection_checks import PermissionReport
from bot.personas.registry import PersonaRegistry
from bot.store import HOME_DATABASE, Store
from bot.web_server import ROUTES
from personas.card.toml_card import read_card
from personas.home.job_material import ShippedData
from personas.home.shared_personas import CARD_FILE
from personas.schemas.chat import Persona
from tests.bot.web.conftest import DashboardClient, dashboard_in

NO_PAGES = ("/dashboard/lore-sets", "/dashboard/models/offer", "/dashboard/sign-in")
"""Addresses that lead to another page, or return JSON."""
PAGES = (
    *(
        path
        for method, path, _ in ROUTES
        if method == "GET" and path.startswith("/dashboard")
        if "{" not in path and not path.endswith("/events") and path not in NO_PAGES
    ),
    "/v1/models", "/v1/models/ballast", "/v1/models/PERSONA", "/dashboard/personas?find=keeper",
    "/personas", "/personas?limit=50", "/personas/PERSONA", "/dashboard/cards/PERSONA/v1", "/metrics",
    "/healthz", "/finetune/jobs?limit=10", "/dashboard/personas/PERSONA/versions",
    "/personas/PERSONA/versions",
)  # fmt: skip
LISTS = {"/v1/models"}
"""All that is known is listed there."""
PERSONA = next(LargeHome(synthetic_places(1)).personas())[1]
SMALL, LARGE = 26, 52
"""Servers of two homes, with five personas each: both have more than a page of each list."""
MAX_MORE_QUERIES = 3
"""Queries that a larger home may add to a page."""
MAX_PAGE_BYTES = 160_000


@contextmanager
def counted_queries(store: Store) -> Iterator[list[str]]:
    """The statements that are run meanwhile."""
    statements: list[str] = []
    raw = store._connection._raw
    raw.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        raw.set_trace_callback(None)


async def costs(dashboard: DashboardClient) -> dict[str, tuple[int, int]]:
    """Queries and bytes of each page."""
    found = {}
    for path in PAGES:
        with counted_queries(dashboard.store) as statements:
            status, text, _ = await dashboard.page(path.replace("PERSONA", PERSONA))
        assert status == 200, path
        found[path] = len(statements), len(text)
    return found


async def test_pages_cost_the_same_in_a_larger_home(tmp_path: Path) -> None:
    made = []
    for guilds in (SMALL, LARGE):
        home = tmp_path / str(guilds)
        LargeHome(synthetic_places(guilds), messages=guilds * 20).write(home)
        async with dashboard_in(home) as dashboard:
            made.append(await costs(dashboard))
    small, large = made
    counts = {path: (small[path][0], large[path][0]) for path in PAGES}
    grown = {
        path: count for path, count in counts.items() if count[1] > count[0] + MAX_MORE_QUERIES
    }
    assert not grown
    long = {
        path: size
        for path, (_, size) in large.items()
        if size > MAX_PAGE_BYTES and path not in LISTS
    }
    assert not long


async def test_all_models_and_every_persona_are_listed_page_by_page(tmp_path: Path) -> None:
    LargeHome(synthetic_places(SMALL), messages=0).write(tmp_path / "home")
    async with dashboard_in(tmp_path / "home") as dashboard:
        _, models, _ = await dashboard.ask("GET", "/v1/models")
        ids = [model["id"] for model in models["data"]]
        owners = {persona.id for _, persona in dashboard.services.personas.everybody()}
        assert (
            owners <= {*ids}
            and {f"{it}@base" for it in owners} <= {*ids}
            and len(ids) == len({*ids})
        )
        versioned = {it for it in owners if f"{it}@v1" in ids}
        assert versioned == set(dashboard.store.versions.personas()) != set()
        by_id = {model["id"]: model for model in models["data"]}
        for persona_id in ("ballast", PERSONA, f"{PERSONA}@v1", "base"):
            _, alone, _ = await dashboard.ask("GET", f"/v1/models/{persona_id}")
            assert alone == by_id[persona_id]

        shown = set[str]()
        path = "/dashboard/personas"
        while path:
            status, text, _ = await dashboard.page(path)
            assert status == 200
            shown |= {it for it in owners if f'href="/dashboard/personas/{it}"' in text}
            more = re.search(r'href="([^"]+)" rel="next"', text)
            path = html.unescape(more[1]) if more else ""
        assert shown == owners
        _, text, _ = await dashboard.page("/dashboard/personas?find=ballast")
        assert "Ballast" in text and "Maren" not in text
        _, text, _ = await dashboard.page("/dashboard/play?with=" + PERSONA)
        assert f'value="{PERSONA}" selected' in text
        status, text, _ = await dashboard.page("/dashboard/personas?find=nobody+at+all")
        assert status == 200 and "No persona has" in text


def test_the_registry_finds_every_persona_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LargeHome(synthetic_places(2), messages=0).write(tmp_path)
    registry = PersonaRegistry(ShippedData.from_source_tree().cards, tmp_path)
    everybody = registry.everybody()
    monkeypatch.setattr(
        PersonaRegistry, "everybody", None
    )  # asked for one persona, it looks at no others
    monkeypatch.setattr(PersonaRegistry, "of", None)
    for guild_id, persona in everybody:
        assert registry.find_owner(persona.id) == (guild_id, persona)
        assert registry.get(persona.id, guild_id) is persona
        assert registry.get(persona.id, 77) is (None if guild_id else persona)
    assert registry.find_owner("nobody") is None


def test_personas_go_on_while_all_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LargeHome(synthetic_places(2), messages=0).write(tmp_path)
    registry = PersonaRegistry(ShippedData.from_source_tree().cards, tmp_path)
    before = len(registry.everybody())
    seen = list[int]()

    def watched_read(path: Path) -> Persona:
        seen.append(len(registry.everybody()))
        return read_card(path)

    monkeypatch.setattr("bot.personas.registry.read_card", watched_read)
    next(tmp_path.glob(f"personas/*/*/{CARD_FILE}")).unlink()
    registry.reload_guild_cards()
    assert set(seen) == {before} and len(registry.everybody()) == before - 1


def test_guilds_are_known_by_every_table(tmp_path: Path) -> None:
    """Found in an index, not by reading all messages; in whatever table a guild's rows are."""
    with Store.open(tmp_path / HOME_DATABASE) as store:
        connection = store._connection._raw
        for number, table in enumerate((*GUILD_TABLES, "jobs"), start=1):
            columns = connection.execute(f"pragma table_info({table})").fetchall()
            needed = {
                name: "1"
                for _, name, _, notnull, default, key in columns
                if (notnull or key) and default is None
            }
            needed["guild_id"] = str(number)
            texts = {"state": "done", "answers": "mentions", "text": "x", "kind": "promotion"}
            values = {name: texts.get(name, value) for name, value in needed.items()}
            connection.execute("pragma foreign_keys = off")
            marks = ", ".join("?" for _ in values)
            connection.execute(
                f"insert into {table} ({', '.join(values)}) values ({marks})", [*values.values()]
            )
        connection.commit()
        assert store.guilds.known() == set(range(1, len(GUILD_TABLES) + 2))
        with counted_queries(store) as statements:
            store.guilds.known()
        plans = [
            connection.execute(f"explain query plan {it}").fetchall()
            for it in statements
            if "messages" in it
        ]
        assert plans and not any(
            "SCAN messages" in str(plan) and "INDEX" not in str(plan) for plan in plans
        )


class ManyGuilds:
    """A client in many servers, which counts how often they are looked at."""

    def __init__(self, count: int) -> None:
        self.looked_at = 0
        self._count = count

    @property
    def guilds(self) -> list[object]:
        return [self] * self._count

    @property
    def unavailable(self) -> bool:
        self.looked_at += 1
        return True

    id = 1


async def test_permissions_in_many_servers_are_looked_for_once_a_minute(tmp_path: Path) -> None:
    now = [1000.0]
    with Store.open(tmp_path / HOME_DATABASE) as store:
        for count, wanted in ((100, 300), (101, 202)):
            client = ManyGuilds(count)
            report = PermissionReport(lambda: now[0])
            for seconds in (0.0, 59.0, 2.0):
                now[0] += seconds
                assert await report.latest(client, store) == []  # type: ignore[arg-type]
            assert client.looked_at == wanted
