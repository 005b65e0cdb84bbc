"""Versions as LoRA files for llama.cpp: what they hold, and which are refused."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from personas.errors import AdapterError, ExportError
from personas.home import gguf_adapters
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, write_manifest
from personas.home.gguf_adapters import GgufAdapters
from personas.home.gguf_cache import (
    delete_gguf_adapters,
    gguf_adapter_files,
    gguf_adapter_path,
)
from personas.home.lora_checks import stored_linear_shapes
from personas.models.gguf_format import permute_rows
from personas.models.gguf_lora import GgufBase, require_fits_base
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef
from personas.schemas.training import AdapterManifest
from tools.tiny_models import TINY_MODELS, make_adapter, make_model
from trainer.export.gguf_model import write_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each family's base model, its GGUF file and an adapter, made when first asked for."""
    logging.getLogger("gguf").setLevel(logging.ERROR)
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("lora")
            base = make_model(TINY_MODELS[name], folder / "base")
            adapter = make_adapter(TINY_MODELS[name], base, folder / "adapter")
            file = folder / "base.gguf"
            renderer = Renderer(load_tokenizer(base))
            write_model(file, load_model(base, "float32"), renderer, quantise="q8_0", name=name)
            known[name] = base, file, AdapterRef("ballast", "v1", adapter)
        return known[name]

    return make


@pytest.fixture
def files(made, tmp_path):
    def open_files(name="SmolLM2", base_of=""):
        base, file, adapter = made(name)
        other = made(base_of)[1] if base_of else file
        adapters = GgufAdapters(tmp_path, base, other, stored_linear_shapes(base))
        return adapters, adapter

    return open_files


@pytest.fixture
def copied(made, tmp_path):
    """A copy of an adapter's folder to change; `seal` renews its checksums."""

    def copy(name="SmolLM2"):
        folder = tmp_path / "copy"
        shutil.copytree(made(name)[2].folder, folder)
        return folder

    return copy


def seal(folder):
    manifest = AdapterManifest.model_validate_json((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)


@pytest.mark.parametrize("name", ["SmolLM2", "Qwen3"])
def test_a_file_has_the_trained_matrices_and_fits_the_bases_file(files, made, name):
    adapters, adapter = files(name)
    path = adapters.write(adapter)
    require_fits_base(path, GgufBase.read(made(name)[1]))
    weights = load_file(adapter.folder / WEIGHTS_FILE)
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    assert len(tensors) == len(weights)
    key = "base_model.model.model.layers.1.self_attn.k_proj.lora_{}.weight"
    a, b = (weights[key.format(side)].float().numpy() for side in "AB")
    assert np.array_equal(tensors["blk.1.attn_k.weight.lora_a"], a)
    rows = permute_rows(b, 2) if name != "Qwen3" else b
    stored = tensors["blk.1.attn_k.weight.lora_b"]
    scale = stored[0, 0] / rows[0, 0]
    assert np.allclose(stored, rows * scale)


def test_it_is_written_once_and_again_for_another_adapter(files, copied):
    adapters, adapter = files()
    path = adapters.write(adapter)
    written_at = path.stat().st_mtime_ns
    assert adapters.write(adapter) == path and path.stat().st_mtime_ns == written_at
    folder = copied()
    weights = load_file(folder / WEIGHTS_FILE)
    save_file({key: tensor * 0.5 for key, tensor in weights.items()}, folder / WEIGHTS_FILE)
    seal(folder)
    other = adapters.write(replace(adapter, folder=folder))
    assert other != path and other.name.startswith("ballast-v1-")


def test_only_linear_lora_is_written(files, copied, tmp_path):
    adapters, adapter = files()
    folder = copied()
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "use_dora": True}))
    weights = load_file(folder / WEIGHTS_FILE)
    magnitudes = {
        key.replace("lora_B.weight", "lora_magnitude_vector"): tensor[:, 0].clone()
        for key, tensor in weights.items()
        if "lora_B" in key
    }
    save_file({**weights, **magnitudes}, folder / WEIGHTS_FILE)
    seal(folder)
    with pytest.raises(AdapterError, match="DoRA") as error:
        adapters.write(replace(adapter, folder=folder))
    assert "ENGINE=local" in error.value.advice
    assert not list(tmp_path.glob("cache/gguf_lora/*")), "nothing is left"


def test_a_damaged_version_is_not_written(files, copied, tmp_path):
    adapters, adapter = files()
    folder = copied()
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    with pytest.raises(AdapterError, match="damaged"):
        adapters.write(replace(adapter, folder=folder))
    assert not list(tmp_path.glob("cache/gguf_lora/*"))


def test_a_base_of_another_family_or_size_is_refused(files, made, tmp_path):
    adapters, adapter = files("Qwen3", base_of="SmolLM2")
    with pytest.raises(AdapterError, match=r"of the architecture qwen3, and .* is of llama"):
        adapters.write(adapter)
    path = files()[0].write(made("SmolLM2")[2])
    base = GgufBase.read(made("SmolLM2")[1])
    narrow = {**base.shapes, "blk.0.ffn_up.weight": (127, 64)}
    with pytest.raises(ExportError, match=r"128 × 64, which the base model's file has as 127 × 64"):
        require_fits_base(path, replace(base, shapes=narrow))
    del narrow["blk.0.ffn_up.weight"]
    with pytest.raises(ExportError, match=r"has no blk\.0\.ffn_up\.weight"):
        require_fits_base(path, replace(base, shapes=narrow))
    with pytest.raises(ExportError, match="is no LoRA adapter"):
        require_fits_base(made("SmolLM2")[1], base)


def test_what_the_disk_reads_back_otherwise_is_not_kept(files, monkeypatch, tmp_path):
    adapters, adapter = files()
    read = gguf_adapters.read_tensors

    def misread(path):
        alpha, tensors = read(path)
        tensors["blk.0.ffn_up.weight.lora_b"][0, 0] += 1
        return alpha, tensors

    monkeypatch.setattr(gguf_adapters, "read_tensors", misread)
    with pytest.raises(AdapterError, match=r"blk\.0\.ffn_up\.weight is not read back"):
        adapters.write(adapter)
    assert not list(tmp_path.glob("cache/gguf_lora/*"))


def test_a_damaged_file_is_written_anew(files):
    """With it no server starts, so that every version would be silent."""
    adapters, adapter = files()
    path = adapters.write(adapter)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"GGUF" + bytes(400)):
        path.write_bytes(damaged)
        assert adapters.write(adapter) == path and path.read_bytes() == content


def test_families_without_are_refused_with_the_reason(files, monkeypatch):
    adapters, adapter = files()
    for name, reason in {
        "Qwen3_5ForCausalLM": "value heads",
        "GPT2LMHeadModel": "are not known here",
    }.items():
        config = replace_architecture(adapters.config, name)
        other = GgufAdapters(adapters.home, adapters.base, adapters.file, adapters.layers)
        vars(other)["config"] = config
        with pytest.raises(AdapterError, match=reason) as error:
            other.write(adapter)
        assert "Known are LlamaForCausalLM" in error.value.advice


def replace_architecture(config, name):
    changed = type(config).from_dict(config.to_dict())
    changed.architectures = [name]
    return changed


def test_the_files_of_a_version_alone_are_deleted_with_it(tmp_path):
    digests = ("a" * 64, "b" * 64)
    names = ("ada-v1", "ada-v12", "ada-v1-v1", "dialogue/ada-v1")
    for name in names:
        for digest in digests:
            file = gguf_adapter_path(tmp_path, name, digest)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    delete_gguf_adapters(tmp_path, "ada-v1")
    left = {name: len(list(gguf_adapter_files(tmp_path, name))) for name in names}
    assert left == {"ada-v1": 0, "ada-v12": 2, "ada-v1-v1": 2, "dialogue/ada-v1": 2}
