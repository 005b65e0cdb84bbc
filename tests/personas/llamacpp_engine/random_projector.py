"""A vision projector of random weights: llama.cpp sees pictures with it, though not what is on them.

It is the smallest of the kind that LLaVA has: a vision transformer and two linear layers, in the names
of llama.cpp's tools/mtmd/clip-impl.h.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

PIXELS = 56
PATCH_PIXELS = 14
PICTURE_TOKENS = (PIXELS // PATCH_PIXELS) ** 2
SIZE = 32
HEADS = 2
SPREAD = 0.1


def write_projector(file: Path, width: int, seed: int = 0, name: str = "") -> Path:
    """Write a projector into embeddings of a model's `width`, of the model's name if it has one."""
    writer = GGUFWriter(file, "clip")
    if name:
        writer.add_string("general.name", name)
        writer.add_string("general.basename", name.split("-")[0])
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    settings = {
        "image_size": PIXELS,
        "patch_size": PATCH_PIXELS,
        "embedding_length": SIZE,
        "feed_forward_length": 2 * SIZE,
        "projection_dim": width,
        "block_count": 1,
        "attention.head_count": HEADS,
    }
    for name, value in settings.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    generator = np.random.default_rng(seed)
    for name, shape in _shapes(width).items():
        drawn = SPREAD * generator.standard_normal(shape)
        if name.endswith(("ln.weight", "ln1.weight", "ln2.weight")):
            drawn += 1
        writer.add_tensor(name, drawn.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (SIZE, 3, PATCH_PIXELS, PATCH_PIXELS),
        "v.position_embd.weight": (PICTURE_TOKENS, SIZE),
    }
    linear = {
        **{f"v.blk.0.attn_{name}": (SIZE, SIZE) for name in ("q", "k", "v", "out")},
        "v.blk.0.ffn_up": (2 * SIZE, SIZE),
        "v.blk.0.ffn_down": (SIZE, 2 * SIZE),
        "mm.0": (width, SIZE),
        "mm.2": (width, width),
    }
    for name, (out, into) in linear.items():
        shapes[f"{name}.weight"] = (out, into)
        shapes[f"{name}.bias"] = (out,)
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (SIZE,)
    return shapes
