"""Requests that come and go at random, and what peft says to each of them when it is asked alone."""

from __future__ import annotations

import copy
import random
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from personas.engine.engine_core import EngineParts, build_engine_parts
from personas.engine.kv_cache import CacheShape
from personas.engine.lora_slots import StackedLora
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.scheduler import Scheduler, SchedulerLimits
from personas.engine.sequence import Sequence
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import BaseModel, fingerprint, load_model
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, SamplingParams, Turn
from tests.tiny import make_adapter, manifest_over

LENGTH = 14
"""New tokens of the longest replies."""
CLOSE = 1e-4
"""In float32 another order of summing may choose otherwise between logits that lie so near to each other."""


@dataclass(frozen=True)
class Question:
    """A prompt under an adapter, the tokens that peft answers with, and by how much each was the best."""

    adapter: AdapterRef | None
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    leads: tuple[float, ...]

    def first_close(self) -> int:
        """Where float32 may first go another way."""
        return next((at for at, lead in enumerate(self.leads) if lead < CLOSE), LENGTH)


class House:
    """A tiny model, adapters of several ranks, and questions that peft has answered one by one, greedily."""

    def __init__(self, home: Path, base: BaseModel, dtype: torch.dtype, *, adapters: int = 4, prompts: int = 6) -> None:
        self.hash = fingerprint(base)
        self.model = load_model(base, "float32").to(dtype)
        self.refs = [
            make_adapter(home, base, "p", f"v{n}", seed=n, rank=(4, 2, 9, 16, 1)[n % 5]) for n in range(adapters)
        ]
        dice = random.Random(0)
        shared = [dice.randrange(1000) for _ in range(60)]
        drawn = [[dice.randrange(1000) for _ in range(dice.randrange(1, 40))] for _ in range(prompts)]
        self.prompts = [tuple(shared[: dice.choice((0, 20, 60))] + own) for own in drawn]
        alone = PeftSwitcher(copy.deepcopy(self.model), self.hash, keep=adapters)
        self.questions = [ask(alone, ref, prompt) for ref in (None, *self.refs) for prompt in self.prompts]

    def parts(self, limits: SchedulerLimits, slots: int, prefix_bytes: int) -> EngineParts:
        """An engine of its own over the same weights."""
        model = copy.deepcopy(self.model, {id(weight): weight for weight in self.model.parameters()})
        return build_engine_parts(model, self.hash, limits, slots=slots, prefix_bytes=prefix_bytes)


def special_adapter(home: Path, base: BaseModel, version: str, **settings: Any) -> AdapterRef:
    """An adapter with settings of peft's own, whose weights are far from nothing."""
    model = get_peft_model(load_model(base, "float32"), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(weight, std=0.5)
    ref = adapter_ref(home, "p", version)
    with atomic_folder(ref.folder) as aside:
        model.save_pretrained(aside)
        write_manifest(aside, manifest_over(base, "p", version))
    return ref


def ask(alone: PeftSwitcher, ref: AdapterRef | None, prompt: tuple[int, ...]) -> Question:
    """What peft's `set_adapter` and transformers' `generate` say."""
    ids = torch.tensor([prompt])
    with alone.use(ref), torch.inference_mode():
        out = alone.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH,
            eos_token_id=None, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    best = torch.cat(out.logits).topk(2).values
    leads = (best[:, 0] - best[:, 1]).tolist()
    return Question(ref, prompt, tuple(out.sequences[0, len(prompt) :].tolist()), tuple(leads))


@dataclass
class Asked:
    """A question on its way through a batch: who waits for it, and its text, which here is its tokens."""

    question: Question
    length: int
    tokens_made: list[int] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    reply: ChatReply | None = None
    error: Exception | None = None
    ends: int = 0
    since: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    stopped = repeated = False
    text = ""

    def sequence(self, guild_id: int = 0, **sampling: Any) -> Sequence:
        turns = (Turn("Bo", "hello"),)
        greedy = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=self.length)
        request = ChatRequest(None, turns, (), self.question.adapter, replace(greedy, **sampling), guild_id)
        return Sequence(request, self.question.prompt, 0, self, self, self.count_end)

    @property
    def tokens(self) -> int:
        return len(self.tokens_made)

    def append(self, token: int) -> None:
        self.tokens_made.append(token)

    def flush(self) -> None:
        return

    def begin(self) -> bool:
        self.waited_s = time.monotonic() - self.since
        return not self.cancelled.is_set()

    def push(self, piece: object) -> None:
        assert isinstance(piece, Exception)
        self.error = piece

    def finish(self, reply: ChatReply) -> None:
        self.reply = reply

    def count_end(self) -> None:
        self.ends += 1


def play(house: House, seed: int) -> list[Asked]:
    """One random schedule, played to its end."""
    dice = random.Random(seed)
    limits = SchedulerLimits(
        rows=dice.randrange(1, 9), prefill_tokens=dice.randrange(1, 40), solo_prefill_tokens=dice.choice((7, 500))
    )
    parts = house.parts(limits, slots=dice.randrange(1, 5), prefix_bytes=dice.choice((0, 40_000, 10**8)))
    asked: list[Asked] = []
    for _ in range(dice.randrange(1, 14)):
        happens = dice.random()
        if happens < 0.55:
            asked.append(Asked(dice.choice(house.questions), dice.randrange(1, LENGTH + 1)))
            parts.batch.scheduler.add(asked[-1].sequence(dice.randrange(3)))
        elif happens < 0.7 and asked:
            dice.choice(asked).cancelled.set()
        for _ in range(dice.choice((0, 1, 1, 2, 5))):
            parts.batch.step()
    run_out(parts)
    parts.lora.close()
    return asked


def run_out(parts: EngineParts, seconds: float = 60.0) -> None:
    """Step until nobody runs or waits."""
    until = time.monotonic() + seconds
    while parts.batch.running or parts.batch.waiting:
        assert time.monotonic() < until, "somebody is starved"
        if not parts.batch.step():
            time.sleep(0.001)


def differences(asked: list[Asked]) -> tuple[int, list[str]]:
    """How many replies went another way where the best two were close, and what is simply wrong."""
    close, wrong = 0, []
    for at, one in enumerate(asked):
        expected = one.question.answer[: len(one.tokens_made)]
        whole = len(one.tokens_made) == one.length or one.cancelled.is_set()
        if one.error or one.ends != 1 or not whole:
            wrong.append(f"{at}: {one.error!r}, ended {one.ends} times after {len(one.tokens_made)} of {one.length}")
        elif tuple(one.tokens_made) != expected:
            first = next(n for n, token in enumerate(expected) if token != one.tokens_made[n])
            if first >= one.question.first_close():
                close += 1
            else:
                wrong.append(f"{at}: token {first} is {one.tokens_made[first]}, not {expected[first]}")
    return close, wrong


def poison(monkeypatch: Any) -> None:
    """Fill all memory that is new, freed or evicted with what spoils whatever reads it."""
    new_memory, finish, put = CacheShape.new_memory, Scheduler.finish, StackedLora.put

    def poisoned_finish(scheduler: Any, seq: Any) -> None:
        finish(scheduler, seq)
        seq.kv.memory.fill_(torch.nan)

    def poisoned_put(stack: Any, slot: int, weights: Any) -> None:
        for pair in stack.pairs.values():
            for tensor in pair:
                tensor[slot : slot + 1] = torch.nan
        put(stack, slot, weights)

    monkeypatch.setattr(CacheShape, "new_memory", lambda self, tokens: new_memory(self, tokens).fill_(torch.nan))
    monkeypatch.setattr(Scheduler, "finish", poisoned_finish)
    monkeypatch.setattr(StackedLora, "put", poisoned_put)
