"""Runs that train an adapter further: it has to fit, its shape holds, its weights are where they
begin.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from personas.errors import AdapterError, RequestError
from personas.home.adapters import verify_adapter, write_manifest
from personas.home.data_subjects import read_people, write_people
from personas.models.loading import load_model
from tests.tiny_models import make_tiny_model
from tests.trainer.job_folders import described, dialogue_job, persona_job
from trainer.recipe.parent_adapter import load_parent_weights
from trainer.run import run_job
from trainer.train.checkpoint import trainable_weights
from trainer.train.job import prepare_job_without_torch
from trainer.train.sft_trainer import add_lora_adapter
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def dialogue(tiny_base, tmp_path_factory):
    """A dialogue adapter, as a run leaves it, that names somebody."""
    folder = dialogue_job(tmp_path_factory.mktemp("dialogue"), tiny_base.source)
    run_job(folder, RunControl())
    adapter = folder / "adapter"
    write_people(adapter, {"a" * 32: 3})
    write_manifest(adapter, verify_unsealed(adapter))
    return adapter


def verify_unsealed(adapter):
    from personas.schemas.training import AdapterManifest

    return AdapterManifest.model_validate_json((adapter / "manifest.json").read_bytes())


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_base, dialogue):
    """Ada's job that goes on from the dialogue adapter; `changes` are settings."""

    def made(base=None, **changes):
        folder = persona_job(tmp_path_factory.mktemp("job"), base or tiny_base.source)
        shutil.copytree(dialogue, folder / "material" / "adapter" / "chat")
        spec = json.loads((folder / "request.json").read_text())
        spec["materials"].append(described(folder / "material", "adapter", "adapter/chat"))
        epochs = {"num_train_epochs": 2}
        spec["request"] |= {"start_from": "chat", "hyperparameters": epochs | changes}
        (folder / "request.json").write_text(json.dumps(spec))
        return folder

    return made


@pytest.fixture(scope="module")
def whole(job):
    """The job, run to its end."""
    folder = job()
    run_job(folder, RunControl())
    return folder


@pytest.mark.slow
def test_it_goes_on_with_its_weights_and_its_shape_and_says_so(whole, dialogue, tiny_base):
    folder = whole
    prepared = prepare_job_without_torch(whole)
    assert (prepared.recipe.lora_r, prepared.recipe.lora_alpha) == (4, 8)  # demo-cpu has 16 and 32
    manifest = verify_adapter(folder / "adapter")
    before = verify_adapter(dialogue)
    assert (manifest.lora["r"], manifest.start_from.version, manifest.start_from.persona) == (
        4,
        before.version,
        None,
    )
    assert manifest.start_from.weights == before.checksums["adapter_model.safetensors"]
    card = (folder / "adapter" / "README.md").read_text()
    assert manifest.lora["coverage"] == 1.0
    assert "100.0% of the parameters" in card
    assert "dialogue v1 (job `job-1`" in card
    assert read_people(folder / "adapter")["a" * 32] == 3  # whom it has learned from before
    assert "adapter" in {
        it["kind"]
        for it in json.loads((folder / "adapter" / "datasheet.json").read_text())["materials"]
    }
    model = add_lora_adapter(load_model(tiny_base, "float32"), prepared.recipe)
    assert all(
        not weight.any() for name, weight in trainable_weights(model).items() if "lora_B" in name
    )
    load_parent_weights(dialogue, model)
    kept = load_file(dialogue / "adapter_model.safetensors")
    assert sorted(
        weight.double().sum().item() for weight in trainable_weights(model).values()
    ) == pytest.approx(sorted(weight.double().sum().item() for weight in kept.values()))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"lora_r": 16}, "lora_r cannot be 16: .* has 4"),
        (
            {"target_modules": ["q_proj"]},
            "target_modules cannot be q_proj: .* has q_proj,k_proj",
        ),
    ],
)
def test_a_shape_that_it_has_not_is_refused_by_name(job, asked, said):
    with pytest.raises(RequestError, match=said):
        prepare_job_without_torch(job(**asked))


def test_its_own_shape_may_be_asked_for(job):
    assert prepare_job_without_torch(job(lora_r=4, lora_dropout=0.2)).recipe.lora_dropout == 0.2


def test_an_adapter_of_another_base_model_is_refused(job, tmp_path, renderer):
    make_tiny_model(tmp_path / "other", renderer.tokenizer, seed=1)
    with pytest.raises(AdapterError, match="was made for the base model"):
        prepare_job_without_torch(job(tmp_path / "other"))


def test_a_damaged_adapter_is_refused(job):
    folder = job()
    weights = folder / "material" / "adapter" / "chat" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    request = json.loads((folder / "request.json").read_text())
    request["materials"][-1]["sha256"] = described(folder / "material", "adapter", "adapter/chat")[
        "sha256"
    ]
    (folder / "request.json").write_text(json.dumps(request))
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors .*checksum"):
        prepare_job_without_torch(folder)


def test_weights_of_another_shape_do_not_fit(dialogue, tiny_base, recipe):
    model = add_lora_adapter(load_model(tiny_base, "float32"), recipe)
    with pytest.raises(AdapterError, match="does not fit"):
        load_parent_weights(dialogue, model)
    fewer = recipe.model_copy(update={"lora_r": 4, "target_modules": ("q_proj",)})
    with pytest.raises(AdapterError, match="28 matrices, and 4 "):
        load_parent_weights(dialogue, add_lora_adapter(load_model(tiny_base, "float32"), fewer))


@pytest.mark.parametrize("kind", ["DoRA", "rsLoRA"])
def test_an_adapter_that_is_no_plain_lora_is_refused(job, tiny_base, kind):
    """Its numbers mean something else: trained further as plain LoRA, it would be another voice."""
    folder = job()
    adapter = folder / "material" / "adapter" / "chat"
    settings = LoraConfig(
        r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **{f"use_{kind.lower()}": True}
    )
    get_peft_model(load_model(tiny_base, "float32"), settings).save_pretrained(adapter)
    write_manifest(adapter, verify_unsealed(adapter))
    request = json.loads((folder / "request.json").read_text())
    request["materials"][-1] |= described(folder / "material", "adapter", "adapter/chat")
    (folder / "request.json").write_text(json.dumps(request))
    with pytest.raises(AdapterError, match=f"is a {kind}, and only plain LoRA"):
        prepare_job_without_torch(folder)


def test_all_weights_are_put_in_their_places(tiny_base, recipe, tmp_path):
    made = add_lora_adapter(load_model(tiny_base, "float32"), recipe)
    for number, weight in enumerate(trainable_weights(made).values()):
        torch.nn.init.constant_(weight, number + 0.1)
    made.save_pretrained(tmp_path)
    other = add_lora_adapter(
        load_model(tiny_base, "float32"), recipe.model_copy(update={"seed": 5})
    )
    load_parent_weights(tmp_path, other)
    kept = trainable_weights(other)
    assert all(torch.equal(kept[name], weight) for name, weight in trainable_weights(made).items())
