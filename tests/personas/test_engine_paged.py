"""Steps of static shape over one pool of keys and values: the same replies, the same calls for any
number of rows, and what a CUDA graph needs.
"""

import copy
import gc
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import AutoModelForCausalLM, LlamaConfig

from personas.engine import engine_parts
from personas.engine.context_window import ContextWindow, KVBudget
from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.kv_cache import BLOCK_TOKENS, CacheShape
from personas.engine.lora_slots import AdapterWeights, LoraSlot
from personas.engine.model_runner import ScheduledTokens
from personas.engine.paged_kv import RESERVED_BLOCKS, KVPool, PagedKVCache
from personas.engine.paged_runner import (
    DECODE_ROWS,
    MIN_DECODE_BLOCKS,
    PagedLoraRunner,
    padded_blocks,
    padded_rows,
)
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.sampler import SamplerState, sample_tokens
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import ChatRequest, SamplingParams, Turn
from tests.model_families import FAMILIES
from tests.personas.engine_reference import (
    RecordedReply,
    ReferenceModel,
    ask,
    differences,
    play,
    poison,
    run_to_end,
    special_adapter,
)
from tests.personas.test_engine_candidates import ADA, Recorder
from tools.tiny_models import LAYERS, make_model
from trainer.recipe.target_modules import find_target_modules

pytestmark = pytest.mark.usefixtures("one_thread")
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24, "factor": 4.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 3.0, 5.0, 9.0],
}  # fmt: skip
IN_THE_BATCH = ("Llama 3.2", "Qwen2.5", "Qwen3", "Mistral")


class RecordedGraph(TorchDispatchMode):
    """A CUDA graph's stand-in: it keeps the calls, and calls them again with the same tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, returned))
        return returned

    def replay(self):
        renewed = {}

        def current(value):
            return renewed.get(id(value), value)

        for function, args, kwargs, before in self.calls:
            now = function(*tree_map(current, args), **tree_map(current, kwargs))
            for old, new in zip(tree_leaves(before), tree_leaves(now), strict=True):
                renewed[id(old)] = new
        return renewed


class RecordedGraphs:
    """Stands in for `CudaGraphs`."""

    def __init__(self):
        self.graphs = []

    def __call__(self, compute):
        with RecordedGraph() as graph:
            returned = compute()
        self.graphs.append(graph)

        def replay():
            with torch.inference_mode():
                returned.copy_(graph.replay()[id(returned)])
            return returned

        with torch.inference_mode():
            returned.fill_(torch.nan)  # a capture computes nothing
        return replay


@pytest.fixture
def graphs(monkeypatch):
    """Build engines as on a GPU, with stand-ins for CUDA graphs."""
    graphs = RecordedGraphs()

    def new_runner(*settings, **options):
        return PagedLoraRunner(*settings, **{**options, "capture": graphs})

    monkeypatch.setattr(engine_parts, "decodes_in_static_shapes", lambda model: True)
    monkeypatch.setattr(engine_parts, "PagedLoraRunner", new_runner)
    return graphs


@pytest.fixture
def static_shapes(monkeypatch):
    """Build engines as on a GPU without CUDA graphs."""
    monkeypatch.setattr(engine_parts, "decodes_in_static_shapes", lambda model: True)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    home = tmp_path_factory.mktemp("paged")
    return ReferenceModel(home, tiny_base, torch.float64, adapters=3, prompts=3)


@pytest.mark.usefixtures("static_shapes")
def test_every_reply_is_pefts_token_for_token(reference, monkeypatch):
    poison(monkeypatch)
    pools = watched_pools(monkeypatch)
    assert play_all(reference, range(3000, 3008)) > 20
    gc.collect()  # the engines that played
    assert all(pool.free_blocks == pool.memory.shape[2] - RESERVED_BLOCKS for pool in pools)


@pytest.mark.slow
@pytest.mark.usefixtures("static_shapes")
def test_hundreds_of_schedules(reference, monkeypatch):
    poison(monkeypatch)
    assert play_all(reference, range(30_000, 30_300)) > 1000


def play_all(reference, seeds) -> int:
    """Play schedules, whose replies have to be peft's, and count these."""
    replies = 0
    for seed in seeds:
        recorded = play(reference, seed)
        assert differences(recorded) == (0, []), f"schedule {seed}"
        replies += len(recorded)
    return replies


def watched_pools(monkeypatch):
    pools = []
    open_pool = KVPool.__init__

    def opened(pool, *settings):
        open_pool(pool, *settings)
        pools.append(pool)

    monkeypatch.setattr(KVPool, "__init__", opened)
    return pools


def test_a_captured_step_is_the_same_for_all_that_follow(reference, graphs, monkeypatch):
    poison(monkeypatch)
    computed = Counter()
    logits = PagedLoraRunner._logits

    def counted(runner, step):
        computed[step.rows] += 1
        return logits(runner, step)

    monkeypatch.setattr(PagedLoraRunner, "_logits", counted)
    replies = tokens = 0
    for seed in range(4000, 4004):
        recorded = play(reference, seed)
        assert differences(recorded) == (0, []), f"schedule {seed}"
        replies += len(recorded)
        tokens += sum(one.tokens for one in recorded)
    assert replies > 10 and set(computed) <= set(DECODE_ROWS)
    assert computed.total() == len(graphs.graphs) < tokens / 4, "all others were replayed"
    for graph in graphs.graphs:
        assert not any(map(waits, graph.calls))


def waits(call) -> bool:
    """Tell whether a host waits for the result of a call, which cannot be captured."""
    function, args, _, _ = call
    name = function.name()
    by_mask = name.startswith("aten::index") and any(
        isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args)
    )
    return by_mask or name in (
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::is_nonzero",
        "aten::repeat_interleave.Tensor",
    )


def test_steps_are_captured_at_the_start_and_again_when_the_stack_grows():
    graphs = RecordedGraphs()
    runner = PagedLoraRunner(deep_model(2), 4, 0, kv_bytes=2**22, capture=graphs)
    runner.capture_steps(rows=6, tokens=1000)
    sizes = [(8, 64), (4, 64), (2, 64), (1, 64), (8, 32), (4, 32), (2, 32), (1, 32)]
    assert list(runner._steps) == sizes and len(graphs.graphs) == len(sizes)
    inputs = [step._inputs.data_ptr() for step in runner._steps.values()]
    rows = begin(runner, 3)
    decode(runner, rows)
    decode(runner, rows[:1])
    assert len(graphs.graphs) == len(sizes)
    put_adapter(runner, 1)
    for _ in range(3):
        decode(runner, rows)
    assert len(graphs.graphs) == len(sizes) + 1, "only what is used"
    put_adapter(runner, 1)
    decode(runner, rows)
    assert len(graphs.graphs) == len(sizes) + 1, "its tensors are where they were"
    assert [step._inputs.data_ptr() for step in runner._steps.values()] == inputs


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), RuntimeError("out of memory")])
def test_a_step_that_cannot_be_captured_is_computed_call_by_call(error, caplog):
    tried = []

    def capture(compute):
        tried.append(compute)
        raise error

    runner = PagedLoraRunner(deep_model(2), 4, 0, kv_bytes=2**22, capture=capture)
    plain = PagedLoraRunner(deep_model(2), 4, 0, kv_bytes=2**22)
    rows = begin(runner, 3)
    expected = begin(plain, 3)
    for count in (3, 3, 1):
        actual = decode(runner, rows[:count])
        assert torch.equal(actual, decode(plain, expected[:count]))
    assert len(tried) == (2 if "memory" in str(error) else 1)
    assert "without a CUDA graph" in caplog.text


def test_numbers_of_rows_and_blocks_have_few_sizes():
    assert [padded_rows(rows) for rows in (1, 2, 3, 8, 9, 32, 33, 72)] == [
        1, 2, 4, 8, 16, 32, 64, 96,
    ]  # fmt: skip
    smallest = MIN_DECODE_BLOCKS
    assert [padded_blocks(blocks) for blocks in (1, smallest, smallest + 1, 512)] == [
        smallest, smallest, 2 * smallest, 512,
    ]  # fmt: skip


def deep_model(layers: int, dtype=torch.float32, **settings):
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, **settings,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def put_adapter(runner, slot: int, rank: int = 4):
    pairs = {
        name: (torch.randn(rank, linear.in_features), torch.randn(rank, linear.out_features))
        for name, linear in runner.linears.items()
        if name != "lm_head"
    }
    runner.stack.put(slot, AdapterWeights(None, pairs))


def begin(runner, rows: int):
    """Compute a prompt for each row, and return their caches and slots."""
    caches = [runner.new_kv_cache(100) for _ in range(rows)]
    slots = [LoraSlot(row % 2 if runner.stack.pairs else 0) for row in range(rows)]
    prompts = [[(7 * at + row) % 300 for at in range(2 + row % 20)] for row in range(rows)]
    runner.forward(
        [
            ScheduledTokens(kv, prompt, slot)
            for kv, prompt, slot in zip(caches, prompts, slots, strict=True)
        ]
    )
    return list(zip(caches, slots, strict=True))


def decode(runner, rows):
    return runner.forward([ScheduledTokens(kv, (11,), slot) for kv, slot in rows])


class HostWaits(TorchFunctionMode):
    """Counts what makes a host wait for a GPU's results."""

    names = frozenset(
        {"tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero"}
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in self.names
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(logprobs=True, alternatives=3, top_k=40, min_p=0.1),
        SamplingParams(temperature=0, repetition_penalty=1.0),
    ],
    ids=["default", "all", "greedy"],
)
def test_a_step_has_the_same_calls_for_all_rows_and_waits_once(sampling):
    runner = PagedLoraRunner(deep_model(36), 4, 0, kv_bytes=2**24)
    put_adapter(runner, 1)
    calls = {}
    for count in (1, 8, 32):
        rows = begin(runner, count)
        states = [SamplerState(sampling, seed, set(range(3, 60))) for seed in range(count)]
        decode(runner, rows)
        with RecordedGraph() as recorded, HostWaits() as host:
            sampled = sample_tokens(decode(runner, rows), states)
        assert not [token for token in sampled if isinstance(token, Exception)]
        assert host.count == 1 and not any(map(waits, recorded.calls))
        calls[count] = len(recorded.calls)
    print(f"calls of a step of 36 layers by rows: {calls}")
    assert max(calls.values()) <= 1.05 * min(calls.values())


@pytest.mark.parametrize("name", IN_THE_BATCH)
@pytest.mark.usefixtures("static_shapes")
def test_every_family_says_what_it_says_alone(tmp_path, name):
    """Rotary angles scaled as Llama 3.2's, biases, normalised queries, windows of attention."""
    base = make_model(FAMILIES[name], tmp_path / "model")
    model = load_model(base, "float32").to(torch.float64)
    targets = list(find_target_modules(base, LAYERS).names)
    ref = special_adapter(tmp_path, base, "v1", r=4, target_modules=targets)
    parts, recorded = answered(model, fingerprint(base), [None, ref])
    assert differences(recorded) == (0, [])
    assert isinstance(parts.stacked, PagedLoraRunner)


@pytest.mark.usefixtures("static_shapes")
def test_angles_that_follow_the_longest_text_are_computed_for_each_text_alone(caplog):
    """LongRoPE as in Phi-3's long models: some prompts are longer than what it begins to scale at."""
    model = deep_model(2, torch.float64, rope_parameters=LONG_ROPE)
    parts, recorded = answered(model, "0", [None])
    assert differences(recorded) == (0, [])
    assert parts.stacked is None and "angles change with the length" in caplog.text


def answered(model, base_hash, adapters):
    """Have an engine generate the replies to a short and a long prompt under each adapter, all of
    them together; returns its parts and the replies.
    """
    alone = PeftSwitcher(copy.deepcopy(model), base_hash)
    prompt = tuple(range(10, 50))  # longer than the families' windows
    questions = [ask(alone, ref, prompt[:length]) for ref in adapters for length in (3, 40)]
    limits = SchedulerLimits(prefill_tokens=7, solo_prefill_tokens=13)
    parts = build_engine_parts(model, base_hash, limits, slots=2, prefix_bytes=10**7)
    recorded = [RecordedReply(question, 10) for question in questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
        parts.batch.step()
    run_to_end(parts)
    parts.close()
    return parts, recorded


@pytest.mark.usefixtures("static_shapes")
def test_an_adapter_that_computes_no_numbers_spoils_no_other_row_or_block(reference):
    parts = reference.parts(SchedulerLimits(rows=4), 4, 0)
    runner = parts.stacked
    recorded = [RecordedReply(question, 6) for question in reference.questions]
    asked = [one for one in recorded if one.question.adapter is None][:3]
    put_nan(parts, reference)
    spoilt = RecordedReply(recorded[-1].question, 6)
    for one in (asked[0], spoilt, asked[1]):
        parts.batch.scheduler.add(one.sequence())
    run_to_end(parts)
    assert spoilt.error and differences(asked[:2]) == (0, [])
    assert not runner.pool.memory[:, :, RESERVED_BLOCKS:].isfinite().all(), "it left its numbers"
    parts.batch.scheduler.add(asked[2].sequence())
    run_to_end(parts)
    assert differences(asked[2:]) == (0, [])
    parts.close()


def test_replies_end_at_their_stop_strings_as_on_the_cpu(reference, renderer, monkeypatch):
    sampling = SamplingParams(max_new_tokens=10, stop_loops=False, temperature=1.0)
    asked = [
        (replace(sampling, seed=seed), adapter)
        for seed, adapter in enumerate([None, reference.refs[0], None])
    ]
    whole = said(reference.parts(SchedulerLimits(), 4, 10**7), renderer, asked)
    stops = [(one.reply.text[7:10], "<never>") for one in whole[:-1]] + [()]
    asked = [
        (replace(sampling, stop=stop), adapter)
        for (sampling, adapter), stop in zip(asked, stops, strict=True)
    ]
    on_cpu = said(reference.parts(SchedulerLimits(), 4, 10**7), renderer, asked)
    monkeypatch.setattr(engine_parts, "decodes_in_static_shapes", lambda model: True)
    paged = reference.parts(SchedulerLimits(), 4, 10**7)
    assert isinstance(paged.stacked, PagedLoraRunner)
    for number, one in enumerate(said(paged, renderer, asked)):
        assert one.reply == on_cpu[number].reply, number
        unstopped = whole[number].reply.text
        if stops[number]:
            assert one.reply.text == unstopped.partition(stops[number][0])[0].rstrip()
            assert one.reply.finish == "stop"
        else:
            assert one.reply.text == unstopped


def said(parts, renderer, asked):
    """Have an engine generate all replies together, and return what was said."""
    recorders = []
    for sampling, adapter in asked:
        request = ChatRequest(ADA, (Turn("Bo", "What do you mend?"),), (), adapter, sampling)
        prompt = renderer.prompt(ADA, request.turns)
        recorders.append(Recorder())
        parts.batch.submit(
            request, prompt, renderer, sink=recorders[-1], on_end=recorders[-1].count_end
        )
    run_to_end(parts)
    parts.close()
    return recorders


def put_nan(parts, reference):
    """Load the last adapter of the reference, and spoil it."""
    weights = parts.read(reference.refs[-1])
    for a, _ in weights.pairs.values():
        a.fill_(torch.nan)
    parts.load_adapter(weights)


@pytest.mark.usefixtures("static_shapes")
def test_replies_share_a_small_pool_and_wait_for_each_other(reference):
    shape = CacheShape.of(reference.model)
    longest = max(len(question.prompt) for question in reference.questions) + 14
    kv_bytes = (longest + BLOCK_TOKENS) * shape.token_bytes
    limits = SchedulerLimits(rows=8, kv_bytes=kv_bytes)
    parts = reference.parts(limits, 4, 10 * BLOCK_TOKENS * shape.token_bytes)
    recorded = [RecordedReply(question, 6) for question in reference.questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
    run_to_end(parts)
    assert differences(recorded) == (0, [])
    assert parts.stacked.prefixes.bytes > 0
    parts.close()


class TestPool:
    """The pool and its caches, without a model."""

    shape = CacheShape(1, 1, 2, torch.float32, torch.device("cpu"))

    def cache(self, pool, tokens):
        kv = PagedKVCache(pool)
        pool.reserve([(kv, len(tokens))])
        kv.prepare(len(tokens))
        numbers = torch.tensor(tokens, dtype=torch.float32)[None, :, None].expand(1, -1, 2)
        kv.write(0, numbers, -numbers)
        kv.tokens += tokens
        return kv

    def stored(self, kv):
        kv.prepare(0)
        keys, values = kv.read(0, 0, len(kv.tokens))
        assert torch.equal(keys, -values)
        return keys[0, 0, :, 0].tolist()

    def test_a_fork_shares_whole_blocks_and_goes_on_alone(self):
        pool = KVPool(self.shape, 10**4)
        free = pool.free_blocks
        first = self.cache(pool, list(range(40)))
        fork = PagedKVCache(pool)
        fork.copy_from(first, 35)
        assert pool.free_blocks == free - 4 and fork.table[:2] == first.table[:2]
        for kv, token in ((first, 900), (fork, 700)):
            pool.reserve([(kv, 1)])
            kv.prepare(1)
            kv.write(0, torch.full((1, 1, 2), token), torch.full((1, 1, 2), -token))
            kv.tokens.append(token)
        assert self.stored(first) == first.tokens and self.stored(fork) == fork.tokens
        del first
        assert self.stored(fork) == [*range(35), 700]
        del fork, kv
        assert pool.free_blocks == free

    def test_what_does_not_fit_takes_nothing(self):
        pool = KVPool(self.shape, 4 * BLOCK_TOKENS * self.shape.token_bytes)
        kv = self.cache(pool, list(range(20)))
        others = [(PagedKVCache(pool), 10), (kv, 40)]
        with pytest.raises(MemoryError, match="3 blocks are needed, and 2 are free"):
            pool.reserve(others)
        assert pool.free_blocks == 2 and not others[0][0].table

    def test_new_blocks_hold_nothing_of_old_ones(self):
        pool = KVPool(self.shape, BLOCK_TOKENS * self.shape.token_bytes)
        kv = self.cache(pool, [5] * BLOCK_TOKENS)
        del kv
        self.cache(pool, [7])
        assert pool.memory[:, :, RESERVED_BLOCKS:].count_nonzero() == 4


def test_memory_that_is_reserved_at_once_is_no_more_than_replies_need():
    window = ContextWindow(8192, "the default")
    budget = KVBudget.plan(window, 1000, free_bytes=10**11, least_prefix_bytes=7)
    reserved = budget.reserved(32, 1000)
    assert reserved.running_bytes == 32 * 2048 * 1000
    assert budget.reserved(2, 1000).running_bytes == 2 * 8192 * 1000
    small = KVBudget.plan(window, 1000, free_bytes=10**7, least_prefix_bytes=7)
    assert small.reserved(32, 1000) == small
    assert (reserved.window, reserved.prefix_bytes) == (window, budget.prefix_bytes)
