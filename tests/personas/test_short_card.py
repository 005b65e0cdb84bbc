"""The short card in prompts: what is left out, what stays, and two prompts of one adapter that share
no cache.
"""

import asyncio
from dataclasses import replace

import pytest

from personas.engine.llm_engine import LLMEngine
from personas.engine.remote.llamacpp_attempts import LlamaCppSequence
from personas.engine.remote.vllm_sequence import VllmReplyStream
from personas.home.prompt_version import has_learned_short_card, renderer_of
from personas.prompt.renderer import CONTEXT_TOKENS
from personas.prompt.short_card import MAX_LINE_CHARS, short_card
from personas.schemas.chat import AdapterRef, ChatRequest, LoreHit, Persona, SamplingParams, Turn
from tests.tiny_models import make_adapter

MARA = Persona(
    "mara",
    "Mara Finch",
    tagline="Keeper of the marsh light.",
    description="You are {{char}}, who rows out at dusk.",
    personality="Terse.",
    scenario="A hut on stilts.",
    mes_example="<START>\n{{user}}: late?\n{{char}}: Never late.",
    speech="Short words.",
    system_prompt="Stay in character.",
    post_history_instructions="Answer in one line.",
)
LAMP = LoreHit("mara/lamp.md", "The lamp", "It burns eel oil.", 4.0)
TALK = (
    Turn("Bo", "is it late?"),
    Turn("Mara Finch", "Past nine.", by_persona=True),
    Turn("Bo", "light the lamp"),
)
SAMPLING = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=8, logprobs=True)


def test_the_short_card_is_a_name_and_a_line(renderer):
    text = renderer.with_card("short").prompt(MARA, TALK, [LAMP]).text
    assert "You are Mara Finch. Keeper of the marsh light." in text
    for dropped in ("dusk", "Terse", "stilts", "Never late", "Short words", "Stay in", "one line"):
        assert dropped not in text and dropped in renderer.prompt(MARA, TALK, [LAMP]).text
    for kept in ("eel oil", "is it late?", "Past nine.", "light the lamp"):
        assert kept in text
    assert renderer.with_card("short").with_card("full").prompt(MARA, TALK).text == (
        renderer.prompt(MARA, TALK).text
    )


@pytest.mark.parametrize(
    ("description", "line"),
    [
        ("You are {{char}}, a ferryman. You row.", "You are {{char}}, a ferryman."),
        ("Rows the ferry.\nAnd sings.", "You are {{char}}. Rows the ferry."),
        ("Dr. Oda keeps the light. She sings.", "You are {{char}}. Dr. Oda keeps the light."),
        ("Niece of J. R. Finch. Rows.", "You are {{char}}. Niece of J. R. Finch."),
        ("Hütet z. B. das Licht. Singt.", "You are {{char}}. Hütet z. B. das Licht."),
        ("渡し守です。夜も漕ぎます。", "You are {{char}}. 渡し守です。"),
        ("", "You are {{char}}."),
    ],
)
def test_without_a_tagline_the_first_sentence_is_the_line(description, line):
    persona = replace(MARA, tagline="", description=description, personality="")
    assert short_card(persona).description == line


def test_a_long_first_sentence_ends_at_a_word():
    line = short_card(replace(MARA, tagline="", description="never mind " * 60)).description
    assert line.endswith(("never", "mind")) and len(line) < MAX_LINE_CHARS + 30
    line = short_card(replace(MARA, tagline="", description="渡し守" * 100)).description
    assert line.count("渡し守") == MAX_LINE_CHARS // 3, "and not only the name"


def test_only_an_adapter_served_with_it_has_the_short_card(renderer, tmp_path):
    full = AdapterRef("mara", "v1", tmp_path)
    short = replace(full, card="short")
    assert full == short and hash(full) == hash(short)  # it is loaded once
    prompts = {
        name: renderer_of(renderer, adapter).prompt(MARA, TALK).ids
        for name, adapter in {"base": None, "full": full, "short": short}.items()
    }
    assert prompts["base"] == prompts["full"] == renderer.prompt(MARA, TALK).ids
    assert len(prompts["short"]) < len(prompts["full"])
    assert renderer_of(renderer.with_card("short"), None).card == "full"
    prefix = renderer_of(renderer, short).common_prefix(MARA, CONTEXT_TOKENS)
    assert prompts["short"][: len(prefix)] == prefix and len(prefix) > 5


@pytest.mark.parametrize(
    ("counts", "has_learned"),
    [
        ('{"samples_with_short_card": 3}', True),
        ('{"samples_with_short_card": 0}', False),
        ('{"samples_with_short_card": "3"}', False),
        ('{"samples_train": 3}', False),
        ("[]", False),
    ],
)
def test_the_manifest_says_whether_it_was_learned(tmp_path, counts, has_learned):
    adapter = AdapterRef("mara", "v1", tmp_path)
    assert not has_learned_short_card(adapter)
    manifest = f'{{"prompt_version": "4", "dataset": {counts}}}'
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    assert has_learned_short_card(adapter) is has_learned


async def test_the_base_models_candidates_are_scored_under_the_full_card(renderer, tmp_path):
    adapter = AdapterRef("mara", "v1", tmp_path, card="short")
    short = renderer.with_card("short")
    prompts = []
    for writer in (short, renderer):
        prompt = writer.prompt(MARA, TALK, [LAMP])
        prompts.append(replace(prompt, card=writer.card_prompt(MARA, "Bo")))
    stream = VllmReplyStream(asyncio.get_running_loop(), "v1", lambda: None)
    request = ChatRequest(MARA, TALK, (LAMP,), adapter, SAMPLING)
    seq = LlamaCppSequence.create(request, prompts[0], short, sink=stream)
    seq.card_prompt = prompts[0].card
    seq.render_for_base = lambda: prompts[1]
    seq.use_base_model()
    assert (seq.adapter, seq.prompt, seq.card_prompt) == (None, prompts[1].ids, prompts[1].card)


async def test_cached_prompts_of_both_cards_are_kept_apart(tiny_base, tmp_path):
    """Replies in turns on one engine, with prefixes computed in advance, are those of new engines."""
    full = make_adapter(tmp_path, tiny_base, "mara", "v1", seed=1, rank=4)
    short = replace(full, card="short")

    async def ask(engine, adapter):
        stream = engine.submit(ChatRequest(MARA, TALK, (LAMP,), adapter, SAMPLING))
        text = "".join([piece async for piece in stream])
        return text, stream.reply.prompt_tokens, stream.reply.logprobs

    alone = {}
    for adapter in (full, short):
        engine = LLMEngine(tiny_base, "float32")
        await engine.start()
        alone[adapter.card] = await ask(engine, adapter)
        await engine.close()
    assert alone["short"][1] < alone["full"][1]
    engine = LLMEngine(tiny_base, "float32")
    await engine.start()
    for adapter in (short, full):
        engine.prepare(MARA, adapter)
    while engine._parts.batch.warmer.jobs or not engine._parts.stacked.prefixes.bytes:
        await engine._run(lambda: None)
    for adapter in (full, short, full, short):
        text, tokens, logprobs = await ask(engine, adapter)
        assert (text, tokens) == alone[adapter.card][:2]
        assert logprobs == pytest.approx(alone[adapter.card][2], abs=1e-4)
    await engine.close()
