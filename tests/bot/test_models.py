"""`python -m bot models`: the table of base models, from the trainer's sums and what was measured here."""

import dataclasses
import json
import sys

import pytest

from bot.models.cli import table_lines
from bot.models.measured_speeds import SpeedRecorder, base_model_key, read_speeds
from bot.models.table import (
    build_table,
    read_trainer_sizes,
    recommendation_text,
    shortage_text,
    speed_text,
)
from personas.engine import RequestMetrics
from personas.models.catalogue import catalogue_models
from personas.models.model_fit import recommend
from tests.bot.command_line import typed
from tests.bot.model_machine import GIB, SIZES, pretend_machine, trainer_that_says
from tests.personas.test_model_catalogue import CARD, LAPTOP, all_fits
from tests.samples import catalogue_model

REPLY = RequestMetrics(first_s=0.5, whole_s=2.5, prompt_tokens=100, new_tokens=41, finish="stop")


@pytest.fixture
def processor(monkeypatch):
    pretend_machine(monkeypatch)


async def table_of(home, base_model="embedded"):
    return await build_table(home, base_model, trainer_that_says(json.dumps(SIZES)))


async def test_the_table_has_every_model_and_one_is_recommended(tmp_path, processor):
    table = await table_of(tmp_path, "Qwen/Qwen3-0.6B@" + "a" * 40)
    assert [fit.model for fit in table.fits] == list(catalogue_models())
    assert table.served is catalogue_model("qwen3-0.6b")
    assert table.fit_of(table.served).training.recipe == "s0-6gb", "the lightest"
    assert table.recommended.model.name == "qwen3-1.7b"
    text = "\n".join(table_lines(table))
    assert "→ Qwen3 1.7B" in text and "* Qwen3 0.6B" in text
    assert "python -m bot models fetch qwen3-1.7b" in text
    published = table.as_json()
    assert published["recommended"] == "qwen3-1.7b" and published["reason"] == table.reason
    assert "At the moment 3.0 GiB of memory are free, too little to serve it" in text
    assert published["shortage"] in text and published["machine"]["free_bytes"] == 3 * GIB
    row = next(row for row in published["models"] if row["name"] == "qwen3-1.7b")
    assert row["serve_bytes"] > row["disk_bytes"] == catalogue_model("qwen3-1.7b").weight_bytes
    assert row["sources"] and row["licence"] == "Apache-2.0" and not row["is_served"]
    assert json.loads(json.dumps(published)) == published


def test_why_a_model_is_recommended_is_said_with_its_speed():
    said = recommendation_text(recommend(all_fits(LAPTOP)))
    assert said.startswith("the largest") and "6 tokens per second, as fast as" in said
    slow = dataclasses.replace(LAPTOP, weight_bytes_per_s=2.6e9)
    said = recommendation_text(recommend(all_fits(slow)))
    assert said.startswith("the smallest") and "2.2 tokens per second, slower" in said
    assert "measured once it is used" in recommendation_text(recommend(all_fits(CARD)))
    assert "keep the bundled model" in recommendation_text(None)


def test_the_load_of_the_moment_is_said_apart_from_the_recommendation():
    best = recommend(all_fits(LAPTOP))
    for free_gib, shortage in (
        (15, ""),
        (8, "train it while it serves"),
        (2, "At the moment 2.0 GiB of memory are free, too little to serve it"),
    ):
        said = shortage_text(best, dataclasses.replace(LAPTOP, free_bytes=free_gib * GIB))
        assert shortage in said and bool(said) == bool(shortage)
    on_card = recommend(all_fits(CARD))
    without = dataclasses.replace(CARD, free_bytes=0)
    assert shortage_text(on_card, without) == "", "it takes the card's memory"


@pytest.mark.parametrize(
    ("speed", "basis", "expected"),
    [
        (None, "", "–"),
        (0.44, "expected", "~0.4"),
        (9.94, "expected", "~9.9"),
        (9.96, "expected", "~10"),
        (20.4, "measured here", "20"),
    ],
)
async def test_a_slow_speed_has_a_decimal(speed, basis, expected, tmp_path, processor):
    fit = (await table_of(tmp_path)).fits[0]
    assert speed_text(dataclasses.replace(fit, tokens_per_s=speed, speed_basis=basis)) == expected


@pytest.mark.parametrize(
    "command",
    [
        trainer_that_says("no JSON"),
        trainer_that_says("{}"),
        (sys.executable, "-c", "raise SystemExit(1)"),
        ("/no/such/trainer",),
    ],
)
async def test_without_the_trainer_the_table_says_so(command, tmp_path, processor):
    sizes = await read_trainer_sizes(command)
    assert sizes.error and not sizes.needs
    table = await build_table(tmp_path, "embedded", command)
    assert table.recommended is None and all(fit.training is None for fit in table.fits)
    assert f"What a training takes is not known: {sizes.error}." in "\n".join(table_lines(table))


async def test_the_card_is_the_trainers(tmp_path, processor):
    machine = {"has_cuda": True, "memory_bytes": 12 * GIB, "device": "RTX 3060"}
    command = trainer_that_says(json.dumps(SIZES | {"machine": machine}))
    table = await build_table(tmp_path, "embedded", command)
    assert (table.machine.card_bytes, table.machine.card_name) == (12 * GIB, "RTX 3060")
    assert table.fit_of(catalogue_model("qwen3-4b")).engine.on_card
    assert "RTX 3060 with 12.0 GiB" in next(table_lines(table))


async def test_a_speed_that_was_measured_takes_the_place_of_the_expected_one(tmp_path, processor):
    recorder = SpeedRecorder(tmp_path, f"Qwen/Qwen3-1.7B@{'a' * 40}#yarn:2", "local")
    for _ in range(2):
        recorder.note(REPLY)
    recorder.store()
    assert read_speeds(tmp_path) == {}, "too few"
    recorder.note(dataclasses.replace(REPLY, whole_s=4.5))
    for ended in (
        dataclasses.replace(REPLY, new_tokens=3),
        dataclasses.replace(REPLY, first_s=None),
        dataclasses.replace(REPLY, whole_s=0.5),
    ):
        recorder.note(ended)  # says nothing of the speed
    recorder.store()
    assert read_speeds(tmp_path) == {("Qwen/Qwen3-1.7B", "local"): 20.0}, "the median"
    SpeedRecorder(tmp_path, "embedded", "local").store()
    fit = (await table_of(tmp_path)).fit_of(catalogue_model("qwen3-1.7b"))
    assert (fit.tokens_per_s, fit.speed_basis) == (20.0, "measured here")
    (tmp_path / "cache" / "measured-speeds.json").write_text("[{}, 3]")
    assert read_speeds(tmp_path) == {}


def test_a_base_model_is_the_same_in_any_revision_and_scaling():
    commit = "a" * 40
    assert base_model_key(f"owner/name@{commit}#yarn:2#plain") == "owner/name"
    assert base_model_key(f"owner/name@{commit}:Q4_K_M") == "owner/name:Q4_K_M"
    assert base_model_key("owner/name:Q4_K_M") == "owner/name:Q4_K_M"
    assert base_model_key("qwen3:4b") == "qwen3:4b" and base_model_key("embedded") == "embedded"


def test_the_command_prints_the_table_or_one_object(monkeypatch, capsys, tmp_path, processor):
    code, output, errors = typed(monkeypatch, capsys, tmp_path, "models")
    assert (
        code == 0
        and not errors
        and output.startswith("This machine: 16.0 GiB of memory (1 GiB of it for other programs), ")
    )
    assert "  python -m bot models fetch " in output
    code, output, _ = typed(
        monkeypatch, capsys, tmp_path, "models", program="/tools/bin/understudy"
    )
    assert "  understudy models fetch " in output and "python -m" not in output
    code, output, _ = typed(monkeypatch, capsys, tmp_path, "models", "--json")
    assert code == 0 and json.loads(output)["base_model"] == "embedded"
