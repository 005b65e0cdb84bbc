"""Killed anywhere while it stores a member's lore file or card, the bot knows afterwards whose it
is.
"""

import asyncio
import multiprocessing
import shutil
import signal
from pathlib import Path

import pytest

from bot.personas.card_import import import_card
from bot.personas.guild_lore import GuildLore, contribute_lore, remove_stale_contributions
from bot.personas.registry import PersonaRegistry
from bot.platform.request_origin import RequestOrigin
from bot.store import HOME_DATABASE, Contribution, Store
from personas.errors import LoreError
from personas.lore.index import LoreIndex
from tests.chaos import failpoints
from tests.personas.cards import V2, as_json

GUILD = 7
OLD_MEMBER = 5
NEW_MEMBER = 6
OLD_TEXT, NEW_TEXT = b"# Harbour\nThe harbour is old.\n", b"# Harbour\nThe harbour is new.\n"
OLD_CARD = as_json(V2)
NEW_CARD = as_json({**V2, "data": {**V2["data"], "description": "Another one."}})
MAX_HITS = 80


def contribute(home, what, content, user_id):
    with Store.open(home / HOME_DATABASE) as store:
        if what == "lore":
            lore = GuildLore(home, LoreIndex([]))
            done = contribute_lore(
                store.people, lore, GUILD, "ballast", "harbour.md", content, user_id
            )
        else:
            personas = PersonaRegistry(home / "shipped", home)
            origin = RequestOrigin(GUILD, 1, user_id)
            before = personas.find("mira", GUILD)
            done = import_card(
                personas, store, "", origin, content, "mira.json",
                context_tokens=2048, wanted_id="mira", replacing=before,
            )  # fmt: skip
        asyncio.run(done)


def contribute_and_die(home, what, content, user_id, plan):
    failpoints.install(plan)
    contribute(home, what, content, user_id)


def killed(home, what, content, user_id, number):
    """Whether the kill at this hit came before the end."""
    plan = f"kill@{number}"
    arguments = (home, what, content, user_id, plan)
    process = multiprocessing.get_context("fork").Process(target=contribute_and_die, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def whose(home, what):
    """The text of the file, and its contributors after a start."""
    with Store.open(home / HOME_DATABASE) as store:
        remove_stale_contributions(store.people, home)
        (path,) = [
            *home.glob("lore/*/*/harbour.md" if what == "lore" else "personas/*/*/card.toml")
        ] or [None]
        return path and path.read_bytes(), {one.user_id for one in store.people.contributions()}


@pytest.mark.parametrize("what", ["lore", pytest.param("card", marks=pytest.mark.slow)])
def test_a_file_on_disk_always_has_its_contributor(tmp_path, what, monkeypatch):
    monkeypatch.setattr("bot.personas.card_import.count_card_tokens", lambda *parts: None)
    monkeypatch.setattr("bot.personas.card_import.require_token_budget", lambda *parts: None)
    contents = (OLD_TEXT, NEW_TEXT) if what == "lore" else (OLD_CARD, NEW_CARD)
    Store.open(tmp_path / "empty" / HOME_DATABASE).close()
    seen = set()
    for number in range(1, MAX_HITS, 2):  # before each effect, which is after the one before
        home = Path(shutil.copytree(tmp_path / "empty", tmp_path / str(number)))
        was_killed = killed(home, what, contents[0], OLD_MEMBER, number)
        old, givers = whose(home, what)
        assert givers == ({OLD_MEMBER} if old else set()), f"first file, hit {number}"
        contribute(home, what, contents[0], OLD_MEMBER)
        old, _ = whose(home, what)
        again = killed(home, what, contents[1], NEW_MEMBER, number)
        text, givers = whose(home, what)
        assert (NEW_MEMBER if text != old else OLD_MEMBER) in givers, f"second file, hit {number}"
        seen.add((text != old, len(givers)))
        if not was_killed and not again:
            assert givers == {NEW_MEMBER}
            break
    else:
        pytest.fail(f"there are more than {MAX_HITS} failpoints")
    assert seen == {(False, 1), (False, 2), (True, 2), (True, 1)}


async def test_a_refused_file_changes_no_contributor(tmp_path):
    lore = GuildLore(tmp_path, LoreIndex([]))
    with Store.open(tmp_path / HOME_DATABASE) as store:
        with pytest.raises(LoreError):
            await contribute_lore(
                store.people, lore, GUILD, "ballast", "harbour.md", b"\xff", NEW_MEMBER
            )
        assert store.people.contributions() == []
        await contribute_lore(
            store.people, lore, GUILD, "ballast", "harbour.md", OLD_TEXT, OLD_MEMBER
        )
        before = store.people.contributions()
        with pytest.raises(LoreError):
            await contribute_lore(
                store.people, lore, GUILD, "ballast", "harbour.md", b"", NEW_MEMBER
            )
        assert store.people.contributions() == before


def test_records_of_removed_files_stay_while_there_are_revisions(tmp_path):
    with Store.open(tmp_path / HOME_DATABASE) as store:
        kept, gone = (
            Contribution(GUILD, "ballast", name, 5, 1.0) for name in ("kept.md", "gone.md")
        )
        store.people.add_contribution(kept)
        store.people.add_contribution(gone)
        (tmp_path / "earlier" / "lore" / str(GUILD) / "ballast" / "kept.md").mkdir(parents=True)
        assert remove_stale_contributions(store.people, tmp_path) == [gone]
        assert store.people.contributions() == [kept]
