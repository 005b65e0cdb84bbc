"""Creates a job from command-line options: material, request, parent adapter."""

import argparse
from collections import Counter
from pathlib import Path

from personas.card.card_reader import read_card_file
from personas.card.toml_card import dump_toml, table_from_card
from personas.errors import MaterialError, RequestError
from personas.home.built_dataset import combine_rights, is_built_dataset
from personas.home.data_subjects import Consent, ErasureFence, read_consent
from personas.home.home_personas import (
    home_card_file,
    persona_card_material,
    persona_lore_material,
)
from personas.home.job_material import (
    ShippedData,
    SourceMaterial,
    adapter_material,
    built_dataset_material,
    dialogue_adapter_material,
    general_training_material,
    modification_date,
    shipped_file_material,
    shipped_general_material,
    stated_material,
    synthetic_materials,
)
from personas.home.rights import RightsStatement, read_statement
from personas.home.teacher_setting import stated_teacher
from personas.ids import readable_id
from personas.lore.lore_folder import job_owners, scan_lore
from personas.models.base_model import name_from_anywhere
from personas.schemas.chat import Persona
from personas.schemas.training import (
    CARD_RECIPE,
    DEFAULT_RECIPE,
    MaterialKind,
    Teacher,
    TrainingRequest,
)
from trainer.cli.argtypes import column_mapping, parse_setting_args
from trainer.cli.dataset_args import (
    command_line_statement,
    default_source,
    load_persona,
    no_chat_log_error,
)
from trainer.dataset.data_mixture import SourceSpec
from trainer.recipe.recipe_file import make_request
from trainer.sources.hub_source import resolve_path
from trainer.sources.reader import list_rights
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
    options.recipe = chosen_recipe(options)
    if not options.persona and (options.from_card or options.lore_pairs):
        named = "--from-card" if options.from_card else "--lore-pairs"
        raise RequestError(
            f"{named} is for a persona, and none is named.",
            "Name a --persona: its id, its name, or a card file.",
        )
    if not (options.persona or options.dataset):
        raise RequestError(
            "There is nothing to train.", "Name a --persona, or --dialogue with a --dataset."
        )
    # Before anything is read, so that what is erased meanwhile is not stored after all.
    fence = ErasureFence.begin(home)
    persona = load_persona(options.persona, home) if options.persona else None
    consent = read_consent(home)
    shipped = ShippedData.from_source_tree()
    materials = _persona_material(persona, options, shipped, home)
    if not (persona and 1 in (options.lore_pairs, options.from_card)):
        own = _training_material(persona, options, home, shipped=shipped, consent=consent)
        materials.append(own)
    if persona and options.lore_pairs:
        known = {material.path for material in materials}
        pairs = synthetic_materials(shipped, home, persona.id, consent)
        materials += [material for material in pairs if material.path not in known]
    for name in getattr(options, "more", ()):
        materials.append(_messages_material(name, options, home, consent))
    # Before the general dialogue: the same source may be the persona's talk, too.
    _require_distinct_names(materials)
    materials += _mixed_materials(persona, options, home, shipped=shipped, consent=consent)
    if getattr(options, "held_out", None):
        materials.append(_held_out_material(persona, options, home, consent))
    materials += _unused_general_materials(shipped, consent, materials)
    if options.start_from:
        materials.append(_parent_adapter_material(options.start_from, home, consent))
    request = _training_request(options, persona, materials)
    return JobDraft(home, request, tuple(materials), fence.storing)


def chosen_recipe(options: argparse.Namespace) -> str:
    """Return the recipe that the options name, else the default of what is trained on."""
    if options.recipe is not None:
        return str(options.recipe)
    return CARD_RECIPE if options.from_card else DEFAULT_RECIPE


# ----------------------------------------------------------------------------------------- material


def _persona_material(
    persona: Persona | None, options: argparse.Namespace, shipped: ShippedData, home: Path
) -> list[SourceMaterial]:
    if persona is None:
        return []
    file = Path(options.persona).expanduser()
    if not file.is_file():
        card = persona_card_material(shipped, home, persona.id)
    elif file.suffix == ".toml":
        copies = [(file, file.name)]
        card = stated_material("card", file.name, file.name, OWN_CARD_RIGHT, copies=copies)
    else:
        table = dump_toml(table_from_card(read_card_file(file), persona.id)).decode()
        right, stated_by, why = OWN_CARD_RIGHT
        stated = RightsStatement(right, stated_by, modification_date(file), why)
        card = SourceMaterial(
            "card",
            f"{persona.id}.toml",
            file.name,
            statement=stated,
            arrived=modification_date(file),
            text=table,
        )
    if options.lore:
        return [card, *_lore_folder_material(persona, options.lore)]
    if home_card_file(shipped.cards, home, persona.id):
        return [card, *persona_lore_material(shipped, home, persona.id)]
    return [card]


def _lore_folder_material(persona: Persona, folder: Path) -> list[SourceMaterial]:
    """Return the persona's lore and the world's in a folder. Raises `RequestError` if there is
    none.
    """
    documents = []
    for document in scan_lore(folder, job_owners(folder, persona)):
        if document.owners and not document.skipped:
            documents.append(document)
    if not documents:
        advice = (
            f"`python -m trainer lore files --persona {persona.id} --lore {folder}` says why files "
            "are skipped."
        )
        raise RequestError(f"There is no lore of {persona.name} in {folder}.", advice)
    copies = [(document.path.absolute(), f"lore/{document.source}") for document in documents]
    origin = folder.resolve().name
    return [stated_material("lore", "lore", origin, OWN_CARD_RIGHT, copies=copies)]


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
            raise no_chat_log_error(persona)
        return shipped_file_material("log", own, consent)
    source = default_source(options, home)
    if is_built_dataset(source.path):
        return built_dataset_material(source.path.absolute(), source.path.resolve().name, consent)
    kind: MaterialKind = "log" if persona else "messages"
    return _source_material(kind, source, options, persona=persona, consent=consent)


def _messages_material(
    named: str, options: argparse.Namespace, home: Path, consent: Consent
) -> SourceMaterial:
    """Return general dialogue by path or by name."""
    source = default_source(argparse.Namespace(**{**vars(options), "dataset": named}), home)
    if is_built_dataset(source.path):
        raise RequestError(
            f"{named} is a built data set.", "Name it as --dataset, or its sources here."
        )
    return _source_material("messages", source, options, persona=None, consent=consent)


def _mixed_materials(
    persona: Persona | None,
    options: argparse.Namespace,
    home: Path,
    shipped: ShippedData,
    consent: Consent,
) -> list[SourceMaterial]:
    """Return the general dialogue for recipes that mix it in: the named one, or what ships."""
    if options.general:
        return [_messages_material(options.general, options, home, consent)]
    return general_training_material(shipped, consent) if persona else []


def _held_out_material(
    persona: Persona | None, options: argparse.Namespace, home: Path, consent: Consent
) -> SourceMaterial:
    """Return exchanges that will measure the persona. Raises `RequestError` if nothing is written."""
    if not options.from_card:
        raise RequestError(
            "--held-out names exchanges whose questions are not asked of a teacher, and none is asked.",
            "Add --from-card, or leave --held-out out.",
        )
    source = default_source(
        argparse.Namespace(**{**vars(options), "dataset": options.held_out}), home
    )
    return _source_material("heldout", source, options, persona=persona, consent=consent)


def _unused_general_materials(
    shipped: ShippedData, consent: Consent, materials: list[SourceMaterial]
) -> list[SourceMaterial]:
    """Return the shipped general dialogue that is not trained on, or all of it if nothing else is
    left: dialogue that is trained on measures forgetting badly.
    """
    used = set()
    for material in materials:
        used |= {path for path, _ in material.copies}
    general = shipped_general_material(shipped, consent)
    unused = []
    for material in general:
        if used.isdisjoint(path for path, _ in material.copies):
            unused.append(material)
    return unused or general


def _require_distinct_names(materials: list[SourceMaterial]) -> None:
    """Raise `RequestError` if two materials would have the same place in the job's folder."""
    places = Counter(material.path for material in materials)
    for material in materials:
        if places[material.path] > 1:
            raise RequestError(
                f"Two sources are named {material.origin}.",
                "Name each source once, or rename a file.",
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
    signed_right = ""
    claimed = ""
    if signed:
        signed_right = signed.right
    else:
        claimed = options.right or ""
    reading = ReadOptions(persona=persona, right=signed_right, claimed=claimed, consent=consent)
    right = combine_rights(dict.fromkeys(list_rights(path, reading, source.format), 1))
    if signed:
        stated = signed
    elif right == options.right:
        stated = command_line_statement(right)
    else:
        stated = RightsStatement(right, "", modification_date(path), "")
    origin = source.origin
    if not origin:
        origin = source.path.as_posix() if path != source.path else path.resolve().name
    place = f"named/{origin.replace('/', '-')}"
    if getattr(options, "map", ()):
        pairs = column_mapping(options.map)
    else:
        pairs = source.find_mapping()
    mapping = tuple(f"{role}={column}" for role, column in pairs.items())
    persona_names: tuple[str, ...] = ()
    if persona:
        persona_names = (*options.names, *source.persona_names)
    return SourceMaterial(
        kind,
        place,
        origin,
        statement=stated,
        arrived=signed.stated_on if signed else modification_date(path),
        copies=((path, place),),
        format=source.format,
        persona_names=persona_names,
        mapping=mapping,
    )


def _parent_adapter_material(named: str, home: Path, consent: Consent) -> SourceMaterial:
    """Return an adapter by folder, or a dialogue adapter of the home by name."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        return adapter_material(folder.absolute(), readable_id(folder.resolve().name), consent)
    if "/" in named:
        raise RequestError(
            f"There is no folder {named}.",
            "Name an adapter's folder, or a dialogue adapter by name.",
        )
    return dialogue_adapter_material(home, named, consent)


# ------------------------------------------------------------------------------------------ request


def _training_request(
    options: argparse.Namespace, persona: Persona | None, materials: list[SourceMaterial]
) -> TrainingRequest:
    dataset = options.dataset
    dataset_path = None
    if dataset and Path(dataset).expanduser().exists():
        dataset_path = str(Path(dataset).expanduser().absolute())
        dataset = None
    persona_id = persona.id if persona else None
    parents = [material.origin for material in materials if material.kind == "adapter"]
    return make_request(
        job_name=readable_id(f"{persona_id or 'dialogue'}-{options.recipe}"),
        base_model=name_from_anywhere(options.base_model),
        dataset=dataset,
        dataset_path=dataset_path,
        task_type="persona" if persona else "dialogue",
        persona=persona_id,
        general=Path(options.general).name if options.general else None,
        start_from=next(iter(parents), None),
        recipe=options.recipe,
        lore_pairs=options.lore_pairs,
        from_card=options.from_card or None,
        teacher=chosen_teacher(options),
        hyperparameters=parse_setting_args(options),
    )


def chosen_teacher(options: argparse.Namespace) -> Teacher | None:
    """Return the teacher that the options or the settings name, if a teacher is to write; None for the
    base model itself.
    """
    if not options.from_card:
        return None
    named = options.teacher and name_from_anywhere(options.teacher)
    if named == name_from_anywhere(options.base_model):
        return None
    return stated_teacher(options.teacher, options.teacher_model, licence=options.teacher_licence)
