"""One system, measured in a process of its own: `python -m personas.engine.bench.systems SYSTEM FOLDER`.

Prints one JSON object: by workload (`8 cold`, `8 cached`, …) tokens per second, the times to the first token and those
from token to token.
"""

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

from personas import base_model
from personas.base_model import EMBEDDED
from personas.contracts import ChatRequest, Reply, Sampling, Turn
from personas.engine.bench.material import CHATS, NEW_TOKENS, Chat, chats

GREEDY = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=NEW_TOKENS, stop_loops=False)


class Watch:
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


class Peft:
    """transformers and peft; nothing is cached."""

    def __init__(self, folder: Path) -> None:
        from personas.engine.weights import AdaptedModel

        base = base_model.locate(EMBEDDED)
        self.adapted = AdaptedModel(base_model.load_model(base, "bfloat16"), "", keep=max(CHATS))
        for chat in chats(folder, max(CHATS)):
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


class Switching(Peft):
    """What one writes first: `set_adapter`, `generate`, next."""

    def measure(self, talks: Sequence[Chat], cached: bool) -> Watch:
        """One chat after the other."""
        watch = Watch()
        for at, chat in enumerate(talks):
            self.adapted._peft.set_adapter(chat.adapter.name)
            self.generate([chat.prompt], lambda at=at: watch.see(at))  # type: ignore[misc]
        return watch


class Mixed(Peft):
    """peft's batch with an adapter name for each row."""

    def measure(self, talks: Sequence[Chat], cached: bool) -> Watch:
        """All chats in one batch."""
        watch = Watch()

        def each() -> None:
            for at in range(len(talks)):
                watch.see(at)

        names = [chat.adapter.name for chat in talks]
        self.generate([chat.prompt for chat in talks], each, adapter_names=names)
        return watch


class Bare(Peft):
    """`generate` of the base model alone, without any adapter."""

    def __init__(self, folder: Path) -> None:
        from personas.engine.weights import AdaptedModel

        self.adapted = AdaptedModel(base_model.load_model(base_model.locate(EMBEDDED), "bfloat16"), "")

    def measure(self, talks: Sequence[Chat], cached: bool) -> Watch:
        """One chat after the other."""
        watch = Watch()
        for at, chat in enumerate(talks):
            self.generate([chat.prompt], lambda at=at: watch.see(at))  # type: ignore[misc]
        return watch


# -------------------------------------------------------------------------------------------------- ours


class Heard:
    """Who waits for a reply, with a watch."""

    def __init__(self, chat: int, watch: Watch) -> None:
        self.chat, self.watch, self.cancelled = chat, watch, threading.Event()

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            raise piece

    def finish(self, reply: Reply) -> None:
        return


class Ours:
    """The engine's batch, with the work of streaming."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        from personas.engine import quick
        from personas.engine.adapters import read_unverified
        from personas.engine.assembly import assemble
        from personas.engine.batch import Limits
        from personas.precisions import choose
        from personas.prompt import Renderer
        from personas.serving import load_served

        base = base_model.locate(EMBEDDED)
        self.precision = choose("auto", base.name).precision
        model = load_served(base, self.precision)
        self.tokenizer = Renderer(base_model.load_tokenizer(base)).tokenizer
        self.parts = assemble(
            model, "", Limits(rows=max(CHATS), **limits), slots=max(CHATS), prefix_bytes=2**30, heard=lambda: None
        )
        stacked = self.parts.stacked
        assert stacked is not None  # the embedded model is a Llama
        for chat in chats(folder, max(CHATS)):
            self.parts.hold(read_unverified(chat.adapter, stacked.linears))
        if quick.can_serve(model):
            quick.compile_for(lambda library: quick.use(library, stacked))
        self.kernel = stacked.quick is not None

    def measure(self, talks: Sequence[Chat], cached: bool) -> Watch:
        """All chats at once."""
        for chat in talks:
            self._forget(chat)
        if cached:
            self._run([Chat(chat.adapter, chat.before, []) for chat in talks], Watch())
        watch = Watch()
        self._run(talks, watch)
        return watch

    def _run(self, talks: Sequence[Chat], watch: Watch) -> None:
        for at, chat in enumerate(talks):
            self.add(chat, Heard(at, watch))
        while self.parts.batch.step():
            pass

    def add(self, chat: Chat, heard: Heard, guild_id: int = 0, ended: Callable[[], None] = lambda: None) -> None:
        """Have a chat wait for its turn. The end of turn does not end it."""
        from personas.engine.rows import Job
        from personas.engine.text import StreamedText

        class Text(StreamedText):
            def take(self, token: int) -> None:
                heard.watch.see(heard.chat)
                super().take(token)

        endless: Any = SimpleNamespace(tokenizer=self.tokenizer, stop_ids=())
        request = ChatRequest(None, (Turn("", ""),), (), chat.adapter, GREEDY, guild_id)
        self.parts.batch.add(Job(request, tuple(chat.prompt), 0, heard, Text(endless, (), heard.push), ended))

    def _forget(self, chat: Chat) -> None:
        stacked = self.parts.stacked
        if stacked and stacked.prefixes:
            stacked.prefixes.forget(chat.adapter.name)


HOW = ("kernel", "precision")
"""What is told of a system beside its figures."""

SYSTEMS: dict[str, Callable[[Path], Any]] = {"switching": Switching, "mixed": Mixed, "bare": Bare, "ours": Ours}


def main() -> int:
    """Measure one system on all workloads, after a short warm-up."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    counts = [int(count) for count in sys.argv[3].split(",")]
    base_model.load_torch()
    system = SYSTEMS[name](folder)
    system.measure(chats(folder, 2), False)
    found = {}
    for count in counts:
        for cached in (False, True) if name == "ours" else (False,):
            watch = system.measure(chats(folder, count), cached)
            found[f"{count} {'cached' if cached else 'cold'}"] = watch.figures()
    how = {name: getattr(system, name, None) for name in HOW}
    print(json.dumps({**how, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
