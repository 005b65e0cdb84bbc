"""The catalogue of base models: each fact has a source, names are found, and the sums choose an engine that serves
tuned voices.
"""

import dataclasses
import re
import tomllib
from dataclasses import replace
from datetime import date

import pytest

from personas.models.catalogue import (
    CATALOGUE_FILE,
    catalogue_models,
    find_model,
)
from personas.models.gguf_format import LORA_ARCHITECTURES
from personas.models.gguf_names import HUB_FILE
from personas.models.model_fit import (
    GGUF_ADAPTER_MODEL_TYPES,
    RESERVE_BYTES,
    SERVED_TOKENS,
    MachineCapacity,
    TrainingNeed,
    choose_engine,
    fit_model,
    recommend,
)
from tests.samples import catalogue_model

GIB = 2**30
LAPTOP = MachineCapacity(16 * GIB, weight_bytes_per_s=20e9)
OLD_LAPTOP = dataclasses.replace(LAPTOP, precision="float32")
MAC = MachineCapacity(16 * GIB, is_mac=True)
CARD = MachineCapacity(32 * GIB, card_bytes=12 * GIB, card_name="RTX 3060")


def all_fits(machine, training_bytes=lambda model: 2 * model.weight_bytes, measured=None):
    fits = []
    for model in catalogue_models():
        needed = training_bytes(model)
        need = TrainingNeed("auto", needed, needed <= machine.memory_bytes)
        fits.append(fit_model(model, machine, need, measured or {}))
    return fits


def test_every_model_states_its_facts_and_their_sources():
    models = catalogue_models()
    assert len(models) >= 12
    assert [model.parameters for model in models] == sorted(model.parameters for model in models)
    assert len({model.name for model in models}) == len(models)
    for model in models:
        assert model.sources and all(url.startswith("https://") for url in model.sources)
        assert date(2025, 1, 1) < model.checked <= date.today()
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.id)
        assert not model.gguf or HUB_FILE.fullmatch(model.gguf)
        assert model.licence_url.startswith("https://")
        assert model.is_open == (model.licence == "Apache-2.0")
    raw = tomllib.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))["model"]
    kinds = {key for entry in raw for key in entry}
    optional = {"ollama", "gguf_bytes", "full_attention_interval", "logits_scaling", "recommended"}
    assert kinds - optional <= set(raw[0]), "a fact that other models lack"


@pytest.mark.parametrize(
    "name",
    [
        "qwen3-8b",
        "Qwen/Qwen3-8B",
        f"Qwen/Qwen3-8B@{'a' * 40}",
        "Qwen/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf",
        "Qwen/Qwen3-8B-GGUF:Q4_K_M",
        "qwen3:8b",
    ],
)
def test_a_model_is_found_by_each_of_its_names(name):
    assert find_model(name) is catalogue_model("qwen3-8b")


def test_the_catalogue_has_no_other_names():
    for name in ("embedded", "owner/other", ":"):
        assert find_model(name) is None


def test_keys_and_values_are_those_of_the_layers_with_attention():
    plain = catalogue_model("qwen3-4b")
    assert plain.kv_bytes(1) == 2 * 36 * 8 * 128 * 2
    linear = catalogue_model("qwen3.5-4b")
    assert linear.kv_bytes(1) == 2 * 8 * 4 * 256 * 2


def test_the_sums_know_what_can_be_written_as_gguf():
    written = {name.removesuffix("ForCausalLM").lower() for name in LORA_ARCHITECTURES}
    # Gemma 3 without pictures has a name of its own.
    assert written | {"gemma3_text"} == GGUF_ADAPTER_MODEL_TYPES


def test_each_machine_gets_an_engine_that_serves_tuned_voices_there():
    def engine(name, machine):
        return choose_engine(catalogue_model(name), machine)

    assert engine("qwen3-1.7b", LAPTOP).engine == "local"
    assert engine("qwen3-1.7b", OLD_LAPTOP).engine == "llamacpp"
    assert engine("qwen3-1.7b", MAC).engine == "llamacpp"
    assert engine("smollm3-3b", LAPTOP).engine == "llamacpp", "one reply at a time otherwise"
    assert engine("qwen3-8b", LAPTOP).engine == "llamacpp", "too large in 16 bits"
    for machine in (LAPTOP, OLD_LAPTOP, MAC):
        assert engine("qwen3.5-4b", machine).engine == "local", "llama.cpp takes no adapter of it"
    small, large = engine("qwen3-4b", CARD), engine("qwen3-8b", CARD)
    assert (small.precision, large.precision) == ("16 bits", "NF4")
    assert small.on_card and large.on_card and "RTX 3060" in large.reason
    assert not engine("gemma-3-12b", dataclasses.replace(CARD, card_bytes=6 * GIB)).on_card


def test_memory_and_disk_count_every_part():
    model = catalogue_model("qwen3-1.7b")
    local = fit_model(model, LAPTOP, None, {})
    assert local.engine.bytes == model.weight_bytes + model.kv_bytes(SERVED_TOKENS) + GIB
    assert local.disk_bytes == model.weight_bytes and local.base_model == model.id
    file = fit_model(model, OLD_LAPTOP, None, {})
    assert file.base_model == model.gguf
    assert file.disk_bytes == model.gguf_bytes + model.weight_bytes, "unpacked for training"
    assert file.engine.read_bytes == model.gguf_bytes < local.engine.read_bytes
    untied = fit_model(
        catalogue_model("qwen3-8b"), dataclasses.replace(LAPTOP, memory_bytes=64 * GIB), None, {}
    )
    assert untied.engine.read_bytes == untied.model.weight_bytes - 2 * 151936 * 4096


def test_speed_is_expected_from_products_until_it_is_measured():
    model = catalogue_model("qwen3-0.6b")
    expected = fit_model(model, LAPTOP, None, {})
    assert expected.tokens_per_s == pytest.approx(20e9 / model.weight_bytes)
    assert "processor" in expected.speed_basis
    measured = fit_model(model, LAPTOP, None, {(model.id, "local"): 11.5})
    assert (measured.tokens_per_s, measured.speed_basis) == (11.5, "measured here")
    other_engine = fit_model(model, LAPTOP, None, {(model.id, "llamacpp"): 11.5})
    assert other_engine.tokens_per_s == expected.tokens_per_s
    assert fit_model(model, MAC, None, {}).tokens_per_s is None
    assert fit_model(model, CARD, None, {}).tokens_per_s is None


def test_the_recommended_model_trains_here_and_is_not_slower_than_people_read():
    best = recommend(all_fits(LAPTOP))
    assert best.model.name == "qwen3-1.7b" and round(best.unloaded_tokens_per_s) == 6
    larger = catalogue_model("smollm3-3b")
    roomy = replace(LAPTOP, memory_bytes=LAPTOP.memory_bytes + RESERVE_BYTES)
    assert recommend(all_fits(roomy)).model == best.model
    faster = all_fits(roomy, measured={(larger.gguf, "llamacpp"): 7.0})
    assert recommend(faster).model == larger
    slower = all_fits(LAPTOP, measured={(best.model.id, "local"): 2.0})
    again = recommend(slower)
    assert again.model == best.model, "other load slowed what was measured"
    assert again.unloaded_tokens_per_s == best.unloaded_tokens_per_s
    assert again.tokens_per_s == 2.0, "which the table shows"
    assert recommend(all_fits(LAPTOP, lambda _: 64 * GIB)) is None
    slow = recommend(all_fits(replace(LAPTOP, weight_bytes_per_s=2.6e9)))
    assert slow.model.name == "qwen3-0.6b" and slow.is_slower_than_people_read
    on_card = recommend(all_fits(CARD))
    assert on_card.model.name == "qwen3-8b" and on_card.model.is_open


def test_an_older_model_with_an_open_licence_is_not_recommended():
    fits = all_fits(replace(CARD, card_bytes=8 * GIB, memory_bytes=30 * GIB))
    older = next(fit for fit in fits if fit.model.name == "mistral-7b")
    assert older.fits == "both" and older.model.is_open
    assert recommend(fits).model.name == "qwen3-4b"


def test_a_model_without_a_gguf_file_is_served_by_the_built_in_engine():
    model = catalogue_model("deepseek-llm-7b")
    assert not model.gguf and not model.ollama
    assert choose_engine(model, MAC).engine == "local"


def test_the_load_of_the_moment_does_not_change_the_recommendation():
    best = recommend(all_fits(LAPTOP))
    for free_gib in (15, 8, 2):
        assert recommend(all_fits(replace(LAPTOP, free_bytes=free_gib * GIB))) == best


def test_memory_is_left_to_the_system_and_other_programs():
    model = catalogue_model("qwen3-0.6b")
    serving = choose_engine(model, LAPTOP).bytes
    need = TrainingNeed("auto", 2 * GIB, True)
    for missing, fits in ((0, "both"), (1, "in turn")):
        machine = replace(LAPTOP, memory_bytes=serving + need.bytes + RESERVE_BYTES - missing)
        assert fit_model(model, machine, need, {}).fits == fits


def test_what_does_not_fit_is_said():
    by_name = {fit.model.name: fit.fits for fit in all_fits(LAPTOP)}
    assert by_name["qwen3-0.6b"] == "both" and by_name["qwen3.5-9b"] == "no"
    large = catalogue_model("qwen3-8b")
    assert fit_model(large, LAPTOP, TrainingNeed("auto", 12 * GIB, True), {}).fits == "in turn"
    assert fit_model(large, LAPTOP, TrainingNeed("auto", 20 * GIB, False), {}).fits == "serves"
