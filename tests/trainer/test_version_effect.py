"""The effect probe of a trained version: from its training to the engine, and never outside."""

import shutil

import pytest
from safetensors.torch import load_file

from personas.card.card_reader import read_card_file
from personas.engine.llm_engine import LLMEngine
from personas.home.adapters import (
    EFFECT_PROBE_FILE,
    WEIGHTS_FILE,
    adapter_ref,
    install_adapter_folder,
    verify_adapter,
)
from personas.home.card_adapter import embed_adapter
from personas.home.effect_probe import (
    load_effect_probe,
    read_effect_probe,
    read_effect_results,
    write_effect_probe,
)
from personas.home.job_folder import read_spec
from personas.models.base_model import fingerprint
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.evaluate.effect_probe import PROBE_REPLY_TOKENS, measure_effect_probe
from trainer.run import run_job
from trainer.train.job import prepare_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured(two_trained, tmp_path_factory):
    """A home with Ada's trained version and its probe."""
    home = tmp_path_factory.mktemp("home")
    folder = two_trained["ada"]
    job = prepare_job(folder, read_spec(folder))
    sides = Candidates.load(job.base, job.tokenizer, "bfloat16", job.data.heldout[0].ids[:20])
    sides.add(NEW, Candidate("v1", folder / "adapter"))
    probe = measure_effect_probe(sides, job)
    sides.close()
    ref = adapter_ref(home, "ada", "v1")
    install_adapter_folder(folder / "adapter", ref.folder)
    write_effect_probe(ref.folder, probe)
    return home


@pytest.fixture
def home(measured, tmp_path):
    shutil.copytree(measured / "models", tmp_path / "models")
    return tmp_path


async def test_the_engine_shows_what_training_measured(tiny_base, home):
    engine = LLMEngine(tiny_base, "bfloat16", home=home)
    await engine.start()
    try:
        await engine.load(adapter_ref(home, "ada", "v1"))
    finally:
        await engine.close()
    [result] = read_effect_results(home)
    probe = load_effect_probe(adapter_ref(home, "ada", "v1").folder).probe
    assert result.verdict == "shown" and result.precision == "bfloat16"
    assert result.expected_shift == pytest.approx(probe.shift) and probe.shift > 0.5
    assert abs(result.strength - 1) < 0.05


def test_the_probe_holds_the_versions_own_replies_to_fixed_messages(
    measured, two_trained, renderer
):
    probe = load_effect_probe(adapter_ref(measured, "ada", "v1").folder).probe
    assert len(probe.replies) == 10
    texts = [renderer.tokenizer.decode(reply.prompt) for reply in probe.replies]
    assert all("say 3" not in text for text in texts)  # as members wrote in the training's log
    assert all(len(reply.reply) <= PROBE_REPLY_TOKENS for reply in probe.replies)
    manifest = verify_adapter(two_trained["ada"] / "adapter")
    assert probe.weights == manifest.checksums[WEIGHTS_FILE]
    assert probe.base_model_hash == manifest.base_model_hash


def test_a_card_with_the_adapter_leaves_the_probe_out(home, tmp_path):
    from bot.personas.registry import PersonaRegistry  # as other tests of cards
    from personas.card.toml_card import SHIPPED_CARDS

    ref = adapter_ref(home, "ada", "v1")
    registry = PersonaRegistry(SHIPPED_CARDS, tmp_path / "cards")
    card = registry.card(registry.get("ballast", 0), 0)
    file = tmp_path / "ada.charx"
    file.write_bytes(embed_adapter(card, ref.folder, "ada.charx"))
    names = read_card_file(file).files
    assert any(name.endswith(WEIGHTS_FILE) for name in names)
    assert not any(EFFECT_PROBE_FILE in name for name in names)


@pytest.mark.slow
def test_a_run_writes_the_probe_beside_its_adapter(two_trained, tmp_path, tiny_base):
    folder = tmp_path / "job"
    shutil.copytree(two_trained["ada"], folder, ignore=shutil.ignore_patterns("adapter"))
    run_job(folder, RunControl(card="quick"))
    adapter = folder / "adapter"
    stored = read_effect_probe(adapter, fingerprint(tiny_base))
    assert stored and stored.probe.shift > 0.5
    assert (adapter / EFFECT_PROBE_FILE).stat().st_mode & 0o077 == 0
    assert load_file(adapter / WEIGHTS_FILE)
