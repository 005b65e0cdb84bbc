"""From a command line's words to a data set that can be built: persona, lore, sources, settings."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from personas.base_model import locate
from personas.card import SHIPPED_CARDS, find_persona, read_any, read_cards, to_persona
from personas.contracts import Hyperparameters, Persona, TrainingRequest
from personas.errors import MaterialError, RequestError
from personas.lore import WORLD, LoreIndex, read_lore
from personas.prompt import Renderer
from personas.rights import statement_beside
from trainer.anonymise import dataset_key
from trainer.build import Items, Plan
from trainer.conversation import Conversation, Rejected
from trainer.filters import Filters
from trainer.mix import Source, names_of, parse_mix, parse_source
from trainer.recipe import Recipe, resolve
from trainer.tokenizers import counting_tokenizer
from trainer.write_dataset import Order

SHIPPED_DATA = Path(__file__).parent.parent / "data"


def order_of(options: argparse.Namespace, sources: Sequence[Source] = ()) -> Order:
    """What `build` and `plan` are asked for; `sources` are those to take where none is named.

    Raises `UnderstudyError` before anything is read that takes long.
    """
    persona = persona_named(options.persona) if options.persona else None
    named = [parse_source(text) for text in options.source] or list(sources)
    names = names_of(named)
    recipe = _recipe(options, persona)
    base = locate(options.base_model)
    plan = Plan(
        renderer=Renderer(counting_tokenizer(base)),
        recipe=recipe,
        persona=persona,
        lore=lore_of(persona, options.lore) if persona else None,
        key=dataset_key(_request(options, persona)),
        filters=_filters(options),
        limits={name: source.limit for name, source in zip(names, named, strict=True) if source.limit},
        mix=parse_mix(options.mix) if options.mix else (),
        stages=options.two_stage,
        seed=options.seed,
    )
    read = [(name, _items(name, source, options, plan)) for name, source in zip(names, named, strict=True)]
    return Order(plan, base, read)


def persona_named(wanted: str) -> Persona:
    """The persona of a card file, or one that ships, by id or name. Raises `CardError` or `RequestError`."""
    path = Path(wanted).expanduser()
    if path.is_file():
        return to_persona(read_any(path), str(path))
    shipped = read_cards(SHIPPED_CARDS)
    if found := find_persona(shipped, wanted):
        return found
    near = difflib.get_close_matches(wanted, shipped, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RequestError(f"There is no persona {wanted!r}.{hint}", f"Known: {', '.join(shipped)}; or name a card file.")


def lore_of(persona: Persona, folder: Path | None) -> LoreIndex | None:
    """The persona's lore and the world's, in a folder or, where none is named, of those that ship."""
    if folder and not folder.is_dir():
        raise RequestError(f"There is no folder {folder}.", "Name one that holds a folder of markdown per persona.")
    owners = (persona.id, WORLD)
    where = folder or SHIPPED_DATA / "rag-resources"
    if not folder and not (where / persona.id).is_dir():
        return None  # the world that ships is not everybody's
    passages = read_lore(where, owners)
    return LoreIndex(passages) if passages else None


def _request(options: argparse.Namespace, persona: Persona | None) -> TrainingRequest:
    """The request that a run of this would have: the same pseudonyms belong to it."""
    return TrainingRequest(
        job_name="plan",
        task_type="persona" if persona else "dialogue",
        persona=persona.id if persona else None,
        recipe=options.recipe,
        hyperparameters=Hyperparameters(max_length=options.max_length),
    )


def _recipe(options: argparse.Namespace, persona: Persona | None) -> Recipe:
    try:
        return resolve(_request(options, persona))
    except ValueError as error:  # pydantic's
        raise RequestError(f"--max-length {options.max_length} is not possible.", "Give 64 to 32768.") from error


def _filters(options: argparse.Namespace) -> Filters:
    languages = tuple(code.strip().lower() for code in options.languages.split(",") if code.strip())
    if options.min_reply_words > options.max_reply_words:
        raise RequestError("No reply is that long and that short.", "Give --min-reply-words below --max-reply-words.")
    return Filters(languages, options.min_reply_words, options.max_reply_words)


def _items(name: str, source: Source, options: argparse.Namespace, plan: Plan) -> Items:
    from trainer.sources import ReadOptions, read

    stated = statement_beside(source.path)
    read_options = ReadOptions(
        persona=plan.persona,
        persona_names=tuple(options.names) if plan.persona else (),
        right=stated.right if stated else options.right or "",
        source=name,
        session_gap_s=plan.recipe.session_gap_minutes * 60,
        mapping=dict(options.map),
        oasst_paths=options.tree_paths,
        languages=plan.filters.languages,
    )
    if not source.path.exists() and "/" not in str(source.path):
        raise MaterialError(f"There is no file {source.path}.", "Check the path.")
    return _usable(name, source, read(source.path, read_options, source.format))


def _usable(name: str, source: Source, items: Items) -> Iterator[Conversation | Rejected]:
    """The items; `MaterialError` after them when none is a conversation."""
    from trainer.sources import recognise

    first: Rejected | None = None
    is_usable = False
    for item in items:
        is_usable = is_usable or isinstance(item, Conversation)
        first = first or (item if isinstance(item, Rejected) else None)
        yield item
    if not is_usable:
        why = f": {first.row}: {first.reason}" if first else ""
        expected = recognise(source.path, source.format).expected
        raise MaterialError(f"Nothing in {name} can be used{why}.", f"Expected: {expected}.")
