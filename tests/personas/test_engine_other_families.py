"""Models with a state besides keys and values, or built otherwise: each reply is the one of a full
pass per token.
"""

import logging

import pytest
import torch

from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.model_runner import ScheduledTokens
from personas.engine.peft_runner import CacheUse, PeftKVCache, PeftRunner, PeftSwitcher
from personas.errors import BaseModelError
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from tests.model_families import FAMILIES, OTHER_FAMILIES
from tests.personas.engine_reference import (
    LENGTH,
    Question,
    RecordedReply,
    differences,
    run_to_end,
    special_adapter,
)
from tools.tiny_models import make_model
from trainer.recipe.recipe_file import load_recipe as recipe_named
from trainer.recipe.target_modules import find_target_modules

FAST = ("LFM2", "Mamba", "OPT")
USES = {
    "Qwen3.5": CacheUse.WHOLE_PROMPTS,
    "Qwen3-Next": CacheUse.WHOLE_PROMPTS,
    "LFM2": CacheUse.PARTS,
    "Falcon-H1": CacheUse.WHOLE_PROMPTS,
    "Granite-4-H": CacheUse.WHOLE_PROMPTS,
    "Nemotron-H": CacheUse.WHOLE_PROMPTS,
    "Bamba": CacheUse.NONE,
    "Mamba": CacheUse.WHOLE_PROMPTS,
    "Mamba 2": CacheUse.WHOLE_PROMPTS,
    "RWKV": CacheUse.NONE,
    "Llama 4": CacheUse.PARTS,
    "gpt-oss": CacheUse.PARTS,
    "OPT": CacheUse.PARTS,
    "Doge": CacheUse.PARTS,
    "Ministral 3": CacheUse.PARTS,
    "Gemma 4": CacheUse.PARTS,
    "Granite": CacheUse.PARTS,
    "OLMo 3": CacheUse.PARTS,
    "SmolLM3": CacheUse.PARTS,
    "GLM-4": CacheUse.PARTS,
    "EXAONE 4": CacheUse.PARTS,
}
PROMPTS = (tuple(range(10, 50)), (60, 61, 62))
pytestmark = pytest.mark.usefixtures("one_thread")


@torch.inference_mode()
def ask_plainly(switcher, ref, prompt) -> Question:
    """Generate greedily, each token by a pass over the whole text."""
    answer = []
    leads = []
    for _ in range(LENGTH):
        with switcher.use(ref):
            ids = torch.tensor([[*prompt, *answer]])
            best = switcher.model(input_ids=ids, use_cache=False).logits[0, -1].topk(2)
        answer.append(int(best.indices[0]))
        leads.append(float(best.values[0] - best.values[1]))
    return Question(ref, prompt, tuple(answer), tuple(leads))


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in OTHER_FAMILIES
    ],
)
def test_every_family_says_what_a_full_pass_says(tmp_path, name, caplog):
    """Two texts at once, prompts in parts, with an adapter and without."""
    base = make_model(OTHER_FAMILIES[name], tmp_path / "model")
    model = load_model(base, "float32")
    targets = list(find_target_modules(base, recipe_named("demo-cpu").target_modules).names)
    ref = special_adapter(tmp_path, base, "v1", r=4, target_modules=targets)
    alone = PeftSwitcher(load_model(base, "float32"), fingerprint(base))
    questions = [
        ask_plainly(alone, adapter, prompt) for adapter in (None, ref) for prompt in PROMPTS
    ]
    limits = SchedulerLimits(prefill_tokens=7, solo_prefill_tokens=13)
    with caplog.at_level(logging.WARNING):
        parts = build_engine_parts(model, fingerprint(base), limits, slots=2, prefix_bytes=10**7)
    recorded = [RecordedReply(question, 10) for question in questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
        parts.batch.step()
    run_to_end(parts)
    parts.close()
    close, wrong = differences(recorded)
    assert not wrong and not close
    assert f"models: {USES[name].value}" in caplog.text


def test_a_sequence_whose_batch_failed_is_computed_anew(tmp_path):
    """The engine takes the tokens of a failed batch back, which the model's cache has already
    seen.
    """
    base = make_model(OTHER_FAMILIES["OPT"], tmp_path / "model")
    runner = PeftRunner(PeftSwitcher(load_model(base, "float32"), fingerprint(base)))
    kv = PeftKVCache()
    text = list(range(10, 20))
    runner.forward([ScheduledTokens(kv, text[:9])])
    first = runner.forward([ScheduledTokens(kv, text[9:])])
    del kv.tokens[9:]
    torch.testing.assert_close(runner.forward([ScheduledTokens(kv, text[9:])]), first)


def test_a_batch_that_gives_other_results_is_given_up(tmp_path, monkeypatch, caplog):
    base = make_model(FAMILIES["Qwen3"], tmp_path / "model")
    limits = SchedulerLimits()

    def build(model):
        return build_engine_parts(model, fingerprint(base), limits, slots=2, prefix_bytes=10**7)

    assert build(load_model(base, "float32")).stacked
    monkeypatch.setattr(
        "personas.engine.lora_runner._attend", lambda query, memory, cached, settings: query * 0
    )
    assert not build(load_model(base, "float32")).stacked
    assert "other results" in caplog.text


def test_a_model_that_gives_no_numbers_is_refused_when_it_is_loaded(tmp_path):
    base = make_model(FAMILIES["Qwen3"], tmp_path / "model")
    model = load_model(base, "float32")
    model.model.layers[1].mlp.up_proj.weight.data.fill_(torch.nan)
    with pytest.raises(BaseModelError, match=r"qwen3, .*not finite in float32"):
        build_engine_parts(model, fingerprint(base), SchedulerLimits(), slots=2, prefix_bytes=10**7)
