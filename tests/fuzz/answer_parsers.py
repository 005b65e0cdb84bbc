"""The parsers of what servers answer: of models, of Discord's sign-in, and what members send through
Discord.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import discord
import numpy as np
from gguf import GGUFWriter

from bot.chat.addressing import is_command
from bot.chat.chat_words import first_named, is_laughter, is_link, order_named
from bot.chat.message_text import ANONYMOUS_NAMES, has_words, quoted_text, readable_text, said_text
from bot.chat.proxies import is_without_tags
from bot.chat.reply_text import split_message
from bot.guild_settings.quiet_hours import QuietHours
from bot.platform.errors import RefusedError
from bot.platform.weekly_time import WeeklyTime
from bot.safety.rules import SafetyRules
from personas.engine.remote.llamacpp_client import LlamaCppClient
from personas.engine.remote.openai_client import OpenAIServerClient
from personas.engine.remote.vllm_client import VllmClient
from personas.errors import BaseModelError, UnderstudyError
from personas.models.gguf_file import readable_header
from personas.models.vision_projector import Projector
from tests.fuzz.harness import Parser, Seed
from tests.fuzz.mutations import TEXTS, mutate

URL = "http://127.0.0.1:1"
PIECE_BYTES = 1000


class Served:
    """A session whose server answers each request with the same bytes, in pieces."""

    status = 200
    url = URL
    headers: Mapping[str, str] = {}

    def __init__(self, data: bytes, by_path: Mapping[str, bytes] | None = None) -> None:
        self._data = data
        self._by_path = by_path or {}

    def request(self, method: str, url: str, **options: Any) -> Any:
        path = next((path for path in self._by_path if url.endswith(path)), "")
        return _answered(Served(self._by_path[path] if path else self._data))

    def post(self, url: str, **options: Any) -> Any:
        return self.request("POST", url)

    @property
    def content(self) -> Served:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self._data), PIECE_BYTES):
            yield self._data[begin : begin + PIECE_BYTES]

    def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        return self.iter_any()

    async def readany(self) -> bytes:
        piece, self._data = self._data[:PIECE_BYTES], self._data[PIECE_BYTES:]
        return piece


@asynccontextmanager
async def _answered(response: Served) -> AsyncIterator[Served]:
    yield response


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def wait_for(coroutine: Any) -> Any:
    return event_loop().run_until_complete(coroutine)


# ------------------------------------------------------------------------------- servers of models

PROPS = {
    "default_generation_settings": {"n_ctx": 2048},
    "total_slots": 4,
    "model_path": "/models/base.gguf",
    "modalities": {"vision": True},
    "chat_template": "{{ messages }}",
    "media_marker": "<__media__>",
}
ADAPTERS = [{"id": 0, "path": "/a/oda-v1.gguf", "scale": 0.0}]
TOKEN_IDS = (5, 7)
SERVER_ANSWERS: Sequence[Any] = (
    {
        "data": [
            {"id": "base", "root": "base", "parent": None, "max_model_len": 2048},
            {"id": "oda-v1", "root": "/a/oda", "parent": "base", "max_model_len": None},
        ]
    },
    {"object": "list", "data": [{"id": "gpt", "object": "model", "meta": {"n_ctx": 4096}}]},
    {"data": [{"id": "base", "meta": {"n_vocab": 32000, "n_ctx": 2048}}]},
    {"models": [{"name": "understudy-1f/ada:5b", "size": 5_000_000_000, "digest": "ab"}]},
    {"version": "0.33.0"},
    {"tokens": [*TOKEN_IDS]},
    {"choices": [{"prompt_logprobs": [None, {"7": {"logprob": -0.5, "rank": 1}}]}]},
    {"error": {"message": "out of memory", "code": 500, "type": "server_error"}},
    PROPS,
    ADAPTERS,
)


def server_answers() -> list[Seed]:
    return [Seed(json.dumps(answer).encode(), "json") for answer in SERVER_ANSWERS]


def read_server_answer(file: Path, out: Path) -> None:
    """Read an answer as each client does; refused if none takes it."""
    data = file.read_bytes()
    props, adapters = json.dumps(PROPS).encode(), json.dumps(ADAPTERS).encode()

    def session(**by_path: bytes) -> Any:
        return Served(data, {f"/{key.replace('_', '-')}": value for key, value in by_path.items()})

    calls: list[Callable[[], Any]] = [
        lambda: VllmClient(URL, session()).models(),
        lambda: VllmClient(URL, session()).tokenize("base", "hi"),
        lambda: VllmClient(URL, session()).prompt_logprobs("base", TOKEN_IDS, ""),
        lambda: OpenAIServerClient(URL, session()).model_lengths(),
        lambda: LlamaCppClient(URL, session(lora_adapters=adapters)).models(),
        lambda: LlamaCppClient(URL, session(props=props)).models(),
    ]
    refused: list[UnderstudyError] = []
    for call in calls:
        try:
            wait_for(call())
        except UnderstudyError as error:
            refused.append(error)
    if len(refused) == len(calls):
        raise refused[0]
    wait_for(VllmClient(URL, session()).metric("vllm:num_requests_running"))
    wait_for(OpenAIServerClient(URL, session()).tokenize("base", "hi"))


def server_metrics() -> list[Seed]:
    lines = '# HELP a b\nvllm:num_requests_running{model="base"} 2.0\nvllm:num_requests_waiting 0\n'
    return [Seed(lines.encode(), "text")]


class NoMetricError(Exception):
    """A text has no such metric."""


def read_server_metrics(file: Path, out: Path) -> None:
    client = VllmClient(URL, Served(file.read_bytes()))  # type: ignore[arg-type]
    if wait_for(client.metric("vllm:num_requests_running")) is None:
        raise NoMetricError("There is no such metric.")


def server_streams() -> list[Seed]:
    logprobs = {"token_logprobs": [-0.5], "top_logprobs": [{"token_id:5": -0.5}]}
    vllm = [
        {"choices": [{"index": 0, "token_ids": [5], "logprobs": logprobs}]},
        {"choices": [{"index": 0, "token_ids": [7], "finish_reason": "stop"}]},
        {"choices": [], "usage": {"completion_tokens": 2}},
    ]
    openai = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": [{"type": "text", "text": "Aye"}]}}]},
        {"choices": [{"delta": {"content": "."}, "finish_reason": "stop"}]},
    ]
    top = {"id": 5, "logprob": -0.5, "top_logprobs": [{"id": 5, "logprob": -0.5}]}
    step = {"index": 0, "content": "Aye", "tokens": [5], "tokens_predicted": 1, "stop": False}
    llama = [
        {**step, "completion_probabilities": [top]},
        {**step, "tokens": [], "tokens_predicted": 1, "stop": True, "stop_type": "eos"},
    ]
    events = [
        "".join(f"data: {json.dumps(event)}\n\n" for event in stream) + "data: [DONE]\n\n"
        for stream in (vllm, openai, llama)
    ]
    return [Seed(text.encode(), "stream") for text in events]


def change_stream(rng: random.Random, seed: Seed, others: Sequence[bytes]) -> bytes:
    """Change one event of a stream as JSON, or the bytes."""
    lines = seed.content.split(b"\n")
    at = rng.randrange(len(lines))
    head, _, body = lines[at].rpartition(b"data: ")
    if rng.random() < 0.2 or not body.startswith(b"{"):
        return mutate(rng, seed.content, "", others)
    lines[at] = (b"data: " if b"data: " in lines[at] else head) + mutate(rng, body, "json", ())
    return b"\n".join(lines)


def read_server_stream(file: Path, out: Path) -> None:
    """Read a stream as each client does; refused if none takes it to its end."""
    data = file.read_bytes()
    bodies: list[tuple[type[VllmClient], dict[str, Any]]] = [
        (VllmClient, {"model": "base", "prompt": [*TOKEN_IDS], "max_tokens": 9}),
        (OpenAIServerClient, {"model": "base", "messages": [], "max_tokens": 9}),
        (LlamaCppClient, {"prompt": [*TOKEN_IDS]}),
    ]
    refused: list[UnderstudyError] = []
    for client, body in bodies:

        async def read(client: Any = client, body: Any = body) -> None:
            async for chunk in client(URL, Served(data)).generate(body):
                assert chunk.token_count >= 0

        try:
            wait_for(read())
        except UnderstudyError as error:
            refused.append(error)
    if len(refused) == len(bodies):
        raise refused[0]


# ----------------------------------------------------------------------------- messages of members

ATTACHMENT = {
    "id": "5", "filename": "notes.txt", "size": 20, "url": f"{URL}/notes.txt",
    "proxy_url": f"{URL}/notes.txt", "content_type": "text/plain", "title": "My notes",
    "description": "what I wrote",
}  # fmt: skip
VOICE = {**ATTACHMENT, "filename": "voice.ogg", "duration_secs": 3.5, "waveform": "AAAA"}
AUTHOR = {
    "id": "7",
    "username": "wren",
    "global_name": "Wren",
    "discriminator": "0",
    "avatar": None,
}
STICKER = {"id": "8", "name": "Wave", "format_type": 3}
EMBED = {
    "type": "rich",
    "title": "Tide",
    "description": "High at <t:1795993432:R>",
    "fields": [{"name": "Where", "value": "the **quay** <@7> <#9> <:crane:10>"}],
    "footer": {"text": "by nobody"},
}
POLL = {
    "question": {"text": "Tea?"},
    "answers": [
        {"answer_id": 1, "poll_media": {"text": "yes"}},
        {"answer_id": 2, "poll_media": {"emoji": {"name": "x"}}},
    ],
    "expiry": "2026-12-01T10:00:00+00:00",
    "allow_multiselect": False,
    "layout_type": 1,
}
FORWARD = {
    "content": "Oda, is `<@7>` late?\n-# small print",
    "embeds": [EMBED],
    "attachments": [ATTACHMENT],
    "sticker_items": [STICKER],
    "timestamp": "2026-11-20T10:00:00+00:00",
    "edited_timestamp": None,
    "type": 0,
    "flags": 0,
    "mentions": [],
    "mention_roles": [],
}


def message(**more: Any) -> dict[str, Any]:
    """Return a message as Discord sends it."""
    return {
        "id": "11", "channel_id": "9", "type": 0, "content": "Oda, how deep is it? W: <@7>",
        "author": AUTHOR, "timestamp": "2026-11-20T10:00:00+00:00", "edited_timestamp": None,
        "tts": False, "mention_everyone": False, "mentions": [], "mention_roles": [],
        "attachments": [], "embeds": [], "pinned": False, "flags": 0, "components": [], **more,
    }  # fmt: skip


def messages() -> list[Seed]:
    made = (
        message(),
        message(attachments=[ATTACHMENT, VOICE], sticker_items=[STICKER]),
        message(content="", poll=POLL),
        message(content="", message_snapshots=[{"message": FORWARD}]),
        message(embeds=[EMBED], activity={"type": 1, "party_id": "x"}),
        message(content="!play lol 😂 https://example.com <:crane:10> ||deep||"),
    )
    return [Seed(json.dumps(one).encode(), "json") for one in made]


SHAPED = frozenset(
    """id channel_id type author timestamp edited_timestamp url proxy_url waveform expiry format_type
    answer_id layout_type flags sticker_items attachments embeds fields""".split()
)
"""Fields that discord.py reads: what it cannot read never reaches the bot."""


def change_message(rng: random.Random, seed: Seed, others: Sequence[bytes]) -> bytes:
    """Put hostile texts and numbers where members choose them."""
    document = json.loads(seed.content)
    places = list[tuple[Any, Any]]()
    stack: list[Any] = [document]
    while stack:
        one = stack.pop()
        inner = one.items() if isinstance(one, dict) else enumerate(one)
        for key, value in inner:
            if isinstance(value, dict | list):
                stack.append(value)
            elif isinstance(value, str) and key not in SHAPED and key != "username":
                places.append((one, key))
    for _ in range(rng.choice((1, 1, 2, 4))):
        parent, key = rng.choice(places)
        text = parent[key]
        at = rng.randrange(len(text) + 1)
        hostile = rng.choice((*TEXTS, "||", "`" * rng.randrange(9), "<@" * 500, "> " * 500))
        parent[key] = rng.choice((hostile, text[:at] + hostile + text[at:]))
    return json.dumps(document).encode()


class NothingSaidError(Exception):
    """A message without any words."""


def read_message(file: Path, out: Path) -> None:
    """Read a message as members see it, and decide by its words."""
    read = discord.Message(
        state=discord_state(),
        channel=CHANNEL,
        data=json.loads(file.read_bytes()),
    )
    said = said_text(read)
    text = readable_text(said, ANONYMOUS_NAMES)
    readable_text(quoted_text(read), ANONYMOUS_NAMES, keep_code=False)
    for judge in (is_command, is_laughter, is_link):
        judge(read.content)
    first_named(text, ("oda", "thrip"))
    order_named(text, [("oda", "oda marrow"), ("thrip",)])
    is_without_tags(read.content[2:-2], read.content)
    SafetyRules.shipped().find(text)
    assert all(len(part) <= 2000 for part in split_message(text, "-# AI-written"))
    if not has_words(text):
        raise NothingSaidError("There are no words.")


CHANNEL: Any = SimpleNamespace(id=9, guild=None, type=discord.ChannelType.private)


@cache
def discord_state() -> Any:
    state = mock.MagicMock()
    state.store_user = lambda data, **_: discord.User(state=state, data=data)
    return state


# ---------------------------------------------------------------------- model files, typed times


def gguf_files() -> list[Seed]:
    """A model's and a projector's header, with little behind it."""
    made = []
    for architecture in ("llama", "clip"):
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "x.gguf"
            writer = GGUFWriter(file, architecture)
            writer.add_uint32(f"{architecture}.attention.key_length", 64)
            writer.add_string("general.name", "Quay")
            if architecture == "clip":
                writer.add_bool("clip.has_vision_encoder", True)
                writer.add_uint32("clip.vision.projection_dim", 8)
            else:
                writer.add_token_list(["<s>", "a", "b"])
                writer.add_token_types([3, 1, 1])
                writer.add_tensor("rope_freqs.weight", np.ones(4, dtype=np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            made.append(Seed(file.read_bytes(), "", "x.gguf"))
    return made


def read_gguf(file: Path, out: Path) -> None:
    projector = Projector.read(file)
    if projector is None:
        header = readable_header(file)
        assert header.vocabulary >= 0


def typed_times() -> list[Seed]:
    return [
        Seed(text.encode(), "text") for text in ("22:00-07:00", "22-7", "9:30 to 24:00", "08:30")
    ]


def read_typed_time(file: Path, out: Path) -> None:
    """Read quiet hours, or a time of a schedule."""
    text = file.read_bytes().decode(errors="replace")
    try:
        QuietHours.parse(text)
    except RefusedError:
        WeeklyTime.on(range(7), text)


ANSWER_PARSERS: tuple[Parser, ...] = (
    Parser("model server's answer", server_answers, read_server_answer, (UnderstudyError,), 5),
    Parser(
        "model server's metrics",
        server_metrics,
        read_server_metrics,
        (UnderstudyError, NoMetricError),
        2,
    ),
    Parser(
        "model server's stream",
        server_streams,
        read_server_stream,
        (UnderstudyError,),
        5,
        change_stream,
    ),
    Parser("Discord message", messages, read_message, (NothingSaidError,), 5, change_message),
    Parser("GGUF header", gguf_files, read_gguf, (BaseModelError,), 3),
    Parser("typed time", typed_times, read_typed_time, (RefusedError,), 2),
)
