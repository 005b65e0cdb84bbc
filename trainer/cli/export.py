"""`python -m trainer export` and `import`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from personas.errors import RequestError
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.error_handling import log_export, with_failure_report
from trainer.cli.options import ADAPTER, BASE_MODEL, JSON, OUT, add_options, choice, flag, option
from trainer.cli.progress_view import print_line
from trainer.export.hub_push import HubTarget, PushRefusedError, check_target, push_export

if TYPE_CHECKING:
    from trainer.export.exporter import ExportReport

HELP = """\
Exports an adapter for other programs. Each export is loaded back and compared with adapter and base model on the same
prompts; it is discarded if it differs by more than its format explains, or if its chat template, read back, writes
other prompts than those of the training.

  adapter     peft's folder: configuration, weights, model card
  merged      a model folder in 16 bits, for transformers and compatible programs
  gguf        the merged model as one GGUF file, F16, Q8_0 or Q4_K_M, for llama.cpp and LM Studio
  gguf-lora   the adapter alone as GGUF, for llama.cpp's --lora
  ollama      a folder for `ollama create`: the merged model as GGUF, and a Modelfile with the persona
  charx       the persona's card with the adapter inside; --adapter accepts it

--push uploads it to a hub, with a model card; the token is HF_TOKEN. A public repository is confirmed first.

  python -m trainer export --adapter ~/.understudy/models/persona_adapters/oda/v1 --to ollama --out build/oda
  python -m trainer export --adapter ~/.understudy/models/persona_adapters/oda/v1 --to adapter --push owner/oda
"""
IMPORT_HELP = """\
Checks an adapter that another program made, and writes it as an adapter folder with a manifest, which `evaluate`,
`export`, the bot and the examples read. It has to be a plain LoRA in safetensors for the layers of its base model. A
repository's commit and licence are recorded; private ones need HF_TOKEN. A download that was cut continues.

  python -m trainer import --adapter owner/name@revision --out build/mira
  python -m trainer import --adapter mira-lora.zip --out build/mira --base-model embedded
"""
TARGET_NAMES = ("adapter", "merged", "gguf", "gguf-lora", "ollama", "charx")


def add_export_command(commands: Commands) -> argparse.ArgumentParser:
    """Add `export`."""
    command = add_command(commands, "export", "export an adapter for other programs", HELP)
    add_options(
        command,
        [
            ADAPTER.but(help="the folder of a version, or a CHARX card"),
            choice("--to", TARGET_NAMES, "the format", required=True),
            OUT.but(
                metavar="PATH", help="the file or folder to create; may be left out with --push"
            ),
            option(
                "--push",
                "OWNER/NAME",
                "upload it to this repository of a hub; new ones are private",
                default="",
            ),
            flag("--yes", "push to a public repository without asking"),
            choice(
                "--quantise",
                ("f16", "q8_0", "q4_k_m"),
                "how gguf and ollama store weights (default: f16); q4_k_m needs llama.cpp's llama-quantize",
            ),
            option("--card", "FILE", "the persona's card, unless it is a shipped one", type=Path),
            JSON.but(help="print export.json"),
        ],
    )
    command.set_defaults(command=with_failure_report(_run_export))
    return command


def _run_export(options: argparse.Namespace) -> None:
    target = _find_target(options)
    with tempfile.TemporaryDirectory(prefix="understudy-push-") as scratch:
        out = options.out
        if not out and target:
            out = target.path_for(options.to, Path(scratch))
        if not out:
            raise RequestError(
                "Neither --out nor --push is given.", "Name a path, a repository, or both."
            )
        _export_and_push(options, out.expanduser().absolute(), target)


def _find_target(options: argparse.Namespace) -> HubTarget | None:
    """Return the checked repository to push to. Raises `ExportError`, and unless confirmed for a
    public one.
    """
    if not options.push:
        return None
    target = check_target(options.push)
    if target.is_public and not options.yes:
        public = f"{target.repository} is public: everyone can read what is pushed to it."
        if not sys.stdin.isatty():
            raise RequestError(public, "Add --yes to push all the same.")
        if input(f"{public} Push to it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise RequestError("Nothing was exported or pushed.")
    return target


def _export_and_push(options: argparse.Namespace, out: Path, target: HubTarget | None) -> None:
    from trainer.export.exporter import export_adapter  # loads torch, which takes seconds

    for chatty in ("gguf", "bitsandbytes"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    adapter = options.adapter.expanduser().absolute()
    report = export_adapter(
        adapter, options.to, out, quantise=options.quantise, card=options.card, say=_print_progress
    )
    held = dict(report.held)
    destination = report.out if options.out else options.push
    lines = [format_report(report, str(destination))]
    if options.out:
        log_export("adapter", adapter, report.out)
    if target:
        print_line(f"pushing {held['bytes'] / 1e6:.1f} MB to {target.repository}")
        commit = _push(target, report, adapter)
        held["pushed"] = {"repository": target.repository, "commit": commit}
        lines.append(f"Pushed to {target.repository}, commit {commit}; it is {target.visibility}.")
    if options.json:
        print(json.dumps(held, ensure_ascii=False))
    else:
        print("\n".join(lines))


def _push(target: HubTarget, report: ExportReport, adapter: Path) -> str:
    """Push an export, recorded before and after: an erasure must not miss a copy. Raises
    `ExportError`.
    """
    transfer = uuid.uuid4().hex
    base_model = report.held["base_model"]["name"]
    log_export("adapter", adapter, target.repository, transfer=transfer, state="begun")
    try:
        commit = push_export(target, report.out, report.model_card, base_model, transfer=transfer)
    except PushRefusedError:
        log_export("adapter", adapter, target.repository, transfer=transfer, state="refused")
        raise
    log_export("adapter", adapter, f"{target.repository}@{commit}", transfer=transfer)
    return commit


def add_import_command(commands: Commands) -> argparse.ArgumentParser:
    """Add `import`."""
    command = add_command(
        commands, "import", "check an adapter from a hub or of peft, and write it here", IMPORT_HELP
    )
    add_options(
        command,
        [
            option(
                "--adapter",
                "SOURCE",
                "a peft folder, a zip of one, or owner/name[@revision]",
                required=True,
            ),
            option("--out", "FOLDER", "the folder to create", type=Path, required=True),
            BASE_MODEL.but(type=str, help="its base model (default: the one that it names)"),
        ],
    )
    command.set_defaults(command=with_failure_report(_run_import))
    return command


def _run_import(options: argparse.Namespace) -> None:
    from personas.home.external_adapter import import_adapter  # loads torch, as above

    out = options.out.expanduser().absolute()
    is_stated = bool(options.base_model)
    manifest = import_adapter(
        options.adapter, out, options.base_model, print_line, is_stated=is_stated
    )
    print(f"{options.out}: an adapter for the base model {manifest.base_model}")
    for caveat in manifest.caveats:
        print(f"note: {caveat}")


def format_report(report: ExportReport, name: str = "") -> str:
    """Format a report for people; `name` stands in the place of a temporary path."""
    held = report.held
    outcome = report.outcome
    form = ", ".join(filter(None, [held["to"], held["quantise"]]))
    compared = held["compared"]
    lines = [
        f"{name or report.out} ({form}): {held['bytes'] / 1e6:.1f} MB in {held['seconds']:.0f} s",
        f"Loaded back and compared with adapter and base at {compared['positions']} positions of "
        f"{compared['prompts']} prompts: {outcome.difference}",
    ]
    if outcome.rounding:
        lines.append(f"Explained by its format: {outcome.rounding}; beyond that: {outcome.beyond}")
    if outcome.llama_cpp:
        lines.append(f"In llama.cpp: {outcome.llama_cpp}")
    made = (f"Created the folder {report.made_for_it}.",) if report.made_for_it else ()
    return "\n".join([*lines, *(f"note: {note}" for note in (*outcome.notes, *made))])


def _print_progress(text: str) -> None:
    """Print a line of progress on a terminal."""
    if sys.stderr.isatty():
        print_line(text)
