"""`python -m bot`: says what is missing where the packages are not there, else hands over to `bot.cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable

OWN = ("bot", "personas")
OLDEST = (3, 11)


def main() -> int:
    """Returns the exit code."""
    if sys.version_info < OLDEST:  # before anything is imported that an older Python cannot read
        print("Understudy needs Python 3.11 or newer: make setup PYTHON=python3.12", file=sys.stderr)
        return 1
    from personas import entry

    return entry.run(_command)


def _command() -> Callable[[], int]:
    try:
        from bot import cli  # heavy
    except ModuleNotFoundError as error:
        missing = error.name or "a package"
        if missing.partition(".")[0] in OWN:
            raise
        return lambda: _without(missing, sys.executable)
    return cli.main


def _without(package: str, python: str) -> int:
    print(
        f"Understudy's packages are not there for {python}: {package} is missing.\n"
        "`make run` sets them up and starts the bot; after `make setup` it is .venv/bin/python -m bot.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
