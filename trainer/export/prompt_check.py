"""Checks that an export's own chat template, rendered by its own reader, writes the prompts that
were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gguf import Keys

from personas.errors import ExportError
from personas.models.gguf_format import open_gguf
from personas.models.gguf_header import read_value
from personas.prompt.chat_template import Message
from personas.prompt.renderer import EXAMPLE_USER, Renderer
from personas.schemas.chat import Persona, Turn
from trainer.estimate.workload import common_prefix_length
from trainer.export.logit_comparison import COMPARISON_DIALOGUES

UNBOUNDED_TOKENS = 2**20
SHOWN_CHARACTERS = 60
CHECKED_DIALOGUES: tuple[tuple[tuple[str, bool], ...], ...] = (
    *COMPARISON_DIALOGUES,
    (("Welcome.", True), ("Who are you?", False)),
    (
        ("Are you sure?", False),
        ("<think>\nThey doubt me.\n</think>\n\nQuite sure.", True),
        ("Why?", False),
    ),
)
"""Talks that begin, go on, are opened by the persona, and hold a thought."""
RenderMessages = Callable[[list[Message]], str]


def require_trained_prompts(
    render: RenderMessages, renderer: Renderer, persona: Persona | None
) -> None:
    """Require that `render` writes the renderer's prompts, with and without a system text. Raises
    `ExportError`.
    """
    for card in dict.fromkeys((persona, None)):
        for talk in CHECKED_DIALOGUES:
            turns = [Turn(EXAMPLE_USER, text, by_persona) for text, by_persona in talk]
            prompt = renderer.prompt(card, turns, max_tokens=UNBOUNDED_TOKENS)
            written = render(renderer.template.as_given(list(prompt.messages)))
            if written != prompt.text:
                raise ExportError(
                    "The export's chat template would not make the prompts that the adapter was "
                    f"trained on: {_difference(written, prompt.text)}.",
                    "Nothing was kept. Report this with the base model's name.",
                )


def check_merged(folder: Path, renderer: Renderer, persona: Persona | None) -> None:
    """Check a model folder as transformers reads it, token ids included. Raises `ExportError`."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def render(messages: list[Any]) -> str:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != renderer.template.encode(text):
            raise ExportError(
                "Loaded back, the tokenizer reads a prompt otherwise.",
                "Nothing was kept. Report this.",
            )
        return text

    require_trained_prompts(render, renderer, persona)


def check_gguf(file: Path, renderer: Renderer, persona: Persona | None) -> None:
    """Check a GGUF file: the stored template with the stored tokens, as Jinja renders it. Raises
    `ExportError`.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    reader = open_gguf(file)
    tokens: Sequence[str] = read_value(reader, Keys.Tokenizer.LIST)
    names = {"bos_token": Keys.Tokenizer.BOS_ID, "eos_token": Keys.Tokenizer.EOS_ID}
    special: dict[str, str] = {}
    for name, key in names.items():
        number = read_value(reader, key)
        special[name] = "" if number is None else tokens[number]
    template = read_value(reader, Keys.Tokenizer.CHAT_TEMPLATE)

    def render(messages: list[Any]) -> str:
        (text,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, **special
        )
        return str(text)

    require_trained_prompts(render, renderer, persona)


def _difference(written: str, trained: str) -> str:
    """Quote both texts from a little before the place where they begin to differ."""
    start = max(0, common_prefix_length([written, trained]) - SHOWN_CHARACTERS // 3)
    end = start + SHOWN_CHARACTERS
    return f"{written[start:end]!r} instead of {trained[start:end]!r}"
