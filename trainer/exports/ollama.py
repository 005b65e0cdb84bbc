"""A folder for Ollama: the base model and the adapter as GGUF, and a Modelfile in which the persona speaks.

The system text is the one our renderer makes, the card's examples come as messages before the talk, and users speak
under the name that they have in the examples: so Ollama's prompts are, token for token, those of training.
"""

from __future__ import annotations

from pathlib import Path

from personas.contracts import Persona, Sampling, Turn
from personas.prompt import EXAMPLE_USER, Renderer, filled_in, system_text
from trainer.exports.errors import ExportError
from trainer.exports.gguf_tokenizer import begins_with_bos
from trainer.exports.go_template import BETWEEN, Message, form_of, rendered, template_of
from trainer.exports.logits import TALKS
from trainer.exports.source import DEFAULT_CONTEXT

BASE, ADAPTER, MODELFILE = "base.gguf", "adapter.gguf", "Modelfile"
QUOTES = '"""'


def modelfile(renderer: Renderer, persona: Persona | None, context: int) -> str:
    """The Modelfile of a persona, or of nobody in particular. Raises `ExportError` for what it cannot express."""
    closing = _closing(persona)
    form = form_of(renderer, _bos(renderer))
    template = template_of(form, f"{EXAMPLE_USER}: " if persona else "", closing)
    lines = [
        f"# {persona.name if persona else 'An adapter'}: `ollama create NAME -f {MODELFILE}` in this folder, then "
        "`ollama run NAME`.",
        f"FROM ./{BASE}",
        f"ADAPTER ./{ADAPTER}",
        f"TEMPLATE {_quoted(template)}",
    ]
    system, examples = _messages(renderer, persona)
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"MESSAGE {message['role']} {_quoted(message['content'])}" for message in examples]
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(renderer, context)]
    if persona and persona.license:
        lines.append(f"LICENSE {_quoted(persona.license)}")
    return "\n".join(lines) + "\n"


def require_same_prompts(text: str, renderer: Renderer, persona: Persona | None) -> None:
    """Run a Modelfile's template on talks: it has to give our renderer's prompts. Raises `ExportError`."""
    held = parsed(text)
    template = next(value for name, value in held if name == "TEMPLATE")
    before: list[Message] = [{"role": "system", "content": value} for name, value in held if name == "SYSTEM"]
    before += [
        {"role": name.removeprefix("MESSAGE "), "content": value} for name, value in held if name.startswith("MESSAGE ")
    ]
    for talk in TALKS:
        turns = [Turn(EXAMPLE_USER, said, by_persona) for said, by_persona in talk]
        messages = [{"role": "assistant" if by else "user", "content": said} for said, by in talk]
        wanted = renderer.prompt(persona, turns, max_tokens=2**20).text.removeprefix(_bos(renderer))
        if rendered(template, [*before, *messages]) != wanted:
            raise ExportError(
                "Ollama's template would not make the prompts that the adapter was trained on.",
                "Export --to gguf: the file carries the model's own chat template.",
            )


def _messages(renderer: Renderer, persona: Persona | None) -> tuple[str, list[Message]]:
    """The system text and the card's examples, without what the template adds: the user's name before each message."""
    if persona is None:
        return "", []
    messages = renderer.messages(persona, [Turn(EXAMPLE_USER, "")])[:-1]
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    else:  # a model without a system role has it in the first message
        system = system_text(persona, EXAMPLE_USER).strip()
    held = []
    for message in messages:
        content = message["content"].removeprefix(f"{system}{BETWEEN}")
        held.append({**message, "content": content.removeprefix(f"{EXAMPLE_USER}: ")})
    return system, held


def _closing(persona: Persona | None) -> str:
    return filled_in(persona.post_history_instructions, persona, EXAMPLE_USER).strip() if persona else ""


def _parameters(renderer: Renderer, context: int) -> list[tuple[str, object]]:
    sampling = Sampling()
    stops = dict.fromkeys((renderer.end_of_turn, renderer.tokenizer.eos_token))
    return [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("repeat_penalty", sampling.repetition_penalty),
        ("num_predict", sampling.max_new_tokens),
        ("num_ctx", min(context, DEFAULT_CONTEXT)),
        *(("stop", f'"{stop}"') for stop in stops if stop),
    ]


def _bos(renderer: Renderer) -> str:
    return renderer.tokenizer.bos_token if begins_with_bos(renderer) else ""


def _quoted(text: str) -> str:
    """A value of many lines. Ollama ends it at the first line that ends with three quotation marks."""
    if any(line.rstrip().endswith(QUOTES) for line in text.split("\n")[:-1]):
        raise ExportError(f"A Modelfile cannot hold a text with {QUOTES} at the end of a line.", "Change the card.")
    return f"{QUOTES}{text}{QUOTES}"


def parsed(text: str) -> list[tuple[str, str]]:
    """The instructions of a Modelfile with their values, as Ollama's parser finds them. Raises `ExportError`."""
    found: list[tuple[str, str]] = []
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
        found.append((f"{name} {role}".strip(), value))
    return found


def write_modelfile(folder: Path, text: str) -> None:
    """Put it where `ollama create` looks for it."""
    (folder / MODELFILE).write_text(text, encoding="utf-8")
