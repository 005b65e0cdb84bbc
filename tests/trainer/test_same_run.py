"""The same inputs give the same samples and the same `run.json` as before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from personas.card.toml_card import SHIPPED_CARDS
from personas.home.job_folder import CHECKPOINTS_FOLDER, read_spec
from personas.prompt import TokenizedSample
from tests.trainer.job_folders import mixing_job, persona_job, write_request
from trainer.process.run_control import RunCancelled
from trainer.recipe import resolve
from trainer.run import run_job
from trainer.train.job import RunContext, prepare_job_without_torch
from trainer.train.resume_config import RUN_FILE, resumed_recipe

DATA = Path(__file__).parents[2] / "data"
MACHINE_KEYS, MACHINE_SETTINGS = ("threads", "packages"), ("precision", "gradient_checkpointing")
"""Values of `run.json`, and of the recipe in it, that depend on the machine."""


def shipped_job(folder: Path, persona: str) -> Path:
    """A shipped persona's job over its own log, lore and general dialogue."""
    material = folder / "material"
    material.mkdir(parents=True)
    shutil.copy(next(SHIPPED_CARDS.glob(f"**/{persona}.toml")), material)
    shutil.copy(DATA / "logs" / f"{persona}.json", material / f"log-{persona}.json")
    shutil.copy(DATA / "general" / "dialogue.jsonl", material / "general-dialogue.jsonl")
    for place in (persona, "_world"):
        shutil.copytree(DATA / "rag-resources" / place, material / "lore" / place)
    kinds = {
        "card": f"{persona}.toml",
        "log": f"log-{persona}.json",
        "lore": "lore",
        "general": "general-dialogue.jsonl",
    }
    return write_request(folder, "embedded", kinds, persona=persona)


def sha256_of(samples: Sequence[TokenizedSample]) -> str:
    return hashlib.sha256(repr([(sample.ids, sample.mask) for sample in samples]).encode()).hexdigest()


@pytest.mark.parametrize(
    ("persona", "dataset_hash", "samples"),
    [
        (
            "ballast",
            "157801747d5c8956682e44a3b573861cc6fb5f90c9495c9fd52a3e7a68af53cd",
            "0796e097d721aed96c945febdd654ba4af8b6fa605b11a7e0c5a763bc726e33b",
        ),
        (
            "oda",
            "14e19e5690a1912e825be109a9483840ca414259063b74d185f31ad8df4de69e",
            "daa5f8db45f469efe07690856c97dbfc22e0bb3cc2034754605a51982b680dce",
        ),
        (
            "thrip",
            "d89bf07699c4d3c587f9f5322bb6d5729444cc8dae9eeeba436ee43ce12e4fef",
            "944c19e15873e6ffb55c4fa396aeba6225f98fc9689cffabd0dd7828587cdca2",
        ),
    ],
)
def test_the_shipped_logs_give_the_same_samples(tmp_path, persona, dataset_hash, samples):
    data = prepare_job_without_torch(shipped_job(tmp_path, persona)).data
    assert data.hash == dataset_hash
    assert sha256_of((*data.train, *data.heldout, *data.general)) == samples


def locked_config(folder: Path) -> dict:
    """`run.json` of a run that is cancelled before it loads its base model, without what the machine decides."""

    def cancel(event) -> None:
        if event.event == "phase" and event.name == "base model":
            raise RunCancelled("the test")

    with pytest.raises(RunCancelled):
        run_job(folder, RunContext(cancel, lambda: None))
    config = json.loads((folder / "run.json").read_text())
    for key in MACHINE_KEYS:
        del config[key]
    for key in MACHINE_SETTINGS:
        del config["recipe"][key]
    later = {"chat_template": "auto", "cross_session_share": 0.3}  # settings that earlier runs do not have
    assert {key: config["recipe"].pop(key) for key in later} == later
    return config


@pytest.mark.parametrize(
    ("dialogues", "recipe", "expected"),
    [
        ((), "demo-cpu", "4238ff19a0ab89515f7742a9c5c3f57f4e6efa3bd7d226e959eb23b92d202e76"),
        ((9, 6), "two-stage", "a1cc9e1a8f63332fe290f5e1edc3a5ba62071147cc801c86c2ca62f17223c0d8"),
        ((9,), "mixed-80-20", "f5a37dd40941f7cb8c906dec2ca2e761ba76fc154a31fd5f994a323599dd3468"),
    ],
)
def test_a_run_is_held_to_the_same_configuration(tmp_path, monkeypatch, dialogues, recipe, expected):
    """`dialogues` counts the general ones that measure, and those that are named to train on."""
    monkeypatch.setattr(resolve, "MERGED_BATCH_TOKENS", 0)  # earlier versions merged no batches
    folder = tmp_path / "job"
    if dialogues:
        mixing_job(folder, "embedded", *dialogues, recipe=recipe)
    else:
        persona_job(folder, "embedded")
    config = json.dumps(locked_config(folder), sort_keys=True)
    assert hashlib.sha256(config.encode()).hexdigest() == expected


def test_a_run_of_an_earlier_version_goes_on_with_the_histories_it_began_with(tmp_path):
    folder = tmp_path / "job"
    persona_job(folder, "embedded")
    locked_config(folder)
    stored = json.loads((folder / RUN_FILE).read_text())
    assert stored["recipe"].pop("cross_session_share") == 0.3
    (folder / RUN_FILE).write_text(json.dumps(stored))
    (folder / CHECKPOINTS_FOLDER).mkdir()
    resumed = resumed_recipe(folder, read_spec(folder))
    assert resumed and resumed.recipe.cross_session_share == 0
