"""Starts the bot's command line, and `model_inference`, once the packages are known to be
installed.
"""

import sys
from collections.abc import Callable

from personas import cli_entry

PACKAGES = frozenset(
    """PIL accelerate aiohttp anyascii bitsandbytes charset_normalizer datasets discord dotenv filelock gguf
    httpx2 huggingface_hub jinja2 markdown_it matplotlib numpy orjson packaging peft phonenumbers
    prometheus_client psutil py3langid pyarrow pycrfsuite pydantic pydantic_settings regex
    rouge_score sacrebleu safetensors shtab sklearn sqlite_utils tensorboardX threadpoolctl
    tokenizers torch tqdm transformers trl yaml""".split()
)
"""Import names of the packages that pyproject.toml declares."""
MIN_PYTHON = (3, 11)


def main() -> int:
    """Returns the exit code."""
    # Before anything is imported that an older Python cannot read.
    if sys.version_info < MIN_PYTHON:
        print(
            "Understudy needs Python 3.11 or newer: make setup PYTHON=python3.12", file=sys.stderr
        )
        return 1
    try:
        return cli_entry.run(_load_main)
    except ModuleNotFoundError as error:
        # Any other module that is missing is a fault of the program: its traceback is needed.
        if error.name not in PACKAGES:
            raise
        return _report_missing_package(error.name, sys.executable)


def _load_main() -> Callable[[], int]:
    from bot.cli import run  # not above: the version of Python is checked first

    return run.main


def _report_missing_package(package: str, python: str) -> int:
    print(
        f"Understudy's packages are not there for {python}: {package} is missing.\n"
        "`make run` sets them up and starts the bot; after `make setup` it is .venv/bin/python -m "
        "bot.",
        file=sys.stderr,
    )
    return 1


def ask_main() -> int:
    """Returns the exit code."""
    return cli_entry.run(_load_ask)


def _load_ask() -> Callable[[], int]:
    from bot.cli import ask  # not above: `cli_entry.run` handles Ctrl-C meanwhile

    return ask.main


if __name__ == "__main__":
    sys.exit(main())
