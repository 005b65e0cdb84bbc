"""From a command line's words to a data set that can be built: persona, lore, sources, settings."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from personas.base_model import locate
from personas.card import SHIPPED_CARDS, find_persona, read_any, to_persona
from personas.catalogue import read_catalogue
from personas.consent import read_consent
from personas.contracts import Persona, TrainingRequest
from personas.errors import MaterialError, RequestError
from personas.for_everybody import card_files, read_lore_of, read_personas
from personas.job_keys import JobKeys, dataset_name
from personas.lore import WORLD, LoreIndex, Passage, read_lore
from personas.prompt import Renderer
from personas.rights import ON_THE_COMMAND_LINE, Statement, statement_beside
from trainer.anonymise.corrections import Corrections, read_corrections
from trainer.auto import for_samples
from trainer.building.build import Items, Plan
from trainer.building.filters import Filters, known_languages
from trainer.building.mix import Source, names_of, parse_mix, parse_source
from trainer.building.write import Order
from trainer.commands.build import mapping_of
from trainer.commands.settings_given import settings_given
from trainer.conversation import day_of
from trainer.home import home as the_home
from trainer.recipe import Recipe, request_of, resolve
from trainer.sources import ReadOptions, usable
from trainer.sources.hub import located
from trainer.tokenizers import counting_tokenizer

SHIPPED_DATA = Path(__file__).parent.parent.parent / "data"
GENERAL = "general-"
"""How the names of general dialogue that ships begin."""


def order_of(options: argparse.Namespace, sources: Sequence[Source] = (), home: Path | None = None) -> Order:
    """What `build` and `plan` are asked for; `sources` are those to take where none is named, `home` is the bot's.

    Raises `UnderstudyError`, above all where one may not be trained on, before anything is read that takes long.
    """
    home = home or the_home()
    persona = persona_named(options.persona, home) if options.persona else None
    named = [_source_given(text, home) for text in options.source] or list(sources)
    names = names_of(named)
    recipe = _recipe(options, persona)
    base, keys = locate(options.base_model), _keys(options, persona, home, named)
    recipe = for_samples(options.recipe, recipe, base)
    plan = Plan(
        renderer=Renderer(counting_tokenizer(base)),
        recipe=recipe,
        persona=persona,
        lore=lore_of(persona, options.lore, home) if persona else None,
        key=keys.pseudonyms,
        people_key=keys.people,
        filters=_filters(options),
        limits={name: source.limit for name, source in zip(names, named, strict=True) if source.limit},
        mix=parse_mix(options.mix) if options.mix else (),
        stages=options.two_stage,
        seed=options.seed,
        corrections=read_corrections(options.corrections) if options.corrections else Corrections(),
    )
    consent = read_consent(home)
    stated = {name: _stated(source, options) for name, source in zip(names, named, strict=True)}
    read = [
        (name, _items(name, source, replace(_reading(options, plan, source, stated[name]), consent=consent)))
        for name, source in zip(names, named, strict=True)
    ]
    return Order(plan, base, read, {name: it for name, it in stated.items() if it}, consent.permission, home)


def source_named(name: str, home: Path) -> Source | None:
    """A data set by name: one that ships, or one of the operator's catalogue.

    Raises `MaterialError` for one of the catalogue that is not on this machine.
    """
    kind, file = ("general", name.removeprefix(GENERAL)) if name.startswith(GENERAL) else ("logs", name)
    shipped = SHIPPED_DATA / kind / f"{file}.{'jsonl' if kind == 'general' else 'json'}"
    if "/" not in name and shipped.is_file():
        return Source(shipped)
    entry = read_catalogue(home).entries.get(name)
    return Source(entry.located(), entry.format, None, entry.statement, entry.persona_names) if entry else None


def _source_given(text: str, home: Path) -> Source:
    """What `--source` says: a path, or where there is none a data set by name."""
    given = parse_source(text)
    if given.path.exists() or not (named := source_named(str(given.path), home)):
        return given
    return replace(named, format=given.format or named.format, limit=given.limit)


def persona_named(wanted: str, home: Path) -> Persona:
    """The persona of a card file, or by id or name one for everybody: with the operator's card, else as it ships.

    Raises `CardError` or `RequestError`.
    """
    path = Path(wanted).expanduser()
    if path.is_file():
        return to_persona(read_any(path), str(path))
    known = read_personas(SHIPPED_CARDS, home)
    if found := find_persona(known, wanted):
        return found
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RequestError(f"There is no persona {wanted!r}.{hint}", f"Known: {', '.join(known)}; or name a card file.")


def lore_of(persona: Persona, folder: Path | None, home: Path) -> LoreIndex | None:
    """The persona's lore and the world's, as `passages_for` finds them; None for none."""
    passages = passages_for(persona, folder, home)
    return LoreIndex(passages) if passages else None


def passages_for(persona: Persona, folder: Path | None, home: Path) -> list[Passage]:
    """A persona's lore and the world's: those of a folder, else for a persona for everybody what its replies have.

    Raises `RequestError` for no such folder, `LoreError` for a file of the operator's that cannot be read.
    """
    known = card_files(SHIPPED_CARDS, home)
    if folder is None:
        return read_lore_of(SHIPPED_DATA / "rag-resources", persona.id, home, known) if persona.id in known else []
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}.", "Name one that holds a folder of markdown per persona.")
    return read_lore(folder, (persona.id, WORLD), known)


def _request(options: argparse.Namespace, persona: Persona | None) -> TrainingRequest:
    """The request that a run of this would have."""
    return request_of(
        job_name="plan",
        task_type="persona" if persona else "dialogue",
        persona=persona.id if persona else None,
        recipe=options.recipe,
        hyperparameters=settings_given(options),
    )


def _recipe(options: argparse.Namespace, persona: Persona | None) -> Recipe:
    return resolve(_request(options, persona))


def _filters(options: argparse.Namespace) -> Filters:
    languages = tuple(code.strip().lower() for code in options.languages.split(",") if code.strip())
    least, most = options.min_reply_words, options.max_reply_words
    for name, words, lowest in (("--min-reply-words", least, 0), ("--max-reply-words", most, 1)):
        if words < lowest:
            raise RequestError(f"{name} {words} is not possible.", f"Give {lowest} or more.")
    if least > most:
        raise RequestError(f"--min-reply-words {least} is above --max-reply-words {most}.", "Give less, or more.")
    if unknown := [code for code in languages if code not in known_languages()]:
        raise RequestError(
            f"There is no language {unknown[0]!r} that can be told.", f"Codes: {', '.join(sorted(known_languages()))}."
        )
    return Filters(languages, least, most)


def _keys(options: argparse.Namespace, persona: Persona | None, home: Path, sources: Sequence[Source]) -> JobKeys:
    """The keys of what is made of these sources: a run's where it is the data set of a run, else theirs alone."""
    request = _request(options, persona)
    if options.source:
        paths = sorted(str(source.path.resolve()) for source in sources)
        return JobKeys.of(home, "\0".join([request.persona or "dialogue", *paths]))
    return JobKeys.of(home, dataset_name(request.model_copy(update={"dataset": options.dataset})))


def _stated(source: Source, options: argparse.Namespace) -> Statement | None:
    """What is stated of a source: beside it, in the catalogue it is named in, or on the command line."""
    if signed := source.statement or statement_beside(source.path):
        return signed
    if not options.right:
        return None
    return Statement(options.right, ON_THE_COMMAND_LINE, datetime.now(UTC).date().isoformat(), "")


def _reading(options: argparse.Namespace, plan: Plan, source: Source, stated: Statement | None) -> ReadOptions:
    """How a source is read."""
    is_claimed = stated is not None and stated.stated_by == ON_THE_COMMAND_LINE
    return ReadOptions(
        persona=plan.persona,
        persona_names=(*options.names, *source.persona_names) if plan.persona else (),
        right=stated.right if stated and not is_claimed else "",
        claimed=stated.right if stated and is_claimed else "",
        arrived=stated.stated_on if stated and not is_claimed else "",
        session_gap_s=plan.recipe.session_gap_minutes * 60,
        mapping=mapping_of(options.map),
        oasst_paths=options.tree_paths,
        languages=plan.filters.languages,
    )


def _items(name: str, source: Source, options: ReadOptions) -> Items:
    if not source.path.exists() and "/" not in str(source.path):
        raise MaterialError(f"There is no file {source.path}.", "Check the path.")
    # What nobody signed for came when its file did; a data set of a hub, when it was fetched.
    path = located(source.path)
    arrived = options.arrived or day_of(path.stat().st_mtime if path.exists() else 0)
    return usable(source.path, replace(options, source=name, arrived=arrived), source.format)
