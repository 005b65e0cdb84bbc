"""Damaged, ill-fitting and malicious adapters, made from a good one by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE

PREFIX = "base_model.model.model.layers"
DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8",
    torch.int32: "I32", torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


@dataclass
class HostileAdapter:
    """An adapter's files before they are written; `raw` replaces the weights file, `header` entries
    of its header.
    """

    kind: str
    is_harmless: bool
    config: Any
    tensors: dict[str, Any]
    draw: random.Random
    header: dict[str, Any] = field(default_factory=dict)
    raw: Callable[[bytes], bytes] = lambda content: content

    def pick(self, side: str = "") -> str:
        """Choose the name of a tensor; `side` is lora_A, lora_B or nothing."""
        return self.draw.choice(sorted(name for name in self.tensors if side in name))

    def pair(self) -> tuple[str, str]:
        a = self.pick("lora_A")
        return a, a.replace("lora_A", "lora_B")

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config if isinstance(self.config, bytes) else json.dumps(self.config).encode()
        (folder / CONFIG_FILE).write_bytes(config)
        (folder / WEIGHTS_FILE).write_bytes(self.raw(pack(self.tensors, self.header)))


def pack(tensors: dict[str, Any], header: dict[str, Any]) -> bytes:
    """Write safetensors by hand: save_file refuses much of what a stranger may send."""
    entries = {}
    parts = []
    end = 0
    for name, tensor in tensors.items():
        content = (
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            if tensor.numel()
            else b""
        )
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                         "data_offsets": [end, end + len(content)]}  # fmt: skip
        parts.append(content)
        end += len(content)
    head = json.dumps(
        {**entries, **{name: {**entries.get(name, {}), **it} for name, it in header.items()}}
    ).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(parts)


Spoil = Callable[[HostileAdapter], None]
HARMFUL: dict[str, Spoil] = {}
HARMLESS: dict[str, Spoil] = {}


def harmful(spoil: Spoil) -> Spoil:
    HARMFUL[spoil.__name__] = spoil
    return spoil


def harmless(spoil: Spoil) -> Spoil:
    HARMLESS[spoil.__name__] = spoil
    return spoil


# --------------------------------------------------------------------------------- shapes and ranks


@harmful
def ranks_of_a_and_b_differ(it: HostileAdapter) -> None:
    a, b = it.pair()
    it.tensors[b] = torch.ones(len(it.tensors[b]), len(it.tensors[a]) + it.draw.randrange(1, 5))


@harmful
def rank_is_not_the_configs(it: HostileAdapter) -> None:
    it.config["r"] = it.draw.choice([1, 2, 3, 8, 64])


@harmful
def rank_is_only_another_modules(it: HostileAdapter) -> None:
    a, b = it.pair()
    rank = it.draw.choice([2, 8])
    it.config["rank_pattern"] = {"no_such_proj": rank}
    it.tensors[a], it.tensors[b] = (
        torch.ones(rank, it.tensors[a].shape[1]),
        torch.ones(len(it.tensors[b]), rank),
    )


@harmful
def rank_is_zero(it: HostileAdapter) -> None:
    a, b = it.pair()
    it.config["r"] = it.draw.choice([0, 4])
    it.tensors[a], it.tensors[b] = it.tensors[a][:0], it.tensors[b][:, :0]


@harmful
def rank_is_beyond_the_bound(it: HostileAdapter) -> None:
    it.config["r"] = rank = it.draw.choice([257, 1000])
    for name in it.tensors:
        rows, columns = it.tensors[name].shape
        it.tensors[name] = torch.ones(rank, columns) if "lora_A" in name else torch.ones(rows, rank)


@harmful
def rank_in_the_config_is_absurd(it: HostileAdapter) -> None:
    it.config[it.draw.choice(["r", "lora_alpha"])] = it.draw.choice(
        [10**9, -4, 2.5e300, True, "4", [4], {"a": 1}]
    )


@harmful
def tensor_has_other_widths(it: HostileAdapter) -> None:
    name = it.pick()
    it.tensors[name] = torch.ones(
        [size + it.draw.choice([0, 1, 7]) + 1 for size in it.tensors[name].shape]
    )


@harmful
def tensor_has_other_dimensions(it: HostileAdapter) -> None:
    name = it.pick()
    shape = it.tensors[name].shape
    it.tensors[name] = it.tensors[name].reshape(
        it.draw.choice([(1, *shape), (*shape, 1), (-1,), shape[::-1]])
    )


@harmful
def tensor_is_a_number(it: HostileAdapter) -> None:
    it.tensors[it.pick()] = torch.tensor(1.0)


@harmful
def tensor_is_empty(it: HostileAdapter) -> None:
    name = it.pick()
    it.tensors[name] = it.tensors[name][: 0 if it.draw.random() < 0.5 else None, :0]


# ---------------------------------------------------------------------------------- names


@harmful
def base_weight_is_replaced(it: HostileAdapter) -> None:
    """Peft would load it over the weights that all guilds share."""
    it.tensors[f"{PREFIX}.{it.draw.randrange(2)}.self_attn.q_proj.base_layer.weight"] = torch.zeros(
        64, 64
    )


@harmful
def base_module_is_replaced(it: HostileAdapter) -> None:
    name, shape = it.draw.choice([
        ("base_model.model.model.norm.weight", (64,)),
        (f"{PREFIX}.0.mlp.up_proj.weight", (128, 64)),
        (f"{PREFIX}.0.mlp.up_proj.bias", (128,)),
        (f"{PREFIX}.0.self_attn.q_proj.lora_B.bias", (64,)),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, 9)),
    ])  # fmt: skip
    it.tensors[name] = torch.zeros(shape)


@harmful
def module_is_not_in_the_base_model(it: HostileAdapter) -> None:
    names = ("layers.9.", "layers.-1.", "layers.0.mlp.", "layers.0..self_attn.", "layers.00.")
    old = it.pair()
    new = it.draw.choice(names)
    for name in old:
        head, _, tail = name.partition("layers.")
        it.tensors[f"{head}{new}{tail.partition('.')[2]}"] = it.tensors.pop(name)


@harmful
def name_is_unknown(it: HostileAdapter) -> None:
    name = it.draw.choice(["x", "", "../../x", "a" * 5000, "__class__", f"{PREFIX}.0.self_attn.q_proj.lora_C.weight",
                           "lora_A", "\x00\n", "q_proj.lora_A.weight"])  # fmt: skip
    it.tensors[name] = torch.ones(4, 64)


@harmful
def names_overlap(it: HostileAdapter) -> None:
    name = it.pick()
    other = it.draw.choice([name.removesuffix(".weight"), name.removeprefix("base_model.model."),
                            name.replace(".weight", ".default.weight")])  # fmt: skip
    it.tensors[other] = it.tensors[name] * 2


@harmful
def one_side_is_missing(it: HostileAdapter) -> None:
    del it.tensors[it.pick()]


@harmful
def nothing_is_in_it(it: HostileAdapter) -> None:
    it.tensors.clear()


@harmful
def magnitudes_without_dora(it: HostileAdapter) -> None:
    a, b = it.pair()
    it.tensors[a.replace("lora_A.weight", "lora_magnitude_vector")] = torch.ones(len(it.tensors[b]))


@harmful
def dora_without_fitting_magnitudes(it: HostileAdapter) -> None:
    it.config["use_dora"] = True
    for name in [name for name in it.tensors if "lora_B" in name]:
        size = it.draw.choice([(1,), (3, 3), (len(it.tensors[name]) + 1,)])
        it.tensors[name.replace("lora_B.weight", "lora_magnitude_vector")] = torch.ones(size)


# ---------------------------------------------------------------------------------- numbers


@harmful
def numbers_are_of_another_kind(it: HostileAdapter) -> None:
    name = it.pick()
    kinds = [kind for kind in DTYPES if kind not in (torch.float32, torch.float16, torch.bfloat16)]
    it.tensors[name] = torch.ones(it.tensors[name].shape).to(it.draw.choice(kinds))


@harmful
def a_number_is_not_finite(it: HostileAdapter) -> None:
    name = it.pick()
    tensor = it.tensors[name].clone()
    tensor.view(-1)[it.draw.randrange(tensor.numel())] = it.draw.choice(
        [torch.nan, torch.inf, -torch.inf]
    )
    it.tensors[name] = tensor.to(it.draw.choice([torch.float32, torch.float16, torch.bfloat16]))


@harmful
def a_number_is_out_of_range(it: HostileAdapter) -> None:
    it.tensors[it.pick()].view(-1)[0] = it.draw.choice([1e30, -3e38, 70_000.0])


@harmful
def numbers_overflow_when_scaled(it: HostileAdapter) -> None:
    it.config["lora_alpha"] = 9_999
    it.tensors[it.pick("lora_B")].fill_(60_000.0)


@harmful
def alpha_is_no_scale(it: HostileAdapter) -> None:
    wrong = it.draw.choice([float("nan"), float("inf"), -8, 0, 1e30, "8", None, []])
    if it.draw.random() < 0.5:
        it.config["lora_alpha"] = wrong
    else:
        it.config["alpha_pattern"] = {"q_proj": wrong}


# -------------------------------------------------------------------------------- the configuration


@harmful
def config_is_more_than_lora(it: HostileAdapter) -> None:
    it.config |= it.draw.choice([
        {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True},
        {"peft_type": "IA3"}, {"peft_type": "PROMPT_TUNING"}, {"peft_type": None}, {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2]]}, {"megatron_config": {"a": 1}}, {"trainable_token_indices": [1]},
        {"target_parameters": ["x"]}, {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"layers_to_transform": [0]}, {"exclude_modules": ["q_proj"]}, {"use_qalora": True}, {"fan_in_fan_out": True},
    ])  # fmt: skip
    if it.config.get("auto_mapping"):
        it.config["modules_to_save"] = ["x"]  # an import removes the mapping


@harmful
def config_names_no_modules(it: HostileAdapter) -> None:
    wrong = it.draw.choice(
        ["(a+)+$", [], None, ["(a+)+$"], [1], {"q_proj": 1}, ["q_proj\n"], "all-linear"]
    )
    name = it.draw.choice(["target_modules", "rank_pattern", "alpha_pattern"])
    it.config[name] = (
        wrong
        if name == "target_modules"
        else it.draw.choice([{"(a+)+$": 4}, ["q_proj"], {"q_proj": {}}])
    )


@harmful
def config_is_no_object(it: HostileAdapter) -> None:
    it.config = it.draw.choice(
        [[], "lora", 7, None, {}, b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"r": 1e999}']
    )


# ---------------------------------------------------------------------------------- the file


@harmful
def file_is_cut(it: HostileAdapter) -> None:
    share = it.draw.choice([0.0, 0.1, 0.5, 0.99])
    it.raw = lambda content: content[: int(len(content) * share)]


@harmful
def file_is_longer(it: HostileAdapter) -> None:
    more = b"\0" * it.draw.choice([1, 8, 4096])
    it.raw = lambda content: content + more


@harmful
def file_is_none(it: HostileAdapter) -> None:
    other = it.draw.choice(
        [b"", b"\0" * 8, b"weights", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 99, b"GGUF" * 20]
    )
    it.raw = lambda _: other


@harmful
def header_is_huge(it: HostileAdapter) -> None:
    if it.draw.random() < 0.5:
        claimed = it.draw.choice([2**63, 2**31, 10**8 + 1, 2**64 - 1])
        it.raw = lambda content: claimed.to_bytes(8, "little") + content[8:]
    else:
        it.header["__metadata__"] = {"x": "y" * 5_000_000}


@harmful
def header_is_inconsistent(it: HostileAdapter) -> None:
    name = it.pick()
    it.header[name] = it.draw.choice([
        {"data_offsets": [0, 4]}, {"data_offsets": [8, 0]}, {"data_offsets": [0, 2**63]}, {"data_offsets": [-4, 4]},
        {"shape": [4, 1_000_000]}, {"shape": [2**62, 4]}, {"shape": [-4, -64]}, {"dtype": "F16"}, {"dtype": "X9"},
        {"shape": "4, 64"}, {"data_offsets": []},
    ])  # fmt: skip


@harmful
def header_is_not_json(it: HostileAdapter) -> None:
    head = it.draw.choice(
        [b"", b"[]", b"{", b"\xff" * 9, b'{"a": null}', b"[" * 50_000, b'{"__metadata__": 7}']
    )
    it.raw = lambda _: len(head).to_bytes(8, "little") + head


@harmful
def header_has_a_key_twice(it: HostileAdapter) -> None:
    name = it.pick()
    twice = json.dumps(name) + ': {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '

    def raw(content: bytes) -> bytes:
        end = 8 + int.from_bytes(content[:8], "little")
        head = b"{" + twice.encode() + content[9:end]
        head = head.replace(b'"shape": [4', b'"shape": [5', 1)
        return len(head).to_bytes(8, "little") + head + content[end:]

    it.raw = raw


# ---------------------------------------------------------------------------------- harmless


@harmless
def unchanged(it: HostileAdapter) -> None:
    return


@harmless
def stored_in_16_bits(it: HostileAdapter) -> None:
    kind = it.draw.choice([torch.float16, torch.bfloat16])
    it.tensors = {name: tensor.to(kind) for name, tensor in it.tensors.items()}


@harmless
def fewer_modules(it: HostileAdapter) -> None:
    for name in it.pair():
        del it.tensors[name]


@harmless
def another_order_and_metadata(it: HostileAdapter) -> None:
    names = it.draw.sample(sorted(it.tensors), len(it.tensors))
    it.tensors = {name: it.tensors[name] for name in names}
    it.header["__metadata__"] = {"format": "pt", "note": "x" * it.draw.randrange(1000)}


@harmless
def ranks_by_pattern(it: HostileAdapter) -> None:
    a, b = it.pair()
    rank = it.draw.choice([1, 7, 80])
    it.config["rank_pattern"] = {
        a.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): rank
    }
    it.tensors[a] = torch.full((rank, it.tensors[a].shape[1]), 0.01)
    it.tensors[b] = torch.full((len(it.tensors[b]), rank), 0.01)


@harmless
def dora_with_its_magnitudes(it: HostileAdapter) -> None:
    it.config["use_dora"] = True
    for name in [name for name in it.tensors if "lora_B" in name]:
        it.tensors[name.replace("lora_B.weight", "lora_magnitude_vector")] = torch.ones(
            len(it.tensors[name])
        )


def hostile_adapters(good: Path, count: int, seed: int) -> Iterator[HostileAdapter]:
    """Yield adapters of every kind in turn, each with other details. `good` is the folder of one
    that fits.
    """
    from safetensors.torch import load_file

    config = (good / CONFIG_FILE).read_text(encoding="utf-8")
    tensors = load_file(good / WEIGHTS_FILE)
    kinds = [*HARMFUL.items(), *HARMLESS.items()]
    for number in range(count):
        kind, spoil = kinds[number % len(kinds)]
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        it = HostileAdapter(
            kind, kind in HARMLESS, json.loads(config), copies, random.Random(f"{seed}:{number}")
        )
        spoil(it)
        yield it
