"""Workload: prompts of 200 tokens that share 150 with their persona, and one adapter per chat; and long
prompts, of one chat each.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from personas.models.base_model import EMBEDDED, BaseModel, load_config, locate
from personas.models.loading import load_tokenizer
from personas.schemas.chat import AdapterRef

CHAT_COUNTS = (1, 8, 32)
PERSONA_TOKENS = 150
PROMPT_TOKENS = 200
NEW_TOKENS = 64
LONG_CONTEXTS = (4096, 8192)
"""Tokens of a long prompt and its reply."""
NEW_MESSAGE_TOKENS = 100
"""Last tokens of a long prompt, which its earlier prompt lacks: a talk that goes on."""
RANK = 16
ALPHA = 32
SYSTEM_FACTS = ("kernel", "precision")
"""Facts in a system's figures that are no measurements."""
WORDS = "The harbour keeps its lamps lit for whoever comes late, and the kettle on for whoever asks. ".split()


@dataclass(frozen=True)
class BenchChat:
    """A chat: its adapter, its prompt, and an earlier prompt that shares the persona's tokens."""

    adapter: AdapterRef
    prompt: list[int]
    earlier_prompt: list[int]


def write_workload(
    folder: Path,
    base: BaseModel | None = None,
    chats: int = max(CHAT_COUNTS),
    device: str = "cpu",
) -> None:
    """Write prompts and adapters (random weights, rank 16 on all linear layers) unless they exist,
    for the embedded model or another one. `device` draws the weights.
    """
    if (folder / "prompts.json").exists():
        return
    base = base or locate(EMBEDDED)
    tokenizer = load_tokenizer(base)
    with torch.device("meta"):  # adapters depend on the shapes of the layers alone
        model = AutoModelForCausalLM.from_config(load_config(base))
    prompts = [[_prompt(tokenizer, chat, ask) for ask in range(2)] for chat in range(chats)]
    for chat in range(chats):
        write_adapter(folder / f"adapter-{chat}", model, chat, device=device)
    (folder / "prompts.json").write_text(json.dumps(prompts))


def load_chats(folder: Path, count: int) -> list[BenchChat]:
    """Read the first `count` chats of the workload."""
    prompts = json.loads((folder / "prompts.json").read_text())[:count]
    refs = [AdapterRef(f"bench{at}", "v1", folder / f"adapter-{at}") for at in range(count)]
    return [
        BenchChat(ref, prompt, earlier)
        for ref, (prompt, earlier) in zip(refs, prompts, strict=True)
    ]


def long_chat(folder: Path, context: int) -> BenchChat:
    """Return a chat whose prompt and reply fill a context, with the first chat's adapter."""
    first = load_chats(folder, 1)[0]
    repeated = first.prompt * (context // PROMPT_TOKENS + 1)
    # Each repetition differs from the one before it.
    prompt = [token + at // PROMPT_TOKENS for at, token in enumerate(repeated)]
    prompt = prompt[: context - NEW_TOKENS]
    return BenchChat(first.adapter, prompt, prompt[:-NEW_MESSAGE_TOKENS])


def _prompt(tokenizer: Any, chat: int, ask: int) -> list[int]:
    """Build a prompt: 150 tokens of a persona, then 50 of a question."""
    persona = " ".join(WORDS[(at * (chat + 3)) % len(WORDS)] for at in range(2 * PERSONA_TOKENS))
    question = " ".join(
        WORDS[(at * (ask + 5) + chat) % len(WORDS)] for at in range(2 * PERSONA_TOKENS)
    )
    parts = [
        tokenizer(f"You are number {chat}. {persona}")["input_ids"],
        tokenizer(f"{ask}: {question}")["input_ids"],
    ]
    return [*parts[0][:PERSONA_TOKENS], *parts[1][: PROMPT_TOKENS - PERSONA_TOKENS]]


def write_adapter(folder: Path, model: Any, seed: int, *, device: str = "cpu") -> None:
    """Write an adapter with small random weights of rank 16 on all linear layers of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(seed)
    tensors: dict[str, Any] = {}
    targets = set()
    for name, linear in model.named_modules():
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            a = torch.empty(RANK, linear.in_features, device=device)
            a.uniform_(-1, 1, generator=generator).div_(math.sqrt(linear.in_features))
            shape = (linear.out_features, RANK)
            b = torch.randn(shape, generator=generator, device=device) * 0.02
            key = f"base_model.model.{name}"
            tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
            targets.add(name.rpartition(".")[2])
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none",
              "target_modules": sorted(targets), "inference_mode": True}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
