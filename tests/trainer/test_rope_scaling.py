"""RoPE scaling: texts beyond a model's own length, the same when trained, measured, served and
exported.
"""

import json
import shutil

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM

from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError, BaseModelError, RequestError
from personas.home.adapters import verify_adapter
from personas.models.base_model import (
    apply_rope_factor,
    fingerprint,
    load_config,
    locate,
    max_positions,
)
from personas.models.loading import load_model
from personas.models.rope_scaling import RopeScaling
from personas.schemas.chat import AdapterRef
from tests.model_families import FAMILIES
from tests.tiny_models import make_adapter
from tests.trainer.job_folders import ADA, persona_job, sign, talks
from tests.trainer.job_folders import export as export_of
from tools.tiny_models import TINY_MODELS, make_model
from tools.tiny_models import make_adapter as make_sealed
from trainer.export.exporter import export_adapter
from trainer.run import run_job
from trainer.train.training_run import RunControl

OWN = 40
"""What the models here read without scaling; the job's samples are longer."""


pytestmark = pytest.mark.usefixtures("one_thread", "blank_charts")


@pytest.fixture(scope="module")
def short_base(tmp_path_factory, tiny_base):
    """The tiny model, as if it had been made for short texts."""
    folder = tmp_path_factory.mktemp("short") / "model"
    shutil.copytree(tiny_base.source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": OWN}))
    return locate(str(folder))


def frequencies(base):
    return load_model(base, "float32").model.rotary_emb


# --------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_positions_are_scaled_as_transformers_scales_them(short_base, kind):
    theirs = AutoConfig.from_pretrained(short_base.source)
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": theirs.rope_parameters["rope_theta"]}
    theirs.rope_parameters = rope | (
        {"original_max_position_embeddings": OWN} if kind == "yarn" else {}
    )
    model = AutoModelForCausalLM.from_config(theirs)
    with torch.inference_mode():
        model(
            input_ids=torch.zeros((1, 4 * OWN), dtype=torch.long)
        )  # dynamic ones look at the text first
    ours = frequencies(locate(f"{short_base.name}#{kind}:4"))
    torch.testing.assert_close(ours.inv_freq, model.model.rotary_emb.inv_freq)
    assert ours.attention_scaling == pytest.approx(model.model.rotary_emb.attention_scaling)
    assert not torch.equal(ours.inv_freq, frequencies(short_base).inv_freq)


def test_a_scaled_model_reads_so_many_times_more_and_is_another(short_base):
    twice = locate(f"{short_base.name}#yarn:2")
    assert twice == apply_rope_factor(short_base, 2.0)
    assert twice.scaling == RopeScaling("yarn", 2.0)
    assert (max_positions(short_base), max_positions(twice)) == (OWN, 2 * OWN)
    assert load_config(twice).max_position_embeddings == 2 * OWN
    linear = locate(f"{short_base.name}#linear:2")
    assert len({fingerprint(base) for base in (short_base, twice, linear)}) == 3
    assert apply_rope_factor(linear, 1.0) == linear == apply_rope_factor(linear, 2.0)
    with pytest.raises(BaseModelError, match=r"scaled by linear:2, .*factor 4"):
        apply_rope_factor(linear, 4.0)


@pytest.mark.parametrize(
    "wrong", ["yarn", "yarn:", "ntk:2", "yarn:0.5", "yarn:1", "yarn:9", "yarn:2e1", ""]
)
def test_a_scaling_that_is_none_is_refused(short_base, wrong):
    with pytest.raises(BaseModelError, match=r"TYPE:FACTOR.*linear, dynamic, yarn"):
        locate(f"{short_base.name}#{wrong}")


def test_a_folder_with_such_a_name_is_a_folder(short_base, tmp_path):
    shutil.copytree(short_base.source, tmp_path / "model#yarn:2")
    assert locate(str(tmp_path / "model#yarn:2")).scaling is None


@pytest.mark.parametrize(
    ("family", "why"),
    [("Llama 3.2", r"scaled already \(llama3\)"), ("Gemma 3", "not plain rotary")],
)
def test_positions_that_cannot_be_scaled_are_not(tmp_path, family, why):
    base = make_model(FAMILIES[family], tmp_path / "base")
    with pytest.raises(BaseModelError, match=f"{why}.*Leave the scaling out"):
        apply_rope_factor(base, 2.0)
    with pytest.raises(BaseModelError, match=why):
        load_model(locate(f"{base.name}#linear:2"), "float32")


# --------------------------------------------------------------------------------------- a training


def job_with(folder, base, **settings):
    job = persona_job(folder, base.source)
    spec = json.loads((job / "request.json").read_text())
    spec["request"]["hyperparameters"] = {"max_steps": 1, **settings}
    (job / "request.json").write_text(json.dumps(spec))
    return job


def test_samples_beyond_the_models_length_are_refused_with_the_factor_that_would_do(
    tmp_path, short_base
):
    with pytest.raises(
        RequestError, match=rf"longest sample has \d+ tokens.*reads {OWN}"
    ) as refused:
        run_job(job_with(tmp_path / "a", short_base), RunControl())
    factor = float(refused.value.advice.partition("rope_scaling_factor=")[2].partition(",")[0])
    assert 1 < factor <= 8 and f"max_length={OWN}" in refused.value.advice
    longest = int(str(refused.value).split()[4])
    assert (factor - 0.25) * OWN < longest <= factor * OWN
    job = job_with(tmp_path / "b", short_base, rope_scaling_factor=factor)
    run_job(job, RunControl())
    manifest = verify_adapter(job / "adapter")
    assert manifest.base_model == f"{short_base.source}#yarn:{factor:g}"
    assert manifest.hyperparameters["rope_scaling_factor"] == factor
    assert (
        manifest.base_model_hash
        == fingerprint(locate(manifest.base_model))
        != fingerprint(short_base)
    )
    assert json.loads((job / "run.json").read_text())["base_model"] == manifest.base_model
    config = json.loads((job / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == short_base.source
    served = locate(manifest.base_model)
    PeftSwitcher(load_model(served, "float32"), fingerprint(served)).load(
        AdapterRef("ada", "v1", job / "adapter")
    )


def test_a_length_that_no_scaling_gives_is_refused(tmp_path, tiny_base):
    shutil.copytree(tiny_base.source, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": 8})
    )
    with pytest.raises(RequestError, match="rope_scaling_factor is at most 8"):
        run_job(
            job_with(tmp_path / "job", locate(str(tmp_path / "model"))),
            RunControl(),
        )


def test_an_adapter_is_served_over_its_own_scaling_alone(tmp_path, short_base):
    twice = apply_rope_factor(short_base, 2.0)
    adapter = make_adapter(tmp_path, twice, "ada", "v1", seed=1)
    plain = PeftSwitcher(load_model(short_base, "float32"), fingerprint(short_base))
    with pytest.raises(AdapterError, match=r"another base model \(.*#yarn:2\)"):
        plain.load(adapter)
    PeftSwitcher(load_model(twice, "float32"), fingerprint(twice)).load(adapter)


# ------------------------------------------------------------------------------------------ exports


def exported(folder, kind, *to):
    plain = make_model(TINY_MODELS["SmolLM2"], folder / "base")
    base = locate(f"{plain.name}#{kind}:4")
    adapter = make_sealed(TINY_MODELS["SmolLM2"], base, folder / "sealed")
    for target in to:
        report = export_adapter(adapter, target, folder / target, None, None, lambda text: None)
        assert report.outcome.difference.max_abs < 0.2


@pytest.mark.parametrize("kind", ["dynamic", "yarn"])
def test_gguf_says_how_positions_are_scaled(tmp_path, kind):
    exported(tmp_path, kind, "gguf", "gguf-lora")
    reader = GGUFReader(tmp_path / "gguf")
    assert reader.get_field("llama.context_length").contents() == 4 * 2048
    scaling = reader.get_field("llama.rope.scaling.type")
    if kind == "dynamic":
        assert scaling is None and reader.get_field("llama.rope.freq_base").contents() > 20_000
    else:
        assert (scaling.contents(), reader.get_field("llama.rope.scaling.factor").contents()) == (
            kind,
            4.0,
        )
    result = "--rope-freq-base" if kind == "dynamic" else f"--rope-scaling {kind} --rope-scale 4"
    assert result in json.loads((tmp_path / "gguf-lora.export.json").read_text())["notes"][0]


def test_a_merged_model_is_scaled_and_an_adapter_says_how(tmp_path):
    exported(tmp_path, "yarn", "merged", "adapter")
    merged = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (
        merged["max_position_embeddings"] == 4 * 2048
        and merged["rope_parameters"]["rope_type"] == "yarn"
    )
    readme = (tmp_path / "adapter" / "README.md").read_text()
    assert f"Base model: `{tmp_path / 'base'}`" in readme and "'rope_type': 'yarn'" in readme


def test_a_plan_says_which_factor_would_do(short_base, tmp_path, command):
    (tmp_path / "ada.toml").write_text(ADA)
    (tmp_path / "talk.json").write_text(export_of(talks(16)))
    sign(tmp_path / "talk.json")
    words = (
        "plan",
        "--persona",
        "ada.toml",
        "--source",
        "talk.json",
        "--base-model",
        short_base.source,
        "--json",
    )
    for settings, said in ((), True), (("--set", "rope_scaling_factor=8"), False):
        result = json.loads(command(*words, *settings)[1])
        (own,) = [recipe for recipe in result["recipes"] if recipe["recipe"] == result["recipe"]]
        warned = [
            warning
            for warning in own["warnings"]
            if f"reads {OWN}. Set rope_scaling_factor=" in warning
        ]
        assert bool(warned) == said and result["tokens_per_sample"]["max"] > OWN
