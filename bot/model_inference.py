"""`model_inference`: hands over to `bot.one_question`, once Ctrl-C is no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from personas import entry


def main() -> int:
    """Returns the exit code."""
    return entry.run(_command)


def _command() -> Callable[[], int]:
    from bot import one_question  # heavy

    return one_question.main


if __name__ == "__main__":
    sys.exit(main())
