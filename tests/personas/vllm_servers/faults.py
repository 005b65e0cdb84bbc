"""Faults of real vLLM servers under the bot's engine: each counts replies tried, lost and doubled,
and the recovery.

No fault asks the base model beside adapters: vLLM 0.32 on CPUs then adds the last slot's adapter to
its rows (vllm-project/vllm#48421).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from personas.engine import Engine
from personas.errors import AdapterError, UnderstudyError
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn
from tests.personas.vllm_servers.vllm_process import BASE_NAME, VllmProcess
from tests.personas.vllm_servers.workspace import TinyWorkspace

ADA = Persona("ada", "Ada", description="You are Ada, who keeps the lamps of the quay.")
NEAR_TIE = 1e-4
"""Lead of the likeliest token in nats below which another batch may choose another token in
float32.
"""
REPLY_TOKENS = 150
SHORT_TOKENS = 24
LONG_TOKENS = 1500
GREEDY = SamplingParams(
    temperature=0.0, repetition_penalty=1.2, max_new_tokens=REPLY_TOKENS, stop_loops=False
)
MAX_CANCEL_S = 2.0
MAX_RECOVERY_S = 10.0
DOUBLED_CHARACTERS = 6


@dataclass
class FaultResult:
    """A row of the table. `wrong` replies are those of another version, or accepted where they had
    to be refused.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    near_ties: int = 0
    recovery_s: float | None = None
    max_recovery_s: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        late = self.max_recovery_s is not None and (
            self.recovery_s is None or self.recovery_s > self.max_recovery_s
        )
        return bool(self.lost or self.doubled or self.wrong or late or not self.tried)

    def recovered(self, seconds: float) -> None:
        """Keep the longest recovery."""
        self.recovery_s = max(self.recovery_s or 0.0, seconds)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class ReferenceReply:
    """A greedy reply that nothing disturbed: its tokens, and the lead of each over the second
    likeliest.
    """

    text: str
    ids: tuple[int, ...]
    leads: tuple[float, ...]


def bare(text: str) -> str:
    """Return a text without outer spaces and without a character that is cut off by the length."""
    return text.strip().rstrip("\ufffd")


@dataclass
class RunningReply:
    """A reply that is being read, with the times of its pieces."""

    engine: Engine
    request: ChatRequest
    text: str = ""
    times: list[float] = field(default_factory=list)
    error: UnderstudyError | None = None

    def __post_init__(self) -> None:
        self.stream = self.engine.submit(self.request)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for piece in self.stream:
                self.text += piece
                self.times.append(time.monotonic())
        except UnderstudyError as error:
            self.error = error

    def first_after(self, since: float) -> float:
        """Return the seconds from a moment to the next piece; 0 if there is none."""
        return next((at - since for at in self.times if at > since), 0.0)


@dataclass
class FaultRun:
    """Two servers over a tiny model in float32, and the engine over both."""

    engine: Engine
    servers: Sequence[VllmProcess]
    space: TinyWorkspace
    references: dict[ChatRequest, ReferenceReply] = field(default_factory=dict)

    def ask(
        self, number: int, version: AdapterRef | None, tokens: int = REPLY_TOKENS
    ) -> ChatRequest:
        """Return a request of its own text for each number."""
        turns = (Turn("Bo", f"Lamp {number}: is it lit?"),)
        return ChatRequest(
            ADA, turns, (), version, replace(GREEDY, max_new_tokens=tokens), guild_id=number
        )

    async def prepare(self, requests: Sequence[ChatRequest]) -> None:
        """Ask a server for the undisturbed replies to requests, without the engine."""
        for request in requests:
            if request not in self.references:
                self.references[request] = await self._undisturbed(request)

    async def _undisturbed(self, request: ChatRequest) -> ReferenceReply:
        prompt = self.space.renderer.prompt(request.persona, request.turns)
        body = {
            "prompt": list(prompt.ids), "max_tokens": request.sampling.max_new_tokens, "temperature": 0.0, "top_p": 1.0,
            "top_k": 0, "min_p": 0.0, "repetition_penalty": request.sampling.repetition_penalty, "logprobs": 2,
            "model": request.adapter.name if request.adapter else BASE_NAME, "return_token_ids": True,
            "stop_token_ids": list(self.space.renderer.stop_ids), "return_tokens_as_token_ids": True,
        }  # fmt: skip
        choice = (await self.servers[0].post("/v1/completions", body))["choices"][0]
        leads = []
        for best in choice["logprobs"]["top_logprobs"]:
            likeliest = sorted(best.values(), reverse=True)
            leads.append(likeliest[0] - likeliest[1])
        ids = [token for token in choice["token_ids"] if token not in self.space.renderer.stop_ids]
        return ReferenceReply(
            self.space.renderer.tokenizer.decode(ids, skip_special_tokens=True),
            tuple(ids),
            tuple(leads),
        )

    def judge(self, reply: RunningReply, result: FaultResult) -> None:
        """Compare a finished reply with the undisturbed one and count it."""
        result.tried += 1
        expected = self.references[reply.request]
        version = reply.request.adapter.version if reply.request.adapter else None
        if reply.error:
            result.lost += 1
            result.note(str(reply.error))
        elif reply.stream.reply.version != version:
            result.wrong += 1
            result.note(f"version {reply.stream.reply.version} instead of {version}")
        elif reply.text != reply.stream.reply.text:
            result.doubled += 1
            result.note("the pieces are not the reply")
        elif bare(reply.text) != bare(expected.text):
            self._judge_difference(bare(reply.text), expected, result)

    def _judge_difference(self, text: str, expected: ReferenceReply, result: FaultResult) -> None:
        whole = bare(expected.text)
        decode = self.space.renderer.tokenizer.decode
        same = next(
            (n for n, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b),
            min(len(text), len(whole)),
        )
        ends = (len(decode(expected.ids[: n + 1]).lstrip()) for n in range(len(expected.ids)))
        at = next((n for n, end in enumerate(ends) if end > same), len(expected.ids))
        if any(lead < NEAR_TIE for lead in expected.leads[: at + 1]):
            result.near_ties += 1
        elif text[same:].startswith(
            tuple(text[same - n : same] for n in range(DOUBLED_CHARACTERS, min(same, 200)))
        ):
            result.doubled += 1
        else:
            result.lost += 1
            result.note(
                f"{text[max(0, same - 30) :][:80]!r} instead of {whole[max(0, same - 30) :][:80]!r}"
            )

    async def running(self) -> list[float]:
        """Return how many requests each server computes."""
        return [
            (await server.metrics()).get("num_requests_running", 0.0) for server in self.servers
        ]

    async def busiest(self) -> VllmProcess:
        numbers = await self.running()
        return self.servers[numbers.index(max(numbers))]

    async def until_streaming(self, replies: Sequence[RunningReply], pieces: int = 1) -> None:
        """Wait until half of the replies have so many pieces of text."""
        while sum(len(reply.times) >= pieces for reply in replies) < len(replies) / 2:  # noqa: ASYNC110 - they only count
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------- faults


async def killed_in_mid_reply(run: FaultRun, kills: int, replies: int) -> FaultResult:
    """Kill the busier server while `replies` are streamed, `kills` times."""
    result = FaultResult("replica killed in mid-reply", max_recovery_s=MAX_RECOVERY_S)
    requests = [run.ask(number, run.space.version(number % 3 + 1)) for number in range(replies)]
    await run.prepare(requests)
    for kill in range(kills):
        started = [RunningReply(run.engine, request) for request in requests]
        await run.until_streaming(started, pieces=1 + kill * 17 % 60)
        victim = await run.busiest()
        victim.kill()
        killed_at = time.monotonic()
        victim.start()
        await asyncio.gather(*(reply.task for reply in started))
        for reply in started:
            run.judge(reply, result)
            result.recovered(reply.first_after(killed_at))
        await victim.wait_ready()
    return result


async def stopped_in_mid_reply(run: FaultRun, replies: int) -> FaultResult:
    """Stop the busier server (SIGSTOP): its connections stay open, and nothing comes any more."""
    result = FaultResult("replica hangs in mid-reply")
    requests = [run.ask(number, None) for number in range(replies)]
    await run.prepare(requests)
    started = [RunningReply(run.engine, request) for request in requests]
    await run.until_streaming(started)
    victim = await run.busiest()
    victim.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        await asyncio.gather(*(reply.task for reply in started))
    finally:
        victim.signal(signal.SIGCONT)
    for reply in started:
        run.judge(reply, result)
        result.recovered(reply.first_after(stopped_at))
    return result


async def all_unreachable(run: FaultRun, replies: int) -> FaultResult:
    """Kill all servers, ask, and start them again."""
    result = FaultResult("all unreachable", max_recovery_s=MAX_RECOVERY_S)
    requests = [run.ask(number, run.space.version(number % 3 + 1)) for number in range(replies)]
    await run.prepare(requests)
    for server in run.servers:
        server.kill()
    started = [RunningReply(run.engine, request) for request in requests]
    await asyncio.sleep(1)
    for server in run.servers:
        server.start()
    ready = [asyncio.create_task(server.wait_ready()) for server in run.servers]
    await asyncio.wait(ready, return_when=asyncio.FIRST_COMPLETED)
    ready_at = time.monotonic()
    await asyncio.gather(*ready, *(reply.task for reply in started))
    for reply in started:
        run.judge(reply, result)
        result.recovered(reply.first_after(ready_at))
    return result


async def adapter_missing(run: FaultRun, outside: Path) -> FaultResult:
    """Ask for an adapter that no server has and none can resolve; then take its folder away,
    too.
    """
    result = FaultResult("adapter missing (404)")
    inside = run.space.version(1)
    ref = AdapterRef("ada-elsewhere", inside.version, outside / "ada-elsewhere")
    shutil.copytree(inside.folder, ref.folder, dirs_exist_ok=True)
    loaded = run.ask(1, ref)
    await run.prepare([run.ask(1, inside), run.ask(2, None)])
    run.references[loaded] = run.references[run.ask(1, inside)]
    for _ in range(2):  # it is loaded at its first request, and again after a server forgot it
        await finish(run, result, loaded)
        for server in run.servers:
            if ref.name in await adapters_of(server):
                await server.post("/v1/unload_lora_adapter", {"lora_name": ref.name})
    return result


async def already_loaded(run: FaultRun, number: int) -> FaultResult:
    """Load versions behind the engine's back: from their own folder, and another folder under a
    version's name.
    """
    result = FaultResult("already loaded (400)")
    own = run.space.version(number)
    foreign = run.space.version(number + 1)
    for server in run.servers:
        await server.post(
            "/v1/load_lora_adapter", {"lora_name": own.name, "lora_path": str(own.folder)}
        )
        await server.post(
            "/v1/load_lora_adapter", {"lora_name": foreign.name, "lora_path": str(own.folder)}
        )
    await run.engine.load(own)
    await run.prepare([run.ask(1, own)])
    await finish(run, result, run.ask(1, own))
    result.tried += 1
    try:
        await run.engine.load(foreign)
    except AdapterError as error:
        result.note(f"refused: {error.message}")
    else:
        result.wrong += 1
    return result


async def version_swaps(run: FaultRun, swaps: int, replies: int) -> FaultResult:
    """Replace the live version while requests arrive; each reply has to be of the version that it
    was asked of.
    """
    result = FaultResult("version swap")
    versions = [run.space.version(number) for number in range(1, 9)]
    await run.prepare(
        [run.ask(number, ref, SHORT_TOKENS) for ref in versions for number in range(4)]
    )
    started: list[RunningReply] = []
    for swap in range(swaps):
        live = versions[swap % len(versions)]
        since = time.monotonic()
        await run.engine.load(live)
        result.recovered(time.monotonic() - since)
        for number in range(replies // swaps):
            started.append(RunningReply(run.engine, run.ask(number % 4, live, SHORT_TOKENS)))
            await asyncio.sleep(0.02)
    await asyncio.gather(*(reply.task for reply in started))
    for reply in started:
        run.judge(reply, result)
    result.note("recovery: time to load a version on all servers")
    return result


async def cancelled(run: FaultRun, times: int) -> FaultResult:
    """Cancel long replies and wait until no server computes them."""
    result = FaultResult("cancel", max_recovery_s=MAX_CANCEL_S)
    for number in range(times):
        reply = RunningReply(run.engine, run.ask(number, None, LONG_TOKENS))
        await run.until_streaming([reply])
        reply.stream.cancel()
        since = time.monotonic()
        while sum(await run.running()) and time.monotonic() - since < 3 * MAX_CANCEL_S:  # noqa: ASYNC110 - a server's
            await asyncio.sleep(0.02)
        result.recovered(time.monotonic() - since)
        await reply.task
        result.tried += 1
        if reply.error or reply.stream.reply.finish != "cancelled":
            result.wrong += 1
            result.note(f"{reply.error or reply.stream.reply.finish}")
    return result


async def late_replica(run: FaultRun, number: int) -> FaultResult:
    """Start a server that was never asked to load anything, and ask it for versions of the home by
    name.
    """
    result = FaultResult("late replica resolves by name")
    good = run.space.version(number)
    damaged = run.space.version(number + 1)
    weights = damaged.folder / "adapter_model.safetensors"
    request = run.ask(1, good, SHORT_TOKENS)
    await run.prepare([request])
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    late = run.servers[1]
    late.kill()
    since = time.monotonic()
    late.start()
    await late.wait_ready()
    result.recovered(time.monotonic() - since)
    prompt = list(run.space.renderer.prompt(request.persona, request.turns).ids)
    body = {
        "prompt": prompt,
        "max_tokens": SHORT_TOKENS,
        "temperature": 0.0,
        "repetition_penalty": 1.2,
    }
    result.tried = 2
    answer = await late.post("/v1/completions", {**body, "model": good.name})
    result.wrong += answer["choices"][0]["text"].strip() != run.references[request].text.strip()
    result.lost += good.name not in await adapters_of(late)
    try:
        await late.post("/v1/completions", {**body, "model": damaged.name})
        result.wrong += 1
    except RuntimeError as error:
        result.note(f"damaged: {str(error)[:24]}")
    result.note("recovery: start of the server")
    return result


async def finish(run: FaultRun, result: FaultResult, request: ChatRequest) -> RunningReply:
    """Ask, wait for the end and judge."""
    reply = RunningReply(run.engine, request)
    await reply.task
    run.judge(reply, result)
    return reply


async def adapters_of(server: VllmProcess) -> dict[str, str]:
    """Return the folders of a server's adapters by name."""
    models: Any = await server.get("/v1/models")
    return {model["id"]: model["root"] for model in models["data"] if model["parent"]}
