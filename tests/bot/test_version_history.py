"""`/finetune history`: what became of a persona's versions, page by page, and of other servers'
nothing.
"""

import time

import pytest

from bot.store import Store
from bot.versions.history import MAX_ENTRY_CHARACTERS, VersionHistory
from personas.schemas.chat import Persona
from tests.bot.conftest import QUAY
from tests.bot.version_rows import install, reply
from tests.fakes import until
from tests.samples import SCORECARD

MINA = 70007
GUILD = 11
OTHER_GUILD = 12


async def response_text(who, place, command, /, **options):
    """What a command answers, and the whole answer."""
    answer = await who.slash(place, command, **options)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"], answer


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def history(store):
    """All pages as one text."""
    return "\n".join(VersionHistory(store, Persona("ballast", "Ballast"), GUILD).pages())


def entries(text):
    """By version."""
    return {part.split("**")[1]: part for part in text.split("\n\n")[1:]}


async def test_a_persona_that_was_never_trained_has_an_empty_history(stage):
    words, answer = await response_text(stage.moderator, QUAY, "finetune history")
    assert words.startswith("**Ballast**: the base model") and "Page 1 of 1" in words
    assert answer.ephemeral and not answer.message["components"]


def test_it_says_of_each_version_how_it_measured_who_let_it_speak_and_why_it_ceased(store):
    install(store, guild=GUILD, by=MINA, at=100.0)
    install(store, guild=0, at=200.0)
    store.versions.promote("ballast", "v1", MINA, 130.0, guild_id=GUILD)
    store.replies.vote(reply(store, at=131.0, version="v1", guild=GUILD), 5, -1, 132.0)
    store.versions.rollback("ballast", MINA, 140.0, guild_id=GUILD)
    store.versions.promote(
        "ballast", "v2", by=0, at=210.0, guild_id=GUILD, kind="automatic promotion"
    )
    shown = entries(history(store))
    assert list(shown) == ["v2", "v1", "the base model"], "newest first"
    first = shown["v1"]
    for line in (
        "**v1** was imported <t:100:f> for <@70007>",
        "Held-out loss 3.000 → 2.000 (-33%), general 2.500 → 2.600",
        "On this server: 1 replies · 0 👍 · 1 👎 · 0 stopped or regenerated",
        "Live from <t:130:f> (promoted by <@70007>) to <t:140:f>: rolled back by <@70007>",
    ):
        assert line in first.split("\n"), first
    assert "Live from <t:210:f> (promoted automatically, as its score card was good)" in shown["v2"]
    assert "for <@" not in shown["v2"] and history(store).startswith("**Ballast**: v2 is live.")
    assert "(rolled back to by <@70007>) to <t:210:f>: v2 followed" in shown["the base model"]


def test_the_gates_verdict_stands_there_with_its_reasons_and_never_too_long(store):
    card = SCORECARD.model_copy(
        update={"verdict": "hold", "reasons": ("It repeats itself.", "Much " * 300)}
    )
    install(store, card=card)
    shown = entries(history(store))["v1"]
    for fact in ("Verdict: hold. It repeats itself.", "Much Much", "…", "Held-out loss"):
        assert fact in shown
    for at in range(40):
        store.versions.promote("ballast", "v1" if at % 2 == 0 else None, 7, 1e9 + at, "x" * 100)
    found = entries(history(store))
    assert all(len(entry) <= MAX_ENTRY_CHARACTERS + 2 for entry in found.values())
    assert "<t:1000000038:f>" in found["v1"] and "<t:1000000000:f>" not in found["v1"], (
        "the latest stands there"
    )


def test_other_servers_versions_and_their_doings_are_not_reported(store):
    install(store, guild=OTHER_GUILD, by=555, at=100.0)
    install(store, guild=GUILD, by=MINA, at=101.0)
    store.versions.promote(
        "ballast", "v1", by=555, at=120.0, why="a word of theirs", guild_id=OTHER_GUILD
    )
    reply(store, at=121.0, version="v1", guild=OTHER_GUILD)
    store.versions.rollback("ballast", 555, 130.0, guild_id=OTHER_GUILD)
    text = history(store)
    assert text.startswith("**Ballast**: the base model") and list(entries(text)) == ["v2"]
    store.versions.promote("ballast", "v1", by=555, at=140.0, why="a word of theirs")
    text = history(store)
    assert list(entries(text)) == ["v2", "v1"]
    assert "Live from <t:140:f> (promoted elsewhere)" in text and "<t:120:f>" not in text
    for secret in ("555", "theirs", "Here:"):
        assert secret not in text


async def test_its_pages_are_turned(stage):
    for number in range(7):
        install(stage.store, at=float(number))
    words, answer = await response_text(stage.moderator, QUAY, "finetune history")
    assert "Page 1 of 3" in words and list(entries(words)) == ["v7", "v6", "v5"]
    for button, page, versions in (
        ("Older", 2, ["v4", "v3", "v2"]), ("Older", 3, ["v1"]), ("Newer", 2, ["v4", "v3", "v2"]),
    ):  # fmt: skip
        await stage.moderator.click(answer.message, button)
        await until(lambda page=page: f"Page {page} of 3" in answer.message["content"])
        assert list(entries(answer.message["content"])) == versions


def test_whoever_is_forgotten_is_somebody_there(store):
    install(store, guild=GUILD, by=MINA)
    store.versions.promote("ballast", "v1", MINA, 130.0, guild_id=GUILD)
    assert store.erasure.counts(MINA)["promotions"] == 1 and MINA in store.erasure.user_ids()
    store.erasure.erase(MINA, time.time(), lambda text: text)
    text = history(store)
    assert "promoted by somebody" in text and str(MINA) not in text
