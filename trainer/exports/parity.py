"""Every export of every architecture, compared: `python -m trainer.exports.parity [--write]`.

Makes tiny random models, exports an adapter over each in every way, and prints the table of what was measured; with
--write it takes the place of the one in docs/exports.md. Where xllamacpp is installed, llama.cpp is asked too.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

from personas.errors import UnderstudyError

DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"
COLUMNS = (
    ("adapter", None),
    ("merged", None),
    ("gguf", "f16"),
    ("gguf", "q8_0"),
    ("gguf-lora", None),
    ("ollama", "f16"),
    ("charx", None),
)
GGUF = ("gguf", "gguf-lora", "ollama")
"""What is refused for architectures that are not known (`trainer.exports.architectures`)."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.exports.parity", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/exports.md")
    options = parser.parse_args(arguments)
    # Tiny products are slower in several threads, above all beside other programs.
    os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for chatty in ("gguf", "bitsandbytes"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        made = table()
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    if options.write:
        written = with_table(DOCUMENT.read_text(encoding="utf-8"), made)
        DOCUMENT.write_text(written, encoding="utf-8")
    print(made)
    return 0


def table() -> str:
    """The table in Markdown. Raises `ExportError` at the first export that fails."""
    from trainer.exports.tiny import KINDS

    head = ["", *(f"{to} {quantise or ''}".strip() for to, quantise in COLUMNS)]
    lines = [_row(head), _row(["---"] * len(head))]
    for name in KINDS:
        lines.append(_row([name, *_cells(name)]))
        print(f"… {name}", file=sys.stderr)
    return "\n".join(lines)


def with_table(document: str, made: str) -> str:
    """The document with this table between its marks."""
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def _cells(name: str) -> list[str]:
    from personas.base_model import config_of
    from trainer.exports.architectures import is_known
    from trainer.exports.export import export
    from trainer.exports.tiny import KINDS, make_adapter, make_model

    cells = []
    with tempfile.TemporaryDirectory(prefix="understudy-parity-") as scratch:
        place = Path(scratch)
        base = make_model(KINDS[name], place / "base")
        adapter = make_adapter(KINDS[name], base, place / "adapter")
        for to, quantise in COLUMNS:
            if to in GGUF and not is_known(config_of(base)):
                cells.append("no")
                continue
            out = place / f"{to}-{quantise}"
            outcome = export(adapter, to, out, quantise, None, lambda _: None).outcome  # type: ignore[arg-type]
            theirs = f"; llama.cpp {outcome.llama_cpp.kl:.0e}" if outcome.llama_cpp else ""
            exact = outcome.difference.max_abs == 0
            cells.append("0" if exact else f"{outcome.difference.max_abs:.0e} / {outcome.difference.kl:.0e}{theirs}")
    return cells


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
