"""The batch beyond random schedules: adapters for peft, architectures, many adapters, time-outs,
the prefix cache.
"""

import copy
import gc
import json
import random
from dataclasses import replace

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from personas.engine import step
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.kv_cache import BLOCK_TOKENS, CacheShape, PrefixCache, SequenceKVCache
from personas.engine.lora_slots import MAX_STACKED_RANK, LoraSlot
from personas.engine.model_runner import ScheduledTokens
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError, EngineBusyError
from personas.home.adapters import adapter_ref, write_manifest
from tests.personas.engine_reference import (
    Question,
    RecordedReply,
    ReferenceModel,
    ask,
    differences,
    run_to_end,
    special_adapter,
)
from tests.tiny_models import PROJECTIONS, make_adapter, manifest_over

PROMPT = tuple(range(100, 140))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    return ReferenceModel(
        tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=2, prompts=3
    )


def test_a_request_of_which_nothing_can_be_drawn_ends_alone(reference):
    parts = reference.parts(SchedulerLimits(rows=4), 4, 0)
    recorded = [RecordedReply(question, 10) for question in reference.questions[:4]]
    for number, one in enumerate(recorded):
        impossible = {"temperature": 1.0, "repetition_penalty": 1e-45} if number == 1 else {}
        parts.batch.scheduler.add(one.sequence(**impossible))
    run_to_end(parts)
    assert isinstance(recorded[1].error, ArithmeticError) and recorded[1].ends == 1
    assert differences([recorded[0], *recorded[2:]]) == (0, []) and all(
        one.reply for one in (recorded[0], *recorded[2:])
    )
    parts.close()


SPECIAL = {
    "dora": ({"r": 4, "target_modules": PROJECTIONS, "use_dora": True}, False),
    "large rank": (
        {"r": MAX_STACKED_RANK + 1, "target_modules": PROJECTIONS, "rank_pattern": {"q_proj": 3}},
        False,
    ),
    "rslora": (
        {"r": 6, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
        True,
    ),
    "patterns": (
        {
            "r": 4,
            "target_modules": PROJECTIONS,
            "rank_pattern": {"v_proj": 7},
            "alpha_pattern": {"layers.1.mlp.up_proj": 3},
        },
        True,
    ),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_adapters_of_every_kind_share_the_engine_and_are_right(
    reference, tiny_base, tmp_path, kind
):
    settings, stacked = SPECIAL[kind]
    ref = special_adapter(tmp_path, tiny_base, kind, **settings)
    question = ask(PeftSwitcher(copy.deepcopy(reference.model), reference.hash), ref, PROMPT)
    others = [
        next(q for q in reference.questions if q.adapter == other)
        for other in (None, *reference.refs)
    ]
    parts = reference.parts(SchedulerLimits(prefill_tokens=16), 4, 10**7)
    assert (parts.read(ref).pairs is not None) == stacked
    recorded = [
        RecordedReply(q, 10)
        for q in (others[0], question, others[1], question, others[2], others[0])
    ]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
        parts.batch.step()
    run_to_end(parts)
    assert differences(recorded) == (0, [])
    assert recorded[1].reply.version == kind


ARCHITECTURES = {
    "qwen2": Qwen2Config(use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "llama": LlamaConfig(
        rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
        attention_bias=True, mlp_bias=True,
    ),
}  # fmt: skip
"""With windows in some layers alone, and with biases everywhere; `test_engine_families` has others."""


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_says_what_it_says_alone(tmp_path, renderer, kind):
    from personas.models.base_model import locate

    config = ARCHITECTURES[kind]
    config.update({"vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                   "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2})  # fmt: skip
    if kind == "qwen2":
        config.layer_types = ["full_attention", "sliding_attention"]
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    renderer.tokenizer.save_pretrained(tmp_path / "m")
    base = locate(str(tmp_path / "m"))
    reference = ReferenceModel(tmp_path, base, torch.float64, adapters=2, prompts=0)
    alone = PeftSwitcher(copy.deepcopy(reference.model), reference.hash)
    questions = [
        ask(alone, ref, PROMPT[:length]) for ref in (None, *reference.refs) for length in (3, 30)
    ]
    parts = reference.parts(SchedulerLimits(prefill_tokens=5, solo_prefill_tokens=13), 4, 10**7)
    recorded = [RecordedReply(question, 12) for question in questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
    run_to_end(parts)
    assert differences(recorded) == (0, [])


def test_who_comes_during_a_prompt_is_next_but_not_for_ever(reference, monkeypatch):
    monkeypatch.setattr(step, "MAX_PREFILL_TOKENS_IN_A_ROW", 100)
    parts = reference.parts(SchedulerLimits(), 4, 0)
    question = next(it for it in reference.questions if len(it.prompt) > 20 and it.adapter is None)
    replying = RecordedReply(question, 12)
    arrived = list[RecordedReply]()
    parts.batch.scheduler.add(replying.sequence())
    parts.batch.step()
    parts.batch.has_arrivals = lambda: True
    before = replying.tokens
    while replying.tokens == before:
        arrived.append(RecordedReply(question, 1))
        parts.batch.scheduler.add(arrived[-1].sequence())
        parts.batch.step()
        assert arrived[-1].tokens, "its prompt is computed at once"
    prompts = [len(it.question.prompt) for it in arrived]
    assert len(arrived) > 1 and sum(prompts[:-1]) < 100 <= sum(prompts), (
        "then all others get their token"
    )
    run_to_end(parts)
    assert differences([replying, *arrived]) == (0, [])


def test_a_prefix_is_computed_once_and_only_for_its_adapter(reference, monkeypatch):
    parts = reference.parts(SchedulerLimits(), 4, 10**8)
    computed = []
    forward = parts.stacked.forward
    monkeypatch.setattr(
        parts.stacked,
        "forward",
        lambda spans: computed.extend(len(s.tokens) for s in spans) or forward(spans),
    )
    long = next(
        q for q in reference.questions if len(q.prompt) > 2 * BLOCK_TOKENS and q.adapter is None
    )
    for expected in (
        len(long.prompt),
        len(long.prompt) - (len(long.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS,
    ):
        computed.clear()
        recorded = RecordedReply(long, 3)
        parts.batch.scheduler.add(recorded.sequence())
        run_to_end(parts)
        assert computed == [expected, 1, 1] and differences([recorded]) == (0, [])
    other = next(
        q for q in reference.questions if q.prompt == long.prompt and q.adapter is not None
    )
    computed.clear()
    parts.batch.scheduler.add(RecordedReply(other, 1).sequence())
    run_to_end(parts)
    assert computed == [len(long.prompt)]


def test_forgotten_texts_are_computed_anew_and_what_runs_meanwhile_is_not_kept(reference):
    parts = reference.parts(SchedulerLimits(), 4, 10**8)
    prefixes = parts.stacked.prefixes
    recorded = [RecordedReply(question, 6) for question in reference.questions]
    parts.batch.scheduler.add(recorded[0].sequence())
    run_to_end(parts)
    assert prefixes.bytes > 0
    for one in recorded[1:]:
        parts.batch.scheduler.add(one.sequence())
    while parts.batch.waiting or not recorded[1].generated:
        parts.batch.step()
    assert parts.batch.running
    parts.batch.clear_prefix_cache()
    run_to_end(parts)
    assert prefixes.bytes == 0 and differences(recorded) == (0, [])
    parts.batch.scheduler.add(RecordedReply(reference.questions[0], 2).sequence())
    run_to_end(parts)
    assert prefixes.bytes > 0, "later requests are stored again"


class TestPrefixes:
    """The prefix cache, without a model."""

    shape = CacheShape(1, 1, 2, torch.float32, "cpu")
    block_bytes = 1 * 2 * 1 * BLOCK_TOKENS * 2 * 4

    def row(self, tokens):
        row = SequenceKVCache(self.shape, len(tokens) + 1)
        row.memory[0, 0, 0, : len(tokens), 0] = torch.tensor(tokens, dtype=torch.float32)
        row.tokens = list(tokens)
        return row

    def taken(self, cache, tokens, adapter="a"):
        row = SequenceKVCache(self.shape, 200)
        count = cache.load_prefix(adapter, tokens, row)
        assert row.memory[0, 0, 0, :count, 0].tolist() == list(tokens[:count]) == row.tokens
        return count

    def test_it_is_bounded_and_the_longest_unused_leaves_from_its_end(self):
        cache = PrefixCache(4 * self.block_bytes)
        first = list(range(48))
        second = list(range(100, 148))
        cache.store("a", self.row(first))
        assert self.taken(cache, [*first, 1]) == 48 and self.taken(cache, first) == 32, (
            "the last token is computed"
        )
        cache.store("a", self.row(second))
        assert self.taken(cache, [*second, 1]) == 48 and self.taken(cache, [*first, 1]) == 16
        assert cache.bytes == 4 * self.block_bytes
        cache.store("a", self.row(list(range(200, 400))))
        assert cache.bytes <= 4 * self.block_bytes

    def test_the_same_tokens_after_others_are_other_blocks(self):
        cache = PrefixCache(10**6)
        same = list(range(BLOCK_TOKENS))
        cache.store("a", self.row([*same, *same]))
        assert self.taken(cache, [*same, *same, 1]) == 32
        assert (
            self.taken(cache, [*[7] * BLOCK_TOKENS, *same, 1]) == 0
            and self.taken(cache, [*same, 1], "b") == 0
        )

    def test_what_an_adapter_computed_goes_with_it(self):
        cache = PrefixCache(10**6)
        for adapter in "ab":
            cache.store(adapter, self.row(list(range(32))))
        cache.drop_adapter("a")
        tokens = list(range(33))
        assert self.taken(cache, tokens, "a") == 0 and self.taken(cache, tokens, "b") == 32
        assert cache.bytes == 2 * self.block_bytes


def test_who_waits_too_long_is_refused_and_who_speaks_too_long_ends(reference):
    now = [0.0]
    parts = reference.parts(SchedulerLimits(rows=1, wait_s=100, reply_s=20), 4, 0)
    parts.batch.scheduler.clock = lambda: now[0]
    first = RecordedReply(reference.questions[0], 14)
    second = RecordedReply(reference.questions[1], 14)
    parts.batch.scheduler.add(first.sequence())
    parts.batch.scheduler.add(second.sequence())
    parts.batch.step()
    now[0] = 101
    parts.batch.step()
    assert first.reply.finish == "length" and 0 < first.tokens < 14 and first.ends == 1
    assert isinstance(second.error, EngineBusyError) and second.ends == 1
    assert not parts.batch.running and not parts.batch.waiting


def has_an_alpha_that_is_no_number(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": "much"}))


def has_no_settings(folder):
    (folder / "adapter_config.json").write_text("[]")


def test_a_layer_that_one_adapter_alone_changes_has_a_slot_for_all(reference):
    parts = reference.parts(SchedulerLimits(), 8, 0)
    stack = parts.stacked.stack
    whole = parts.read(reference.refs[0])
    attention = {name: pair for name, pair in whole.pairs.items() if "q_proj" in name}
    for slot, pairs in ((1, attention), (5, attention), (1, whole.pairs)):
        stack.put(slot, replace(whole, pairs=pairs))
    assert {a.shape[0] for a, _ in stack.pairs.values()} == {9}
    kv = parts.stacked.new_kv_cache(4)
    for tokens in ([5, 6, 7], [8]):  # a prompt, and its next token
        assert parts.stacked.forward([ScheduledTokens(kv, tokens, LoraSlot(5))]).isfinite().all()
    parts.close()


def test_what_an_adapter_leaves_unsaid_is_as_peft_takes_it(reference, tiny_base, tmp_path):
    ref = make_adapter(tmp_path, tiny_base, "p", "short", seed=1)
    config = json.loads((ref.folder / "adapter_config.json").read_text())
    del config["lora_alpha"]
    (ref.folder / "adapter_config.json").write_text(json.dumps(config))
    write_manifest(ref.folder, manifest_over(tiny_base, "p", "short"))
    parts = reference.parts(SchedulerLimits(), 4, 0)
    recorded = RecordedReply(
        ask(PeftSwitcher(copy.deepcopy(reference.model), reference.hash), ref, PROMPT), 10
    )
    parts.batch.scheduler.add(recorded.sequence())
    run_to_end(parts)
    assert differences([recorded]) == (0, [])


@pytest.mark.parametrize("breaks", [has_an_alpha_that_is_no_number, has_no_settings])
def test_one_that_fails_ends_alone(reference, tiny_base, tmp_path, breaks):
    broken = make_adapter(tmp_path, tiny_base, "p", "broken", seed=1)
    breaks(broken.folder)
    write_manifest(broken.folder, manifest_over(tiny_base, "p", "broken"))
    parts = reference.parts(SchedulerLimits(), 4, 0)
    bad = RecordedReply(Question(broken, PROMPT, (), ()), 3)
    good = [RecordedReply(question, 5) for question in reference.questions]
    for one in (*good[:2], bad, *good[2:]):
        parts.batch.scheduler.add(one.sequence())
    run_to_end(parts)
    assert isinstance(bad.error, AdapterError) and bad.ends == 1 and differences(good) == (0, [])


@pytest.mark.slow
def test_a_thousand_adapters_on_eight_slots(reference, tiny_base, tmp_path, capsys):
    """Serve 200 requests for 1,000 adapters on disk: all correct, none starved, constant memory."""
    refs = _thousand(reference, tmp_path)
    alone = PeftSwitcher(copy.deepcopy(reference.model), reference.hash, keep=2)
    parts = reference.parts(SchedulerLimits(rows=8), 8, 10**6)
    generator = random.Random(4)
    recorded: list[RecordedReply] = []
    sizes = []
    for _ in range(200):
        ref = refs[
            int(generator.paretovariate(0.4)) % len(refs)
        ]  # some are requested again and again
        recorded.append(
            RecordedReply(
                Question(ref, PROMPT[: generator.randrange(1, 40)], (), ()),
                generator.randrange(1, 6),
            )
        )
        parts.batch.scheduler.add(recorded[-1].sequence(generator.randrange(5)))
        parts.batch.step()
        if len(recorded) % 50 == 0:
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    run_to_end(parts)
    assert all(one.ends == 1 and one.tokens == one.length for one in recorded)
    for one in generator.sample(recorded, 12):
        one.question = ask(alone, one.question.adapter, one.question.prompt)
        assert differences([one]) == (0, [])
    with capsys.disabled():
        different = len({one.question.adapter for one in recorded})
        print(
            f" {different} adapters requested, longest wait "
            f"{max(one.waited_s for one in recorded):.1f} s ",
            end="",
        )
    assert sizes[-1] - sizes[0] < 64 * 2**20


def _thousand(reference, home):
    """Create 1,000 adapter folders; each hundred hold the same weights."""
    import shutil

    kinds = [reference.refs[n % len(reference.refs)] for n in range(10)]
    refs = []
    for number in range(1000):
        ref = adapter_ref(home, f"p{number}", "v1")
        shutil.copytree(kinds[number % len(kinds)].folder, ref.folder)
        refs.append(ref)
    return refs


def test_a_prompt_is_computed_in_pieces_while_others_go_on(reference):
    parts = reference.parts(SchedulerLimits(prefill_tokens=8, solo_prefill_tokens=8), 4, 0)
    talking = RecordedReply(reference.questions[0], 14)
    parts.batch.scheduler.add(talking.sequence())
    while not talking.tokens:
        parts.batch.step()
    long = RecordedReply(next(q for q in reference.questions if len(q.prompt) > 40), 2)
    parts.batch.scheduler.add(long.sequence())
    before = talking.tokens
    for _ in range(4):
        parts.batch.step()
    assert talking.tokens == before + 4 and long.tokens == 0
    run_to_end(parts)
    assert differences([talking, long]) == (0, [])
