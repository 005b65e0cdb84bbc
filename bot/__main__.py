"""`python -m bot`: says what is missing where the packages are not there, else hands over to `bot.cli`."""

from __future__ import annotations

import sys

OWN = ("bot", "personas")
OLDEST = (3, 11)


def main() -> int:
    """Returns the exit code."""
    if sys.version_info < OLDEST:  # before anything is imported that an older Python cannot read
        print("Understudy needs Python 3.11 or newer: make setup PYTHON=python3.12", file=sys.stderr)
        return 1
    try:
        from bot import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OWN:
            raise
        print(_missing(error.name or "a package", sys.executable), file=sys.stderr)
        return 1
    return cli.main()


def _missing(package: str, python: str) -> str:
    return (
        f"Understudy's packages are not there for {python}: {package} is missing.\n"
        "`make run` sets them up and starts the bot; after `make setup` it is .venv/bin/python -m bot."
    )


if __name__ == "__main__":
    sys.exit(main())
