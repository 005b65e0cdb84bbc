"""Creates a job from command-line options: material, request, parent adapter."""

import argparse
import re
from pathlib import Path

from personas.card.formats import read_card_file
from personas.card.toml_card import dump_toml, table_from_card
from personas.errors import MaterialError, RequestError
from personas.home.built_dataset import combine_rights, is_built_dataset
from personas.home.data_subjects import Consent, ErasureFence, read_consent
from personas.home.job_material import (
    ShippedData,
    SourceMaterial,
    adapter_material,
    built_dataset_material,
    dialogue_adapter_material,
    modification_date,
    shipped_file_material,
    shipped_general_material,
    stated_material,
    synthetic_materials,
)
from personas.home.rights import RightsStatement, read_statement
from personas.home.shared_personas import card_material, lore_material, shared_card_files
from personas.lore.lore_folder import scan_lore
from personas.lore.passages import WORLD
from personas.schemas.chat import Persona
from personas.schemas.training import MaterialKind, TrainingRequest
from trainer.cli.argtypes import column_mapping, parse_setting_args
from trainer.cli.dataset_args import command_line_statement, default_source, load_persona
from trainer.dataset.data_mixture import SourceSpec
from trainer.recipe.recipe_file import make_request
from trainer.sources.reader import list_rights
from trainer.sources.source_file import resolve_path
from trainer.sources.source_format import ReadOptions
from trainer.train.job_folder import JobDraft

OWN_CARD_RIGHT = "own-writing", "whoever named it on the command line", "Named to be trained."


def draft_job(options: argparse.Namespace, home: Path) -> JobDraft:
    """Draft the job of the options. Raises `UnderstudyError` if something is missing or may not be
    trained on.
    """
    if options.dialogue and options.persona:
        raise RequestError(
            "--dialogue trains no persona.", "Leave out one of --dialogue and --persona."
        )
    if not (options.persona or options.dataset):
        raise RequestError(
            "There is nothing to train.", "Name a --persona, or --dialogue with a --dataset."
        )
    fence = ErasureFence.begin(home)
    persona = load_persona(options.persona, home) if options.persona else None
    consent = read_consent(home)
    shipped = ShippedData.from_source_tree()
    materials = _persona_material(persona, options, shipped, home)
    if not (persona and options.lore_pairs == 1):
        materials.append(_training_material(persona, options, home, shipped, consent))
    if persona and options.lore_pairs:
        known = {it.path for it in materials}
        pairs = synthetic_materials(shipped, home, persona.id, consent)
        materials += [material for material in pairs if material.path not in known]
    mixed = _messages_material(options.general, options, home, consent) if options.general else None
    materials += [
        _messages_material(name, options, home, consent) for name in getattr(options, "more", ())
    ]
    _require_distinct_names(materials)
    used = {path for it in (*materials, *filter(None, [mixed])) for path, _ in it.copies}
    general = shipped_general_material(shipped, consent)
    # Dialogue that is trained on cannot measure forgetting well: only used if there is nothing
    # else.
    others = [
        it for it in general if not used.intersection(path for path, _ in it.copies)
    ] or general
    materials += [*filter(None, [mixed]), *others]
    if options.start_from:
        materials.append(_parent_adapter_material(options.start_from, home, consent))
    return JobDraft(
        home, _training_request(options, persona, materials), tuple(materials), fence.storing
    )


# ------------------------------------------------------------------------------------------------
# material


def _persona_material(
    persona: Persona | None, options: argparse.Namespace, shipped: ShippedData, home: Path
) -> list[SourceMaterial]:
    if persona is None:
        return []
    file = Path(options.persona).expanduser()
    shared = shared_card_files(shipped.cards, home)
    if not file.is_file():
        card = card_material(shipped, home, persona.id)
    elif file.suffix == ".toml":
        card = stated_material("card", file.name, file.name, OWN_CARD_RIGHT, (file, file.name))
    else:
        table = dump_toml(table_from_card(read_card_file(file), persona.id)).decode()
        stated = RightsStatement(
            OWN_CARD_RIGHT[0], OWN_CARD_RIGHT[1], modification_date(file), OWN_CARD_RIGHT[2]
        )
        card = SourceMaterial(
            "card", f"{persona.id}.toml", file.name, stated, modification_date(file), text=table
        )
    if options.lore:
        return [card, *_lore_folder_material(persona, options.lore)]
    return [card, *(lore_material(shipped, home, persona.id) if persona.id in shared else [])]


def _lore_folder_material(persona: Persona, folder: Path) -> list[SourceMaterial]:
    """Return the persona's lore and the world's in a folder. Raises `RequestError` if there is
    none.
    """
    documents = [it for it in scan_lore(folder, (persona, WORLD)) if it.owners and not it.skipped]
    if not documents:
        advice = (
            f"`python -m trainer lore files --persona {persona.id} --lore {folder}` says why files "
            "are skipped."
        )
        raise RequestError(f"There is no lore of {persona.name} in {folder}.", advice)
    copies = [(it.path.absolute(), f"lore/{it.source}") for it in documents]
    return [stated_material("lore", "lore", folder.resolve().name, OWN_CARD_RIGHT, *copies)]


def _training_material(
    persona: Persona | None,
    options: argparse.Namespace,
    home: Path,
    shipped: ShippedData,
    consent: Consent,
) -> SourceMaterial:
    """Return the persona's own log, a built data set, or a source in any format."""
    if options.dataset is None and persona:
        own = shipped.logs / f"{persona.id}.json"
        if not own.is_file():
            advice = "Name a --dataset, or train on lore alone: --lore-pairs 1."
            raise RequestError(f"There is no chat log of {persona.name} to learn from.", advice)
        return shipped_file_material("log", own, consent)
    source = default_source(options, home)
    if is_built_dataset(source.path):
        return built_dataset_material(source.path.absolute(), source.path.resolve().name, consent)
    return _source_material("log" if persona else "messages", source, options, persona, consent)


def _messages_material(
    named: str, options: argparse.Namespace, home: Path, consent: Consent
) -> SourceMaterial:
    """Return general dialogue by path or by name."""
    source = default_source(argparse.Namespace(**{**vars(options), "dataset": named}), home)
    if is_built_dataset(source.path):
        raise RequestError(
            f"{named} is a built data set.", "Name it as --dataset, or its sources here."
        )
    return _source_material("messages", source, options, None, consent)


def _require_distinct_names(materials: list[SourceMaterial]) -> None:
    """Raise `RequestError` if two materials would have the same place in the job's folder."""
    places = [it.path for it in materials]
    if len(set(places)) < len(places):
        twice = next(it for it in materials if places.count(it.path) > 1)
        raise RequestError(
            f"Two sources are named {twice.origin}.", "Name each source once, or rename a file."
        )


def _source_material(
    kind: MaterialKind,
    source: SourceSpec,
    options: argparse.Namespace,
    persona: Persona | None,
    consent: Consent,
) -> SourceMaterial:
    """Return a file or folder in any format, under its stated or implied right."""
    path = resolve_path(source.path)
    if not path.exists():
        raise MaterialError(f"There is no {source.path}.", "Check the path.")
    signed = source.statement or read_statement(source.path)
    rights = (signed.right, "") if signed else ("", options.right or "")
    reading = ReadOptions(persona=persona, right=rights[0], claimed=rights[1], consent=consent)
    right = combine_rights(dict.fromkeys(list_rights(path, reading, source.format), 1))
    arrived = signed.stated_on if signed else modification_date(path)
    stated = signed or RightsStatement(right, "", arrived, "")
    if not signed and right == options.right:
        stated = command_line_statement(right)
    origin = source.origin or (
        source.path.as_posix() if path != source.path else path.resolve().name
    )
    place = f"named/{origin.replace('/', '-')}"
    names = (*options.names, *source.persona_names) if persona else ()
    pairs = column_mapping(options.map) if getattr(options, "map", ()) else source.find_mapping()
    mapping = tuple(f"{role}={column}" for role, column in pairs.items())
    return SourceMaterial(
        kind,
        place,
        origin,
        stated,
        arrived,
        ((path, place),),
        "",
        source.format,
        names,
        mapping=mapping,
    )


def _parent_adapter_material(named: str, home: Path, consent: Consent) -> SourceMaterial:
    """Return an adapter by folder, or a dialogue adapter of the home by name."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        return adapter_material(folder.absolute(), _slug(folder.resolve().name), consent)
    if "/" in named:
        raise RequestError(
            f"There is no folder {named}.",
            "Name an adapter's folder, or a dialogue adapter by name.",
        )
    return dialogue_adapter_material(home, named, consent)


# ------------------------------------------------------------------------------------------------
# request


def _training_request(
    options: argparse.Namespace, persona: Persona | None, materials: list[SourceMaterial]
) -> TrainingRequest:
    base = Path(options.base_model).expanduser()
    path = Path(options.dataset).expanduser() if options.dataset else None
    is_path = path is not None and path.exists()
    return make_request(
        job_name=_slug(f"{persona.id if persona else 'dialogue'}-{options.recipe}"),
        base_model=str(base.absolute()) if base.is_dir() else options.base_model,
        dataset=None if is_path else options.dataset,
        dataset_path=str(path.absolute()) if path and is_path else None,
        task_type="persona" if persona else "dialogue",
        persona=persona.id if persona else None,
        general=Path(options.general).name if options.general else None,
        start_from=next((it.origin for it in materials if it.kind == "adapter"), None),
        recipe=options.recipe,
        lore_pairs=options.lore_pairs,
        hyperparameters=parse_setting_args(options),
    )


def _slug(text: str) -> str:
    """Convert the text to a valid job name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64] or "run"
