"""What exports say about prompts: GGUF's tokenizer and chat template, Ollama's template and
Modelfile.
"""

import dataclasses
import itertools
import json

import pytest
from gguf import TokenType

from personas.errors import ExportError
from personas.prompt.chat_template import FIXED_DATE
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, SamplingParams, Turn
from tools.tiny_models import TINY_MODELS, make_tokenizer
from trainer.export.gguf_vocabulary import begins_with_bos, build_vocabulary
from trainer.export.go_template import (
    build_go_template,
    extract_template_parts,
    run_go_template,
)
from trainer.export.ollama import parse_modelfile, render_modelfile, require_same_prompts

SYSTEM_LAST = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] "
    "%}"
    "{% set talk = messages[1:] %}{% else %}{% set talk = messages %}{% endif %}{% for message in "
    "talk %}"
    "{% if message['role'] == 'user' %}[INST] {% if loop.last and system is defined %}{{ system + "
    "'\n\n' }}{% endif %}"
    "{{ message['content'] }} [/INST]{% else %}{{ message['content'] }}{{ eos_token }}{% endif "
    "%}{% endfor %}"
)
"""Where Mistral's later models put a system text."""

PERSONA = Persona(
    "mira",
    "Mira",
    description='You are {{char}}. You say "aye".\n\nYou keep {{user}} company.',
    mes_example='<START>\n{{user}}: Who goes there?\n{{char}}: "Mira," she said, "only Mira."\n',
    post_history_instructions="Answer as {{char}}, in {{ braces }}.",
    license="CC0-1.0",
)


@pytest.fixture(scope="module")
def renderers():
    made = {name: Renderer(make_tokenizer(kind)) for name, kind in TINY_MODELS.items()}
    late = make_tokenizer(TINY_MODELS["Mistral"])
    late.chat_template = SYSTEM_LAST
    return {**made, "Mistral, system last": Renderer(late)}


@pytest.mark.parametrize("closing", ["", "Answer briefly.\n {{original}}"])
@pytest.mark.parametrize("name", ["SmolLM2", "Gemma 2", "Mistral, system last"])
def test_ollamas_template_ends_as_our_prompts_do(renderers, name, closing):
    persona = dataclasses.replace(PERSONA, post_history_instructions=closing)
    text = render_modelfile(renderers[name], persona, 2048, SamplingParams())
    require_same_prompts(text, renderers[name], persona)
    assert ("Answer briefly." in text) == ("Answer briefly." in closing)


@pytest.mark.parametrize("persona", [PERSONA, None])
@pytest.mark.parametrize("name", [*TINY_MODELS, "Mistral, system last"])
def test_ollamas_template_writes_our_prompts(renderers, name, persona):
    text = render_modelfile(renderers[name], persona, 2048, SamplingParams())
    require_same_prompts(text, renderers[name], persona)
    said = dict(parse_modelfile(text))
    assert (
        said["FROM"] == "./model.gguf" and "ADAPTER" not in text
    )  # which Ollama refuses from 0.34.1 on
    assert f'PARAMETER stop "{renderers[name].end_of_turn}"' in text
    if persona:
        assert said["SYSTEM"].startswith('You are Mira. You say "aye".')
        assert said["MESSAGE user"] == "Who goes there?"
        assert said["MESSAGE assistant"].endswith('"only Mira."')
    else:
        assert not {"SYSTEM", "MESSAGE user"} & said.keys()


def test_the_parameters_are_the_sampling_of_the_base(renderers):
    sampling = SamplingParams(
        temperature=0.7, top_p=0.8, top_k=20, min_p=0.05, repetition_penalty=1.1
    )
    text = render_modelfile(renderers["SmolLM2"], PERSONA, 2048, sampling)
    named = dict(
        line.split()[1:]
        for line in text.splitlines()
        if line.startswith("PARAMETER") and "stop" not in line
    )
    given = {
        "temperature": "0.7",
        "top_p": "0.8",
        "top_k": "20",
        "min_p": "0.05",
        "repeat_penalty": "1.1",
    }
    assert given.items() <= named.items()


def test_a_template_that_writes_something_else_is_refused(renderers):
    text = render_modelfile(renderers["SmolLM2"], PERSONA, 2048, SamplingParams())
    for wrong in (
        text.replace("Guest: {{", "{{"),
        text.replace("<|im_end|>", "<|im_stop|>"),
        text.replace("aye", "no"),
    ):
        with pytest.raises(ExportError, match="not make the prompts"):
            require_same_prompts(wrong, renderers["SmolLM2"], PERSONA)


def test_a_chat_template_of_no_known_form_is_refused(renderers):
    tokenizer = make_tokenizer(TINY_MODELS["SmolLM2"])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ loop.index }}. {{ message['role'] }}: {{ "
        "message['content'] }}\n{% endfor %}"
    )
    with pytest.raises(ExportError, match="no form that is written"):
        extract_template_parts(Renderer(tokenizer), "")


def test_a_text_that_a_modelfile_cannot_hold_is_refused(renderers):
    for description in ('It ends """\nhere.', 'She says """hush""" \nand goes.'):
        with pytest.raises(ExportError, match="Modelfile cannot hold"):
            render_modelfile(
                renderers["SmolLM2"],
                dataclasses.replace(PERSONA, description=description),
                2048,
                SamplingParams(),
            )
    ends = dataclasses.replace(PERSONA, description='She says """hush""" and means "now"')
    text = render_modelfile(renderers["SmolLM2"], ends, 2048, SamplingParams())
    assert dict(parse_modelfile(text))["SYSTEM"] == ends.description
    with pytest.raises(ExportError, match="does not end"):
        parse_modelfile(text[: text.index("She says") + 3])


def test_braces_stay_braces(renderers):
    form = extract_template_parts(renderers["SmolLM2"], "")
    template = build_go_template(form, closing="in {{ braces }}")
    assert "in {{ braces }}<|im_end|>" in run_go_template(
        template, [{"role": "user", "content": "hello"}]
    )
    for wrong in ("{{ .Unknown }}", "{{ if .System }}", "{{ end }}"):
        with pytest.raises(ValueError):
            run_go_template(wrong, [])


# --------------------------------------------------------------------------------------------- GGUF


@pytest.mark.parametrize(
    ("name", "model", "pre"),
    [
        ("SmolLM2", "gpt2", "smollm"),
        ("Llama 3.2", "gpt2", "llama-bpe"),
        ("Qwen3", "gpt2", "qwen2"),
        ("Mistral", "llama", "default"),
    ],
)
def test_tokenizers_are_named_as_llama_cpp_names_them(renderers, name, model, pre):
    held = build_vocabulary(renderers[name].tokenizer, 600)
    assert (held.model, held.pre) == (model, pre)
    assert (held.merges is None, held.scores is None) == (model == "llama", model == "gpt2")


def test_the_embedded_models_tokenizer_is_known(renderer):
    assert build_vocabulary(renderer.tokenizer, 49152).pre == "gpt-2"


def test_tokens_keep_their_numbers_and_get_their_types(renderers):
    tokenizer = renderers["Mistral"].tokenizer
    held = build_vocabulary(tokenizer, 600)
    for token, number in tokenizer.get_vocab().items():
        assert held.tokens[number] == token
    kinds = dict(zip(held.tokens, held.types, strict=True))
    assert kinds["<unk>"] == TokenType.UNKNOWN
    assert kinds["<s>"] == kinds["</s>"] == TokenType.CONTROL
    assert kinds["<0x0A>"] == TokenType.BYTE
    assert kinds["[PAD599]"] == TokenType.UNUSED
    assert held.space_prefix
    with pytest.raises(ExportError, match="embeds 100"):
        build_vocabulary(tokenizer, 100)


def test_scores_fall_in_the_order_of_the_merges(renderers):
    """llama.cpp merges what scores highest first: so it makes the tokens that the merges make."""
    tokenizer = renderers["Mistral"].tokenizer
    held = build_vocabulary(tokenizer, 600)
    score = dict(zip(held.tokens, held.scores, strict=True))
    text = "I am Ballast. I weigh eighty-three tonnes, and I can wait on the quay."
    pieces = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [score.get(left + right, -1e9) for left, right in itertools.pairwise(pieces)]
        if not pairs or max(pairs) <= -1e6:
            break
        place = pairs.index(max(pairs))
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    assert pieces == tokenizer.tokenize(text)


def test_a_tokenizer_without_a_name_in_llama_cpp_is_refused(renderers):
    from tokenizers import pre_tokenizers

    tokenizer = make_tokenizer(TINY_MODELS["SmolLM2"])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ExportError, match="no known name"):
        build_vocabulary(tokenizer, 600)


def test_what_stands_first_is_written_once(renderers):
    begins = {name: begins_with_bos(renderer) for name, renderer in renderers.items()}
    assert {name for name, first in begins.items() if first} == {
        "Gemma 2", "Llama 3.2", "Llama 3.1", "Mistral", "Mistral, system last",
    }  # fmt: skip


def test_a_chat_template_is_written_with_the_date_of_training(renderers):
    for name, renderer in renderers.items():
        tokenizer = make_tokenizer(TINY_MODELS.get(name, TINY_MODELS["Mistral"]))
        fixed = renderer.template.frozen()
        assert "strftime_now" not in fixed
        turns = [Turn("", "one"), Turn("", "two", True), Turn("", "three")]
        plain = tokenizer.apply_chat_template(
            renderer.messages(None, turns),
            chat_template=fixed,
            tokenize=False,
            add_generation_prompt=True,
        )
        assert plain == renderer.prompt(None, turns).text
    assert FIXED_DATE in renderers["Llama 3.2"].template.frozen()


def test_a_spelling_of_the_same_regex_is_known(renderers):
    from tokenizers import Tokenizer

    tokenizer = make_tokenizer(TINY_MODELS["Qwen2.5"])
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    split = described["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    spelled = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    split["Regex"] = split["Regex"].replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", spelled)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))
    assert build_vocabulary(tokenizer, 600).pre == "qwen2"
