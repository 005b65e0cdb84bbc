"""The shipped personas speak with the project's own adapters, until somebody trains theirs."""

import dataclasses

import pytest

from bot.app import open_app
from bot.demo_guild import MEMBER, NEWCOMER
from bot.personas.registry import PersonaRegistry
from bot.settings import load_settings
from bot.store import ALL_GUILDS, Store
from bot.versions.shipped import NOT_JUDGED_REASON, ShippedVersions
from personas.home.adapters import WEIGHTS_FILE, adapter_ref, verify_adapter
from personas.schemas.scorecard import ScoreCard
from tests.bot.conftest import INN, QUAY
from tests.bot.test_app import SHIPPED
from tests.bot.test_bundled_adapter import sealed
from tests.bot.version_rows import install
from tests.fakes import until
from tests.samples import SCORECARD
from tests.tiny_models import manifest_over, write_adapter

HASH = "1" * 64
GUILD = 5


@dataclasses.dataclass
class Home:
    """A home, its store, and a folder of shipped adapters."""

    path: object
    shipped: object
    store: Store

    def ship(self, persona="oda", base_hash=HASH, *, rank=4, **changes):
        """A release ships this adapter; another rank makes another one."""
        folder = self.shipped / persona
        for file in folder.glob("*"):
            file.unlink()
        if folder.is_dir():
            folder.rmdir()
        return sealed(folder, base_hash, persona=persona, config=plain(rank), **changes)

    def start(self, served=HASH):
        """What a start of the bot does."""
        personas = PersonaRegistry(SHIPPED.cards, self.path)
        ShippedVersions(self.path, self.store, personas).install(self.shipped, "embedded", served)

    def versions(self, persona="oda"):
        return [row.version for row in self.store.versions.ever_installed(persona)]

    def live(self, persona="oda", guild=ALL_GUILDS):
        return self.store.versions.live(persona, guild)


def plain(rank):
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none",
    }  # fmt: skip


@pytest.fixture
def home(tmp_path):
    with Store.open(tmp_path / "home" / "understudy.sqlite") as store:
        yield Home(tmp_path / "home", tmp_path / "shipped", store)


def test_a_fresh_home_speaks_with_the_shipped_version_in_every_server(home):
    source = home.ship()
    home.start()
    assert home.versions() == ["v1"]
    assert home.live() == home.live(guild=GUILD) == "v1"
    folder = adapter_ref(home.path, "oda", "v1").folder
    assert verify_adapter(folder).checksums == verify_adapter(source).checksums
    assert home.versions("thrip") == []  # nothing is shipped for him here
    assert home.store.jobs.counts() == {}  # it was not trained here
    home.start()
    assert home.versions() == ["v1"] and len(home.store.versions.history("oda")) == 1
    install(home.store, "oda")
    assert home.store.jobs.counts() == {"done": 1}


def test_a_shipped_version_is_not_judged_whatever_its_makers_gate_said(home):
    held = SCORECARD.model_copy(update={"verdict": "hold", "reasons": ("No voice.",)})
    home.ship(metrics=held)
    home.start()
    (installed,) = home.store.versions.ever_installed("oda")
    for card in (
        installed.scorecard,
        home.store.jobs.get(installed.job_id).result.scorecard,
    ):
        assert card == held.model_copy(update={"verdict": "", "reasons": (NOT_JUDGED_REASON,)})


def test_the_cards_that_ship_hold_losses_alone_as_is_said_of_them():
    cards = [
        ScoreCard.model_validate_json(file.read_bytes())
        for file in SHIPPED.adapters.glob("*/scorecard.json")
    ]
    assert cards and all(card.voice is None and not card.side_by_side for card in cards)


def test_another_base_model_gets_none(home):
    home.ship()
    home.start(served="2" * 64)
    assert home.versions() == [] and home.live() is None


def test_a_persona_with_a_version_of_its_own_keeps_it(home):
    home.ship()
    assert install(home.store, "oda", guild=GUILD) == "v1"
    home.start()
    assert home.versions() == ["v1"] and home.live() is None


def test_a_persona_whose_card_the_operator_has_rewritten_keeps_its_own_voice(home):
    home.ship()
    registry = PersonaRegistry(SHIPPED.cards, home.path)
    registry.rewrite("oda", registry.table("oda") | {"tagline": "Another one."})
    home.start()
    assert home.versions() == []


@pytest.mark.parametrize("damage", ["weights", "manifest"])
def test_a_damaged_file_is_refused_and_the_next_start_tries_again(home, caplog, damage):
    source = home.ship()
    file = source / (WEIGHTS_FILE if damage == "weights" else "manifest.json")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage == "weights" else b"{")
    home.start()
    assert home.versions() == [] and home.live() is None
    expected = "does not match its checksum" if damage == "weights" else "is damaged"
    assert expected in caplog.text and "git checkout data/adapters" in caplog.text
    file.write_bytes(whole)
    home.start()
    assert home.live() == "v1"  # the number was not lost with the failure


def test_a_later_release_replaces_the_shipped_version(home):
    home.ship()
    home.start()
    home.ship(rank=8)
    home.start()
    assert home.versions() == ["v1", "v2"] and home.live() == "v2"
    home.store.versions.rollback("oda", by=0, at=3.0)
    assert home.live() == "v1"


def test_a_later_release_leaves_what_somebody_else_has_chosen(home):
    home.ship()
    home.ship("thrip")
    home.start()
    own = install(home.store, "oda", guild=ALL_GUILDS)
    home.store.versions.promote("oda", own, by=1, at=2.0)
    home.store.versions.rollback("thrip", by=1, at=2.0)  # to the base model
    home.ship(rank=8)
    home.ship("thrip", rank=8)
    home.start()
    assert (own, home.live()) == ("v2", "v2") and home.live("thrip") is None
    assert sorted(home.versions()) == ["v1", "v2", "v3"]
    assert sorted(home.versions("thrip")) == ["v1", "v2"]


def test_a_server_that_trains_its_own_version_keeps_it_when_the_shipped_one_is_renewed(home):
    home.ship()
    home.start()
    own = install(home.store, "oda", guild=GUILD)
    home.store.versions.promote("oda", own, by=1, at=2.0, guild_id=GUILD)
    home.ship(rank=8)
    home.start()
    assert home.live(guild=GUILD) == own == "v2" and home.live() == "v3"
    home.store.versions.rollback("oda", by=1, at=3.0, guild_id=GUILD)
    assert home.live(guild=GUILD) == "v3"


@pytest.fixture
def settings(tmp_path, tiny_base):
    given = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
        "MAX_NEW_TOKENS": "8",
    }
    return load_settings(None, given)


async def test_the_first_reply_in_the_local_guild_is_the_shipped_versions_and_the_base_is_beside_it(
    settings, tiny_base, tmp_path
):
    write_adapter(tmp_path / "ships" / "oda", tiny_base, manifest_over(tiny_base, "oda", "run"), 1)
    (tmp_path / "lore").mkdir()  # none: its vectors take seconds
    shipped = dataclasses.replace(SHIPPED, adapters=tmp_path / "ships", lore=tmp_path / "lore")
    async with open_app(settings, shipped) as app:
        oda = await finished_reply(app.sandbox, INN)
        assert "AI-written · v1 (shipped with Understudy)" in oda["content"]
        answer = await app.sandbox.member(NEWCOMER).click(oda, "Without training")
        assert answer.ephemeral
        await until(lambda: "AI-written" in (answer.message or {}).get("content", ""))
        private = answer.message["content"]
        assert private.startswith("**Oda Marrow without training**") and "base model" in private
        ballast = await finished_reply(app.sandbox, QUAY)  # nothing is shipped for him here
        assert "AI-written · base model" in ballast["content"]
        assert "Without training" not in str(ballast["components"])


async def finished_reply(sandbox, channel):
    mark = len(sandbox.events)
    await sandbox.member(MEMBER).say(channel, "good evening")
    return await sandbox.wait_for(
        "edit", lambda message: "\n-# AI-written" in message["content"], timeout_s=60, since=mark
    )
