"""`python -m trainer mask`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from personas.cli_common import supports_colour
from personas.errors import RequestError
from personas.home.datasets import is_built_dataset
from trainer.cli.dataset_args import build_order, default_source
from trainer.cli.dataset_command import add_sources
from trainer.cli.error_handling import resolve_home
from trainer.cli.progress_view import ProgressCounter
from trainer.report.loss_mask_view import (
    MaskedSample,
    MaskSummary,
    mask_summary_of_dataset,
    mask_summary_of_job,
    mask_summary_of_sources,
)

MASK_HELP = """\
Shows which part of each sample carries loss: in colour on a terminal, elsewhere in ⟦ ⟧. Replies that members rejected
are trained against and shown in ⟪ ⟫.

  python -m trainer mask build/ballast                        a data set built by `dataset build`
  python -m trainer mask ~/.understudy/jobs/ID                a job folder
  python -m trainer mask talk.json --persona ballast          a source, read as `plan` does
"""
TRAINED_STYLE, REJECTED_STYLE, UNTRAINED_STYLE, RESET_STYLE = "\x1b[1;32m", "\x1b[1;31m", "\x1b[2m", "\x1b[0m"
DEFAULT_SHOWN_SAMPLES = 10


def add_mask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add `mask`."""
    mask = commands.add_parser(
        "mask",
        help="show which part of each sample carries loss",
        description=MASK_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mask.add_argument("dataset", metavar="DATASET", help="a data set's or a job's folder, a source, or a name")
    mask.add_argument(
        "--limit",
        type=_sample_count,
        default=DEFAULT_SHOWN_SAMPLES,
        metavar="N",
        help=f"number of samples to show (default: {DEFAULT_SHOWN_SAMPLES})",
    )
    add_sources(mask, required=False)
    mask.add_argument(
        "--home", type=Path, metavar="DIR", help="the bot's home (default: UNDERSTUDY_HOME, ~/.understudy)"
    )
    mask.add_argument("--json", action="store_true", help="print one JSON object")
    return mask


def show_mask(options: argparse.Namespace) -> None:
    """Run `mask`."""
    found = _make_mask_summary(options)
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    for line in _mask_lines(found, supports_colour()):
        print(line)


def _make_mask_summary(options: argparse.Namespace) -> MaskSummary:

    folder = Path(options.dataset).expanduser()
    if (folder / "request.json").is_file():
        return mask_summary_of_job(folder.absolute(), options.limit)
    if is_built_dataset(folder):
        return mask_summary_of_dataset(folder, options.limit)
    if options.source:
        raise RequestError("DATASET and --source both name a source.", "Give one source, as DATASET.")
    home = resolve_home(options.home)
    if folder.exists():  # read as `dataset build` would, with the same pseudonyms
        options.source, sources = [options.dataset], []
    else:
        sources = [default_source(options, home)]
    with ProgressCounter() as counting:
        return mask_summary_of_sources(build_order(options, sources, home), options.limit, counting.heard)


def _mask_lines(found: MaskSummary, in_colour: bool) -> list[str]:
    lines = []
    for number, it in enumerate(found.shown, 1):
        judged = f"; the reply ({it.lossy:,}) is judged, not learned from" if it.rejected else ""
        head = f"── {number}: {it.trained:,} of {it.tokens:,} tokens are trained on{judged}"
        lines += [head, _highlight_sample(it, in_colour), ""]
    sides = (("train", "to train on"), ("held out", "held out"))
    for side, what in sides:
        trained, tokens = found.trained[side], found.tokens[side]
        share = f" ({trained / tokens:.1%})" if tokens else ""
        lines.append(f"{found.samples[side]:,} samples {what}: loss on {trained:,} of {tokens:,} tokens{share}")
    if found.rejected:
        count, tokens = (found.rejected[name] for name in ("samples", "tokens"))
        lines.append(
            f"{count:,} of the samples to train on are replies that members rejected: {tokens:,} tokens of them "
            "are judged, not learned from"
        )
    return [*lines, *(f"  dropped {count:>9,}  {reason}" for reason, count in found.dropped.most_common())]


def _highlight_sample(masked: MaskedSample, in_colour: bool) -> str:
    colour = REJECTED_STYLE if masked.rejected else TRAINED_STYLE
    begin, end = (colour, RESET_STYLE + UNTRAINED_STYLE) if in_colour else masked.marks
    text = "".join(
        f"{begin}{_strip_control_chars(part)}{end}" if learned else _strip_control_chars(part)
        for part, learned in masked.parts
    )
    return f"{UNTRAINED_STYLE}{text}{RESET_STYLE}" if in_colour else text


def _strip_control_chars(text: str) -> str:
    """Replace control characters, which the terminal would interpret."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _sample_count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return int(text)
