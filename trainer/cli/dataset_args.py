"""Turns command-line options into a data set to build: persona, lore, sources, settings."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from personas.card.card_reader import read_card_file
from personas.card.toml_card import SHIPPED_CARDS, to_persona
from personas.cli_common import read_setting
from personas.errors import MaterialError, RequestError
from personas.home.data_subjects import read_consent
from personas.home.dataset_catalogue import read_catalogue
from personas.home.home_personas import find_home_persona, read_home_personas
from personas.home.pseudonyms import JobKeys, pseudonym_dataset_name
from personas.home.rights import COMMAND_LINE_STATEMENT, RightsStatement, read_statement
from personas.home.shared_personas import read_persona_lore, read_shared_personas
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import job_owners, read_lore
from personas.lore.passages import Passage
from personas.models.base_model import locate
from personas.prompt.renderer import Renderer
from personas.schemas.base import Right
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportItem, ImportReport
from personas.schemas.training import TrainingRequest
from personas.shipped_folders import SHIPPED_DATA
from trainer.anonymise.allowlist import NameCorrections, read_corrections
from trainer.cli.argtypes import column_mapping, parse_setting_args
from trainer.dataset.builder import DatasetPlan, SourceItems
from trainer.dataset.data_mixture import SourceSpec, parse_mix, parse_source, source_names
from trainer.dataset.inspection import form_items
from trainer.dataset.quality_filters import QualityFilters
from trainer.dataset.writer import DatasetBuildSpec
from trainer.languages import list_languages
from trainer.process.environment import find_home
from trainer.recipe.auto_recipe import choose_sample_settings
from trainer.recipe.card_fit import card_tokens, fit_length_to_card, length_notes
from trainer.recipe.recipe_file import make_request, requested_recipe
from trainer.sources.conversation import day_of
from trainer.sources.hub_source import resolve_path
from trainer.sources.log_pool import LogPool
from trainer.sources.reader import read_usable
from trainer.sources.registry import describe_content
from trainer.sources.source_format import ReadOptions
from trainer.train.job import load_fast_tokenizer

log = logging.getLogger(__name__)
GENERAL_PREFIX = "general-"  # prefix of the names of shipped general dialogue


def make_build_spec(
    options: argparse.Namespace, sources: Sequence[SourceSpec] = (), home: Path | None = None
) -> DatasetBuildSpec:
    """Make a build request; `sources` are the default ones. Raises `UnderstudyError` before any
    long reading.
    """
    home = home or find_home()
    persona = load_persona(options.persona, home) if options.persona else None
    specs = [_parse_source(text, home) for text in options.source] or list(sources)
    named = dict(zip(source_names(specs), specs, strict=True))
    recipe = requested_recipe(_dataset_request(options, persona))
    base = locate(options.base_model)
    keys = _find_keys(options, persona, home, specs)
    corrections = NameCorrections()
    if options.corrections:
        corrections = read_corrections(options.corrections)
    renderer = Renderer(load_fast_tokenizer(base))
    recipe = choose_sample_settings(options.recipe, recipe, base)
    fitted = fit_length_to_card(recipe, card_tokens(persona, renderer), base)
    for note in length_notes(recipe, fitted):
        log.warning("%s", note)
    plan = DatasetPlan(
        renderer=renderer,
        recipe=fitted,
        persona=persona,
        lore=load_lore_index(persona, options.lore, home) if persona else None,
        key=keys.pseudonyms,
        people_key=keys.people,
        filters=_make_filters(options),
        limits={name: source.limit for name, source in named.items() if source.limit},
        mix=parse_mix(options.mix) if options.mix else (),
        stages=options.two_stage,
        seed=options.seed,
        corrections=corrections,
    )
    consent = read_consent(home)
    reading: dict[str, ReadOptions] = {}
    statements: dict[str, RightsStatement] = {}
    items = []
    logs = LogPool()
    for name, source in named.items():
        statement = _find_statement(source, options)
        if statement:
            statements[name] = statement
        read_options = _read_options(options, plan, source, statement)
        reading[name] = replace(read_options, consent=consent)
        items.append((name, _read_items(name, source, reading[name], logs)))
    return DatasetBuildSpec(
        plan,
        base,
        items,
        statements,
        permission=consent.permission,
        home=home,
        describe=partial(_describe_sources, named, reading),
    )


def _describe_sources(
    sources: Mapping[str, SourceSpec], reading: Mapping[str, ReadOptions]
) -> ImportReport:
    """Report what becomes of the sources by their form; what is dropped of them is counted
    elsewhere.
    """
    items: list[ImportItem] = []
    for name, source in sources.items():
        content = describe_content(source.path, reading[name], source.format)
        items += form_items(content.formats, content.columns)
    return ImportReport.of(items)


def find_named_source(name: str, home: Path) -> SourceSpec | None:
    """Find a shipped data set, or a catalogue entry. Raises `MaterialError` if that is not on this
    machine.
    """
    shipped = SHIPPED_DATA / "logs" / f"{name}.json"
    if name.startswith(GENERAL_PREFIX):
        shipped = SHIPPED_DATA / "general" / f"{name.removeprefix(GENERAL_PREFIX)}.jsonl"
    for file in (shipped, SHIPPED_DATA / "synthetic" / f"{name}.jsonl"):
        if "/" not in name and file.is_file():
            return SourceSpec(file)
    entry = read_catalogue(home).entries.get(name)
    if entry is None:
        return None
    if entry.hub:
        # Nothing is fetched that may not be trained on.
        entry.decide_right(read_consent(home)).require()
    return SourceSpec(
        entry.locate(),
        entry.format,
        None,
        statement=entry.statement,
        persona_names=entry.persona_names,
        origin=entry.origin if entry.hub else "",
        mapping=entry.mapping,
    )


def _parse_source(text: str, home: Path) -> SourceSpec:
    """Parse `--source`: a path, or the name of a data set."""
    source = parse_source(text)
    named = None if source.path.exists() else find_named_source(str(source.path), home)
    if named is None:
        return source
    return replace(named, format=source.format or named.format, limit=source.limit)


def load_persona(name: str, home: Path) -> Persona:
    """Load a persona from a card file, or one of the home by id or name. Raises `CardError` or
    `RequestError`.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return to_persona(read_card_file(path), str(path))
    return find_home_persona(SHIPPED_CARDS, home, name, or_else="; or name a card file").persona


def no_chat_log_error(persona: Persona) -> RequestError:
    """Return the error of a persona that has no log of its own, where no data set is named."""
    return RequestError(
        f"There is no chat log of {persona.name} to learn from.",
        "Name a --dataset, or train on lore alone: --lore-pairs 1. Or have replies written from its "
        "card: --from-card.",
    )


def load_lore_index(persona: Persona, folder: Path | None, home: Path) -> LoreIndex | None:
    """Index the persona's lore and the world's, as found by `load_passages`; None without lore."""
    passages = load_passages(persona, folder, home)
    return LoreIndex(passages, encoder=read_setting("LORE_ENCODER")) if passages else None


def load_passages(persona: Persona, folder: Path | None, home: Path) -> list[Passage]:
    """Load a persona's lore and the world's, of a folder or the served ones. Raises `RequestError`
    or `LoreError`.
    """
    if folder is None:
        personas = read_home_personas(SHIPPED_CARDS, home)
        if persona.id not in personas:
            return []
        guild_id = personas[persona.id].guild_id
        shipped = SHIPPED_DATA / "rag-resources"
        return read_persona_lore(shipped, persona.id, home, personas, guild_id=guild_id)
    if not folder.is_dir():
        raise RequestError(
            f"There is no folder {folder}.", "Name one that holds a folder of markdown per persona."
        )
    return read_lore(
        folder, job_owners(folder, persona), read_shared_personas(SHIPPED_CARDS, home).values()
    )


def _dataset_request(options: argparse.Namespace, persona: Persona | None) -> TrainingRequest:
    """Build the training request of a run on this data set."""
    return make_request(
        job_name="plan",
        task_type="persona" if persona else "dialogue",
        persona=persona.id if persona else None,
        recipe=options.recipe,
        hyperparameters=parse_setting_args(options),
    )


def _make_filters(options: argparse.Namespace) -> QualityFilters:
    languages = tuple(code.strip().lower() for code in options.languages.split(",") if code.strip())
    least = options.min_reply_words
    most = options.max_reply_words
    if least > most:
        raise RequestError(
            f"--min-reply-words {least} is above --max-reply-words {most}.", "Give less, or more."
        )
    unknown = [code for code in languages if code not in list_languages()]
    if unknown:
        codes = f"Codes: {', '.join(sorted(list_languages()))}."
        raise RequestError(f"The language {unknown[0]!r} cannot be detected.", codes)
    return QualityFilters(languages, least, most)


def _find_keys(
    options: argparse.Namespace, persona: Persona | None, home: Path, sources: Sequence[SourceSpec]
) -> JobKeys:
    """Return the keys for these sources: those of the run for its own data set, otherwise separate
    ones.
    """
    request = _dataset_request(options, persona)
    if options.source:
        paths = sorted(str(source.path.resolve()) for source in sources)
        return JobKeys.of(home, "\0".join([request.persona or "dialogue", *paths]))
    run_request = request.model_copy(update={"dataset": options.dataset})
    return JobKeys.of(home, pseudonym_dataset_name(run_request))


def _find_statement(source: SourceSpec, options: argparse.Namespace) -> RightsStatement | None:
    """Return the rights statement of a source: beside it, in the catalogue, or from the command
    line.
    """
    signed = source.statement or read_statement(source.path)
    if signed or not options.right:
        return signed
    return command_line_statement(options.right)


def command_line_statement(right: Right) -> RightsStatement:
    """Return the statement of a right named with `--right` today."""
    return RightsStatement(right, COMMAND_LINE_STATEMENT, datetime.now(UTC).date().isoformat(), "")


def _read_options(
    options: argparse.Namespace,
    plan: DatasetPlan,
    source: SourceSpec,
    stated: RightsStatement | None,
) -> ReadOptions:
    right = ""
    claimed = ""
    arrived = ""
    if stated and stated.stated_by == COMMAND_LINE_STATEMENT:
        claimed = stated.right
    elif stated:
        right = stated.right
        arrived = stated.stated_on
    return ReadOptions(
        persona=plan.persona,
        persona_names=(*options.names, *source.persona_names),
        right=right,
        claimed=claimed,
        arrived=arrived,
        session_gap_s=plan.recipe.session_gap_minutes * 60,
        mapping=column_mapping(options.map) or source.find_mapping(),
        oasst_paths=options.tree_paths,
        languages=plan.filters.languages,
    )


def _read_items(name: str, source: SourceSpec, options: ReadOptions, logs: LogPool) -> SourceItems:
    if not source.path.exists() and "/" not in str(source.path):
        raise MaterialError(f"There is no file {source.path}.", "Check the path.")
    # Without a statement, the file's date is the date of arrival; for a hub data set, the
    # download's.
    path = resolve_path(source.path)
    arrived = options.arrived
    if not arrived and path.exists():
        arrived = day_of(path.stat().st_mtime)
    options = replace(options, source=name, arrived=arrived)
    return read_usable(source.path, options, source.format, logs)


def default_source(options: argparse.Namespace, home: Path) -> SourceSpec:
    """Return the source if none is named: a data set by name, or the persona's own log."""
    if not options.dataset and not options.persona:
        raise RequestError(
            "There is nothing to plan.", "Name a --persona, a --source or a --dataset."
        )
    persona = None if options.dataset else load_persona(options.persona, home)
    name = persona.id if persona else options.dataset
    if options.dataset and Path(name).expanduser().exists():
        return parse_source(name)
    if "/" in name:
        raise RequestError(
            f"There is no file or folder {name}.", "Check the path, or name a data set."
        )
    named = find_named_source(name, home)
    if named:
        return named
    catalogue = read_catalogue(home)
    known: list[str] = []
    for kind in ("logs", "synthetic"):
        known += [path.stem for path in sorted((SHIPPED_DATA / kind).glob("*.json*"))]
    known += catalogue.entries
    # The fault of the entry, or of the whole file.
    fault = catalogue.faults.get(name) or catalogue.faults.get("")
    if persona and not fault:
        raise no_chat_log_error(persona)
    raise RequestError(
        fault or f"There is no data set {name!r}.", f"Known: {', '.join(known)}; or name a path."
    )
