"""Ollama's Modelfile of a persona: writes it, parses it, and checks the prompts that it makes."""

from __future__ import annotations

from personas.errors import ExportError
from personas.prompt.renderer import EXAMPLE_USER, Renderer, closing_text, system_text
from personas.schemas.chat import Persona, SamplingParams, Turn
from trainer.export.gguf_vocabulary import begins_with_bos
from trainer.export.go_template import (
    SYSTEM_SEPARATOR,
    OllamaMessage,
    build_go_template,
    extract_template_parts,
    run_go_template,
)
from trainer.export.loaded_adapter import DEFAULT_CONTEXT_TOKENS
from trainer.export.logit_comparison import COMPARISON_DIALOGUES

MODEL_FILE = "model.gguf"
MODELFILE_NAME = "Modelfile"
QUOTES = '"""'


def render_modelfile(
    renderer: Renderer, persona: Persona | None, context: int, sampling: SamplingParams
) -> str:
    """Render the Modelfile of a persona, or of none. Raises `ExportError` if it cannot be
    expressed.
    """
    closing = closing_text(persona, EXAMPLE_USER)
    if closing is not None:
        closing = renderer.template.sanitise(closing)
    form = extract_template_parts(renderer, _bos(renderer))
    user = f"{EXAMPLE_USER}: " if persona else ""
    template = build_go_template(form, user, closing)
    name = persona.name if persona else "An adapter"
    lines = [
        f"# {name}: `ollama create NAME -f {MODELFILE_NAME}` in this folder, then "
        "`ollama run NAME`.",
        f"FROM ./{MODEL_FILE}",
        f"TEMPLATE {_quote(template)}",
    ]
    system, examples = _messages(renderer, persona)
    if system:
        lines.append(f"SYSTEM {_quote(system)}")
    for message in examples:
        lines.append(f"MESSAGE {message['role']} {_quote(message['content'])}")
    for parameter, value in _parameters(renderer, context, sampling):
        lines.append(f"PARAMETER {parameter} {value}")
    if persona and persona.license:
        lines.append(f"LICENSE {_quote(persona.license)}")
    return "\n".join(lines) + "\n"


def require_same_prompts(text: str, renderer: Renderer, persona: Persona | None) -> None:
    """Require that a Modelfile's template renders conversations like our renderer. Raises
    `ExportError`.
    """
    instructions = parse_modelfile(text)
    template = next(value for name, value in instructions if name == "TEMPLATE")
    stated: list[OllamaMessage] = []
    for name, value in instructions:
        if name.startswith(("SYSTEM", "MESSAGE ")):
            stated.append({"role": name.removeprefix("MESSAGE ").lower(), "content": value})
    for talk in COMPARISON_DIALOGUES:
        turns = []
        messages = list(stated)
        for text, by_persona in talk:
            turns.append(Turn(EXAMPLE_USER, text, by_persona))
            role = "assistant" if by_persona else "user"
            messages.append({"role": role, "content": text})
        prompt = renderer.prompt(persona, turns, max_tokens=2**20).text.removeprefix(_bos(renderer))
        if run_go_template(template, messages) != prompt:
            raise ExportError(
                "Ollama's template would not make the prompts that the adapter was trained on.",
                "Export --to gguf: the file carries the model's own chat template.",
            )


def _messages(renderer: Renderer, persona: Persona | None) -> tuple[str, list[OllamaMessage]]:
    """Return the system text and the card's examples, without the user names that the template
    adds.
    """
    if persona is None:
        return "", []
    messages = renderer.messages(persona, [Turn(EXAMPLE_USER, "")])[:-1]
    if messages and messages[0]["role"] == "system":
        system = messages[0]["content"]
        messages = messages[1:]
    else:  # a model without a system role has it in the first message
        system = system_text(persona, EXAMPLE_USER).strip()
    joined = f"{system}{SYSTEM_SEPARATOR}"
    user = f"{EXAMPLE_USER}: "
    examples = []
    for message in messages:
        content = message["content"].removeprefix(joined).removeprefix(user)
        examples.append({**message, "content": content})
    return system, examples


def _parameters(
    renderer: Renderer, context: int, sampling: SamplingParams
) -> list[tuple[str, object]]:
    parameters: list[tuple[str, object]] = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
    ]
    if sampling.top_k:
        parameters.append(("top_k", sampling.top_k))
    if sampling.min_p:
        parameters.append(("min_p", sampling.min_p))
    parameters += [
        ("repeat_penalty", sampling.repetition_penalty),
        ("num_predict", sampling.max_new_tokens),
        # Ollama reserves the whole context's memory; the bot's prompts are no longer either.
        ("num_ctx", min(context, DEFAULT_CONTEXT_TOKENS)),
    ]
    for stop in dict.fromkeys((renderer.end_of_turn, renderer.tokenizer.eos_token)):
        if stop:
            parameters.append(("stop", f'"{stop}"'))
    return parameters


def _bos(renderer: Renderer) -> str:
    return renderer.tokenizer.bos_token if begins_with_bos(renderer) else ""


def _quote(text: str) -> str:
    """Quote a multi-line value. Ollama ends it at the first line that ends with three quotation
    marks.
    """
    if any(line.rstrip().endswith(QUOTES) for line in text.split("\n")[:-1]):
        raise ExportError(
            f"A Modelfile cannot hold a text with {QUOTES} at the end of a line.",
            "Change the card.",
        )
    return f"{QUOTES}{text}{QUOTES}"


def parse_modelfile(text: str) -> list[tuple[str, str]]:
    """Parse a Modelfile's instructions as Ollama does. Raises `ExportError`."""
    instructions: list[tuple[str, str]] = []
    lines = text.split("\n")
    while lines:
        name, _, value = lines.pop(0).partition(" ")
        if not name or name.startswith("#"):
            continue
        role = ""
        if name == "MESSAGE":
            role, _, value = value.partition(" ")
        while value.startswith(QUOTES) and not (len(value) >= 6 and value.endswith(QUOTES)):
            if not lines:
                raise ExportError(f"The Modelfile's {name} does not end.", "Export it again.")
            value += "\n" + lines.pop(0)
        if value.startswith(QUOTES):
            value = value[3:-3]
        instructions.append((f"{name} {role}".strip(), value))
    return instructions
