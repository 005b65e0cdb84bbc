"""`python -m personas`: hands over to `personas.card.card_cli`, once Ctrl-C is no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from personas import cli_entry


def main() -> int:
    """Returns the exit code."""
    return cli_entry.run(_command)


def _command() -> Callable[[], int]:
    from personas.card import card_cli  # heavy

    return card_cli.main


if __name__ == "__main__":
    sys.exit(main())
