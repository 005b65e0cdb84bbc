"""The batch beyond random schedules: what only peft computes, architectures, many adapters, time-outs, the cache."""

import copy
import gc
import json
import random

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config, Qwen3Config

from personas.engine.engine_core import build_engine_parts
from personas.engine.kv_cache import BLOCK_TOKENS, CacheShape, PrefixCache, SequenceKVCache
from personas.engine.lora_slots import MAX_STACKED_RANK
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.scheduler import SchedulerLimits
from personas.errors import AdapterError, EngineBusyError
from personas.home.adapters import adapter_ref, write_manifest
from tests.personas.engine_schedules import Asked, House, Question, ask, differences, run_out, special_adapter
from tests.tiny import PROJECTIONS, make_adapter, manifest_over

PROMPT = tuple(range(100, 140))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def house(tmp_path_factory, tiny_base):
    return House(tmp_path_factory.mktemp("house"), tiny_base, torch.float64, adapters=2, prompts=3)


def test_a_request_of_which_nothing_can_be_drawn_ends_alone(house):
    parts = house.parts(SchedulerLimits(rows=4), 4, 0)
    asked = [Asked(question, 10) for question in house.questions[:4]]
    for number, one in enumerate(asked):
        impossible = {"temperature": 1.0, "repetition_penalty": 1e-45} if number == 1 else {}
        parts.batch.scheduler.add(one.sequence(**impossible))
    run_out(parts)
    assert isinstance(asked[1].error, ArithmeticError) and asked[1].ends == 1
    assert differences([asked[0], *asked[2:]]) == (0, []) and all(one.reply for one in (asked[0], *asked[2:]))
    parts.close()


SPECIAL = {
    "dora": ({"r": 4, "target_modules": PROJECTIONS, "use_dora": True}, False),
    "embeddings": ({"r": 4, "target_modules": [*PROJECTIONS, "embed_tokens"]}, False),
    "bias": ({"r": 4, "target_modules": PROJECTIONS, "lora_bias": True}, False),
    "large rank": ({"r": MAX_STACKED_RANK + 1, "target_modules": PROJECTIONS, "rank_pattern": {"q_proj": 3}}, False),
    "rslora": ({"r": 6, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"], "use_rslora": True}, True),
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


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning", "ignore:(Model has `tie|Setting `save_emb)")
@pytest.mark.parametrize("kind", SPECIAL)
def test_adapters_of_every_kind_share_the_engine_and_are_right(house, tiny_base, tmp_path, kind):
    settings, stacked = SPECIAL[kind]
    ref = special_adapter(tmp_path, tiny_base, kind, **settings)
    question = ask(PeftSwitcher(copy.deepcopy(house.model), house.hash), ref, PROMPT)
    others = [next(q for q in house.questions if q.adapter == other) for other in (None, *house.refs)]
    parts = house.parts(SchedulerLimits(prefill_tokens=16), 4, 10**7)
    assert (parts.read(ref).pairs is not None) == stacked
    asked = [Asked(q, 10) for q in (others[0], question, others[1], question, others[2], others[0])]
    for one in asked:
        parts.batch.scheduler.add(one.sequence())
        parts.batch.step()
    run_out(parts)
    assert differences(asked) == (0, [])
    assert asked[1].reply.version == kind


ARCHITECTURES = {
    "mistral": MistralConfig(sliding_window=9),
    "qwen2": Qwen2Config(use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": Qwen3Config(head_dim=16),
}


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "llama"])
def test_every_architecture_says_what_it_says_alone(tmp_path, renderer, kind):
    from transformers import LlamaConfig

    from personas.models.base_model import locate

    config = ARCHITECTURES.get(kind) or LlamaConfig(
        rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
        attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    config.update({"vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                   "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2})  # fmt: skip
    if kind in ("qwen2", "qwen3"):
        config.layer_types = ["full_attention", "sliding_attention" if kind == "qwen2" else "full_attention"]
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    renderer.tokenizer.save_pretrained(tmp_path / "m")
    base = locate(str(tmp_path / "m"))
    house = House(tmp_path, base, torch.float64, adapters=2, prompts=0)
    alone = PeftSwitcher(copy.deepcopy(house.model), house.hash)
    questions = [ask(alone, ref, PROMPT[:length]) for ref in (None, *house.refs) for length in (3, 30)]
    parts = house.parts(SchedulerLimits(prefill_tokens=5, solo_prefill_tokens=13), 4, 10**7)
    asked = [Asked(question, 12) for question in questions]
    for one in asked:
        parts.batch.scheduler.add(one.sequence())
    run_out(parts)
    assert differences(asked) == (0, [])


def test_an_architecture_that_is_not_known_is_served_one_by_one(house, caplog):
    model = copy.deepcopy(house.model)
    model.config.model_type = "brand-new"
    parts = build_engine_parts(model, house.hash, SchedulerLimits(), slots=4, prefix_bytes=10**7)
    asked = [Asked(question, 6) for question in house.questions]
    for one in asked:
        parts.batch.scheduler.add(one.sequence())
    run_out(parts)
    assert differences(asked) == (0, []) and "one at a time" in caplog.text


def test_a_prefix_is_computed_once_and_only_for_its_adapter(house, monkeypatch):
    parts, computed = house.parts(SchedulerLimits(), 4, 10**8), []
    forward = parts.stacked.forward
    monkeypatch.setattr(
        parts.stacked, "forward", lambda spans: computed.extend(len(s.tokens) for s in spans) or forward(spans)
    )
    long = next(q for q in house.questions if len(q.prompt) > 2 * BLOCK_TOKENS and q.adapter is None)
    for expected in (len(long.prompt), len(long.prompt) - (len(long.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS):
        computed.clear()
        asked = Asked(long, 3)
        parts.batch.scheduler.add(asked.sequence())
        run_out(parts)
        assert computed == [expected, 1, 1] and differences([asked]) == (0, [])
    other = next(q for q in house.questions if q.prompt == long.prompt and q.adapter is not None)
    computed.clear()
    parts.batch.scheduler.add(Asked(other, 1).sequence())
    run_out(parts)
    assert computed == [len(long.prompt)]


def test_forgotten_texts_are_computed_anew_and_what_runs_meanwhile_is_not_kept(house):
    parts = house.parts(SchedulerLimits(), 4, 10**8)
    prefixes = parts.stacked.prefixes
    asked = [Asked(question, 6) for question in house.questions]
    parts.batch.scheduler.add(asked[0].sequence())
    run_out(parts)
    assert prefixes.bytes > 0
    for one in asked[1:]:
        parts.batch.scheduler.add(one.sequence())
    while parts.batch.waiting or not asked[1].tokens_made:
        parts.batch.step()
    assert parts.batch.running
    parts.batch.clear_prefix_cache()
    run_out(parts)
    assert prefixes.bytes == 0 and differences(asked) == (0, [])
    parts.batch.scheduler.add(Asked(house.questions[0], 2).sequence())
    run_out(parts)
    assert prefixes.bytes > 0, "what comes later is kept as ever"


class TestPrefixes:
    """The cache of what prompts have in common, without a model."""

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
        first, second = list(range(48)), list(range(100, 148))
        cache.store("a", self.row(first))
        assert self.taken(cache, [*first, 1]) == 48 and self.taken(cache, first) == 32, "the last token is computed"
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
        assert self.taken(cache, [*[7] * BLOCK_TOKENS, *same, 1]) == 0 and self.taken(cache, [*same, 1], "b") == 0

    def test_what_an_adapter_computed_goes_with_it(self):
        cache = PrefixCache(10**6)
        for adapter in "ab":
            cache.store(adapter, self.row(list(range(32))))
        cache.drop_adapter("a")
        tokens = list(range(33))
        assert self.taken(cache, tokens, "a") == 0 and self.taken(cache, tokens, "b") == 32
        assert cache.bytes == 2 * self.block_bytes


def test_who_waits_too_long_hears_so_and_who_speaks_too_long_ends(house):
    now = [0.0]
    parts = house.parts(SchedulerLimits(rows=1, wait_s=100, reply_s=20), 4, 0)
    parts.batch.scheduler.clock = lambda: now[0]
    first, second = Asked(house.questions[0], 14), Asked(house.questions[1], 14)
    parts.batch.scheduler.add(first.sequence())
    parts.batch.scheduler.add(second.sequence())
    parts.batch.step()
    now[0] = 101
    parts.batch.step()
    assert first.reply.finish == "length" and 0 < first.tokens < 14 and first.ends == 1
    assert isinstance(second.error, EngineBusyError) and second.ends == 1
    assert not parts.batch.running and not parts.batch.waiting


def is_no_longer_sealed(folder):
    (folder / "adapter_config.json").write_text("{}")


def has_an_alpha_that_is_no_number(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": "much"}))


def has_no_settings(folder):
    (folder / "adapter_config.json").write_text("[]")


def test_what_an_adapter_leaves_unsaid_is_as_peft_takes_it(house, tiny_base, tmp_path):
    ref = make_adapter(tmp_path, tiny_base, "p", "short", seed=1)
    config = json.loads((ref.folder / "adapter_config.json").read_text())
    del config["lora_alpha"]
    (ref.folder / "adapter_config.json").write_text(json.dumps(config))
    write_manifest(ref.folder, manifest_over(tiny_base, "p", "short"))
    parts = house.parts(SchedulerLimits(), 4, 0)
    asked = Asked(ask(PeftSwitcher(copy.deepcopy(house.model), house.hash), ref, PROMPT), 10)
    parts.batch.scheduler.add(asked.sequence())
    run_out(parts)
    assert differences([asked]) == (0, [])


@pytest.mark.parametrize("breaks", [is_no_longer_sealed, has_an_alpha_that_is_no_number, has_no_settings])
def test_one_that_fails_ends_alone(house, tiny_base, tmp_path, breaks):
    broken = make_adapter(tmp_path, tiny_base, "p", "broken", seed=1)
    breaks(broken.folder)
    if breaks is not is_no_longer_sealed:
        write_manifest(broken.folder, manifest_over(tiny_base, "p", "broken"))
    parts = house.parts(SchedulerLimits(), 4, 0)
    bad = Asked(Question(broken, PROMPT, (), ()), 3)
    good = [Asked(question, 5) for question in house.questions]
    for one in (*good[:2], bad, *good[2:]):
        parts.batch.scheduler.add(one.sequence())
    run_out(parts)
    assert isinstance(bad.error, AdapterError) and bad.ends == 1 and differences(good) == (0, [])


def test_a_thousand_adapters_on_eight_slots(house, tiny_base, tmp_path, capsys):
    """200 requests for 1,000 adapters on disk: all right, nobody starved, no memory that grows."""
    refs = _thousand(house, tmp_path)
    alone = PeftSwitcher(copy.deepcopy(house.model), house.hash, keep=2)
    parts, dice = house.parts(SchedulerLimits(rows=8), 8, 10**6), random.Random(4)
    asked: list[Asked] = []
    sizes = []
    for _ in range(200):
        ref = refs[int(dice.paretovariate(0.4)) % len(refs)]  # some are asked for again and again
        asked.append(Asked(Question(ref, PROMPT[: dice.randrange(1, 40)], (), ()), dice.randrange(1, 6)))
        parts.batch.scheduler.add(asked[-1].sequence(dice.randrange(5)))
        parts.batch.step()
        if len(asked) % 50 == 0:
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    run_out(parts)
    assert all(one.ends == 1 and one.tokens == one.length for one in asked)
    for one in dice.sample(asked, 12):
        one.question = ask(alone, one.question.adapter, one.question.prompt)
        assert differences([one]) == (0, [])
    with capsys.disabled():
        different = len({one.question.adapter for one in asked})
        print(f" {different} adapters asked for, longest wait {max(one.waited_s for one in asked):.1f} s ", end="")
    assert sizes[-1] - sizes[0] < 64 * 2**20


def _thousand(house, home):
    """1,000 adapter folders, of which each hundred hold the same weights."""
    import shutil

    kinds = [house.refs[n % len(house.refs)] for n in range(10)]
    refs = []
    for number in range(1000):
        ref = adapter_ref(home, f"p{number}", "v1")
        shutil.copytree(kinds[number % len(kinds)].folder, ref.folder)
        refs.append(ref)
    return refs


def test_a_prompt_is_computed_in_pieces_while_others_go_on(house):
    parts = house.parts(SchedulerLimits(prefill_tokens=8), 4, 0)
    talking = Asked(house.questions[0], 14)
    parts.batch.scheduler.add(talking.sequence())
    parts.batch.step()
    long = Asked(next(q for q in house.questions if len(q.prompt) > 40), 2)
    parts.batch.scheduler.add(long.sequence())
    before = talking.tokens
    for _ in range(4):
        parts.batch.step()
    assert talking.tokens == before + 4 and long.tokens == 0
    run_out(parts)
    assert differences([talking, long]) == (0, [])
