"""The effect probe on the local engine: a version speaks only where it has the effect that its
training measured.
"""

import json
import shutil

import pytest
import torch

from personas.engine import engine_parts
from personas.engine.effect_probe import (
    COARSE_TOLERANCE,
    FINE_TOLERANCE,
    CacheLeakError,
    EffectError,
    compare_effect,
    effect_tolerance,
)
from personas.engine.kv_cache import PrefixCache
from personas.engine.llm_engine import LLMEngine
from personas.engine.lora_slots import StackedLora
from personas.errors import AdapterError
from personas.home.adapters import EFFECT_PROBE_FILE, adapter_ref, verify_adapter
from personas.home.effect_probe import read_effect_results
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn
from personas.schemas.effect_probe import EffectProbe, ProbeReply
from tests.effect_probes import (
    change_weights,
    empty_a_layer,
    halve,
    measure_probe,
    open_parts,
    results_in,
    weights_of,
)
from tests.tiny_models import make_adapter

pytestmark = pytest.mark.usefixtures("one_thread")
ADA = Persona("ada", "Ada", description="You are Ada.")
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6, repetition_penalty=1.0)


def ask(adapter: AdapterRef | None = None) -> ChatRequest:
    return ChatRequest(ADA, (Turn("Bo", "hello"),), (), adapter, GREEDY)


async def answer(engine: LLMEngine, request: ChatRequest) -> str | None:
    """Return the version that replied."""
    stream = engine.submit(request)
    async for _ in stream:
        pass
    return stream.reply.version


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base, renderer):
    """A home with versions of two personas, whose effects were measured."""
    home = tmp_path_factory.mktemp("trained")
    parts = open_parts(tiny_base)
    for seed, persona in enumerate(("ada", "oda")):
        ref = make_adapter(home, tiny_base, persona, "v1", seed=seed)
        measure_probe(parts, ref, tiny_base, renderer.tokenizer)
    parts.close()
    return home


@pytest.fixture
def home(trained, tmp_path):
    """A copy of it, which a test may change."""
    shutil.copytree(trained / "models", tmp_path / "models")
    return tmp_path


@pytest.fixture
async def open_engine(tiny_base, home):
    engines = []

    async def start(precision="float32", **options):
        engine = LLMEngine(tiny_base, precision, home=home, **options)
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.close()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
async def test_a_right_version_speaks_in_each_precision(open_engine, home, precision):
    engine = await open_engine(precision)
    ref = adapter_ref(home, "ada", "v1")
    await engine.load(ref)
    assert await answer(engine, ask(ref)) == "v1"
    [result] = read_effect_results(home)
    assert (result.persona, result.version, result.verdict) == ("ada", "v1", "shown")
    assert result.precision == precision and result.engine.startswith("this bot's engine (cpu")
    assert not result.cache.leaks and result.cache.gap < 0.1 < result.cache.separation
    assert result.expected_shift > 0.5 and abs(result.shown_shift - result.expected_shift) < 0.05


@pytest.mark.parametrize(
    ("runner", "wrong"),
    [("stacked", "another persona's"), ("stacked", "half of the layers"), ("peft", "halved")],
)
async def test_a_wrong_adapter_is_refused_with_both_figures(
    open_engine, home, monkeypatch, runner, wrong
):
    if runner == "peft":
        monkeypatch.setattr(engine_parts, "BATCHED_MODEL_TYPES", frozenset())
    changes = {
        "another persona's": weights_of(adapter_ref(home, "oda", "v1")),
        "halved": halve,
        "half of the layers": empty_a_layer,
    }
    ref = adapter_ref(home, "ada", "v1")
    change_weights(ref, changes[wrong])
    engine = await open_engine()
    with pytest.raises(EffectError, match="does not show the effect of ada v1") as refused:
        await engine.load(ref)
    [result] = read_effect_results(home)
    assert result.verdict == "refused"
    assert f"{result.shown_shift:.3f} nats" in refused.value.message
    assert f"measured {result.expected_shift:.3f}." in refused.value.message
    with pytest.raises(AdapterError, match="does not show"):  # the bot then takes the base model
        await answer(engine, ask(ref))
    right = adapter_ref(home, "oda", "v1")
    await engine.load(right)
    assert await answer(engine, ask(right)) == "v1" and await answer(engine, ask()) is None


async def test_an_engine_that_uses_no_module_is_noticed(open_engine, home, monkeypatch):
    put = StackedLora.put

    def put_nothing(stack, slot, weights):
        put(stack, slot, weights)
        for pair in stack.pairs.values():
            pair[1][slot] = 0

    monkeypatch.setattr(StackedLora, "put", put_nothing)
    engine = await open_engine()
    with pytest.raises(EffectError, match=r"likelier by -?0\.000 nats"):
        await engine.load(adapter_ref(home, "ada", "v1"))


@pytest.mark.parametrize("with_other", [False, True])
async def test_a_prefix_cache_that_mixes_adapters_is_noticed(
    open_engine, home, monkeypatch, with_other
):
    load_prefix = PrefixCache.load_prefix
    store = PrefixCache.store
    engine = await open_engine()
    if with_other:
        await engine.load(adapter_ref(home, "oda", "v1"))
    monkeypatch.setattr(
        PrefixCache,
        "load_prefix",
        lambda cache, name, prompt, kv: load_prefix(cache, "", prompt, kv),
    )
    monkeypatch.setattr(PrefixCache, "store", lambda cache, name, kv: store(cache, "", kv))
    with pytest.raises(CacheLeakError, match="computes ada v1 with other adapters' cached prompts"):
        await engine.load(adapter_ref(home, "ada", "v1"))
    result = next(result for result in read_effect_results(home) if result.persona == "ada")
    assert result.verdict == "leaks" and result.cache.gap > 0.25 * result.cache.separation > 0


async def test_a_version_that_was_not_loaded_is_probed_before_its_first_reply(open_engine, home):
    change_weights(adapter_ref(home, "oda", "v1"), halve)
    engine = await open_engine()
    right, wrong = (adapter_ref(home, persona, "v1") for persona in ("ada", "oda"))
    streams = [engine.submit(ask(ref)) for ref in (wrong, right, None, right)]
    versions = []
    for stream in streams:
        try:
            async for _ in stream:
                pass
            versions.append(stream.reply.version)
        except EffectError:
            versions.append("refused")
    assert versions == ["refused", "v1", None, "v1"]
    assert {result.verdict for result in read_effect_results(home)} == {"shown", "refused"}


async def test_a_result_holds_over_a_restart_and_for_its_precision_alone(
    open_engine, home, monkeypatch
):
    ref = adapter_ref(home, "ada", "v1")
    await (await open_engine()).load(ref)
    [file] = results_in(home)
    shown = json.loads(file.read_text())
    file.write_text(json.dumps({**shown, "at": "earlier"}))
    again = await open_engine()
    await again.load(ref)
    assert await answer(again, ask(ref)) == "v1"
    assert json.loads(file.read_text())["at"] == "earlier"  # not measured again
    await (await open_engine("bfloat16")).load(ref)
    assert len(results_in(home)) == 2


@pytest.mark.parametrize("fault", ["missing", "damaged", "of other weights"])
async def test_a_version_without_its_own_probe_is_not_measured(open_engine, home, fault, caplog):
    ref = adapter_ref(home, "ada", "v1")
    file = ref.folder / EFFECT_PROBE_FILE
    stored = json.loads(file.read_text())
    if fault == "missing":
        file.unlink()
    elif fault == "damaged":
        file.write_text(file.read_text()[:-40])
    else:
        file.write_text(json.dumps({**stored, "weights": "0" * 64}))
    engine = await open_engine()
    await engine.load(ref)
    assert await answer(engine, ask(ref)) == "v1" and not results_in(home)
    assert (EFFECT_PROBE_FILE in caplog.text) == (fault != "missing")


async def test_another_base_model_is_told_from_another_adapter(open_engine, home):
    ref = adapter_ref(home, "ada", "v1")
    file = ref.folder / EFFECT_PROBE_FILE
    probe = json.loads(file.read_text())
    for reply in probe["replies"]:
        for side in ("base", "tuned"):
            reply[side] = [value - 1 for value in reply[side]]
    file.write_text(json.dumps(probe))
    with pytest.raises(EffectError, match="does not compute the base model that ada v1"):
        await (await open_engine()).load(ref)


async def test_a_version_is_dropped_while_it_is_being_tried(open_engine, home):
    engine = await open_engine()
    ref = adapter_ref(home, "ada", "v1")
    stream = engine.submit(ask(ref))
    await engine.drop(ref)
    async for _ in stream:
        pass
    assert stream.reply.version == "v1"
    await engine.load(ref)


def test_the_probe_is_private_and_not_sealed(home):
    ref = adapter_ref(home, "ada", "v1")
    file = ref.folder / EFFECT_PROBE_FILE
    assert file.stat().st_mode & 0o077 == 0
    assert EFFECT_PROBE_FILE not in verify_adapter(ref.folder).checksums


def test_numbers_that_are_not_finite_are_an_error_of_the_adapter(home, tiny_base):
    from personas.engine.lora_slots import read_unverified_adapter  # imports torch
    from personas.engine.reply_scoring import finish, score_in_steps
    from personas.schemas.effect_probe import TokenizedReply

    parts = open_parts(tiny_base)
    ref = adapter_ref(home, "ada", "v1")
    parts.lora.add(read_unverified_adapter(ref, parts.peft.layers))
    for pair in parts.stacked.stack.pairs.values():
        pair[1].fill_(torch.inf)
    slot = parts.lora.acquire(ref)
    with pytest.raises(AdapterError, match="ada v1 computes numbers that are not finite"):
        finish(score_in_steps(parts.stacked, slot, [TokenizedReply(prompt=(1, 2), reply=(3,))]))
    parts.close()


def test_precisions_are_compared_as_they_round():
    """The same four bits in training and serving are no rounding; other ones are a coarse one."""
    assert effect_tolerance("bfloat16", "int8") == effect_tolerance("nf4", "nf4") == FINE_TOLERANCE
    assert effect_tolerance("bfloat16", "nf4") == effect_tolerance("float32", "q4_k_m")
    assert effect_tolerance("bfloat16", "of the future") == COARSE_TOLERANCE


def test_tokens_that_an_engine_does_not_tell_are_left_out():
    reply = ProbeReply(
        prompt=(1,), reply=(2, 3, 4), base=(-1.0, -9.0, -2.0), tuned=(-0.5, -1.0, -1.0)
    )
    probe = EffectProbe(
        weights="0" * 64, base_model_hash="", precision="bfloat16", replies=(reply,)
    )
    told = compare_effect(probe, [(-1.0, None, -2.0)], [(-0.5, -1.0, -1.0)], "bfloat16")
    assert (told.tokens, told.verdict) == (2, "shown")
    assert told.expected_shift == told.shown_shift == 0.75
    with pytest.raises(EffectError, match="tells no log-probabilities"):
        compare_effect(probe, [(None, None, None)], [(-0.5, -1.0, -1.0)], "bfloat16")


@pytest.mark.parametrize(("shift", "verdict"), [(0.01, "too weak"), (0.6, "refused")])
def test_no_effect_is_noticed_where_training_had_one(shift, verdict):
    reply = ProbeReply(prompt=(1,), reply=(2,), base=(-2.0,), tuned=(-2.0 + shift,))
    probe = EffectProbe(weights="0" * 64, base_model_hash="", precision="int8", replies=(reply,))
    assert compare_effect(probe, [(-2.0,)], [(-2.0,)], "int8").verdict == verdict
