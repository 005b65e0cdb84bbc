"""The configurations that predictions are compared with measured runs on: each differs from the rest in what counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from personas.job_material import ShippedData

PERSONA, DIALOGUE = "ballast", ShippedData.beside_the_code().general / "dialogue.jsonl"
EMBEDDED, MIDDLE, LARGE = "embedded", "llama-30m", "qwen2-340m"

LONG_TALKS: Mapping[str, object] = MappingProxyType({"history_turns": 64, "session_gap_minutes": 720})
"""Few conversations, which prompts show as far back as they may."""

SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        MIDDLE: {
            "model_type": "llama",
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
        },
        LARGE: {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 20,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
    }
)
"""Models with random weights: what they take does not depend on what they have learned."""


@dataclass(frozen=True)
class Case:
    """A run of a few steps. `what` is it trained on: `persona` or `dialogue`; `settings` differ from demo-cpu's."""

    name: str
    what: str
    settings: Mapping[str, object]
    base: str = EMBEDDED
    steps: int = field(default=3)

    @property
    def words(self) -> list[str]:
        """For `python -m trainer train`."""
        of = ["--persona", PERSONA] if self.what == "persona" else ["--dialogue", "--dataset", str(DIALOGUE)]
        settings = {"max_steps": self.steps, "heldout_share": 0.06, **self.settings}
        return [*of, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def _batch(rows: int, accumulation: int = 1, /, **others: object) -> dict[str, object]:
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation, **others}


CASES = (
    Case("demo-cpu as it ships", "persona", {}),
    Case("demo-cpu as it ships, thirty steps", "persona", {}, steps=30),
    Case("one sample at a time", "persona", _batch(1, 4)),
    Case("activations computed twice", "persona", {"gradient_checkpointing": "true"}),
    Case("eight at a time, up to 512 tokens", "persona", _batch(8, max_length=512)),
    Case("up to 1024 tokens", "persona", _batch(2, max_length=1024, **LONG_TALKS)),
    Case("sixteen short ones, not quantised", "dialogue", _batch(16, max_length=160, quant_type="none")),
    Case("rank 64, optimiser in 8 bits", "dialogue", _batch(4, lora_r=64, optim="adamw_8bit")),
    Case("float32", "dialogue", _batch(2, precision="fp32", quant_type="none", lora_r=8)),
    Case("no dropout, attention only", "dialogue", _batch(8, lora_dropout=0, target_modules="q_proj,v_proj")),
    Case("30 M weights, sixteen at a time", "dialogue", _batch(16), MIDDLE),
    Case("340 M weights", "dialogue", _batch(2, 2), LARGE),
    Case("340 M weights, computed twice", "persona", _batch(2, 1, gradient_checkpointing="true"), LARGE, steps=2),
)
QUICK = (CASES[0], CASES[2], CASES[10])
"""What takes a minute or two."""


def make_model(name: str, folder: Path) -> None:
    """A model of one of `SHAPES`, its weights random, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from personas.base_model import load_tokenizer, locate

    tokenizer = load_tokenizer(locate(EMBEDDED))
    shape = dict(SHAPES[name])
    config = AutoConfig.for_model(
        shape.pop("model_type"),
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        **shape,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
