"""`python -m trainer mask`."""

import argparse
import json
from pathlib import Path

from personas.cli_common import supports_colour
from personas.errors import RequestError
from personas.home.built_dataset import is_built_dataset
from trainer.anonymise.name_detector import describe_name_search
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.dataset_args import default_source, make_build_spec
from trainer.cli.dataset_command import add_sources
from trainer.cli.error_handling import resolve_home
from trainer.cli.options import HOME, JSON, add_options, option
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
TRAINED_STYLE = "\x1b[1;32m"
REJECTED_STYLE = "\x1b[1;31m"
UNTRAINED_STYLE = "\x1b[2m"
RESET_STYLE = "\x1b[0m"
DEFAULT_SHOWN_SAMPLES = 10


def add_mask(commands: Commands) -> argparse.ArgumentParser:
    """Add `mask`."""
    mask = add_command(commands, "mask", "show which part of each sample carries loss", MASK_HELP)
    add_options(
        mask,
        [
            option("dataset", "DATASET", "a data set's or a job's folder, a source, or a name"),
            option(
                "--limit",
                "N",
                f"number of samples to show (default: {DEFAULT_SHOWN_SAMPLES})",
                type=_sample_count,
                default=DEFAULT_SHOWN_SAMPLES,
            ),
        ],
    )
    add_sources(mask, required=False)
    add_options(mask, [HOME, JSON])
    return mask


def show_mask(options: argparse.Namespace) -> None:
    """Run `mask`."""
    summary = _make_mask_summary(options)
    if options.json:
        print(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        print("\n".join(_mask_lines(summary, supports_colour())))


def _make_mask_summary(options: argparse.Namespace) -> MaskSummary:
    folder = Path(options.dataset).expanduser()
    if (folder / "request.json").is_file():
        return mask_summary_of_job(folder.absolute(), options.limit)
    if is_built_dataset(folder):
        return mask_summary_of_dataset(folder, options.limit)
    if options.source:
        raise RequestError(
            "DATASET and --source both name a source.", "Give one source, as DATASET."
        )
    home = resolve_home(options.home)
    if folder.exists():
        # Read as `dataset build` would, with the same pseudonyms.
        options.source = [options.dataset]
        sources = []
    else:
        sources = [default_source(options, home)]
    with ProgressCounter() as counter:
        spec = make_build_spec(options, sources, home)
        return mask_summary_of_sources(spec, options.limit, counter.count)


def _mask_lines(summary: MaskSummary, in_colour: bool) -> list[str]:
    lines = []
    for number, sample in enumerate(summary.shown, 1):
        head = f"── {number}: {sample.trained:,} of {sample.tokens:,} tokens are trained on"
        if sample.rejected:
            head += f"; the reply ({sample.lossy:,}) is judged, not learned from"
        lines += [head, _highlight_sample(sample, in_colour), ""]
    for side, what in (("train", "to train on"), ("held out", "held out")):
        trained = summary.trained[side]
        tokens = summary.tokens[side]
        share = f" ({trained / tokens:.1%})" if tokens else ""
        lines.append(
            f"{summary.samples[side]:,} samples {what}: loss on {trained:,} of {tokens:,} "
            f"tokens{share}"
        )
    if summary.rejected:
        lines.append(
            f"{summary.rejected['samples']:,} of the samples to train on are replies that members "
            "rejected: "
            f"{summary.rejected['tokens']:,} tokens of them are judged, not learned from"
        )
    for reason, count in summary.dropped.most_common():
        lines.append(f"  dropped {count:>9,}  {reason}")
    lines += filter(None, [describe_name_search(summary.name_search)])
    return lines


def _highlight_sample(masked: MaskedSample, in_colour: bool) -> str:
    begin, end = masked.marks
    if in_colour:
        begin = REJECTED_STYLE if masked.rejected else TRAINED_STYLE
        end = RESET_STYLE + UNTRAINED_STYLE
    text = ""
    for part, has_loss in masked.parts:
        shown = _strip_control_chars(part)
        text += f"{begin}{shown}{end}" if has_loss else shown
    return f"{UNTRAINED_STYLE}{text}{RESET_STYLE}" if in_colour else text


def _strip_control_chars(text: str) -> str:
    """Replace control characters, which the terminal would interpret."""
    shown = ""
    for sign in text:
        shown += sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}"
    return shown


def _sample_count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return int(text)
