"""What of Discord's HTTP API the sandbox answers and what it leaves out, as docs/sandbox.md lists
it.
"""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from sandbox.api_routes import ROUTES
from tests.openapi.checker import Operation

PAGE = Path(__file__).parent.parent.parent / "docs" / "sandbox.md"
HERE = "<!-- Below this line: written by `python -m tests.openapi left-out`. -->\n"
ORIGINAL = "@original"


def answered(operation: Operation) -> bool:
    """Whether the sandbox has a route for it."""
    return any(
        method == operation.method and shape(path) == shape(operation.template)
        for method, path, *_ in ROUTES
    )


def shape(path: str) -> tuple[str, ...]:
    """The path without the names in it, which the sandbox and the description may choose
    differently.
    """
    # The answer to an interaction is a message with a name instead of an id.
    return tuple(
        "{}" if part.startswith("{") or part == ORIGINAL else part for part in path.split("/")
    )


def answered_section(operations: Iterable[Operation]) -> str:
    """The requests that are answered."""
    found = [one for one in operations if answered(one)]
    return f"### Answered\n\n{len(found)} kinds of requests.\n\n{_block(found)}"


def left_out_section(operations: Iterable[Operation], version: str) -> str:
    """All others, by the first word of their path."""
    missing = [one for one in operations if not answered(one)]
    parts = [
        f"### Left out\n\n{len(missing)} kinds of requests of the description's version "
        f"{version}.\n"
    ]
    for word, group in groupby(sorted(missing, key=_order), key=_word):
        listed = list(group)
        parts.append(
            f"<details><summary><code>/{word}</code>: "
            f"{len(listed)}</summary>\n\n{_block(listed)}\n</details>\n"
        )
    return "\n".join(parts)


def _word(operation: Operation) -> str:
    return operation.template.split("/")[1]


def _order(operation: Operation) -> tuple[str, str]:
    return operation.template, operation.method


def _block(operations: list[Operation]) -> str:
    paths = groupby(sorted(operations, key=_order), key=lambda one: one.template)
    lines = [f"{path}  {' '.join(one.method for one in group)}\n" for path, group in paths]
    return f"```\n{''.join(lines)}```\n"


def page_with(sections: str) -> str:
    """The page with its hand-written part as it is. Raises ValueError if the line between is
    gone.
    """
    by_hand, line, _ = PAGE.read_text(encoding="utf-8").partition(HERE)
    if not line:
        raise ValueError(f"{PAGE} lacks the line that the listing starts at: {HERE}")
    return f"{by_hand}{HERE}\n{sections}"
