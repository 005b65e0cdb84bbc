"""The same inputs give the same samples and the same `run.json` as before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from personas.card.toml_card import SHIPPED_CARDS
from personas.prompt import TokenizedSample
from tests.trainer.job_folders import mixing_job, persona_job, write_request
from trainer.process.run_control import RunCancelled
from trainer.recipe import resolve
from trainer.run import run_job
from trainer.train.job import RunContext, prepare_job_without_torch

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
            "1875da358af6f41437687dfad3027726dbaf0730c48d4514402acbc19d74d11f",
            "b6b10351b6472634ec93edf75b1194caaa9ce063bb8a75a9020f0876dfa72f2e",
        ),
        (
            "oda",
            "7aa7d6e620aea43f2d2ae3b61a590ec132859c80ddf4a577d76bdbf9623d1f1f",
            "5a7379afa87758673a775c787e3a735e97b5a4d8ff0b5ed20a73bfe637e16148",
        ),
        (
            "thrip",
            "f3f806f382c08e59cf937d2c2dccdc18ffae80fa90995eb4f9d6a91579811461",
            "3b861751cbf347a737433a83b6e7839c534da98c6938d9c0f7492bf0730016a2",
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
    assert config["recipe"].pop("chat_template") == "auto"  # a later setting, which earlier runs do not have
    return config


@pytest.mark.parametrize(
    ("dialogues", "recipe", "expected"),
    [
        ((), "demo-cpu", "b9da694254266bdab3e9aaac6bb1cf4c919d4569f8b9ae20472d82d91d8fae84"),
        ((9, 6), "two-stage", "46c5a522467e6a1603e216557e913bf5f626eda34bed185a5a0adba50ddf2e09"),
        ((9,), "mixed-80-20", "5923cc6eb2ed0079b945fd8523e9dd9d8f7d85cafdd62da469417ae9aa4cbf35"),
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
