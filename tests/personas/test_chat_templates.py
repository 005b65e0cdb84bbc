"""Sixty families' chat templates: the renderer's prompts and samples are what each template itself
writes.
"""

import re
from datetime import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from personas.prompt.chat_template import FIXED_DATE, FIXED_VARIABLES
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, Turn
from tests.personas.chat_templates import TemplateFamily, installed_families, stored_families
from tools.tiny_models import TINY_MODELS, make_tokenizer

FAMILIES = [*stored_families(), *installed_families()]
ADA = Persona("ada", "Ada", description="You are Ada, {{char}} to {{user}}.")
TALKS = {
    "begins": (None, [Turn("Bo", "hello there")]),
    "begins, with a system text": (ADA, [Turn("Bo", "hello there")]),
    "in the middle": (ADA, [Turn("Bo", "hello"), Turn("Ada", "Yes.", True), Turn("Bo", "go on")]),
    "opened by the persona": (None, [Turn("Ada", "Welcome.", True), Turn("Bo", "who is there?")]),
}
REPLY = "I sit by the sea."
STRFTIME = re.compile(r"strftime_now\(['\"]([^'\"]*)['\"]\)")
MARKER = re.compile(
    r"<\|[\w>]+\|?>|<｜[^<>｜]+｜>|<(?:start|end)_of_turn>|</?think>|<end_of_utterance>|<turn\|>"
)


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer with all families' control tokens."""
    made = make_tokenizer(TINY_MODELS["Qwen3"])
    markers = MARKER.findall(" ".join(family.template for family in FAMILIES))
    own = (token for family in FAMILIES for token in family.special_tokens)
    tokens = [token for token in dict.fromkeys([*own, *markers]) if token != made.bos_token]
    made.add_special_tokens({"additional_special_tokens": tokens})
    return made


def renderer_of(family: TemplateFamily, tokenizer) -> Renderer:
    tokenizer.chat_template = family.template
    tokenizer.bos_token = family.bos or None
    tokenizer.eos_token = family.eos
    return Renderer(tokenizer)


def contents(renderer: Renderer, messages):
    if not renderer.template.takes_parts:
        return messages
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]


def own_text(renderer: Renderer, messages, **options) -> str:
    """What the template itself writes, with the clock of today set back to the fixed date."""
    given = contents(renderer, messages)
    text = renderer.tokenizer.apply_chat_template(
        given, tokenize=False, **FIXED_VARIABLES, **options
    )
    for form in STRFTIME.findall(renderer.tokenizer.chat_template):
        text = text.replace(datetime.now().strftime(form), FIXED_DATE)
    return text


def test_sixty_families_are_compared():
    assert len(FAMILIES) >= 60
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_samples_are_what_the_template_itself_writes(tokenizer, family):
    renderer = renderer_of(family, tokenizer)
    assert family.end is None or renderer.end_of_turn == family.end
    prefix = renderer.template.reply_prefix if renderer.template.forces_prefix else ""
    assert prefix == family.prefix
    for persona, talk in TALKS.values():
        prompt = renderer.prompt(persona, talk)
        sample = renderer.sample(persona, talk, REPLY)
        messages = list(prompt.messages)
        generation = own_text(renderer, messages, add_generation_prompt=True)
        assert prompt.text == generation + prefix
        assert sample.ids[: len(prompt.ids)] == prompt.ids
        learned = [
            token for token, is_learned in zip(sample.ids, sample.mask, strict=True) if is_learned
        ]
        assert (
            renderer.tokenizer.decode(learned).strip()
            == f"{prefix}{REPLY}{renderer.end_of_turn}".strip()
        )
        assert {sample.ids[-1], sample.ids[-len(renderer.end_ids)]} & set(renderer.stop_ids)
        if persona and family.drops_system:
            continue
        own = own_text(renderer, [*messages, {"role": "assistant", "content": REPLY}])
        before, _, after = own.rpartition(REPLY)
        ours, _, end = renderer.tokenizer.decode(sample.ids).rpartition(REPLY)
        assert ours.removesuffix(family.thought) == before
        assert after.strip().startswith(end.strip()) or not after.strip()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_exported_template_writes_the_prompts_that_were_trained(tokenizer, family):
    """As another program renders it: with no variable set, and today's clock."""
    renderer = renderer_of(family, tokenizer)
    frozen = renderer.template.frozen()
    for persona, talk in TALKS.values():
        prompt = renderer.prompt(persona, talk)
        messages = contents(renderer, list(prompt.messages))
        options = {"add_generation_prompt": True, "bos_token": family.bos, "eos_token": family.eos}
        (text,), _ = render_jinja_template([messages], chat_template=frozen, **options)
        assert text == prompt.text
