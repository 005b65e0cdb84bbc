"""Go templates of Ollama: writes one equivalent to a model's chat template, and runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from personas.errors import ExportError
from personas.prompt.renderer import EXAMPLE_USER, Renderer
from personas.schemas.chat import Persona, Turn
from trainer.estimate.workload import common_prefix_length

SYSTEM_PROBE = "SYSTEM-PROBE"
LAST_PROBE = "LAST-PROBE"
SECOND_PROBE = "SECOND-PROBE"
FIRST_USER_PROBE = "FIRST-PROBE"
FIRST_REPLY_PROBE = "ANSWER-PROBE"
SECOND_REPLY_PROBE = "REPLY-PROBE"
IS_LAST = "eq (len (slice $.Messages $i)) 1"
IS_FIRST = "le $i 1"
SYSTEM_SEPARATOR = "\n\n"
"""Separator that the renderer and most templates put between a system text and the message it
joins.
"""
OllamaMessage = dict[str, str]
Value = TypeVar("Value")
ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)
VALUES: dict[str, Callable[[_Scope], str]] = {
    ".Content": lambda scope: scope.message["content"],
    "$.System": lambda scope: scope.system,
    '"{{"': lambda scope: "{{",
}
CONDITIONS: dict[str, Callable[[_Scope], bool]] = {
    'eq .Role "system"': lambda scope: scope.message["role"] == "system",
    'eq .Role "user"': lambda scope: scope.message["role"] == "user",
    "not .System": lambda scope: not scope.system,
    IS_LAST: lambda scope: len(scope.messages[scope.at :]) == 1,
    f"and $.System ({IS_FIRST})": lambda scope: bool(scope.system) and scope.at <= 1,
    f"and $.System ({IS_LAST})": lambda scope: (
        bool(scope.system) and len(scope.messages[scope.at :]) == 1
    ),
}
_Token = tuple[bool, str]
_Node = tuple[str, list[tuple[str, list["_Node"]]]]
"""A text or value with no branches, or an `if` or `range` with its branches, each under its
condition.
"""


@dataclass(frozen=True)
class ChatTemplateParts:
    """Text around each message. `system` places a system text: its `own` message, the `first` or
    `last` of the user. `trims`: no message keeps the white space around it.
    """

    system: str
    start: str
    system_before: str
    system_after: str
    user_before: str
    user_after: str
    reply_before: str
    reply_after: str
    opening: str
    trims: bool = False


def extract_template_parts(renderer: Renderer, bos: str) -> ChatTemplateParts:
    """Extract the parts of a model's chat template; the runtime adds `bos` itself. Raises
    `ExportError`.
    """
    probe = Persona("probe", "Probe", description=SYSTEM_PROBE)
    turns = [
        Turn(EXAMPLE_USER, FIRST_USER_PROBE),
        Turn("", FIRST_REPLY_PROBE, by_persona=True),
        Turn(EXAMPLE_USER, SECOND_PROBE),
        Turn("", SECOND_REPLY_PROBE, by_persona=True),
        Turn(EXAMPLE_USER, LAST_PROBE),
    ]
    text = renderer.prompt(probe, turns).text.removeprefix(bos).replace(f"{EXAMPLE_USER}: ", "")
    alone = renderer.prompt(None, turns).text.removeprefix(bos)
    try:
        form = _parse_template(text, alone, renderer.end_of_turn)
    except ValueError as error:
        raise ExportError(
            "This model's chat template is of no form that is written for Ollama here.",
            "Export --to gguf: the file carries the chat template itself.",
        ) from error
    bare, blank = (
        renderer.template.render([{"role": "user", "content": f"{LAST_PROBE}{end}"}])
        for end in ("", SYSTEM_SEPARATOR)
    )
    return replace(form, trims=bare == blank)


def build_go_template(form: ChatTemplateParts, user: str = "", closing: str | None = None) -> str:
    """Build the Go template. `user` precedes each user message, `closing` follows the last."""
    start = _literal(form.start)
    system_message = ""
    joined_system = ""
    ending = _ending(form, closing)
    if form.system == "own":
        before = _literal(form.system_before)
        system_message = f"{before}{{{{ .Content }}}}{_literal(form.system_after)}"
        if start:
            start = f"{{{{ if not .System }}}}{start}{{{{ end }}}}"
    else:  # the system text is written before the first or the last user message
        place = IS_FIRST if form.system == "first" else IS_LAST
        text = f"{{{{ $.System }}}}{SYSTEM_SEPARATOR}"
        joined_system = f"{{{{ if and $.System ({place}) }}}}{text}{{{{ end }}}}"
    user_before = f"{_literal(form.user_before)}{joined_system}{_literal(user)}"
    parts = [
        start,
        "{{ range $i, $m := .Messages }}",
        '{{ if eq .Role "system" }}',
        system_message,
        '{{ else if eq .Role "user" }}',
        f"{user_before}{{{{ .Content }}}}{ending}{_literal(form.user_after)}",
        "{{ else }}",
        f"{_literal(form.reply_before)}{{{{ .Content }}}}{_literal(form.reply_after)}",
        "{{ end }}{{ end }}",
        _literal(form.opening),
    ]
    return "".join(parts)


def _ending(form: ChatTemplateParts, closing: str | None) -> str:
    """Return what follows the last user message; a template that trims messages trims it, too."""
    if closing is None:
        return ""
    text = SYSTEM_SEPARATOR + closing
    if form.trims:
        text = text.rstrip()
    return f"{{{{ if {IS_LAST} }}}}{_literal(text)}{{{{ end }}}}" if text else ""


def _parse_template(text: str, alone: str, end: str) -> ChatTemplateParts:
    """Parse a rendered template. Raises `ValueError` if it has an unknown form."""
    system = _layout(text)
    if system == "own":
        plain = text
        first = _before(plain, SYSTEM_PROBE)
        before_user = _between(plain, SYSTEM_PROBE, FIRST_USER_PROBE)
    else:
        plain = text.replace(SYSTEM_PROBE + SYSTEM_SEPARATOR, "", 1)
        first = _before(plain, FIRST_USER_PROBE)
        before_user = first
    reply_to_user = _between(plain, FIRST_REPLY_PROBE, SECOND_PROBE)
    user_to_reply = _between(plain, FIRST_USER_PROBE, FIRST_REPLY_PROBE)
    opening = plain.partition(LAST_PROBE)[2]
    # Nothing marks where the end of one turn becomes the begin of the next: what two places have
    # in common belongs to the turn that both have.
    ended, rest = _split_turn_end(reply_to_user, end)
    user_before = _common_prefix(before_user[::-1], rest[::-1])[::-1]
    user_after = _common_prefix(user_to_reply, opening)
    if ended and user_after.startswith(ended):
        user_after = ended
    if user_to_reply != _between(plain, SECOND_PROBE, SECOND_REPLY_PROBE):
        raise ValueError("turns differ")
    if reply_to_user != _between(plain, SECOND_REPLY_PROBE, LAST_PROBE):
        raise ValueError("turns differ")
    start = _before(alone, FIRST_USER_PROBE)
    if not start.endswith(user_before) or (system != "own" and start != first):
        raise ValueError("the first message differs")
    system_before = ""
    system_after = ""
    if system == "own":
        system_before = first
        system_after = before_user.removesuffix(user_before)
    return ChatTemplateParts(
        system=system,
        start=start.removesuffix(user_before),
        system_before=system_before,
        system_after=system_after,
        user_before=user_before,
        user_after=user_after,
        reply_before=user_to_reply.removeprefix(user_after),
        reply_after=reply_to_user.removesuffix(user_before),
        opening=opening.removeprefix(user_after),
    )


def _split_turn_end(between: str, end: str) -> tuple[str, str]:
    """Split between the end of a turn, with trailing white space, and the start of the next. The
    cut is cosmetic.
    """
    before, match, after = between.partition(end)
    rest = after.lstrip()
    return before + match + after.removesuffix(rest), rest


def _common_prefix(left: str, right: str) -> str:
    return left[: common_prefix_length([left, right])]


def _layout(text: str) -> str:
    """Return where the template places a system text, as in `ChatTemplateParts.system`."""
    after = text.partition(SYSTEM_PROBE)[2]
    if after.startswith(SYSTEM_SEPARATOR + FIRST_USER_PROBE):
        return "first"
    if after.startswith(SYSTEM_SEPARATOR + LAST_PROBE):
        return "last"
    return "own"


def _before(text: str, word: str) -> str:
    before, match, _ = text.partition(word)
    if not match:
        raise ValueError(word)
    return before


def _between(text: str, left: str, right: str) -> str:
    _, match, rest = text.partition(left)
    if not match:
        raise ValueError(left)
    return _before(rest, right)


def _literal(text: str) -> str:
    """Escape the begin of an action, for which Go has no other sign than an action itself."""
    return text.replace("{{", '{{ "{{" }}')


@dataclass(frozen=True)
class _Scope:
    """The variables of an action: all messages, the system text, and the current message."""

    messages: list[OllamaMessage]
    at: int = 0

    @property
    def system(self) -> str:
        texts = [message["content"] for message in self.messages if message["role"] == "system"]
        return SYSTEM_SEPARATOR.join(texts)

    @property
    def message(self) -> OllamaMessage:
        return self.messages[self.at]


def run_go_template(template: str, messages: list[OllamaMessage]) -> str:
    """Render messages with a template as Ollama does. Raises `ValueError` for unsupported
    actions.
    """
    pieces = ACTION.split(template)  # texts at even places, actions at odd ones
    tokens = [(place % 2 == 1, piece) for place, piece in enumerate(pieces) if piece]
    nodes, rest = _block(tokens)
    if rest:
        raise ValueError(f"{rest[0]} closes nothing")
    return "".join(_run_nodes(nodes, _Scope(messages)))


def _block(tokens: list[_Token]) -> tuple[list[_Node], list[_Token]]:
    """Parse the nodes up to an `else` or `end` of the caller; return them and the rest."""
    nodes: list[_Node] = []
    while tokens:
        (is_action, text), *tokens = tokens
        if not is_action:
            nodes.append(("text " + text, []))
        elif text.startswith(("if ", "range ")):
            node, tokens = _branches(text, tokens)
            nodes.append(node)
        elif text == "end" or text.startswith("else"):
            return nodes, [(is_action, text), *tokens]
        else:
            nodes.append(("value " + text, []))
    return nodes, []


def _branches(opening: str, tokens: list[_Token]) -> tuple[_Node, list[_Token]]:
    kind, _, condition = opening.partition(" ")
    branches: list[tuple[str, list[_Node]]] = []
    while True:
        body, tokens = _block(tokens)
        branches.append((condition, body))
        if not tokens:
            raise ValueError(f"{opening} is never closed")
        (_, closing), *tokens = tokens
        if closing == "end":
            return (kind, branches), tokens
        condition = closing.removeprefix("else").strip().removeprefix("if ")


def _run_nodes(nodes: list[_Node], scope: _Scope) -> Iterator[str]:
    for what, branches in nodes:
        kind, _, rest = what.partition(" ")
        if kind == "text":
            yield rest
        elif kind == "value":
            yield _lookup_action(VALUES, rest)(scope)
        elif kind == "range":
            for place in range(len(scope.messages)):
                yield from _run_nodes(branches[0][1], _Scope(scope.messages, place))
        else:
            for condition, body in branches:
                if not condition or _lookup_action(CONDITIONS, condition)(scope):
                    yield from _run_nodes(body, scope)
                    break


def _lookup_action(
    table: Mapping[str, Callable[[_Scope], Value]], action: str
) -> Callable[[_Scope], Value]:
    if action not in table:
        raise ValueError(f"unknown action: {action}")
    return table[action]
