"""Random schedules of requests, and peft's reply to each of them alone as the reference."""

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

from personas.engine.engine_parts import EngineParts, build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.kv_cache import CacheShape, SequenceKVCache
from personas.engine.lora_slots import StackedLora
from personas.engine.paged_kv import RESERVED_BLOCKS, KVPool
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.scheduler import Scheduler
from personas.engine.sequence import Sequence
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import BaseModel, fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, SamplingParams, Turn
from tests.tiny_models import make_adapter, manifest_over

LENGTH = 14
"""New tokens of the longest replies."""
CLOSE = 1e-4
"""Difference between the two best logits below which another order of sums may change the choice in
float32.
"""


@dataclass(frozen=True)
class Question:
    """A prompt under an adapter, peft's tokens, and the lead of each token's logit over the second
    best.
    """

    adapter: AdapterRef | None
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    leads: tuple[float, ...]

    def first_close(self) -> int:
        """Return the first position at which float32 may choose another token."""
        return next((at for at, lead in enumerate(self.leads) if lead < CLOSE), LENGTH)


class ReferenceModel:
    """A tiny model, adapters of several ranks, and questions that peft answered one by one,
    greedily.
    """

    def __init__(
        self,
        home: Path,
        base: BaseModel,
        dtype: torch.dtype,
        *,
        adapters: int = 4,
        prompts: int = 6,
    ) -> None:
        self.hash = fingerprint(base)
        self.model = load_model(base, "float32").to(dtype)
        self.refs = [
            make_adapter(home, base, "p", f"v{n}", seed=n, rank=(4, 2, 9, 16, 1)[n % 5])
            for n in range(adapters)
        ]
        generator = random.Random(0)
        shared = [generator.randrange(1000) for _ in range(60)]
        drawn = [
            [generator.randrange(1000) for _ in range(generator.randrange(1, 40))]
            for _ in range(prompts)
        ]
        self.prompts = [tuple(shared[: generator.choice((0, 20, 60))] + own) for own in drawn]
        alone = PeftSwitcher(copy.deepcopy(self.model), self.hash, keep=adapters)
        self.questions = [
            ask(alone, ref, prompt) for ref in (None, *self.refs) for prompt in self.prompts
        ]

    def parts(self, limits: SchedulerLimits, slots: int, prefix_bytes: int) -> EngineParts:
        """Build an engine over the same weights."""
        model = copy.deepcopy(
            self.model, {id(weight): weight for weight in self.model.parameters()}
        )
        return build_engine_parts(model, self.hash, limits, slots=slots, prefix_bytes=prefix_bytes)


def special_adapter(home: Path, base: BaseModel, version: str, **settings: Any) -> AdapterRef:
    """Write an adapter with special settings of peft, whose weights are far from zero."""
    model = get_peft_model(
        load_model(base, "float32"), LoraConfig(task_type="CAUSAL_LM", **settings)
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(weight, std=0.5)
    ref = adapter_ref(home, "p", version)
    with atomic_folder(ref.folder) as aside:
        model.save_pretrained(aside)
        write_manifest(aside, manifest_over(base, "p", version))
    return ref


def ask(alone: PeftSwitcher, ref: AdapterRef | None, prompt: tuple[int, ...]) -> Question:
    """Generate greedily with peft's `set_adapter` and transformers' `generate`."""
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
class RecordedReply:
    """Sink and detokenizer of a question's sequence, which record its tokens and its end."""

    question: Question
    length: int
    generated: list[int] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    reply: ChatReply | None = None
    error: Exception | None = None
    ends: int = 0
    since: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    stopped = repeated = is_cut = False
    text = ""

    def sequence(self, guild_id: int = 0, member_id: int = 0, **sampling: Any) -> Sequence:
        turns = (Turn("Bo", "hello"),)
        greedy = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=self.length)
        sampling = replace(greedy, **sampling)
        request = ChatRequest(
            None, turns, (), self.question.adapter, sampling, guild_id, member_id=member_id
        )
        return Sequence(request, self.question.prompt, 0, self, self, self.count_end)

    @property
    def tokens(self) -> int:
        return len(self.generated)

    def append(self, token: int) -> None:
        self.generated.append(token)

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


def play(reference: ReferenceModel, seed: int) -> list[RecordedReply]:
    """Play one random schedule to its end."""
    generator = random.Random(seed)
    limits = SchedulerLimits(
        rows=generator.randrange(1, 9),
        prefill_tokens=generator.randrange(1, 40),
        solo_prefill_tokens=generator.choice((7, 500)),
    )
    parts = reference.parts(
        limits, slots=generator.randrange(1, 5), prefix_bytes=generator.choice((0, 40_000, 10**8))
    )
    parts.batch.has_arrivals = lambda: generator.random() < 0.3
    recorded: list[RecordedReply] = []
    for _ in range(generator.randrange(1, 14)):
        happens = generator.random()
        if happens < 0.55:
            recorded.append(
                RecordedReply(
                    generator.choice(reference.questions), generator.randrange(1, LENGTH + 1)
                )
            )
            parts.batch.scheduler.add(recorded[-1].sequence(generator.randrange(3)))
        elif happens < 0.7 and recorded:
            generator.choice(recorded).cancelled.set()
        elif happens < 0.8:
            prepared = generator.choice(reference.questions)
            parts.batch.warmer.add(prepared.adapter, prepared.prompt, is_talk=True)
        for _ in range(generator.choice((0, 1, 1, 2, 5))):
            parts.batch.step()
    run_to_end(parts)
    parts.lora.close()
    return recorded


def run_to_end(parts: EngineParts, seconds: float = 60.0) -> None:
    """Step until no request runs or waits."""
    until = time.monotonic() + seconds
    while parts.batch.running or parts.batch.waiting:
        assert time.monotonic() < until, "a request is starved"
        if not parts.batch.step():
            time.sleep(0.001)


def differences(recorded: list[RecordedReply]) -> tuple[int, list[str]]:
    """Count the replies that differ where the two best logits are close, and describe all that are
    wrong.
    """
    close = 0
    wrong = []
    for at, one in enumerate(recorded):
        expected = one.question.answer[: len(one.generated)]
        whole = len(one.generated) == one.length or one.cancelled.is_set()
        if one.error or one.ends != 1 or not whole:
            wrong.append(
                f"{at}: {one.error!r}, ended {one.ends} times after {len(one.generated)} of "
                f"{one.length}"
            )
        elif tuple(one.generated) != expected:
            first = next(n for n, token in enumerate(expected) if token != one.generated[n])
            if first >= one.question.first_close():
                close += 1
            else:
                wrong.append(
                    f"{at}: token {first} is {one.generated[first]}, not {expected[first]}"
                )
    return close, wrong


def poison(monkeypatch: Any) -> None:
    """Fill new, freed and evicted memory with NaN, which spoils all that reads it."""
    new_memory = CacheShape.new_memory
    open_pool = KVPool.__init__
    release = KVPool._release
    finish = Scheduler.finish
    put = StackedLora.put

    def poisoned_finish(scheduler: Any, seq: Any) -> None:
        finish(scheduler, seq)
        if isinstance(seq.kv, SequenceKVCache):
            seq.kv.memory.fill_(torch.nan)

    def poisoned_pool(pool: Any, *settings: Any) -> None:
        open_pool(pool, *settings)
        pool.memory[:, :, RESERVED_BLOCKS:] = torch.nan

    def poisoned_release(pool: Any, number: int) -> None:
        pool.memory[:, :, number] = torch.nan
        release(pool, number)

    def poisoned_put(stack: Any, slot: int, weights: Any) -> None:
        for pair in stack.pairs.values():
            for tensor in pair:
                tensor[slot : slot + 1] = torch.nan
        put(stack, slot, weights)

    monkeypatch.setattr(
        CacheShape, "new_memory", lambda self, tokens: new_memory(self, tokens).fill_(torch.nan)
    )
    monkeypatch.setattr(KVPool, "__init__", poisoned_pool)
    monkeypatch.setattr(KVPool, "_release", poisoned_release)
    monkeypatch.setattr(Scheduler, "finish", poisoned_finish)
    monkeypatch.setattr(StackedLora, "put", poisoned_put)
