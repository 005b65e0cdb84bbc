"""`python -m trainer`: hands over to `trainer.cli`, once Ctrl-C is no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from personas import entry


def main() -> int:
    """Returns the exit code."""
    return entry.run(_command)


def _command() -> Callable[[], int]:
    from trainer import cli  # heavy

    return cli.main


if __name__ == "__main__":
    sys.exit(main())
