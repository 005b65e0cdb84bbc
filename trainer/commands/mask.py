"""`python -m trainer mask DATASET`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from personas.command_line import in_colour
from personas.errors import RequestError
from trainer.commands.build import add_sources
from trainer.commands.plan import home_of, source_of

if TYPE_CHECKING:
    from trainer.mask import Masked, Masks

MASK_HELP = """\
Shows what is trained on in each sample: in colour on a terminal, elsewhere between ⟦ and ⟧. Replies that members
rejected are judged, and not learned from: they stand between ⟪ and ⟫.

  python -m trainer mask build/ballast                        a data set, as `dataset build` makes it
  python -m trainer mask ~/.understudy/jobs/ID                a job folder
  python -m trainer mask talk.json --persona ballast          a source, read as `plan` does
"""
LEARNED, REJECTED, REST, PLAIN = "\x1b[1;32m", "\x1b[1;31m", "\x1b[2m", "\x1b[0m"
SHOWN = 10


def add_mask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `mask`."""
    mask = commands.add_parser(
        "mask",
        help="what is trained on in each sample",
        description=MASK_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mask.add_argument("dataset", metavar="DATASET", help="a data set's or a job's folder, a source, or a name")
    mask.add_argument("--limit", type=_count, default=SHOWN, metavar="N", help=f"show so many (default: {SHOWN})")
    add_sources(mask, required=False)
    mask.add_argument("--home", type=Path, metavar="DIR", help="the bot's home (else UNDERSTUDY_HOME, ~/.understudy)")
    mask.add_argument("--json", action="store_true", help="print one JSON object")
    return mask


def mask(options: argparse.Namespace) -> None:
    """Runs `mask`."""
    found = _masks(options)
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    for line in _told(found, in_colour()):
        print(line)


def _masks(options: argparse.Namespace) -> Masks:
    from personas.data_set import is_data_set
    from trainer.commands.orders import order_of
    from trainer.commands.progress import Counting
    from trainer.mask import masks_of_dataset, masks_of_job, masks_of_order

    folder = Path(options.dataset).expanduser()
    if (folder / "request.json").is_file():
        return masks_of_job(folder.absolute(), options.limit)
    if is_data_set(folder):
        return masks_of_dataset(folder, options.limit)
    if options.source:
        raise RequestError("DATASET and --source both say what to show.", "Give one source, as DATASET.")
    home = home_of(options.home)
    if folder.exists():  # as if `dataset build` had been given it: the same pseudonyms too
        options.source, sources = [options.dataset], []
    else:
        sources = [source_of(options, home)]
    with Counting() as counting:
        return masks_of_order(order_of(options, sources, home), options.limit, counting.heard)


def _told(found: Masks, in_colour: bool) -> list[str]:
    lines = []
    for number, it in enumerate(found.shown, 1):
        judged = f"; the reply ({it.lossy:,}) is judged, not learned from" if it.rejected else ""
        head = f"── {number}: {it.trained:,} of {it.tokens:,} tokens are trained on{judged}"
        lines += [head, _marked(it, in_colour), ""]
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


def _marked(masked: Masked, in_colour: bool) -> str:
    colour = REJECTED if masked.rejected else LEARNED
    begin, end = (colour, PLAIN + REST) if in_colour else masked.marks
    text = "".join(f"{begin}{_safe(part)}{end}" if learned else _safe(part) for part, learned in masked.parts)
    return f"{REST}{text}{PLAIN}" if in_colour else text


def _safe(text: str) -> str:
    """Without what would command the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return int(text)
