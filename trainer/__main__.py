"""`python -m trainer`: hands over to `trainer.cli.main`, once Ctrl-C is no traceback."""

import sys
from collections.abc import Callable

from personas import cli_entry


def main() -> int:
    """Returns the exit code."""
    return cli_entry.run(_command)


def _command() -> Callable[[], int]:
    from trainer.cli import main as cli  # heavy

    return cli.main


if __name__ == "__main__":
    sys.exit(main())
