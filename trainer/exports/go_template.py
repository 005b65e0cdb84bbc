"""Ollama's TEMPLATE: a Go text/template that writes what the model's own chat template writes in our prompts.

It is not translated but found: our renderer renders a talk of known words, and what stands between the words becomes
the template. Afterwards `rendered` runs it on real prompts, which have to come out as our renderer makes them.
The actions used: range over .Messages, if, eq, le, and, not, len, slice. Reference: Ollama's docs/template.md.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from personas.contracts import Persona, Turn
from personas.prompt import EXAMPLE_USER, Renderer
from trainer.exports.errors import ExportError

SYSTEM, LAST, SECOND = "SYSTEM-PROBE", "LAST-PROBE", "SECOND-PROBE"
USER_ONE, REPLY_ONE, REPLY_TWO = "FIRST-PROBE", "ANSWER-PROBE", "REPLY-PROBE"
IS_LAST = "eq (len (slice $.Messages $i)) 1"
IS_FIRST = "le $i 1"
BETWEEN = "\n\n"
"""What our renderer and most templates put between a system text and the message that it joins."""

Message = dict[str, str]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Form:
    """What the chat template writes around each message. `system` says where a system text goes: in a message of its
    own, or into the first or the last one of the user."""

    system: str
    start: str
    system_before: str
    system_after: str
    user_before: str
    user_after: str
    reply_before: str
    reply_after: str
    opening: str


def form_of(renderer: Renderer, bos: str) -> Form:
    """The form of a model's chat template; `bos` is what the runtime puts first by itself. Raises `ExportError`."""
    probe = Persona("probe", "Probe", description=SYSTEM)
    turns = [Turn(EXAMPLE_USER, USER_ONE), Turn("", REPLY_ONE, True), Turn(EXAMPLE_USER, SECOND)]
    turns += [Turn("", REPLY_TWO, True), Turn(EXAMPLE_USER, LAST)]
    text = renderer.prompt(probe, turns).text.removeprefix(bos).replace(f"{EXAMPLE_USER}: ", "")
    alone = renderer.prompt(None, turns).text.removeprefix(bos)
    try:
        return _form(text, alone, renderer.end_of_turn)
    except ValueError as error:
        raise ExportError(
            "This model's chat template is of no form that is written for Ollama here.",
            "Export --to gguf: the file carries the chat template itself.",
        ) from error


def template_of(form: Form, user: str = "", closing: str = "") -> str:
    """The template. `user` stands before each message of the user, `closing` after the last."""
    own = form.system == "own"
    joined = {"first": f"and $.System ({IS_FIRST})", "last": f"and $.System ({IS_LAST})"}.get(form.system)
    inside = f"{{{{ if {joined} }}}}{{{{ $.System }}}}{BETWEEN}{{{{ end }}}}" if joined else ""
    ending = f"{{{{ if {IS_LAST} }}}}{_literal(BETWEEN + closing)}{{{{ end }}}}" if closing else ""
    start = _literal(form.start)
    parts = [
        f"{{{{ if not .System }}}}{start}{{{{ end }}}}" if own and start else start,
        "{{ range $i, $m := .Messages }}",
        '{{ if eq .Role "system" }}',
        f"{_literal(form.system_before)}{{{{ .Content }}}}{_literal(form.system_after)}" if own else "",
        '{{ else if eq .Role "user" }}',
        f"{_literal(form.user_before)}{inside}{_literal(user)}{{{{ .Content }}}}{ending}{_literal(form.user_after)}",
        "{{ else }}",
        f"{_literal(form.reply_before)}{{{{ .Content }}}}{_literal(form.reply_after)}",
        "{{ end }}{{ end }}",
        _literal(form.opening),
    ]
    return "".join(parts)


def _form(text: str, alone: str, end: str) -> Form:
    """Raises `ValueError` when the words do not stand where they stand in every known form."""
    system = _layout(text)
    joined = SYSTEM + BETWEEN
    plain = text if system == "own" else text.replace(joined, "", 1)
    first = _before(plain, SYSTEM if system == "own" else USER_ONE)
    reply_to_user = _between(plain, REPLY_ONE, SECOND)
    user_to_reply, opening = _between(plain, USER_ONE, REPLY_ONE), plain.partition(LAST)[2]
    head = _between(plain, SYSTEM, USER_ONE) if system == "own" else first
    ended, rest = _ended(reply_to_user, end)
    user_before = _shared(head[::-1], rest[::-1])[::-1]
    both = _shared(user_to_reply, opening)
    user_after = ended if ended and both.startswith(ended) else both
    if user_to_reply != _between(plain, SECOND, REPLY_TWO) or reply_to_user != _between(plain, REPLY_TWO, LAST):
        raise ValueError("turns differ")
    start = _before(alone, USER_ONE)
    if not start.endswith(user_before) or (system != "own" and start != first):
        raise ValueError("the first message differs")
    return Form(
        system=system,
        start=start.removesuffix(user_before),
        system_before=first if system == "own" else "",
        system_after=head.removesuffix(user_before) if system == "own" else "",
        user_before=user_before,
        user_after=user_after,
        reply_before=user_to_reply.removeprefix(user_after),
        reply_after=reply_to_user.removesuffix(user_before),
        opening=opening.removeprefix(user_after),
    )


def _ended(between: str, end: str) -> tuple[str, str]:
    """What ends a turn, with the space after it, and what begins the next. Any cut would do; this one reads well."""
    before, there, after = between.partition(end)
    rest = after.lstrip()
    return before + there + after.removesuffix(rest), rest


def _shared(one: str, other: str) -> str:
    """What both texts begin with."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in alike)


def _layout(text: str) -> str:
    after = text.partition(SYSTEM)[2]
    if after.startswith(BETWEEN + USER_ONE):
        return "first"
    return "last" if after.startswith(BETWEEN + LAST) else "own"


def _before(text: str, word: str) -> str:
    found, there, _ = text.partition(word)
    if not there:
        raise ValueError(word)
    return found


def _between(text: str, left: str, right: str) -> str:
    _, there, rest = text.partition(left)
    if not there:
        raise ValueError(left)
    return _before(rest, right)


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


# ------------------------------------------------------------------------------------------------ running it

ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


@dataclass(frozen=True)
class _Scope:
    """What an action can see: all messages, the system text, and the message that the range stands at."""

    messages: list[Message]
    at: int = 0

    @property
    def system(self) -> str:
        return BETWEEN.join(message["content"] for message in self.messages if message["role"] == "system")

    @property
    def message(self) -> Message:
        return self.messages[self.at]


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
    f"and $.System ({IS_LAST})": lambda scope: bool(scope.system) and len(scope.messages[scope.at :]) == 1,
}


def rendered(template: str, messages: list[Message]) -> str:
    """What Ollama makes of messages with a template of the actions above. Raises `ValueError` for other actions."""
    pieces = ACTION.split(template)  # texts at even places, actions at odd ones
    tokens = [(place % 2 == 1, piece) for place, piece in enumerate(pieces) if piece]
    nodes, rest = _block(tokens)
    if rest:
        raise ValueError(f"{rest[0]} closes nothing")
    return "".join(_run(nodes, _Scope(messages)))


_Token = tuple[bool, str]
_Node = tuple[str, list[tuple[str, list["_Node"]]]]
"""A text or value with no branches, or an `if` or `range` with its branches, each under its condition."""


def _block(tokens: list[_Token]) -> tuple[list[_Node], list[_Token]]:
    """The nodes up to an `else` or `end` that belongs to the caller, and what follows them."""
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


def _run(nodes: list[_Node], scope: _Scope) -> Iterator[str]:
    for what, branches in nodes:
        kind, _, rest = what.partition(" ")
        if kind == "text":
            yield rest
        elif kind == "value":
            yield _known(VALUES, rest)(scope)
        elif kind == "range":
            for place in range(len(scope.messages)):
                yield from _run(branches[0][1], _Scope(scope.messages, place))
        else:
            chosen = next((body for when, body in branches if not when or _known(CONDITIONS, when)(scope)), [])
            yield from _run(chosen, scope)


def _known(table: Mapping[str, Callable[[_Scope], Value]], action: str) -> Callable[[_Scope], Value]:
    if action not in table:
        raise ValueError(f"unknown action: {action}")
    return table[action]
