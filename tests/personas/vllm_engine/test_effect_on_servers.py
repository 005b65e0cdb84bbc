"""The effect probe on vLLM servers: a version speaks only on those that show its effect."""

import shutil

import pytest

from personas.engine.remote.server_errors import AdapterNotServedError
from personas.home.adapters import adapter_ref
from personas.home.effect_probe import read_effect_results
from tests.effect_probes import (
    ScoringModel,
    change_weights,
    measure_probe,
    results_in,
    weights_of,
)
from tests.personas.vllm_engine.conftest import ask
from tests.tiny_models import make_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scoring(tiny_base):
    model = ScoringModel(tiny_base)
    yield model
    model.parts.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base, renderer, scoring):
    home = tmp_path_factory.mktemp("trained")
    for seed, persona in enumerate(("ada", "oda")):
        ref = make_adapter(home, tiny_base, persona, "v1", seed=seed)
        measure_probe(scoring.parts, ref, tiny_base, renderer.tokenizer)
    return home


@pytest.fixture
def home(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "home" / "models")
    return tmp_path / "home"


@pytest.fixture
def probed(servers, scoring):
    """The servers, which compute log-probabilities."""
    for server in servers:
        server.scoring = scoring
    return servers


async def version_of(engine, ref):
    stream = engine.submit(ask(adapter=ref))
    async for _ in stream:
        pass
    return stream.reply.version


async def test_a_right_version_speaks_and_is_measured_once_a_server(open_engine, probed, home):
    ref = adapter_ref(home, "ada", "v1")
    engine = await open_engine()
    await engine.load(ref)
    assert await version_of(engine, ref) == "v1"
    results = list(read_effect_results(home))
    assert {result.verdict for result in results} == {"shown"}
    assert sorted(result.engine.split(",")[0] for result in results) == sorted(
        f"vllm {server.url}" for server in probed
    )
    asked = sum(len(server.requests) for server in probed)
    await engine.close()
    again = await open_engine()  # the servers went on, with the adapter in memory
    await again.load(ref)
    scored = [body for server in probed for body in server.requests[:] if "prompt_logprobs" in body]
    assert len(scored) == 2 * 2 * 4 and asked > len(scored)


async def test_a_server_that_was_started_again_is_measured_again(open_engine, probed, home):
    ref = adapter_ref(home, "ada", "v1")
    engine = await open_engine(probed[0].url)
    await engine.load(ref)
    probed[0].started_at += 1
    await engine.close()
    again = await open_engine(probed[0].url)
    assert await version_of(again, ref) == "v1"
    assert len(results_in(home)) == 2


async def test_a_wrong_adapter_is_refused_with_both_figures(open_engine, probed, home):
    ref = adapter_ref(home, "ada", "v1")
    change_weights(ref, weights_of(adapter_ref(home, "oda", "v1")))
    engine = await open_engine()
    with pytest.raises(
        AdapterNotServedError, match="does not show the effect of ada v1"
    ) as refused:
        await engine.load(ref)
    result = next(iter(read_effect_results(home)))
    assert f"{result.shown_shift:.3f} nats" in refused.value.message
    assert f"measured {result.expected_shift:.3f}" in refused.value.message
    assert await version_of(engine, ref) is None  # the base model answers
    assert not any(server.adapters for server in probed)


async def test_zero_modules_on_one_server_leave_the_version_to_the_other(open_engine, probed, home):
    probed[0].faults.ignores_adapters = True
    ref = adapter_ref(home, "ada", "v1")
    engine = await open_engine()
    with pytest.raises(AdapterNotServedError, match=r"likelier by -?0\.000 nats"):
        await engine.load(ref)
    for _ in range(4):
        assert await version_of(engine, ref) == "v1"
    assert not probed[0].adapters and probed[1].adapters
    with_adapter = [body for body in probed[0].requests if body["model"] == ref.name]
    assert all(body["max_tokens"] == 1 for body in with_adapter)  # the probe alone


async def test_a_server_whose_cache_mixes_adapters_gets_none(open_engine, probed, home):
    engine = await open_engine(probed[0].url)
    await engine.load(adapter_ref(home, "oda", "v1"))
    probed[0].faults.shares_cache = True
    ref = adapter_ref(home, "ada", "v1")
    with pytest.raises(AdapterNotServedError, match="with other adapters' cached prompts") as error:
        await engine.load(ref)
    assert "--no-enable-prefix-caching" in error.value.advice
    assert await version_of(engine, ref) is None
    assert await version_of(engine, adapter_ref(home, "oda", "v1")) == "v1"
