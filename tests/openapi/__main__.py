"""`python -m tests.openapi left-out [--check]`: docs/sandbox.md lists what the sandbox leaves
out.
"""

import argparse
import sys

from tests.openapi import description, listing
from tests.openapi.checker import Checker


def sections(described: description.Json) -> str:
    """The listing for a description."""
    operations = Checker(described).operations
    left_out = listing.left_out_section(operations, described["info"]["version"])
    return f"{listing.answered_section(operations)}\n{left_out}"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if the listing is out of date, 2 if there is no description."""
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=__doc__)
    parser.add_argument("command", choices=["left-out"])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the listing is out of date"
    )
    args = parser.parse_args(arguments)
    try:
        # Always from the pinned package, or the page would change with whoever writes it.
        wanted = listing.page_with(sections(description.read(description.cached())))
    except description.DescriptionMissing as error:
        print(error, file=sys.stderr)
        return 2
    if args.check:
        current = listing.PAGE.read_text(encoding="utf-8") == wanted
        if not current:
            print(
                f"{listing.PAGE} is out of date: run `python -m tests.openapi left-out`.",
                file=sys.stderr,
            )
        return 0 if current else 1
    listing.PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
