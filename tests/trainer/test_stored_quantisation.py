"""Base models that are stored quantised: known before the start, trained, served and merged
unpacked, or refused.
"""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from bot.training.request_checks import _base_model_error
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import BaseModelError
from personas.models.base_model import fingerprint, locate
from personas.models.loading import load_model, load_tokenizer
from personas.models.serving_model import load_serving_model, precision_of
from personas.models.stored_quantisation import StoredQuantisation, stored_quantisation
from personas.schemas.chat import AdapterRef
from tests.model_families import OTHER_FAMILIES
from tests.tiny_models import manifest_over, write_adapter
from tools.tiny_models import TINY_MODELS, make_model
from trainer.doctor.machine_checks import check_base_model
from trainer.export.exporter import ExportRequest, export_merged
from trainer.export.loaded_adapter import open_adapter
from trainer.recipe.model_fit import match_target_modules
from trainer.report.adapter_docs import _stored_form
from trainer.train.sft_trainer import load_quantised

LINEARS = ("_proj.weight",)
BLOCK = 128
FORMS = ("bnb-4bit", "bnb-8bit", "fp8", "gptq", "awq")
NAMES = {
    "bnb-4bit": "bitsandbytes 4-bit (nf4)",
    "bnb-8bit": "bitsandbytes 8-bit",
    "fp8": "FP8",
    "gptq": "GPTQ 4-bit",
    "awq": "AWQ 4-bit",
}
UNPACKED_OTHERWISE = ("bnb-4bit", "gptq")
"""A form that transformers unpacks, and one that is unpacked here."""
GROUP = 32
NIBBLE_ORDER = {"gptq": (0, 1, 2, 3, 4, 5, 6, 7), "awq": (0, 2, 4, 6, 1, 3, 5, 7)}
"""The value that each nibble of a word holds, lowest first (`awq`: AutoAWQ's order)."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_model(TINY_MODELS["SmolLM2"], tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def stored(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    for form in FORMS:
        write_stored(plain, form, folder / form)
    return {form: locate(str(folder / form)) for form in FORMS}


def write_stored(plain, form, folder) -> None:
    if form == "fp8":
        shutil.copytree(plain.folder, folder)
        write_fp8(folder)
        return
    if form in NIBBLE_ORDER:
        shutil.copytree(plain.folder, folder)
        write_integers(folder, form)
        return
    options = (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        if form == "bnb-4bit"
        else {"load_in_8bit": True}
    )
    model = AutoModelForCausalLM.from_pretrained(
        plain.source,
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(**options),
        device_map={"": "cpu"},
    )
    model.save_pretrained(folder)
    load_tokenizer(plain).save_pretrained(folder)


def write_fp8(folder) -> None:
    """Weights of e4m3 with the inverse scale of each block of 128 x 128, as DeepSeek's and Qwen's
    FP8 models have.
    """
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(LINEARS)]:
        weight = weights[name].float()
        scale = weight.abs().max() / torch.finfo(torch.float8_e4m3fn).max
        blocks = [-(-size // BLOCK) for size in weight.shape]
        weights[name] = (weight / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = torch.full(blocks, float(scale))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": settings}), encoding="utf-8"
    )


def words(values, form) -> torch.Tensor:
    """Pack rows of eight values below 16 into words, a nibble at a time as the formats state."""
    packed = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int64)
    for place, value in enumerate(NIBBLE_ORDER[form]):
        packed |= values[:, value::8].long() << (4 * place)
    return (packed - ((packed >= 2**31).long() << 32)).to(torch.int32)


def write_integers(folder, form, layout="") -> None:
    """Weights of four bits with a scale and a zero point for each group of inputs."""
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(LINEARS)]:
        weight = weights.pop(name).float()
        outputs, inputs = weight.shape
        grouped = weight.view(outputs, inputs // GROUP, GROUP)
        low = grouped.amin(2)
        scale = ((grouped.amax(2) - low) / 15).half().float()
        zero = (-low / scale).round().clamp(1, 15)
        values = (grouped / scale[..., None] + zero[..., None]).round().clamp(0, 15)
        values = values.view(outputs, inputs)
        layer = name.removesuffix(".weight")
        if form == "awq":
            weights[f"{layer}.qweight"] = words(values.T, form)
            weights[f"{layer}.qzeros"] = words(zero.T, form)
        else:
            weights[f"{layer}.qweight"] = words(values, form).T.contiguous()
            stored_zero = zero if layout == "gptq_v2" else zero - 1
            weights[f"{layer}.qzeros"] = words(stored_zero.T, form)
            weights[f"{layer}.g_idx"] = (torch.arange(inputs) // GROUP).int()
        weights[f"{layer}.scales"] = scale.T.half().contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = {"quant_method": form, "bits": 4, "group_size": GROUP}
    if layout:
        settings["checkpoint_format"] = layout
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": settings}), encoding="utf-8"
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_known_without_loading_and_the_size_is_the_unpacked_one(plain, stored, form):
    base = stored[form]
    assert base.quantisation and base.quantisation.name == NAMES[form]
    assert base.quantisation.can_be_unpacked
    assert base.weight_bytes == pytest.approx(plain.weight_bytes, rel=0.1)
    check = check_base_model(str(base.folder))
    assert check.state == "ok" and f"is stored in {NAMES[form]}" in check.found


@pytest.mark.parametrize("form", FORMS)
def test_it_is_loaded_unpacked_and_saved_plain(plain, stored, form, tmp_path):
    ids = torch.tensor([list(range(5, 25))])
    with torch.inference_mode():
        expected = load_model(plain, "float32")(input_ids=ids).logits
        model = load_model(stored[form], "float32")
        found = model(input_ids=ids).logits
    assert {type(it) for name, it in model.named_modules() if name.endswith("_proj")} == {
        torch.nn.Linear
    }
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert (found - expected).norm() < 0.35 * expected.norm(), (
        "the values are those of the plain model, rounded"
    )
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads(
        (tmp_path / "config.json").read_text(encoding="utf-8")
    )
    with torch.inference_mode():
        assert torch.equal(
            load_model(locate(str(tmp_path)), "float32")(input_ids=ids).logits, found
        )


@pytest.mark.parametrize("form", UNPACKED_OTHERWISE)
def test_rotary_frequencies_are_not_rounded(plain, stored, form):
    as_stored = load_model(stored[form], "bfloat16").model.rotary_emb.inv_freq
    assert torch.equal(as_stored, load_model(plain, "bfloat16").model.rotary_emb.inv_freq)


@pytest.mark.parametrize("form", FORMS)
def test_the_manifest_says_what_the_adapter_was_trained_over(plain, stored, form, recipe):
    job = SimpleNamespace(base=stored[form])
    settings, _ = match_target_modules(recipe, stored[form])
    assert _stored_form(job, settings) == NAMES[form] + (
        "" if form == "bnb-4bit" else ", unpacked,"
    )
    assert _stored_form(SimpleNamespace(base=plain), recipe) == "nf4"


@pytest.mark.parametrize("form", FORMS)
def test_it_is_trained_and_served_over_the_same_values(stored, form, recipe):
    base = stored[form]
    settings, _ = match_target_modules(recipe.model_copy(update={"precision": "fp32"}), base)
    assert (settings.quant_type, settings.double_quant) == (
        ("nf4" if form == "bnb-4bit" else "none"),
        False,
    )
    trained = load_quantised(base, settings)
    served = load_serving_model(base, "float32", "cpu")
    assert precision_of(served) == "float32"
    for (name, one), (_, other) in zip(
        trained.named_parameters(), served.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert precision_of(load_serving_model(base, "int8", "cpu")) == "int8"


@pytest.mark.parametrize("form", UNPACKED_OTHERWISE)
def test_a_merged_export_is_plain(stored, form, tmp_path):
    base = stored[form]
    write_adapter(tmp_path / "adapter", base, manifest_over(base, None, "v1"), seed=1)
    with open_adapter(tmp_path / "adapter", None) as source:
        export_merged(ExportRequest(source, tmp_path / "merged", "f16", lambda text: None))
    merged = locate(str(tmp_path / "merged"))
    assert merged.quantisation is None
    ids = torch.tensor([list(range(5, 25))])
    adapted = PeftSwitcher(load_model(base, "float32"), fingerprint(base))
    with torch.inference_mode(), adapted.use(AdapterRef("dialogue", "v1", tmp_path / "adapter")):
        expected = adapted.model(input_ids=ids).logits
    found = load_model(merged, "float32")(input_ids=ids).logits
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_experts_in_four_bits_are_unpacked_too(tmp_path):
    """gpt-oss: blocks of 32 weights of e2m1 with a power of two each."""
    made = make_model(OTHER_FAMILIES["gpt-oss"], tmp_path / "model")
    weights = load_file(made.folder / "model.safetensors")
    for name in [
        name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))
    ]:
        experts, inner, outer = weights.pop(name).shape
        weights[f"{name}_blocks"] = torch.randint(
            0, 256, (experts, outer, inner // 32, 16), dtype=torch.uint8
        )
        weights[f"{name}_scales"] = torch.full(
            (experts, outer, inner // 32), 122, dtype=torch.uint8
        )
    save_file(weights, made.folder / "model.safetensors", {"format": "pt"})
    config = json.loads((made.folder / "config.json").read_text(encoding="utf-8"))
    (made.folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}})
    )
    base = locate(str(made.folder))
    assert base.quantisation and base.quantisation.name == "MXFP4"
    assert base.weight_bytes == pytest.approx(made.weight_bytes, rel=0.01)
    model = load_model(base, "float32")
    ids = torch.tensor([list(range(5, 25))])
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "saved")
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        assert torch.equal(
            load_model(locate(str(tmp_path / "saved")), "float32")(input_ids=ids).logits, expected
        )


def test_both_versions_of_gptq_have_the_same_values(plain, stored, tmp_path):
    """The first stores zero points less one."""
    shutil.copytree(plain.folder, tmp_path / "v2")
    write_integers(tmp_path / "v2", "gptq", "gptq_v2")
    second = load_model(locate(str(tmp_path / "v2")), "float32")
    first = load_model(stored["gptq"], "float32")
    for (name, one), (_, other) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_groups_of_gptq_may_be_in_any_order(plain, tmp_path):
    """Models made with `desc_act` name the group of each input."""
    shutil.copytree(plain.folder, tmp_path / "model")
    write_integers(tmp_path / "model", "gptq")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    layer = "model.layers.0.self_attn.q_proj"
    before = load_model(locate(str(tmp_path / "model")), "float32").get_submodule(layer).weight
    weights[f"{layer}.g_idx"] = weights[f"{layer}.g_idx"].flip(0).contiguous()
    save_file(weights, file, {"format": "pt"})
    after = load_model(locate(str(tmp_path / "model")), "float32").get_submodule(layer).weight
    scales = weights[f"{layer}.scales"].float()
    shown = (weights[f"{layer}.qweight"][0, 0] & 15).item()
    zero = (weights[f"{layer}.qzeros"][-1, 0] & 15).item() + 1
    assert after[0, 0].item() == pytest.approx(scales[-1, 0].item() * (shown - zero), abs=1e-6)
    assert not torch.equal(before, after)


def test_integers_that_are_cut_off_are_named(plain, tmp_path):
    shutil.copytree(plain.folder, tmp_path / "model")
    write_integers(tmp_path / "model", "awq")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.self_attn.q_proj.scales"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"AWQ 4-bit weights .* cannot be read"):
        load_model(locate(str(tmp_path / "model")), "float32")


def test_a_missing_package_is_named_with_what_to_do_elsewhere(plain, tmp_path, monkeypatch):
    shutil.copytree(plain.folder, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    file.write_text(json.dumps({**config, "quantization_config": settings}), encoding="utf-8")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    base = locate(str(tmp_path / "model"))
    with pytest.raises(BaseModelError, match="the package that unpacks them is not") as refused:
        load_model(base, "float32")
    assert 'pip install "compressed-tensors>=0.15.0"' in refused.value.advice
    assert "ENGINE=vllm" in refused.value.advice
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert base.quantisation.can_be_unpacked


def test_what_cannot_be_unpacked_is_refused_by_name_before_anything_is_loaded(
    plain, recipe, tmp_path
):
    shutil.copytree(plain.folder, tmp_path / "model")
    config = json.loads((plain.folder / "config.json").read_text(encoding="utf-8"))
    settings = {"quant_method": "gptq", "bits": 3}
    (tmp_path / "model/config.json").write_text(
        json.dumps({**config, "quantization_config": settings}), "utf-8"
    )
    base = locate(str(tmp_path / "model"))
    with pytest.raises(BaseModelError, match=r"GPTQ 3-bit.*16 bits"):
        load_model(base, "float32")
    with pytest.raises(
        BaseModelError, match="GPTQ 3-bit"
    ):  # so does a plan, whatever its samples are from
        match_target_modules(recipe, base)
    check = check_base_model(str(base.folder))
    assert check.state == "fail" and "GPTQ 3-bit" in check.found
    refused = _base_model_error(str(base.folder))
    assert refused and "GPTQ 3-bit" in refused.message


@pytest.mark.parametrize(
    ("files", "form", "name"),
    [
        (
            {"config.json": {"quantization_config": {"quant_method": "awq", "bits": 4}}},
            ("awq", 4),
            "AWQ 4-bit",
        ),
        ({"quantize_config.json": {"bits": 8}}, ("gptq", 8), "GPTQ 8-bit"),
        ({"quant_config.json": {"w_bit": 4}}, ("awq", 4), "AWQ 4-bit"),
        (
            {"config.json": {"text_config": {"quantization_config": {"quant_method": "MXFP4"}}}},
            ("mxfp4",),
            "MXFP4",
        ),
        (
            {"config.json": {"quantization_config": {"quant_method": "compressed-tensors"}}},
            ("compressed-tensors",),
            "",
        ),
        (
            {
                "config.json": {
                    "quantization_config": {
                        "quant_method": "compressed-tensors",
                        "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
                    }
                }
            },
            ("compressed-tensors", 4),
            "compressed-tensors 4-bit",
        ),
        ({"config.json": {"quantization_config": {}}}, ("an unnamed quantisation",), ""),
        (
            {"config.json": {"quantization_config": {"load_in_8bit": True}}},
            ("bitsandbytes", 8),
            "bitsandbytes 8-bit",
        ),
        ({"config.json": {"quantization_config": None}}, None, ""),
        ({"config.json": []}, None, ""),
    ],
)
def test_forms_are_read_wherever_they_are_stated(tmp_path, files, form, name):
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    found = stored_quantisation(tmp_path)
    assert found == (form and StoredQuantisation(*form))
    assert not name or found.name == name
