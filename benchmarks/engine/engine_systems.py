"""Measures one system in its own process: `python -m benchmarks.engine.engine_systems SYSTEM FOLDER COUNTS`."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.engine.engine_workload import CHAT_COUNTS, NEW_TOKENS, BenchChat, load_chats
from personas.models import base_model
from personas.models.base_model import EMBEDDED
from personas.schemas.chat import ChatReply, ChatRequest, SamplingParams, Turn

GREEDY_SAMPLING = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=NEW_TOKENS, stop_loops=False)


class TokenTimer:
    """When the first and the last token of each chat came, in seconds from the start, and how many did."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.tokens: Counter[int] = Counter()

    def see(self, chat: int) -> None:
        """A token of a chat has come now."""
        self.last[chat] = time.perf_counter() - self.began
        self.first.setdefault(chat, self.last[chat])
        self.tokens[chat] += 1

    def figures(self) -> dict[str, Any]:
        """Tokens per second, from the start to the last token, and of each chat the time to the first token and the
        mean time of those after it, in seconds.
        """
        each = [
            (self.last[chat] - self.first[chat]) / (tokens - 1) for chat, tokens in self.tokens.items() if tokens > 1
        ]
        return {
            "tokens_per_s": self.tokens.total() / max(self.last.values()),
            "ttft_s": sorted(self.first.values()),
            "token_s": sorted(each),
        }


# -------------------------------------------------------------------------------------------------- peft


class PeftSystem:
    """transformers and peft; nothing is cached."""

    def __init__(self, folder: Path) -> None:
        from personas.engine.peft_runner import PeftSwitcher

        base = base_model.locate(EMBEDDED)
        self.adapted = PeftSwitcher(base_model.load_model(base, "bfloat16"), "", keep=max(CHAT_COUNTS))
        for chat in load_chats(folder, max(CHAT_COUNTS)):
            self.adapted.attach(chat.adapter)

    def generate(self, prompts: Sequence[Sequence[int]], each: Callable[[], None], **more: Any) -> None:
        """`generate`, greedily; `each` hears of every new token (of all rows)."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        class Heard(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                each()
                return torch.zeros(len(prompts), dtype=torch.bool)

        ids = torch.tensor(prompts)
        with torch.inference_mode():
            self.adapted.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
                eos_token_id=None, pad_token_id=0, stopping_criteria=StoppingCriteriaList([Heard()]), **more,
            )  # fmt: skip


class PeftSwitch(PeftSystem):
    """What one writes first: `set_adapter`, `generate`, next."""

    def measure(self, talks: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """One chat after the other."""
        watch = TokenTimer()
        for at, chat in enumerate(talks):
            self.adapted._peft.set_adapter(chat.adapter.name)
            self.generate([chat.prompt], lambda at=at: watch.see(at))  # type: ignore[misc]
        return watch


class PeftMixed(PeftSystem):
    """peft's batch with an adapter name for each row."""

    def measure(self, talks: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """All chats in one batch."""
        watch = TokenTimer()

        def each() -> None:
            for at in range(len(talks)):
                watch.see(at)

        names = [chat.adapter.name for chat in talks]
        self.generate([chat.prompt for chat in talks], each, adapter_names=names)
        return watch


class BaseOnly(PeftSystem):
    """`generate` of the base model alone, without any adapter."""

    def __init__(self, folder: Path) -> None:
        from personas.engine.peft_runner import PeftSwitcher

        self.adapted = PeftSwitcher(base_model.load_model(base_model.locate(EMBEDDED), "bfloat16"), "")

    def measure(self, talks: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """One chat after the other."""
        watch = TokenTimer()
        for at, chat in enumerate(talks):
            self.generate([chat.prompt], lambda at=at: watch.see(at))  # type: ignore[misc]
        return watch


# -------------------------------------------------------------------------------------------------- ours


class BenchSink:
    """Who waits for a reply, with a watch."""

    def __init__(self, chat: int, watch: TokenTimer) -> None:
        self.chat, self.watch, self.cancelled = chat, watch, threading.Event()

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            raise piece

    def finish(self, reply: ChatReply) -> None:
        return


class EngineSystem:
    """The engine's batch, with the work of streaming."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        from personas.engine.cpu_kernel import kernel_runner
        from personas.engine.engine_core import build_engine_parts
        from personas.engine.lora_slots import read_unverified_adapter
        from personas.engine.scheduler import SchedulerLimits
        from personas.engine.serving_precision import choose_precision
        from personas.models.serving_model import load_serving_model
        from personas.prompt import Renderer

        base = base_model.locate(EMBEDDED)
        self.precision = choose_precision("auto", base.name).precision
        model = load_serving_model(base, self.precision)
        self.tokenizer = Renderer(base_model.load_tokenizer(base)).tokenizer
        self.parts = build_engine_parts(
            model,
            "",
            SchedulerLimits(rows=max(CHAT_COUNTS), **limits),
            slots=max(CHAT_COUNTS),
            prefix_bytes=2**30,
        )
        stacked = self.parts.stacked
        assert stacked is not None  # the embedded model is a Llama
        for chat in load_chats(folder, max(CHAT_COUNTS)):
            self.parts.load_adapter(read_unverified_adapter(chat.adapter, stacked.linears))
        if kernel_runner.supports_model(model):
            kernel_runner.compile_kernel(lambda library: kernel_runner.enable_kernel(library, stacked))
        self.kernel = stacked.kernel is not None

    def measure(self, talks: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """All chats at once."""
        for chat in talks:
            self._forget(chat)
        if cached:
            self._run([BenchChat(chat.adapter, chat.before, []) for chat in talks], TokenTimer())
        watch = TokenTimer()
        self._run(talks, watch)
        return watch

    def _run(self, talks: Sequence[BenchChat], watch: TokenTimer) -> None:
        for at, chat in enumerate(talks):
            self.add(chat, BenchSink(at, watch))
        while self.parts.batch.step():
            pass

    def add(
        self, chat: BenchChat, heard: BenchSink, guild_id: int = 0, ended: Callable[[], None] = lambda: None
    ) -> None:
        """Have a chat wait for its turn. The end of turn does not end it."""
        from personas.engine.sequence import Sequence as EngineSequence
        from personas.engine.sequence import StreamingDetokenizer

        class Text(StreamingDetokenizer):
            def append(self, token: int) -> None:
                heard.watch.see(heard.chat)
                super().append(token)

        endless: Any = SimpleNamespace(tokenizer=self.tokenizer, stop_ids=())
        request = ChatRequest(None, (Turn("", ""),), (), chat.adapter, GREEDY_SAMPLING, guild_id)
        self.parts.batch.scheduler.add(
            EngineSequence(request, tuple(chat.prompt), 0, heard, Text(endless, (), heard.push), ended)
        )

    def _forget(self, chat: BenchChat) -> None:
        stacked = self.parts.stacked
        if stacked and stacked.prefixes:
            stacked.prefixes.drop_adapter(chat.adapter.name)


SYSTEM_FACTS = ("kernel", "precision")
"""What is told of a system beside its figures."""

SYSTEMS: dict[str, Callable[[Path], Any]] = {
    "switching": PeftSwitch,
    "mixed": PeftMixed,
    "bare": BaseOnly,
    "ours": EngineSystem,
}


def main() -> int:
    """Measure one system on all workloads, after a short warm-up."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    counts = [int(count) for count in sys.argv[3].split(",")]
    base_model.load_torch()
    system = SYSTEMS[name](folder)
    system.measure(load_chats(folder, 2), False)
    found = {}
    for count in counts:
        for cached in (False, True) if name == "ours" else (False,):
            watch = system.measure(load_chats(folder, count), cached)
            found[f"{count} {'cached' if cached else 'cold'}"] = watch.figures()
    how = {name: getattr(system, name, None) for name in SYSTEM_FACTS}
    print(json.dumps({**how, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
