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
            "4ce52d19c7b2aa0949e103a5a0f4e31ada9e62010de920d77a0b87e6598460ea",
            "a7b8db5137852a1452030a7338946999df270bc14a7114377b79eb39c1b9da98",
        ),
        (
            "oda",
            "2bfd77e13aa68204b592044ea17d0dcc6fec5ee62ca49fcfb67d5b13b48c6992",
            "112cf23ea3b063c09836d03febf9e61c0e7d39684dd89da6d00dabf70981e894",
        ),
        (
            "thrip",
            "13e107f56db9007a8f96ed9ceca8b8ca8e9596cdb701ee2959898dc05669a3b9",
            "1619a845ac5e3ceea230713bc8f1ee881ce2ff40c9e6a1411984ddf988897f98",
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
    later = {"chat_template": "auto", "cross_session_share": 0.2}  # settings that earlier runs do not have
    assert {key: config["recipe"].pop(key) for key in later} == later
    return config


@pytest.mark.parametrize(
    ("dialogues", "recipe", "expected"),
    [
        ((), "demo-cpu", "b099b46230ba6099ee530717fff563f87b99115579d3803389720a4974f86ee4"),
        ((9, 6), "two-stage", "141e16da8054bdfc6e62c047f22c8485eaee562453ffedf69eb459279f48b1a1"),
        ((9,), "mixed-80-20", "698f364af3e3aa21ccbd387836d3a4095cf89c9f7e414f305bb362ec63b06c8f"),
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
    assert stored["recipe"].pop("cross_session_share") == 0.2
    (folder / RUN_FILE).write_text(json.dumps(stored))
    (folder / CHECKPOINTS_FOLDER).mkdir()
    resumed = resumed_recipe(folder, read_spec(folder))
    assert resumed and resumed.recipe.cross_session_share == 0
