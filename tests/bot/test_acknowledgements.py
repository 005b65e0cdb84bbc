"""Each command, button, menu and form acknowledges its interaction before anything that takes
time.
"""

import ast
import itertools
from pathlib import Path

import bot

ACKNOWLEDGING = {
    "acknowledge", "ask_publicly", "defer", "respond", "respond_first", "respond_privately", "send_form",
    "update_message",
}  # fmt: skip
"""Functions whose first request is a response to the interaction."""
BOUNDED = {"_fields_of_card", "_typed_before"}
"""Functions that read what a form opens with, and end within `READ_TIMEOUT_S`: no other response
may precede a form.
"""
FOLDER = Path(bot.__path__[0])
COMMAND_MARKS = ("command", "context_menu")
HANDLER_NAMES = {"pressed", "chosen", "delete_reply", "remember_message", "add_lore_from_form", "edit_memory",
                 "store_lesson", "answer_form", "reply_without_training"}  # fmt: skip
Function = ast.AsyncFunctionDef


def functions() -> dict[str, list[Function]]:
    found: dict[str, list[Function]] = {}
    for file in (*FOLDER.rglob("discord*.py"), *FOLDER.rglob("refused_forms.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append(node)
    return found


def called(node: ast.expr) -> str:
    """The name of a function that is called, without what it belongs to."""
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def awaited(function: Function) -> list[str]:
    """Names of what a function awaits itself, in the order of its lines."""
    inner = {id(node) for one in ast.walk(function) if isinstance(one, Function) and one is not function
             for node in ast.walk(one)}  # fmt: skip
    awaits = [
        node for node in ast.walk(function) if isinstance(node, ast.Await) and id(node) not in inner
    ]
    return [
        called(node.value)
        for node in sorted(awaits, key=lambda node: (node.lineno, node.col_offset))
    ]


def first_awaited(function: Function) -> list[str]:
    """What a handler awaits first; after what is `BOUNDED`, that is the form it opens."""
    names = awaited(function)
    if names and names[0] in BOUNDED:
        assert names[1:2] == ["send_form"], f"{function.name}, line {function.lineno}"
        return names[1:2]
    return names[:1]


def is_handler(function: Function) -> bool:
    marks = {called(mark) for mark in function.decorator_list}
    return bool(marks & set(COMMAND_MARKS)) or function.name in HANDLER_NAMES


def acknowledges_first(
    name: str, known: dict[str, list[Function]], seen: tuple[str, ...] = ()
) -> bool:
    """Tell whether the first thing that a function awaits is a response, or a function of which
    that is so.
    """
    if name in ACKNOWLEDGING:
        return True
    if name in seen or name not in known:
        return False
    firsts = [awaited(function)[:1] for function in known[name]]
    return all(first and acknowledges_first(first[0], known, (*seen, name)) for first in firsts)


def test_the_first_thing_that_a_handler_awaits_is_its_response():
    known = functions()
    handlers = [function for function in itertools.chain(*known.values()) if is_handler(function)]
    late = [
        f"{one.name}, line {one.lineno}: {first[0]}"
        for one in handlers
        if (first := first_awaited(one)) and not acknowledges_first(first[0], known)
    ]
    assert len(handlers) > 60 and not late, late
