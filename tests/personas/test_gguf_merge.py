"""A LoRA file merged into its base model's GGUF file."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from personas.errors import ExportError
from personas.models.gguf_format import GgufTensor, open_gguf, read_tensor, write_gguf
from personas.models.gguf_header import read_value
from personas.models.gguf_merge import merge_lora, merged_bytes

RNG = np.random.default_rng(5)
SHAPES = {
    "token_embd.weight": ((96, 64), GGMLQuantizationType.Q4_0),
    "blk.0.attn_q.weight": ((64, 64), GGMLQuantizationType.Q4_0),
    "blk.0.attn_norm.weight": ((64,), GGMLQuantizationType.F32),
    "blk.0.ffn_up.weight": ((160, 64), GGMLQuantizationType.F16),
    "blk.0.ffn_down.weight": ((64, 160), GGMLQuantizationType.Q5_1),
}


def write(path, tensors, describe):
    entries = [
        GgufTensor(name, values.shape, kind, lambda values=values: values)
        for name, (values, kind) in tensors.items()
    ]
    write_gguf(path, "llama", describe, entries)
    return path


@pytest.fixture
def base(tmp_path):
    tensors = {
        name: (RNG.normal(size=shape).astype(np.float32), kind)
        for name, (shape, kind) in SHAPES.items()
    }

    def describe(writer: GGUFWriter) -> None:
        writer.add_name("a base")
        writer.add_file_type(2)
        writer.add_token_list([f"token {at}" for at in range(96)])

    return write(tmp_path / "base.gguf", tensors, describe)


@pytest.fixture
def lora(tmp_path):
    """Over the feed-forward layers, at alpha 16 and rank 4."""
    tensors = {}
    for name in ("blk.0.ffn_up.weight", "blk.0.ffn_down.weight"):
        (rows, columns), _ = SHAPES[name]
        for side, shape in (("lora_a", (4, columns)), ("lora_b", (rows, 4))):
            values = RNG.normal(size=shape).astype(np.float32) / 8
            tensors[f"{name}.{side}"] = (values, GGMLQuantizationType.F32)

    def describe(writer: GGUFWriter) -> None:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 16.0)

    return write(tmp_path / "lora.gguf", tensors, describe)


def test_adapted_matrices_have_the_product_and_all_else_is_as_it_was(base, lora, tmp_path):
    merged = tmp_path / "merged.gguf"
    merge_lora(base, lora, merged)
    before, after = open_gguf(base), open_gguf(merged)
    sides = {tensor.name: read_tensor(tensor) for tensor in open_gguf(lora).tensors}
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, list(old.shape)) == (new.name, list(new.shape))
        if f"{old.name}.lora_a" not in sides:
            assert old.tensor_type == new.tensor_type
            assert np.array_equal(old.data, new.data)
            continue
        delta = 4.0 * sides[f"{old.name}.lora_b"] @ sides[f"{old.name}.lora_a"]
        wanted = read_tensor(old) + delta
        largest = np.abs(wanted).max()
        assert np.abs(read_tensor(new) - wanted).max() < largest / 200
        assert np.abs(delta).max() > largest / 20, "the test would pass without"
    kinds = {tensor.name: tensor.tensor_type for tensor in after.tensors}
    assert kinds["blk.0.ffn_down.weight"] == GGMLQuantizationType.Q8_0
    assert kinds["blk.0.ffn_up.weight"] == GGMLQuantizationType.F16
    assert read_value(after, "general.name") == "a base"
    assert read_value(after, "general.file_type") == 7
    assert read_value(after, "tokenizer.ggml.tokens") == read_value(before, "tokenizer.ggml.tokens")
    assert merged.stat().st_size <= merged_bytes(base) + 64


def test_an_adapter_of_another_base_is_refused(base, lora, tmp_path):
    with pytest.raises(ExportError, match="architecture"):
        other = write(
            tmp_path / "other.gguf",
            {"blk.0.ffn_up.weight": (np.zeros((32, 32), np.float32), GGMLQuantizationType.F32)},
            lambda writer: writer.add_name("other"),
        )
        write_gguf(other, "qwen2", lambda writer: None, [])
        merge_lora(other, lora, tmp_path / "merged.gguf")
