"""Entry point of `python -m personas`; imports `personas.card.card_cli` once Ctrl-C is handled."""

import sys
from collections.abc import Callable

from personas import cli_entry


def main() -> int:
    return cli_entry.run(_command)


def _command() -> Callable[[], int]:
    from personas.card import card_cli  # takes 0.2 s: Ctrl-C is handled before it is imported

    return card_cli.main


if __name__ == "__main__":
    sys.exit(main())
