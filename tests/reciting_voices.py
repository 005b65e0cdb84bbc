"""Adapters of a tiny model that recite: each has a sentence of words that no other one has, so that a
reply tells, word by word, which adapter spoke, and whether a word is missing or said twice.

The model reads only the last token, so that a sentence is the same after any talk. What a prompt's
cached keys and values are of does therefore not show in the words; the leak probe tells that.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import BaseModel, locate
from personas.models.loading import load_model
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef, Turn
from tests.effect_probes import measure_probe, open_parts
from tests.tiny_models import make_tiny_model, manifest_over

WIDTH = 128
COMMON_TOKENS = 8_000
"""Tokens of the vocabulary whose words are frequent."""
WORD = re.compile(r"Ġ[a-z]{4,8}")
SENTENCE_WORDS = 24
STEPS = 150
MAX_LOSS = 0.02
"""Nats per token of the trained sentence."""
ADAPTED = ["gate_proj", "up_proj", "down_proj"]
TAIL_TOKENS = 12
"""The end of a prompt: the message's end, and where the reply begins."""
Voice = tuple[str, str]
"""A persona and a version."""


def choose_sentences(tokenizer: Any, voices: list[Voice]) -> dict[Voice, str]:
    """Give each voice words of one token each, which no other voice has."""
    tokens = tokenizer.convert_ids_to_tokens(range(COMMON_TOKENS))
    words = [token[1:] for token in tokens if WORD.fullmatch(token)]
    chosen = random.Random(0).sample(words, SENTENCE_WORDS * len(voices))
    return {
        voice: " ".join(chosen[at * SENTENCE_WORDS : (at + 1) * SENTENCE_WORDS])
        for at, voice in enumerate(voices)
    }


def make_reciting_versions(
    home: Path, base: BaseModel, renderer: Renderer, sentences: Mapping[Voice, str]
) -> dict[Voice, AdapterRef]:
    """Train a version for each sentence, with its effect probe, and install it in a home."""
    torch.set_num_threads(1)  # so small a model is slower on more
    parts = open_parts(base)
    versions = {}
    for voice, sentence in sentences.items():
        versions[voice] = _train(home, base, renderer, voice=voice, sentence=sentence)
        measure_probe(parts, versions[voice], base, renderer.tokenizer)
    parts.close()
    return versions


def make_reciting_base(folder: Path, tokenizer: Any) -> BaseModel:
    """Write the two-layer model that the versions are trained over: its attention adds nothing."""
    make_tiny_model(folder, tokenizer, width=WIDTH)
    base = locate(str(folder))
    model = load_model(base, "bfloat16")
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    model.save_pretrained(folder)
    return locate(str(folder))


def _train(
    home: Path, base: BaseModel, renderer: Renderer, *, voice: Voice, sentence: str
) -> AdapterRef:
    """Train an adapter to recite a sentence after any text."""
    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=ADAPTED, task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base, "float32"), lora)
    adapted = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(adapted, lr=5e-3)
    tail = renderer.prompt(None, [Turn("Bo", "hello")]).ids[-TAIL_TOKENS:]
    spoken = renderer.tokenizer(sentence, add_special_tokens=False)["input_ids"]
    reply = torch.tensor([*spoken, *renderer.end_ids])
    text = torch.tensor([[*tail, *reply.tolist()]])
    for _ in range(STEPS):
        logits = model(text, logits_to_keep=len(reply) + 1).logits[0, :-1]
        loss = cross_entropy(logits, reply)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < MAX_LOSS, "the sentence is not learned"
    ref = adapter_ref(home, *voice)
    with atomic_folder(ref.folder) as aside:
        model.save_pretrained(aside)
        write_manifest(aside, manifest_over(base, *voice))
    return ref
