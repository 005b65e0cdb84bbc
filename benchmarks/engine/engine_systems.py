"""Measures one system in its own process: `python -m benchmarks.engine.engine_systems SYSTEM FOLDER
COUNTS`. With the system `long`, COUNTS are the contexts of long prompts.

The caller sets OMP_WAIT_POLICY, which torch reads when it is imported.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from benchmarks.engine.engine_workload import (
    CHAT_COUNTS,
    NEW_TOKENS,
    SYSTEM_FACTS,
    BenchChat,
    load_chats,
    long_chat,
)
from personas.engine.cpu_kernel import kernel_runner
from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.lora_slots import read_unverified_adapter
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.sequence import Sequence as EngineSequence
from personas.engine.serving_precision import choose_precision
from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.loading import load_model, load_tokenizer
from personas.models.serving_model import load_serving_model
from personas.schemas.chat import ChatReply, ChatRequest, SamplingParams, Turn
from personas.schemas.training import ServingPrecision

GREEDY_SAMPLING = SamplingParams(
    temperature=0, repetition_penalty=1, max_new_tokens=NEW_TOKENS, stop_loops=False
)
MAX_CHATS = max(CHAT_COUNTS)


class TokenTimer:
    """Times of each chat's first and last token in seconds from the start, and numbers of
    tokens.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.tokens: Counter[int] = Counter()

    def count_token(self, chat: int) -> None:
        """Count a token that a chat has just received."""
        self.last[chat] = time.perf_counter() - self.start
        self.first.setdefault(chat, self.last[chat])
        self.tokens[chat] += 1

    def figures(self) -> dict[str, Any]:
        """Return tokens per second from the start to the last token, and two sorted lists of
        seconds over the chats.

        `ttft_s` are the times to the first token, `token_s` the mean times of the tokens after it.
        """
        token_s = [
            (self.last[chat] - self.first[chat]) / (tokens - 1)
            for chat, tokens in self.tokens.items()
            if tokens > 1
        ]
        return {
            "tokens_per_s": self.tokens.total() / max(self.last.values()),
            "ttft_s": sorted(self.first.values()),
            "token_s": sorted(token_s),
        }


# --------------------------------------------------------------------------------------------- peft


class _TokenCallback(StoppingCriteria):  # type: ignore[misc]
    """Calls a function after each step of `generate`, and never stops it."""

    def __init__(self, on_token: Callable[[], None]) -> None:
        self._on_token = on_token

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self._on_token()
        return torch.zeros(len(input_ids), dtype=torch.bool)


class PeftSystem:
    """Base class of the systems that generate with transformers and peft; nothing is cached between
    chats.
    """

    def __init__(self, folder: Path) -> None:
        self.switcher = PeftSwitcher(load_model(locate(EMBEDDED), "bfloat16"), "", keep=MAX_CHATS)
        for chat in load_chats(folder, MAX_CHATS):
            self.switcher.attach(chat.adapter)

    def generate(
        self, prompts: Sequence[Sequence[int]], on_token: Callable[[], None], **settings: Any
    ) -> None:
        """Generate greedily; `on_token` is called after each token of all rows."""
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            self.switcher.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
                eos_token_id=None, pad_token_id=0, stopping_criteria=StoppingCriteriaList([_TokenCallback(on_token)]),
                **settings,
            )  # fmt: skip


class PeftSwitch(PeftSystem):
    """The simplest way to serve adapters: `set_adapter`, `generate`, next chat."""

    def measure(self, chats: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """Measure one chat after the other."""
        timer = TokenTimer()
        for at, chat in enumerate(chats):
            self.switcher.peft_model.set_adapter(chat.adapter.name)
            self.generate([chat.prompt], lambda at=at: timer.count_token(at))  # type: ignore[misc]
        return timer


class PeftMixed(PeftSystem):
    """A mixed batch of peft, with an adapter name for each row."""

    def measure(self, chats: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """Measure all chats in one batch."""
        timer = TokenTimer()

        def on_token() -> None:
            for at in range(len(chats)):
                timer.count_token(at)

        names = [chat.adapter.name for chat in chats]
        self.generate([chat.prompt for chat in chats], on_token, adapter_names=names)
        return timer


class BaseOnly(PeftSystem):
    """Plain `generate` of the base model without adapters."""

    def __init__(self, folder: Path) -> None:
        self.switcher = PeftSwitcher(load_model(locate(EMBEDDED), "bfloat16"), "")

    def measure(self, chats: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """Measure one chat after the other."""
        timer = TokenTimer()
        for at, chat in enumerate(chats):
            self.generate([chat.prompt], lambda at=at: timer.count_token(at))  # type: ignore[misc]
        return timer


# --------------------------------------------------------------------------------------- the engine


class BenchSink:
    """A reply sink that times its chat's tokens."""

    def __init__(self, chat: int, timer: TokenTimer) -> None:
        self.chat = chat
        self.timer = timer
        self.cancelled = threading.Event()

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            raise piece

    def finish(self, reply: ChatReply) -> None:
        return


class _TimingDetokenizer(StreamingDetokenizer):
    """Counts tokens and decodes them; the end of turn is a token like any other."""

    def __init__(self, tokenizer: Any, sink: BenchSink) -> None:
        renderer: Any = SimpleNamespace(tokenizer=tokenizer, stop_ids=())
        super().__init__(renderer, (), sink.push)
        self._sink = sink

    def append(self, token: int) -> None:
        self._sink.timer.count_token(self._sink.chat)
        super().append(token)


class EngineSystem:
    """The engine's batch, streaming included."""

    def __init__(
        self,
        folder: Path,
        base: BaseModel | None = None,
        precision: ServingPrecision | None = None,
        chats: int = MAX_CHATS,
        new_tokens: int = NEW_TOKENS,
        **limits: Any,
    ) -> None:
        base = base or locate(EMBEDDED)
        self.sampling = replace(GREEDY_SAMPLING, max_new_tokens=new_tokens)
        self.precision = precision or choose_precision("auto", base.name).precision
        model = load_serving_model(base, self.precision)
        self.tokenizer = load_tokenizer(base)
        scheduler_limits = SchedulerLimits(rows=chats, **limits)
        self.parts = build_engine_parts(
            model, "", scheduler_limits, slots=chats, prefix_bytes=2**30
        )
        stacked = self.parts.stacked
        assert stacked is not None  # the measured models are batched
        for chat in load_chats(folder, chats):
            weights = read_unverified_adapter(chat.adapter, self.parts.peft.layers)
            self.parts.load_adapter(weights, lambda error: None)
        if kernel_runner.supports_model(model):
            kernel_runner.compile_kernel(
                lambda library: kernel_runner.enable_kernel(library, stacked)
            )
        self.kernel = stacked.kernel is not None

    def measure(self, chats: Sequence[BenchChat], cached: bool) -> TokenTimer:
        """Measure all chats at once."""
        for chat in chats:
            self._drop_prefixes(chat)
        if cached:
            self._run(
                [BenchChat(chat.adapter, chat.earlier_prompt, []) for chat in chats], TokenTimer()
            )
        timer = TokenTimer()
        self._run(chats, timer)
        return timer

    def _run(self, chats: Sequence[BenchChat], timer: TokenTimer) -> None:
        for at, chat in enumerate(chats):
            self.add(chat, BenchSink(at, timer))
        while self.parts.batch.step():
            pass

    def add(
        self,
        chat: BenchChat,
        sink: BenchSink,
        guild_id: int = 0,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Queue a chat."""
        request = ChatRequest(
            None,
            turns=(Turn("", ""),),
            adapter=chat.adapter,
            sampling=self.sampling,
            guild_id=guild_id,
        )
        seq = EngineSequence(
            request,
            tuple(chat.prompt),
            seed=0,
            sink=sink,
            detokenizer=_TimingDetokenizer(self.tokenizer, sink),
            on_end=on_end,
        )
        self.parts.batch.scheduler.add(seq)

    def _drop_prefixes(self, chat: BenchChat) -> None:
        stacked = self.parts.stacked
        if stacked and stacked.prefixes:
            stacked.prefixes.drop_adapter(chat.adapter.name)


SYSTEMS: dict[str, Callable[[Path], Any]] = {
    "switching": PeftSwitch,
    "mixed": PeftMixed,
    "bare": BaseOnly,
    "ours": EngineSystem,
    "long": EngineSystem,
}


def main() -> int:
    """Measure one system on all workloads, after a short warm-up."""
    name = sys.argv[1]
    folder = Path(sys.argv[2])
    counts = [int(count) for count in sys.argv[3].split(",")]
    system = SYSTEMS[name](folder)
    system.measure(load_chats(folder, 2), False)
    figures = {}
    for count in counts:
        chats = [long_chat(folder, count)] if name == "long" else load_chats(folder, count)
        for cached in (False, True) if name in ("ours", "long") else (False,):
            timer = system.measure(chats, cached)
            figures[f"{count} {'cached' if cached else 'cold'}"] = timer.figures()
    facts = {name: getattr(system, name, None) for name in SYSTEM_FACTS}
    print(json.dumps({**facts, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
