"""`python -m trainer preference`: continues training an adapter on preferences."""

import argparse
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import MaterialError, RequestError
from personas.home.adapters import verify_adapter
from personas.home.built_dataset import combine_rights
from personas.home.job_material import SourceMaterial, modification_date
from personas.home.preferences import read_preferences
from personas.home.rights import RightsStatement
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.create_job import draft_job
from trainer.cli.options import (
    ADAPTER,
    NAMES,
    PERSONA,
    PLAN_OUTPUT,
    RECIPE,
    RIGHT,
    RUN_FOLDER_OPTIONS,
    SET,
    add_options,
    choice,
    option,
    repeated,
)
from trainer.train.job_folder import JobDraft

PREFERENCE_HELP = """\
Continues training a persona's adapter on preferences, by KTO or DPO.

  python -m trainer preference --adapter models/persona_adapters/ballast/v3 --pairs votes.jsonl --dry-run
  python -m trainer preference --adapter DIR --pairs votes.jsonl --pairs taught.jsonl --method dpo
  python -m trainer preference --adapter DIR --pairs votes.jsonl --set learning_rate=1e-6 --set preference_share=0.2

Each line of a file has a prompt, the chosen and the rejected reply, and the keyed id of the person who chose:

  {"prompt": [{"name": "Guest", "text": "Do you ever rust?"}], "chosen": "…", "rejected": "…", "kind": "comparison",
   "by": "<32 hex digits>", "right": "form", "at": "2026-11-20"}

At least 300 such lines are trained on, with the current adapter as the reference. Fewer only filter: the persona is
trained again, as the adapter was, without replies that were voted down and with those that were taught. The result is
evaluated on the persona's own conversations (--dataset, by default the shipped ones).
"""


def add_preference(commands: Commands) -> argparse.ArgumentParser:
    """Add `preference`."""
    parser = add_command(
        commands, "preference", "continue training an adapter on preferences", PREFERENCE_HELP
    )
    add_options(
        parser,
        [
            ADAPTER.but(help="the adapter to continue, which is also the reference"),
            repeated(
                "--pairs", "FILE", "preferences; may repeat", required=True, type=Path, default=None
            ),
            PERSONA.but(help="the adapter's persona, or a card file (default: the adapter's)"),
            option(
                "--dataset", "D", "its conversations, as for `train` (default: the shipped ones)"
            ),
            NAMES.but(help="P's name in them; may repeat"),
            choice("--method", ("kto", "dpo"), "preference_method (default: the recipe's, kto)"),
            RECIPE.but(default="preference", help="default: preference; `recipes` lists them"),
            SET,
            option("--base-model", "M", "default: the adapter's base model"),
            RIGHT.but(help="the right to conversations without rights.toml"),
            *RUN_FOLDER_OPTIONS,
            *PLAN_OUTPUT,
        ],
    )
    parser.set_defaults(
        sweep=[],
        general=None,
        dialogue=False,
        start_from=None,
        max_length=None,
        lore_pairs=None,
        from_card=None,
        lore=None,
    )
    return parser


def draft_preference_job(options: argparse.Namespace, home: Path) -> JobDraft:
    """Draft the job that the options describe. Raises `UnderstudyError` if something does not
    exist.
    """
    folder = options.adapter.expanduser()
    if not folder.is_dir():
        raise RequestError(f"There is no folder {options.adapter}.", "Name an adapter's folder.")
    manifest = verify_adapter(folder)
    if manifest.persona is None:
        raise RequestError(
            f"{options.adapter} is not a persona's adapter.", "Name the adapter of a persona."
        )
    if (
        options.persona
        and options.persona != manifest.persona
        and not Path(options.persona).expanduser().exists()
    ):
        mismatch = f"{options.adapter} is {manifest.persona}'s adapter, not {options.persona}'s."
        raise RequestError(mismatch, "Leave --persona out, or name that persona's adapter.")
    options.start_from = str(folder)
    options.persona = options.persona or manifest.persona
    options.base_model = options.base_model or manifest.base_model
    if options.method:
        options.settings = [*options.settings, f"preference_method={options.method}"]
    draft = draft_job(options, home)
    changes = {"task_type": "preference", "job_name": f"{draft.request.persona}-preference"}
    materials = [part for part in draft.materials if part.kind != "general-training"]
    for number, path in enumerate(options.pairs):
        materials.append(_preference_material(path, number))
    return replace(
        draft,
        request=draft.request.model_copy(update=changes),
        materials=tuple(materials),
    )


def _preference_material(path: Path, number: int) -> SourceMaterial:
    file = path.expanduser()
    if not file.is_file():
        raise MaterialError(f"There is no {path}.", "Check the path.")
    preferences = read_preferences(file)
    if not preferences:
        raise MaterialError(
            f"{path} holds no preference.", "A line each; `preference --help` shows one."
        )
    right = combine_rights(Counter(preference.right for preference in preferences))
    why = "Each line says under which right it was given."
    stated = RightsStatement(right, "each of its lines", datetime.now(UTC).date().isoformat(), why)
    place = f"preferences/{number}-{file.name}"
    return SourceMaterial(
        "preferences",
        place,
        file.name,
        statement=stated,
        arrived=modification_date(file),
        copies=((file, place),),
    )
