"""`python -m trainer lore files|ask|extract|synthesise`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from personas.card.toml_card import SHIPPED_CARDS
from personas.cli_common import add_examples, read_setting, seed_number
from personas.errors import ErasedMeanwhileError, RequestError, UnderstudyError
from personas.home.data_subjects import ErasureFence
from personas.home.home_personas import read_home_personas
from personas.home.shared_personas import OPERATOR_GUILD_ID, read_shared_personas
from personas.lore.index import LoreIndex
from personas.lore.index_terms import has_words
from personas.lore.lore_folder import scan_lore
from personas.lore.passages import Passage, split_passages
from personas.lore.ranking import MIN_SCORE, LoreRanking, PassageMatch
from personas.models.base_model_setting import base_model_name
from personas.schemas.chat import Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.cli.argtypes import Commands, add_command, positive_int
from trainer.cli.dataset_args import load_passages, load_persona
from trainer.cli.error_handling import require_writable, resolve_home, with_error_handling
from trainer.cli.options import ADAPTER, JSON, LORE, OUT, PERSONA, add_options, flag, option
from trainer.dataset.synthetic.dialogue_synthesis import SynthesisRequest, synthesise_dialogues
from trainer.dataset.synthetic.extraction_files import write_extraction
from trainer.dataset.synthetic.lore_extraction import extract_lore
from trainer.dataset.synthetic.reply_backends import ReplyBackend, choose_backend
from trainer.process.run_control import Terminated

MAX_SHOWN_PASSAGES = 6
STARTS_OVER_TEXT = (
    "A member was erased meanwhile, and card, lore or adapter changed: it starts over."
)
SYNTHESISE_HELP = """\
Generates in-character dialogues about the persona's lore, with the local engine or an OpenAI-compatible endpoint.

  python -m trainer lore synthesise --persona oda --count 50 --out build/oda
  python -m trainer lore synthesise --persona oda --count 50 --out build/oda \\
         --endpoint http://localhost:8000/v1 --model NAME      (a key, if it takes one, in OPENAI_API_KEY)

Run the command again to resume. Dropped dialogues are counted by reason.
"""

FILES_HELP = """\
Lists markdown files in any of the usual layouts: ID/*.md, characters/NAME.md or NAME/*.md, personas/NAME.md,
character_NAME.md, NAME-topic.md; world.md and the folders world, shared and _world are the world's. A name is an
id, name or nickname in any case, with or without diacritics; `persona: NAME` in front matter precedes the path.
"""
ASK_EXAMPLES = (
    'python -m trainer lore ask --persona oda "Who keeps the lamp?"',
    'python -m trainer lore ask --persona oda "What is rope for?" --all --json',
)
FILES_EXAMPLES = (
    "python -m trainer lore files",
    "python -m trainer lore files --lore notes --persona wick.toml --json",
)
EXTRACT_EXAMPLES = ("python -m trainer lore extract --persona oda --out build/oda-lore",)


def add_lore(commands: Commands) -> None:
    """Add `lore` with its subcommands."""
    group = commands.add_parser("lore", help="search lore, and generate training material from it")
    add_examples(group, *ASK_EXAMPLES, *EXTRACT_EXAMPLES)
    lore = group.add_subparsers(required=True, metavar="COMMAND")
    text = "list the files of a lore folder: whose each is, or why it is skipped"
    files = add_examples(
        lore.add_parser("files", help=text, description=FILES_HELP), *FILES_EXAMPLES
    )
    files.set_defaults(command=with_error_handling(_list_files))
    ask = lore.add_parser("ask", help="show which passages a question finds, and why")
    add_examples(ask, *ASK_EXAMPLES)
    add_options(
        ask,
        [
            option("question", "QUESTION", None),
            flag("--all", f"show every passage (default: the best {MAX_SHOWN_PASSAGES})"),
        ],
    )
    ask.set_defaults(command=with_error_handling(_ask))
    extract = lore.add_parser(
        "extract", help="extract an addition to the card and question-answer pairs, by rules"
    )
    add_examples(extract, *EXTRACT_EXAMPLES)
    add_options(extract, [OUT.but(required=True)])
    extract.set_defaults(command=with_error_handling(_extract))
    synthesise = add_command(
        lore, "synthesise", "generate in-character dialogues with a model", SYNTHESISE_HELP
    )
    add_options(
        synthesise,
        [
            OUT.but(required=True),
            option("--count", "N", "number of dialogues to keep", type=positive_int, required=True),
            option("--endpoint", "URL", "an OpenAI-compatible API (default: the local engine)"),
            option(
                "--model",
                "M",
                "the model's name, folder or hub id (default: BASE_MODEL, else embedded)",
                type=base_model_name,
                default="",
            ),
            ADAPTER.but(help="an adapter folder, for the local engine", required=False),
            option("--seed", "S", "random seed (default: 0)", type=seed_number, default=0),
        ],
    )
    synthesise.set_defaults(command=with_error_handling(_synthesise))
    for command in (files, ask, extract, synthesise):
        add_options(
            command,
            [
                PERSONA.but(required=command is not files, help="its id or name, or a card file"),
                LORE.but(help="a folder of Markdown (default: the bot's)"),
                JSON,
            ],
        )


def _list_files(options: argparse.Namespace) -> None:
    home = resolve_home(None)
    personas = read_shared_personas(SHIPPED_CARDS, home)
    if options.persona:
        persona = load_persona(options.persona, home)
        personas[persona.id] = persona
    folder: Path = options.lore or SHIPPED_DATA / "rag-resources"
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}.", "Name one with lore in markdown files.")
    documents = list(scan_lore(folder, personas.values()))
    rows = []
    for document in documents:
        row = {
            "file": str(document.source),
            "personas": list(document.owners),
            "passages": len(split_passages("", "", document.text)),
            "skipped": document.skipped,
        }
        rows.append(row)
    if options.json:
        print(json.dumps({"folder": str(folder), "files": rows}, ensure_ascii=False))
        return
    skipped = [document for document in documents if document.skipped]
    read = len(documents) - len(skipped)
    files_are = "file is" if read == 1 else "files are"
    print(f"{folder}: {read} {files_are} read, {len(skipped)} skipped")
    if not documents:
        print("There is no markdown in it (.md, .markdown).")
    for document, row in zip(documents, rows, strict=True):
        if not document.skipped:
            unit = "passage " if row["passages"] == 1 else "passages"
            owners = ", ".join(document.owners)
            print(f"  {owners:<20} {row['passages']:>4} {unit}  {document.source}")
    for document in skipped:
        print(f"  {'skipped':<20} {document.source}: {document.skipped}")


def load_persona_lore(options: argparse.Namespace) -> tuple[Persona, list[Passage]]:
    """Load the persona with its lore and the world's. Raises `RequestError` if there is no lore."""
    home = resolve_home(None)
    persona = load_persona(options.persona, home)
    passages = load_passages(persona, options.lore, home)
    if not passages:
        personas = read_home_personas(SHIPPED_CARDS, home)
        owner = personas.get(persona.id)
        guild_id = owner.guild_id if owner else OPERATOR_GUILD_ID
        folder = options.lore or home / "lore" / str(guild_id)
        raise RequestError(
            f"There is no lore of {persona.name} in {folder}.",
            f"Put Markdown into {folder / persona.id}, or set `persona: {persona.id}` in its front "
            "matter.",
        )
    return persona, passages


def _ask(options: argparse.Namespace) -> None:
    if not has_words(options.question):
        raise RequestError("The question has no words.", "Write what a member might ask.")
    persona, passages = load_persona_lore(options)
    home = resolve_home(None)
    # A separate cache beside the bot's, so that no passage is embedded twice.
    cache = home / "cache" / f"lore-of-{persona.id}.sqlite" if home.is_dir() else None
    index = LoreIndex(passages, cache, read_setting("LORE_ENCODER"))
    ranking = index.rank(persona.id, options.question)
    index.close()
    shown = ranking.matches if options.all else ranking.matches[:MAX_SHOWN_PASSAGES]
    if options.json:
        print(json.dumps(_ask_json(ranking, shown), ensure_ascii=False))
    else:
        print("\n".join(_ask_table(ranking, shown)))


def _ask_json(ranking: LoreRanking, shown: list[PassageMatch]) -> dict[str, Any]:
    given = ranking.selected()
    matches = []
    for match in shown:
        row = {
            "given": match in given,
            "found": match.is_match,
            "score": match.score,
            "by_meaning": match.by_meaning,
            "cosine": match.cosine,
            "by_words": match.by_words,
            "words": match.words,
            "source": match.passage.source,
            "heading": match.passage.heading,
            "text": match.passage.text,
        }
        matches.append(row)
    return {
        "threshold": MIN_SCORE,
        "words": ranking.terms,
        "small_talk": ranking.small_talk,
        "weight": ranking.weight,
        "matches": matches,
    }


def _ask_table(ranking: LoreRanking, shown: list[PassageMatch]) -> list[str]:
    count = sum(match.is_match for match in ranking.matches)
    given = ranking.selected()
    looked_for = ", ".join(ranking.terms) or "none that tell anything"
    if ranking.small_talk is not None:
        looked_for += f"; nearness to small talk {ranking.small_talk:.2f}"
    if ranking.note:
        looked_for += f"; {ranking.note}"
    lines = [
        f"words looked for: {looked_for}",
        f"{count} of {len(ranking.matches)} passages found (a score of {MIN_SCORE:g} or more); a "
        "prompt gets "
        f"{len(given) or 'none'}",
    ]
    for match in shown:
        shared = ", ".join(f"{word} {weight:.2f}" for word, weight in match.words.items()) or "none"
        cosine = "another language: by character n-grams"
        if match.cosine is not None:
            cosine = f"cosine {match.cosine:.2f}"
        verdict = "found" if match.is_match else "not found"
        if match in given:
            verdict = "given"
        lines += [
            "",
            f"{verdict:<9} {match.score:5.2f}  {match.passage.source}  [{match.passage.heading}]",
            f"          meaning {match.by_meaning:+.2f} ({cosine}); words {match.by_words:+.2f} "
            f"(shared: {shared})",
            *(f"          {line}" for line in match.passage.text.splitlines()),
        ]
    return lines


def _extract(options: argparse.Namespace) -> None:
    require_writable(options.out)
    fence = ErasureFence.begin(resolve_home(None))
    persona, passages = load_persona_lore(options)
    extraction = extract_lore(persona, passages)
    with fence.storing():
        counts = write_extraction(persona, extraction, options.out)
    if options.json:
        print(json.dumps({**counts, "left_out": extraction.left_out}))
        return
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{persona.name}: {shown} in {options.out}")
    for reason, count in extraction.left_out.items():
        print(f"  left out {count:>4}  {reason}")


def _synthesise(options: argparse.Namespace) -> None:
    require_writable(options.out)
    try:
        summary = _synthesise_despite_erasures(options)
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)("Run the same command again to resume.") from None
    if options.json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    print(f"{summary['kept']} of {summary['made']} dialogues kept: {summary['file']}")
    for reason, count in summary["dropped"].items():
        print(f"  dropped {count:>4}  {reason}")


def _synthesise_despite_erasures(options: argparse.Namespace) -> dict[str, Any]:
    """Synthesise; if a member is erased meanwhile, continue, or start over where the material
    changed with it.
    """
    journal = None
    material = None
    while True:
        try:
            request, backend = _read_request(options)
            material_now = (request.persona, request.passages, backend.name)
        except UnderstudyError:
            # The journal may hold what the member is in, and nothing goes on that would check it.
            if journal:
                journal.unlink(missing_ok=True)
            raise
        if journal and material_now != material:
            journal.unlink(missing_ok=True)
            print(STARTS_OVER_TEXT, file=sys.stderr)
        journal = request.journal
        material = material_now
        try:
            return synthesise_dialogues(request, backend)
        except ErasedMeanwhileError:
            continue


def _read_request(options: argparse.Namespace) -> tuple[SynthesisRequest, ReplyBackend]:
    fence = ErasureFence.begin(resolve_home(None))
    persona, passages = load_persona_lore(options)
    request = SynthesisRequest(
        persona,
        tuple(passages),
        options.count,
        out=options.out,
        seed=options.seed,
        storing=fence.storing,
    )
    return request, choose_backend(options.endpoint, options.model, options.adapter)
