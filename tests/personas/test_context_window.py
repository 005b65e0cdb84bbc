"""The context window: what limits it, prompts of 4,096 and 8,192 tokens, and memory that does not
suffice.
"""

import copy
import json
import logging
import random
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from personas.engine import llm_engine
from personas.engine.context_window import (
    DEFAULT_CONTEXT_TOKENS,
    SMALL_CONTEXT_TOKENS,
    ContextWindow,
    KVBudget,
    fit_rows,
    prompt_room,
)
from personas.engine.engine_parts import EngineParts, build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.kv_cache import CacheShape, SequenceKVCache, kv_token_bytes
from personas.engine.llm_engine import LLMEngine
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.remote import llamacpp_engine
from personas.engine.remote.vllm_engine import VllmEngine
from personas.models.base_model import EMBEDDED, BaseModel, fingerprint, locate
from personas.models.loading import load_model
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.personas.engine_reference import (
    LENGTH,
    RecordedReply,
    ask,
    differences,
    run_to_end,
)
from tests.tiny_models import make_adapter

pytestmark = pytest.mark.usefixtures("one_thread")
MIB = 2**20
ADA = Persona("ada", "Ada", description="You are Ada.")


def base_with(folder, **config) -> BaseModel:
    """A model's folder in which only the configuration means something."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return BaseModel(str(folder), str(folder), 1)


class TestSize:
    """The window is the smallest of what is asked for, what the base model reads and what the
    memory allows.
    """

    def test_of_a_base_that_reads_more_it_is_the_default_and_else_all_that_the_base_reads(
        self, tmp_path
    ):
        large = ContextWindow.of_base(base_with(tmp_path, max_position_embeddings=131072))
        assert large == ContextWindow(DEFAULT_CONTEXT_TOKENS, "the default")
        small = ContextWindow.of_base(base_with(tmp_path, max_position_embeddings=1024))
        assert small.tokens == 1024 and "all that" in small.reason
        asked = ContextWindow.of_base(base_with(tmp_path, max_position_embeddings=4096), 16384)
        assert asked.tokens == 4096 and "all that" in asked.reason
        asked = ContextWindow.of_base(base_with(tmp_path, max_position_embeddings=32768), 16384)
        assert asked == ContextWindow(16384, "set by CONTEXT_TOKENS")

    def test_scaled_positions_count(self, tiny_base):
        scaled = ContextWindow.of_base(locate(f"{tiny_base.source}#yarn:2"))
        assert scaled.tokens == 4096

    def test_of_a_model_that_states_no_length_it_is_small_unless_more_is_asked_for(self, tmp_path):
        assert ContextWindow.of_base(base_with(tmp_path)).tokens == SMALL_CONTEXT_TOKENS
        assert ContextWindow.of_base(base_with(tmp_path), 4096).tokens == 4096

    def test_the_bundled_model_keeps_its_own_unless_more_is_asked_for(self):
        bundled = locate(EMBEDDED)
        assert ContextWindow.of_base(bundled).tokens == 2048
        assert ContextWindow.of_base(locate("embedded#yarn:2")).tokens == 2048
        assert ContextWindow.of_base(bundled, 4096).tokens == 4096
        assert ContextWindow.of_base(bundled, 100_000).tokens == 8192

    @pytest.mark.parametrize(
        ("free_bytes", "tokens"), [(64 * 2**30, 8192), (2**30, 4096), (2**20, 2048)]
    )
    def test_memory_lowers_it_to_what_two_full_replies_have(self, free_bytes, tokens):
        wanted = ContextWindow(8192, "the default")
        token_bytes = 2**30 // 4 // 4096
        budget = KVBudget.plan(wanted, token_bytes, free_bytes=free_bytes, least_prefix_bytes=7)
        assert budget.window.tokens == tokens and budget.running_bytes == free_bytes // 2
        assert (budget.window == wanted) == (tokens == 8192)
        if tokens < 8192:
            assert "memory" in budget.window.reason
        assert 7 <= budget.prefix_bytes <= max(7, free_bytes // 8)

    @pytest.mark.parametrize(
        ("most_tokens", "rows", "tokens"),
        [
            (10**6, 4, 8192),
            (3 * 8192, 3, 8192),
            (2 * 8192, 2, 8192),
            (2 * 8192 - 1, 2, 4096),
            (5000, 2, 2048),
            (3000, 1, 2048),
            (10, 1, 2048),
        ],
    )
    def test_a_server_that_allocates_all_at_once_has_fewer_replies_then_shorter_ones(
        self, most_tokens, rows, tokens
    ):
        window = ContextWindow(8192, "the default")

        def fits(count: int, each: int) -> bool:
            return count * each <= most_tokens

        found, count = fit_rows(window, 4, fits)
        assert (count, found.tokens) == (rows, tokens)
        assert ("memory" in found.reason) == (tokens < 8192)

    @pytest.mark.parametrize(
        ("tokens_per_s", "tokens"), [(1000, 8192), (130, 4096), (60, 2048), (0.1, 2048)]
    )
    def test_a_slow_processor_halves_it_until_the_first_words_come_within_a_minute(
        self, tokens_per_s, tokens
    ):
        window = ContextWindow(8192, "the default").within_time(tokens_per_s)
        assert window.tokens == tokens
        assert ("60 s; CONTEXT_TOKENS can raise it" in window.reason) == (tokens < 8192)
        assert ContextWindow(1024, "all").within_time(tokens_per_s).tokens == 1024

    def test_a_small_base_is_not_enlarged_and_unknown_sizes_limit_nothing(self):
        small = ContextWindow(1024, "all that it reads")
        budget = KVBudget.plan(small, 2**20, free_bytes=2**20, least_prefix_bytes=5)
        assert budget.window == small
        large = ContextWindow(8192, "the default")
        budget = KVBudget.plan(large, 0, free_bytes=2**20, least_prefix_bytes=5)
        assert budget.window == large and budget.prefix_bytes == 5

    def test_the_prefix_cache_grows_with_the_window(self):
        window = ContextWindow(8192, "the default")
        sizes = [
            KVBudget.plan(window, 1000, free_bytes=free, least_prefix_bytes=MIB).prefix_bytes
            for free in (2**20, 2**24, 2**40)
        ]
        assert sizes == [MIB, 2 * MIB, 4 * 8192 * 1000]

    def test_a_request_may_ask_for_less_and_never_for_more(self):
        request = ChatRequest(None, (), sampling=SamplingParams(max_new_tokens=100))
        rooms = []
        for context_tokens in (0, 1024, 4096):
            narrow = ChatRequest(None, (), sampling=request.sampling, context_tokens=context_tokens)
            rooms.append(prompt_room(2048, narrow))
        assert rooms == [1948, 924, 1948]

    def test_bytes_of_a_token_are_those_of_its_keys_and_values(self, tiny_base):
        model = load_model(tiny_base, "float32")
        assert kv_token_bytes(model) == 2 * 2 * 2 * 16 * 4  # layers, two, heads, width, float32
        kv = SequenceKVCache(CacheShape.of(model), 10)
        assert kv.bytes == 10 * kv_token_bytes(model)
        assert kv_token_bytes(SimpleNamespace(config=object())) == 0


# ------------------------------------------------------------------------------------ long prompts


@pytest.fixture(scope="module")
def long_base(tmp_path_factory, renderer) -> BaseModel:
    """A tiny Llama that reads 8,192 tokens."""
    folder = tmp_path_factory.mktemp("models") / "long"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(renderer.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=renderer.tokenizer.bos_token_id,
        eos_token_id=renderer.tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    return locate(str(folder))


@pytest.fixture(scope="module")
def model(long_base):
    return load_model(long_base, "float32")  # float64 takes gigabytes for the attention


@pytest.fixture(scope="module")
def texts() -> dict[int, tuple[int, ...]]:
    """Random prompts that with their replies have 4,096 and 8,192 tokens; and a short one."""
    generator = random.Random(3)
    drawn = tuple(generator.randrange(1000) for _ in range(8192))
    return {4096: drawn[: 4096 - LENGTH], 8192: drawn[: 8192 - LENGTH], 40: drawn[-40:]}


@pytest.fixture(scope="module")
def questions(tmp_path_factory, long_base, model, texts):
    """The prompts with the replies of transformers and peft; the longest under an adapter."""
    home = tmp_path_factory.mktemp("home")
    ref = make_adapter(home, long_base, "p", "v1", seed=1)
    alone = PeftSwitcher(copy.deepcopy(model), fingerprint(long_base))
    return [ask(alone, ref if size == 8192 else None, text) for size, text in texts.items()]


@pytest.fixture
def open_parts(long_base, model):
    """Builds engines over the same weights."""
    opened = []

    def build(limits: SchedulerLimits, prefix_bytes: int = 0):
        own = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        parts = build_engine_parts(
            own, fingerprint(long_base), limits, slots=2, prefix_bytes=prefix_bytes
        )
        opened.append(parts)
        return parts

    yield build
    for parts in opened:
        parts.close()


def test_long_prompts_in_one_batch_have_the_replies_of_the_plain_model(open_parts, questions):
    parts = open_parts(SchedulerLimits())
    recorded = [RecordedReply(question, LENGTH) for question in questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
    run_to_end(parts)
    assert differences(recorded)[1] == []
    assert sorted(one.reply.prompt_tokens for one in recorded) == [40, 4096 - LENGTH, 8192 - LENGTH]


class TestServers:
    """The window of servers is the smallest that one of them takes."""

    def window(self, tmp_path, *limits: int | None, asked: int | None = None) -> ContextWindow:
        engine = VllmEngine(
            base_with(tmp_path, max_position_embeddings=32768),
            "bfloat16",
            [f"http://{number}" for number in range(len(limits))],
            tmp_path,
            max_context_tokens=asked,
        )
        engine._wanted = ContextWindow.of_base(engine.base, asked)
        replicas = []
        for url, limit in zip(engine.urls, limits, strict=True):
            served = None if limit is None else SimpleNamespace(max_tokens=limit)
            replicas.append(SimpleNamespace(url=url, served=served))
        engine._replicas = SimpleNamespace(all=replicas)
        assert engine.context_tokens == engine.window.tokens
        return engine.window

    def test_the_server_that_takes_fewest_decides_and_is_named(self, tmp_path):
        window = self.window(tmp_path, 16384, 4096, None)
        assert window == ContextWindow(4096, "all that http://1 takes")
        assert self.window(tmp_path, 16384, None).tokens == DEFAULT_CONTEXT_TOKENS

    def test_a_server_that_states_no_length_has_a_small_one_unless_more_is_asked_for(
        self, tmp_path
    ):
        window = self.window(tmp_path, 0)
        assert window.tokens == SMALL_CONTEXT_TOKENS and "CONTEXT_TOKENS" in window.reason
        assert self.window(tmp_path, 0, asked=6000).tokens == 6000

    @pytest.mark.parametrize(
        ("devices", "is_own", "asked", "tokens"),
        [((), True, None, 4096), ((), True, 8192, 8192), ((), False, None, 8192),
         (("/",), True, None, 8192)],
    )  # fmt: skip
    def test_a_llama_server_on_a_processor_reads_less_unless_more_is_asked_for(
        self, tiny_base, tmp_path, monkeypatch, devices, is_own, asked, tokens
    ):
        monkeypatch.setattr(llamacpp_engine, "ACCELERATOR_DEVICES", devices)
        monkeypatch.setattr(llamacpp_engine.sys, "platform", "linux")
        monkeypatch.setattr(llamacpp_engine, "GgufAdapters", lambda *parts: None)
        engine = llamacpp_engine.LlamaCppEngine(
            tiny_base, "bfloat16", (), tmp_path, max_context_tokens=asked
        )
        engine.program = object() if is_own else None
        engine._layers = {}

        def read_files(self: VllmEngine) -> None:
            self._wanted = ContextWindow(8192, "the default")

        monkeypatch.setattr(VllmEngine, "_read_files", read_files)
        engine._read_files()
        assert engine._wanted.tokens == tokens


class TestMemory:
    """Keys and values of all running replies stay within `SchedulerLimits.kv_bytes`."""

    def most_bytes(self, parts, recorded) -> int:
        """Run all, and return the most that keys and values of running replies had."""
        most = 0
        for one in recorded:
            parts.batch.scheduler.add(one.sequence())
        while parts.batch.running or parts.batch.waiting:
            parts.batch.step()
            running = parts.batch.scheduler.running
            rows = [row for seq in running for row in (seq, *seq.other_candidates)]
            most = max(most, sum(row.kv.bytes for row in rows))
        return most

    def test_replies_for_which_there_is_no_memory_wait_and_others_pass(
        self, open_parts, questions, model
    ):
        limit = 5000 * kv_token_bytes(model)
        parts = open_parts(SchedulerLimits(kv_bytes=limit))
        middle, _, short = questions
        recorded = [RecordedReply(question, LENGTH) for question in (middle, middle, short)]
        assert self.most_bytes(parts, recorded) <= limit
        assert differences(recorded)[1] == []
        last = max(recorded, key=lambda one: one.waited_s)
        assert last.question is not short, "it passed the one that waits for memory"

    def test_a_reply_that_needs_more_than_all_is_computed_alone(self, open_parts, questions, model):
        parts = open_parts(SchedulerLimits(kv_bytes=1))
        recorded = [RecordedReply(questions[2], LENGTH) for _ in range(3)]
        alone = (len(questions[2].prompt) + LENGTH) * kv_token_bytes(model)
        assert self.most_bytes(parts, recorded) == alone
        assert differences(recorded)[1] == []

    @pytest.mark.parametrize(("room", "candidates"), [(1, 1), (3, 3), (9, 4)])
    def test_a_reply_has_as_many_candidates_as_there_is_memory_for(
        self, open_parts, questions, model, monkeypatch, room, candidates
    ):
        short = questions[2]
        size = (len(short.prompt) + LENGTH) * kv_token_bytes(model)
        parts = open_parts(SchedulerLimits(kv_bytes=room * size), prefix_bytes=MIB)
        recorded = RecordedReply(short, LENGTH)
        seq = recorded.sequence(temperature=1.0, candidates=4)
        seq.card_prompt = short.prompt[:10]
        counts = [1]
        monkeypatch.setattr(
            "personas.engine.candidates.fork_candidates", lambda seq, count: counts.append(count)
        )
        parts.batch.scheduler.add(seq)
        run_to_end(parts)
        assert counts[-1] == candidates and recorded.error is None


class TestEngine:
    """The window of the engine in the bot's own process."""

    async def open(self, base, **options) -> LLMEngine:
        engine = LLMEngine(base, "float32", threads=1, **options)
        await engine.start()
        return engine

    def talk(self, words: int) -> tuple[Turn, ...]:
        turns = []
        for number in range(150):
            text = " ".join(["tide"] * words)
            turns.append(Turn("Bo" if number % 2 == 0 else "Ada", text, by_persona=number % 2 == 1))
        return (*turns, Turn("Bo", "hello"))

    async def reply(self, engine, **more):
        sampling = SamplingParams(temperature=0.0, max_new_tokens=4)
        stream = engine.submit(ChatRequest(ADA, self.talk(60), sampling=sampling, **more))
        async for _ in stream:
            pass
        return stream.reply

    async def test_a_prompt_takes_the_window_or_as_much_as_its_request_asks_for(self, long_base):
        engine = await self.open(long_base)
        try:
            assert engine.context_tokens == engine.state().context_tokens == 8192
            assert engine.state().context_reason == "the default"
            whole = await self.reply(engine)
            part = await self.reply(engine, context_tokens=4096)
            more = await self.reply(engine, context_tokens=10**6)
        finally:
            await engine.close()
        assert 8192 - 4 - 400 < whole.prompt_tokens <= 8192 - 4
        assert 4096 - 4 - 400 < part.prompt_tokens <= 4096 - 4
        assert more.prompt_tokens == whole.prompt_tokens

    async def test_memory_that_does_not_suffice_makes_the_window_small_and_the_log_says_so(
        self, long_base, monkeypatch, caplog
    ):
        # Half of it holds two windows of 4,096 tokens: layers, two, heads, width, float32.
        free_bytes = 2 * 2 * 4096 * (2 * 2 * 1 * 16 * 4)
        monkeypatch.setattr(llm_engine, "free_device_bytes", lambda device: free_bytes)
        with caplog.at_level(logging.INFO, "personas.engine.llm_engine"):
            engine = await self.open(long_base)
        try:
            assert engine.context_tokens == 4096
            assert "at most 4096 tokens: what the memory allows" in caplog.text
            reply = await self.reply(engine)
        finally:
            await engine.close()
        assert reply.prompt_tokens <= 4096 - 4

    @pytest.mark.parametrize(("asked", "tokens"), [(None, 4096), (8192, 8192)])
    async def test_a_slow_processor_makes_it_small_unless_the_operator_asks_for_it(
        self, long_base, monkeypatch, asked, tokens
    ):
        monkeypatch.setattr(EngineParts, "prefill_tokens_per_s", lambda parts: 100.0)
        engine = await self.open(long_base, max_context_tokens=asked)
        try:
            await engine.clear_prefix_cache()  # a task after the measurement
            assert engine.context_tokens == tokens
        finally:
            await engine.close()
