"""Effects of versions on the dashboard, over REST and by the doctor."""

import hashlib

import pytest

from bot.operations.doctor.effect_checks import check_effects
from personas.home.adapters import EFFECT_PROBE_FILE, adapter_ref
from personas.home.effect_probe import EffectResults, write_effect_probe
from personas.schemas.effect_probe import CacheFigures, EffectProbe, EffectResult, ProbeReply
from tests.bot.version_rows import install

PROBE = EffectProbe(
    weights="0" * 64,
    base_model_hash="base",
    precision="bfloat16",
    replies=(ProbeReply(prompt=(1,), reply=(2,), base=(-2.0,), tuned=(-1.5,)),),
)
SHOWN = EffectResult(
    persona="ballast",
    version="v1",
    probe="",
    engine="vllm http://one, started at 5",
    precision="bfloat16",
    verdict="shown",
    tokens=1,
    expected_base=-2.0,
    shown_base=-2.01,
    expected_shift=0.5,
    shown_shift=0.498,
    strength=0.996,
    strength_tolerance=0.1,
    deviation=0.01,
    deviation_tolerance=0.2,
    cache=CacheFigures(gap=0.02, separation=1.5, leaks=False),
    seconds=1.0,
    at="2026-11-20T10:00:00+00:00",
)
REFUSED = {
    "engine": "vllm http://two, started at 6",
    "verdict": "refused",
    "shown_shift": 0.0,
    "strength": 0.0,
    "deviation": 1.0,
    "at": "2026-11-20T11:00:00+00:00",
}


@pytest.fixture
def store_effects(dashboard):
    """Writes the probe of Ballast's v1, and what engines showed of it."""
    home = dashboard.home

    def write(*changes):
        folder = adapter_ref(home, "ballast", "v1").folder
        folder.mkdir(parents=True, exist_ok=True)
        write_effect_probe(folder, PROBE)
        content = (folder / EFFECT_PROBE_FILE).read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        for change in changes:
            EffectResults(home).store(SHOWN.model_copy(update={"probe": digest, **change}))
        return home

    install(dashboard.store)
    return write


async def test_the_pages_show_what_was_measured_and_by_whom_it_was_shown(dashboard, store_effects):
    assert "No engine has been asked" in (await dashboard.page("/dashboard/system"))[1]
    store_effects({}, REFUSED)
    page = (await dashboard.page("/dashboard/personas/ballast/versions"))[1]
    assert "+0.500 nats per token measured at training" in page
    assert "+0.498 shown by vllm http://one in bfloat16" in page
    assert "+0.000 shown by vllm http://two" in page and "refused" in page
    system = (await dashboard.page("/dashboard/system"))[1]
    assert "ballast v1" in system and "vllm http://one, bfloat16" in system
    assert "0.02 of 1.50" in system
    _, state, _ = await dashboard.ask("GET", "/system")
    [warning] = [check for check in state["health"] if check["name"] == "effect"]
    assert warning["state"] == "warn" and "vllm http://two" in warning["found"]


async def test_a_version_tells_its_effect_over_rest(dashboard, store_effects):
    _, version, _ = await dashboard.ask("GET", "/personas/ballast/versions/v1")
    assert version["effect"] == {"measured_shift": None, "engines": []}
    store_effects({}, REFUSED)
    _, version, _ = await dashboard.ask("GET", "/personas/ballast/versions/v1")
    assert version["effect"]["measured_shift"] == 0.5
    verdicts = [one["verdict"] for one in version["effect"]["engines"]]
    assert verdicts == ["refused", "shown"]


async def test_a_later_result_takes_the_place_of_an_earlier_one(dashboard, store_effects):
    later = {"engine": "vllm http://two, started at 7", "at": "2026-11-20T12:00:00+00:00"}
    home = store_effects(REFUSED, later)
    [check] = check_effects(home)
    assert check.state == "ok" and "shown by vllm http://two" in check.found


async def test_the_doctor_names_who_refuses_and_what_was_not_measured(dashboard, store_effects):
    [nothing] = check_effects(dashboard.home / "elsewhere")
    assert nothing.state == "ok" and "no version" in nothing.found
    home = store_effects({}, REFUSED)
    adapter_ref(home, "oda", "v1").folder.mkdir(parents=True)
    refused, unmeasured = check_effects(home)
    assert refused.state == "warn" and "0% of the effect: refused" in refused.found
    assert refused.remedy
    assert unmeasured.state == "ok" and "oda v1: not measured" in unmeasured.found
