"""Chromium for the tests of the pages: $CHROMIUM, the system's, or Playwright's own.

`python -m tests.browser.chromium` installs one where none starts: as root from Debian's or Ubuntu's
packages, else from Playwright's download. Where neither works, it prints what to type, and the
tests that need a browser are skipped; with REQUIRE_CHROMIUM=1, as in `make check`, that is an
error.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.async_api import Browser, Error, Playwright, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "REQUIRE_CHROMIUM"
APT_COMMANDS = (
    ("apt-get", "update", "-qq"),
    ("apt-get", "install", "-y", "-qq", "chromium", "fonts-noto-color-emoji"),
)
DOWNLOAD_COMMAND = (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
ADVICE = (
    "Type `sudo apt-get install chromium`, or `sudo .venv/bin/playwright install-deps chromium` "
    "and then "
    "`.venv/bin/playwright install chromium`, or name one with CHROMIUM=/path."
)


class ChromiumMissingError(Exception):
    """No Chromium starts on this machine; the message says why and what to type."""


def is_required() -> bool:
    """Report whether tests without a browser fail: one was named, or is expected as in `make
    check`.
    """
    return bool(os.environ.get("CHROMIUM") or os.environ.get(REQUIRED))


async def launch(playwright: Playwright) -> Browser:
    """Start the first browser that starts. Raises `ChromiumMissingError`."""
    # Chromium has no sandbox of its own for root, and shared memory is small in containers.
    arguments = [
        "--disable-gpu",
        "--disable-dev-shm-usage",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    problems = []
    for path in _paths():
        try:
            return await playwright.chromium.launch(executable_path=path, args=arguments)
        except Error as error:
            reason = " ".join(re.sub("[╔╗╚╝║═]+", " ", error.message).split())
            problems.append(f"{path or 'Playwright'}: {reason[:300]}")
    raise ChromiumMissingError(f"Chromium is missing. {ADVICE}\n" + "\n".join(problems))


def _paths() -> Iterator[str | None]:
    """The browsers to try; None stands for Playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        yield named
    else:
        yield from filter(None, map(shutil.which, NAMES))
        yield None


async def find_problem() -> str:
    """Start a browser once; returns why none starts, or nothing."""
    async with async_playwright() as playwright:
        try:
            await (await launch(playwright)).close()
        except ChromiumMissingError as error:
            return str(error)
    return ""


def _install_package() -> None:
    """Install Debian's or Ubuntu's package, as root."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        all(subprocess.run(command).returncode == 0 for command in APT_COMMANDS)


def _download() -> None:
    """Download Playwright's own browser to its cache."""
    print("Downloading Playwright's Chromium (some 110 MB, once) …", flush=True)
    done = subprocess.run(DOWNLOAD_COMMAND, capture_output=True, text=True)
    if done.returncode:
        print(
            next((line for line in done.stderr.splitlines() if "Error" in line), ""),
            file=sys.stderr,
        )


def main() -> int:
    """Install Chromium unless one starts; returns the exit status."""
    problem = asyncio.run(find_problem())
    for install in () if os.environ.get("CHROMIUM") else (_install_package, _download):
        if problem:
            install()
            problem = asyncio.run(find_problem())
    if problem:
        print(
            problem if is_required() else f"{problem}\nThe tests of the pages are skipped.",
            file=sys.stderr,
        )
    return int(bool(problem) and is_required())


if __name__ == "__main__":
    sys.exit(main())
