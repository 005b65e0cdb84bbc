"""A town to measure in: eight members, and eight channels with a persona each, every one with an adapter of its own.

The personas are those that ship, and more like them under other names. An adapter changes nothing of what the base
model says (its B is zero), so replies are as long as ever, but takes the time that a trained one takes.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from bot.app import App
from bot.local_guild import MODERATOR, SEED, Town
from bot.store import JobResult
from bot.store.jobs import NewJob
from personas.adapters import CONFIG, WEIGHTS, adapter_ref, seal, written_aside
from personas.base_model import EMBEDDED, BaseModel, fingerprint, locate
from personas.card import SHIPPED_CARDS
from personas.contracts import Manifest, ScoreCard, TrainingRequest
from personas.for_everybody import OPERATOR
from personas.prompt import PROMPT_VERSION

SHIPPED = ("ballast", "oda", "thrip")
PERSONAS = (*SHIPPED, "ballast-two", "oda-two", "thrip-two", "ballast-three", "oda-three")
MEMBERS = ("Ada Wren", "Ben Holt", "Cleo Marsh", "Dov Tarn", "Elin Fjord", "Finn Loch", "Greta Moor", "Hal Strand")
RANK, ALPHA, VERSION, NOBODY = 16, 32, "v1", 0


def town() -> Town:
    """A channel for each persona, named like it."""
    channels = tuple(replace(SEED.channels[0], name=persona_id, topic="") for persona_id in PERSONAS)
    others = tuple(member for member in SEED.members if member.owner or member.name == MODERATOR)
    members = tuple(replace(SEED.members[0], name=name, roles=()) for name in MEMBERS)
    return Town(replace(SEED, channels=channels, members=(*others, *members)), {name: name for name in PERSONAS})


def write_cards(folder: Path) -> None:
    """The cards of all personas, as a folder of shipped ones."""
    folder.mkdir(parents=True)
    for persona_id in PERSONAS:
        like, _, number = persona_id.partition("-")
        text = (SHIPPED_CARDS / f"{like}.toml").read_text(encoding="utf-8")
        if number:
            text = text.replace(f'id = "{like}"', f'id = "{persona_id}"', 1)
            text = text.replace('name = "', f'name = "{number.title()} ', 1)
        (folder / f"{persona_id}.toml").write_text(text, encoding="utf-8")
        shutil.copy(SHIPPED_CARDS / f"{like}.png", folder)


def give_adapters(app: App) -> None:
    """Install an adapter for each persona, and promote it."""
    base, store = locate(EMBEDDED), app.house.store
    for persona_id in PERSONAS:
        scores = _write_adapter(app.house.home, base, persona_id)
        store.versions.reserve(persona_id)
        request = TrainingRequest(job_name=persona_id, persona=persona_id)
        new = NewJob(f"bench-{persona_id}", OPERATOR, NOBODY, NOBODY, request)
        folder = str(adapter_ref(app.house.home, persona_id, VERSION).folder)
        store.jobs.add_imported(new, VERSION, JobResult(adapter=folder, seconds=0, scorecard=scores), time.time())
        store.versions.promote(persona_id, VERSION, NOBODY, time.time())


def _write_adapter(home: Path, base: BaseModel, persona_id: str) -> ScoreCard:
    tensors, targets = {}, set()
    for file in base.folder.glob("*.safetensors"):
        with safe_open(file, "numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dictionary)
                layer = name.removesuffix(".weight")
                if layer.endswith("_proj"):
                    outputs, inputs = weights.get_slice(name).get_shape()
                    tensors[f"base_model.model.{layer}.lora_A.weight"] = np.ones((RANK, inputs), np.float32)
                    tensors[f"base_model.model.{layer}.lora_B.weight"] = np.zeros((outputs, RANK), np.float32)
                    targets.add(layer.rpartition(".")[2])
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    scores = ScoreCard(
        heldout_replies=1, heldout_tokens=1, loss_base=1, loss_tuned=1, general_loss_base=1, general_loss_tuned=1,
        precision="bfloat16",
    )  # fmt: skip
    with written_aside(adapter_ref(home, persona_id, VERSION).folder) as aside:
        save_file(tensors, aside / WEIGHTS)
        whole = {**config, "target_modules": sorted(targets), "inference_mode": True}
        (aside / CONFIG).write_text(json.dumps(whole), encoding="utf-8")
        seal(aside, _manifest(base, persona_id, scores))
    return scores


def _manifest(base: BaseModel, persona_id: str, scores: ScoreCard) -> Manifest:
    return Manifest(
        persona=persona_id,
        version=VERSION,
        job_id="bench",
        created_at="",
        base_model=base.name,
        base_model_hash=fingerprint(base),
        prompt_version=PROMPT_VERSION,
        lora={"r": RANK, "alpha": ALPHA},
        recipe="",
        hyperparameters={},
        training_precision="",
        serving_precision="bfloat16",
        dataset_hash="",
        dataset={},
        rights={},
        seed=0,
        packages={},
        metrics=scores,
        checksums={},
    )
