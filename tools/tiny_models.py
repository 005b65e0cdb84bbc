"""Two-layer models with random weights, one per architecture, for export parity and tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from personas.card.toml_card import SHIPPED_CARDS
from personas.home.adapters import write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import BaseModel, fingerprint, locate
from personas.models.loading import load_model
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.training import AdapterManifest
from personas.schemas.training_events import ScoreSummary
from trainer.export.gguf_vocabulary import LLAMA3_REGEX, QWEN2_REGEX

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = 512
PADDED_VOCABULARY = 544
"""More rows than tokens, as in Qwen models."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
    "}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN2_CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n{% endif %}" + CHATML
)
QWEN3_CHAT = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and enable_thinking is false "
    "%}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b "
    "%Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set talk "
    "= messages[1:] %}"
    "{% else %}{% set system = '' %}{% set talk = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ system "
    "}}<|eot_id|>"
    "{% for message in talk %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles "
    "alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 "
    "== 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') "
    "}}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3_CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
}


@dataclass(frozen=True)
class TinyModelSpec:
    """A model and the adapter on it. `control` are the control tokens: begin, end, then others."""

    name: str
    model_type: str
    template: str
    control: tuple[str, ...]
    split: Callable[[], Any] | None
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    lora: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def byte_level_split(regex: str) -> Callable[[], Any]:
    """Return the pre-tokenizer of a byte-level tokenizer that splits by this expression."""
    return lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _digits_and_bytes() -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )


CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
GEMMA_TOKENS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
TINY_MODELS = {
    kind.name: kind
    for kind in (
        TinyModelSpec("SmolLM2", "llama", CHATML, CHATML_TOKENS, _digits_and_bytes, {"tie_word_embeddings": True}),
        TinyModelSpec(
            "Llama 3.2", "llama", LLAMA3_CHAT, LLAMA3_TOKENS, byte_level_split(LLAMA3_REGEX),
            {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}, {"use_rslora": True},
        ),
        TinyModelSpec(
            "Llama 3.1", "llama", LLAMA3_CHAT, LLAMA3_TOKENS, byte_level_split(LLAMA3_REGEX),
            {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE},
            {"rank_pattern": {"q_proj": 3, "down_proj": 9}},
        ),
        TinyModelSpec("Qwen2.5", "qwen2", QWEN2_CHAT, CHATML_TOKENS, byte_level_split(QWEN2_REGEX),
                      {"vocab_size": PADDED_VOCABULARY}),
        TinyModelSpec(
            "Qwen2.5 with YaRN", "qwen2", QWEN2_CHAT, CHATML_TOKENS, byte_level_split(QWEN2_REGEX),
            {"rope_parameters": YARN_ROPE},
            {"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 5}},
        ),
        TinyModelSpec(
            "Qwen3", "qwen3", QWEN3_CHAT, CHATML_TOKENS, byte_level_split(QWEN2_REGEX),
            {"head_dim": 32, "tie_word_embeddings": True},
            {"use_rslora": True},
        ),
        TinyModelSpec(
            "Mistral", "mistral", MISTRAL_CHAT, ("<s>", "</s>"), None,
            {"tie_word_embeddings": False, "sliding_window": None}, {"use_rslora": True},
        ),
        TinyModelSpec(
            "Gemma 2", "gemma2", GEMMA_CHAT, GEMMA_TOKENS, byte_level_split(QWEN2_REGEX),
            {"head_dim": 16, "query_pre_attn_scalar": 16}, {"use_rslora": True},
        ),
        TinyModelSpec(
            "Phi-3", "phi3", PHI3_CHAT,
            ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
            byte_level_split(QWEN2_REGEX),
            lora={"target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]},
        ),
    )
}  # fmt: skip


def make_model(kind: TinyModelSpec, folder: Path, seed: int = 0) -> BaseModel:
    """Write a model of this kind in bf16 with its tokenizer, and return the folder."""
    tokenizer = make_tokenizer(kind)
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
    }
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(kind.model_type, **{**sizes, **ids, **kind.settings})
    model = AutoModelForCausalLM.from_config(config)
    for (
        name,
        weight,
    ) in (
        model.named_parameters()
    ):  # norms and biases begin as ones and zeros, where swaps do not show
        if weight.dim() == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5) if "norm" in name else torch.nn.init.normal_(
                weight, std=0.2
            )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return locate(str(folder))


def make_adapter(
    kind: TinyModelSpec, base: BaseModel, folder: Path, persona: str | None = "ballast"
) -> Path:
    """Write an adapter folder whose random weights clearly change the output."""
    torch.manual_seed(1)
    settings = {
        "r": 6,
        "lora_alpha": 16,
        "target_modules": list(LAYERS),
        "task_type": "CAUSAL_LM",
        **kind.lora,
    }
    model = get_peft_model(load_model(base, "float32"), LoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with atomic_folder(folder) as aside:
        model.save_pretrained(aside)
        write_manifest(aside, _manifest(base, persona))
    return folder


def make_tokenizer(kind: TinyModelSpec) -> Any:
    """Train a real tokenizer on the shipped cards."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SHIPPED_CARDS.glob("*.toml"))]
    made = _byte_level(kind, texts) if kind.split else _sentencepiece_like(kind, texts)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=kind.control[0],
        eos_token=kind.control[1],
        additional_special_tokens=list(kind.control[2:]),
        **({} if kind.split else {"unk_token": "<unk>"}),
    )
    tokenizer.chat_template = kind.template
    return tokenizer


def _byte_level(kind: TinyModelSpec, texts: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = kind.split() if kind.split else None
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(kind.control),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def _sentencepiece_like(kind: TinyModelSpec, texts: list[str]) -> Tokenizer:
    """Build a tokenizer like SentencePiece in transformers: spaces are letters, unknown letters
    become bytes.
    """
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learned = Tokenizer(models.BPE())
    learned.normalizer, learned.pre_tokenizer = (
        spaces,
        pre_tokenizers.Split("▁", "merged_with_next"),
    )
    learned.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY - 259, show_progress=False)
    )
    pieces = sorted(learned.get_vocab().items(), key=lambda item: item[1])
    names = [
        "<unk>",
        *kind.control,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *(piece for piece, _ in pieces),
    ]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [tuple(pair) for pair in _merges(learned)]
    made = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    made.normalizer = spaces
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.add_special_tokens(["<unk>", *kind.control])
    return made


def _merges(tokenizer: Tokenizer) -> list[Any]:
    import json

    merges: list[Any] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def _manifest(base: BaseModel, persona: str | None) -> AdapterManifest:
    return AdapterManifest(
        persona=persona,
        version="v1",
        job_id="parity",
        created_at="2026-01-01T00:00:00Z",
        base_model=base.name,
        base_model_hash=fingerprint(base),
        prompt_version=PROMPT_VERSION,
        lora={},
        recipe="none",
        hyperparameters={},
        training_precision="random weights",
        serving_precision="float32",
        dataset_hash="",
        dataset={},
        rights={},
        seed=0,
        packages={},
        metrics=ScoreSummary(
            heldout_replies=1,
            heldout_tokens=1,
            loss_base=1.0,
            loss_tuned=1.0,
            general_loss_base=1.0,
            general_loss_tuned=1.0,
            precision="float32",
        ),
        checksums={},
    )
