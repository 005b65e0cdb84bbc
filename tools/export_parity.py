"""Measures the exports of every architecture and writes the table of docs/exports.md."""

import argparse
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

from personas.errors import UnderstudyError

DOCUMENT = Path(__file__).parents[1] / "docs" / "exports.md"
BEGIN = "<!-- parity: begin -->"
END = "<!-- parity: end -->"
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
"""Error message for architectures that GGUF export does not support
(`personas.models.gguf_format`).
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.export_parity", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/exports.md")
    options = parser.parse_args(arguments)
    # Tiny products are slower in several threads, above all beside other programs.
    os.environ.update(
        TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error"
    )
    warnings.filterwarnings("ignore", category=FutureWarning)
    for chatty in ("gguf", "bitsandbytes"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        table = parity_table()
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    if options.write:
        written = replace_table(DOCUMENT.read_text(encoding="utf-8"), table)
        DOCUMENT.write_text(written, encoding="utf-8")
    print(table)
    return 0


def parity_table() -> str:
    """Build the table in Markdown. Raises `ExportError` at the first export that fails."""
    from tools.tiny_models import TINY_MODELS

    head = ["", *(f"{to} {quantise or ''}".strip() for to, quantise in COLUMNS)]
    lines = [_row(head), _row(["---"] * len(head))]
    for name in TINY_MODELS:
        lines.append(_row([name, *_cells(name)]))
        print(f"… {name}", file=sys.stderr)
    return "\n".join(lines)


def replace_table(document: str, table: str) -> str:
    """Replace the table between the markers of the document."""
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def _cells(name: str) -> list[str]:
    from personas.models.base_model import load_config
    from personas.models.gguf_format import is_supported
    from tools.tiny_models import TINY_MODELS, make_adapter, make_model
    from trainer.export.exporter import export_adapter

    cells = []
    with tempfile.TemporaryDirectory(prefix="understudy-parity-") as scratch:
        place = Path(scratch)
        base = make_model(TINY_MODELS[name], place / "base")
        adapter = make_adapter(TINY_MODELS[name], base, place / "adapter")
        for to, quantise in COLUMNS:
            if to in GGUF and not is_supported(load_config(base)):
                cells.append("no")
                continue
            out = place / f"{to}-{quantise}"
            outcome = export_adapter(adapter, to, out, quantise, None, lambda _: None).outcome  # type: ignore[arg-type]
            theirs = f"; llama.cpp {outcome.llama_cpp.kl:.0e}" if outcome.llama_cpp else ""
            exact = outcome.difference.max_abs == 0
            cells.append(
                "0"
                if exact
                else f"{outcome.difference.max_abs:.0e} / {outcome.difference.kl:.0e}{theirs}"
            )
    return cells


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
