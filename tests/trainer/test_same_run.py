"""The same inputs give the same samples and the same `run.json` as before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from personas.card.toml_card import SHIPPED_CARDS
from personas.prompt.renderer import TokenizedSample
from tests.trainer.job_folders import mixing_job, persona_job, write_request
from trainer.process.run_control import RunCancelled
from trainer.recipe import machine_fit
from trainer.run import run_job
from trainer.train.job import prepare_job_without_torch
from trainer.train.training_run import RunControl

DATA = Path(__file__).parents[2] / "data"
MACHINE_KEYS = ("threads", "packages", "used")
MACHINE_SETTINGS = ("precision", "gradient_checkpointing", "checkpoint_every_n_layers")
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
    return hashlib.sha256(
        repr([(sample.ids, sample.mask) for sample in samples]).encode()
    ).hexdigest()


@pytest.mark.parametrize(
    ("persona", "dataset_hash", "samples"),
    [
        (
            "ballast",
            "0de920f098448a80c99809bedf144a49d47aef16ada5ba7871bbcdff2ee18ded",
            "1e596c4f60651882c888136c4ff0b861db7e9cacaa091c1002e79ca834add099",
        ),
        pytest.param(
            "oda",
            "0f064bf116379efa0bfa54da0101d2f95f950ba0a9ca2a569e7908c0f13b55d7",
            "a4a4cfb0fcb224917c3221cd8f284146be28ce01c32cbcdd2d9fa4f16a67dc9e",
            marks=pytest.mark.slow,  # ten seconds, by the same code as Ballast's
        ),
        pytest.param(
            "thrip",
            "5d4d1e4e0ecae70a91d92e266d97d06b225416e50c577f0268b2835d942596e5",
            "3382f33a0be7b51babae104f0d07cf8a42c5190eaf93f77d4968c32d10892a8c",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_the_shipped_logs_give_the_same_samples(tmp_path, persona, dataset_hash, samples):
    data = prepare_job_without_torch(shipped_job(tmp_path, persona)).data
    assert data.hash == dataset_hash
    assert sha256_of((*data.train, *data.heldout, *data.general)) == samples


def locked_config(folder: Path) -> dict:
    """`run.json` of a run that is cancelled before it loads its base model, without what the
    machine decides.
    """

    def cancel(event) -> None:
        if event.event == "phase" and event.name == "base model":
            raise RunCancelled("the test")

    with pytest.raises(RunCancelled):
        run_job(folder, RunControl(cancel))
    config = json.loads((folder / "run.json").read_text())
    for key in MACHINE_KEYS:
        del config[key]
    for key in MACHINE_SETTINGS:
        del config["recipe"][key]
    return config


@pytest.mark.parametrize(
    ("dialogues", "recipe", "expected"),
    [
        ((), "demo-cpu", "27c3a3d29943f809e756d7d14978687d7029bec599105e085c841195944e666b"),
        ((9, 6), "two-stage", "92dbdeddf08ecd58d0ea9dc139c218f3d5291b59330880d28a31b35cacfeace0"),
        ((9,), "mixed-80-20", "1535647950fdeba7fab3d2e55726fd7a4b46c97af291ac6071968b3b4a3f5d89"),
    ],
)
def test_a_run_is_held_to_the_same_configuration(
    tmp_path, monkeypatch, dialogues, recipe, expected
):
    """`dialogues` counts the general ones that measure, and those that are named to train on."""
    monkeypatch.setattr(machine_fit, "MERGED_BATCH_TOKENS", 0)  # earlier versions merged no batches
    folder = tmp_path / "job"
    if dialogues:
        mixing_job(folder, "embedded", *dialogues, recipe=recipe)
    else:
        persona_job(folder, "embedded")
    config = json.dumps(locked_config(folder), sort_keys=True)
    assert hashlib.sha256(config.encode()).hexdigest() == expected
