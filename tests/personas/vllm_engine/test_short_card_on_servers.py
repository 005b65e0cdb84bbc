"""Prompts with the short card on servers; without its adapter, the base model gets the full card."""

from dataclasses import replace

import pytest

from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import Persona
from tests.personas.vllm_engine.conftest import answer, ask, undisturbed

MARA = Persona(
    "ada", "Ada", tagline="Keeper of the light.", description="You are Ada, who rows at dusk."
)


async def test_a_server_gets_the_card_that_the_version_is_served_with(
    open_engine, servers, renderer, version
):
    engine = await open_engine(servers[0].url)
    full = replace(ask(adapter=version(1)), persona=MARA)
    short = replace(full, adapter=replace(full.adapter, card="short"))
    said = {}
    for request in (short, full, short):
        writer = renderer.with_card(request.adapter.card)
        said[request.adapter.card] = await answer(engine, request)
        assert said[request.adapter.card] == undisturbed(servers[0], writer, request)
    assert said["short"] != said["full"]
    assert len(servers[0].loads) == 1


async def test_the_base_model_answers_under_the_full_card(open_engine, servers, renderer, version):
    engine = await open_engine(servers[0].url)
    servers[0].faults.load_message = "out of memory"
    request = replace(ask(), persona=MARA)
    adapter = replace(version(1), card="short")
    stream = engine.submit(replace(request, adapter=adapter))
    text = "".join([piece async for piece in stream])
    assert text == undisturbed(servers[0], renderer, request)
    assert stream.reply.version is None
    assert stream.reply.prompt_tokens == len(renderer.prompt(MARA, request.turns).ids)


async def test_a_full_card_that_is_too_long_fails_only_replies_that_need_it(
    open_engine, servers, renderer, version
):
    engine = await open_engine(servers[0].url)
    long = replace(MARA, description="You are Ada, who rows. " * 4000)
    request = replace(ask(adapter=replace(version(1), card="short")), persona=long)
    said = undisturbed(servers[0], renderer.with_card("short"), request)
    assert await answer(engine, request) == said
    servers[0].faults.load_message = "out of memory"
    unserved = replace(request, adapter=replace(version(2), card="short"))
    with pytest.raises(PromptTooLongError):
        await answer(engine, unserved)
    assert await answer(engine, request) == said, "others go on"
