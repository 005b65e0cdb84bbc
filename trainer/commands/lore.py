"""The commands about lore: `python -m trainer lore ask|extract|synthesise`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.command_line import with_examples
from personas.errors import RequestError
from personas.for_everybody import OPERATOR
from trainer.commands.counts import positive
from trainer.commands.dataset import guarded
from trainer.process.stopping import Terminated

if TYPE_CHECKING:
    from personas.contracts import Persona
    from personas.lore import Match, Passage, Weighed

SHOWN = 6
SYNTHESISE_HELP = """\
Writes in-character dialogues about the persona's lore, made by the local engine or by an OpenAI-compatible endpoint.

  python -m trainer lore synthesise --persona oda --count 50 --out build/oda
  python -m trainer lore synthesise --persona oda --count 50 --out build/oda \\
         --endpoint http://localhost:8000/v1 --model NAME      (a key, if it takes one, in OPENAI_API_KEY)

Run again, it goes on where it was stopped. Each dialogue that is dropped is counted with its reason.
"""

ASK_EXAMPLES = (
    'python -m trainer lore ask --persona oda "Who keeps the lamp?"',
    'python -m trainer lore ask --persona oda "What is rope for?" --all --json',
)
EXTRACT_EXAMPLES = ("python -m trainer lore extract --persona oda --out build/oda-lore",)


def add_lore(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `lore` and what belongs to it."""
    group = commands.add_parser("lore", help="ask lore, and make material of it")
    with_examples(group, *ASK_EXAMPLES, *EXTRACT_EXAMPLES)
    lore = group.add_subparsers(required=True, metavar="COMMAND")
    ask = lore.add_parser("ask", help="which lore a question finds, what it does not find, and why")
    with_examples(ask, *ASK_EXAMPLES)
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument("--all", action="store_true", help=f"show every passage (default: the best {SHOWN})")
    ask.set_defaults(command=guarded(_ask))
    extract = lore.add_parser("extract", help="a proposed addition to the card, and pairs, by rules")
    with_examples(extract, *EXTRACT_EXAMPLES)
    extract.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    extract.set_defaults(command=guarded(_extract))
    synthesise = lore.add_parser(
        "synthesise", help="in-character dialogues, made by a model", description=SYNTHESISE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    synthesise.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    synthesise.add_argument("--count", type=positive, required=True, metavar="N", help="how many dialogues to keep")
    synthesise.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible API (default: the local engine)")
    synthesise.add_argument("--model", metavar="M", default="embedded", help="the model's name, folder or hub id")
    synthesise.add_argument("--adapter", type=Path, metavar="DIR", help="an adapter folder, for the local engine")
    synthesise.add_argument("--seed", type=int, default=0, metavar="S", help="draws other words (default: 0)")
    synthesise.set_defaults(command=guarded(_synthesise))
    for command in (ask, extract, synthesise):
        command.add_argument("--persona", required=True, metavar="P", help="its id or name, or a card file")
        command.add_argument("--lore", type=Path, metavar="DIR", help="a folder of markdown (default: the bot's)")
        command.add_argument("--json", action="store_true", help="print one JSON object")


def material(options: argparse.Namespace) -> tuple[Persona, list[Passage]]:
    """The persona, and its lore and the world's. Raises `RequestError` for no lore at all."""
    from trainer.commands.orders import passages_for, persona_named
    from trainer.commands.plan import home_of

    home = home_of(None)
    persona = persona_named(options.persona, home)
    passages = passages_for(persona, options.lore, home)
    if not passages:
        folder = options.lore or home / "lore" / str(OPERATOR)
        raise RequestError(
            f"There is no lore of {persona.name} in {folder}.",
            f"Put markdown into {folder / persona.id}, or say `persona: {persona.id}` in its front matter.",
        )
    return persona, passages


def _ask(options: argparse.Namespace) -> None:
    from personas.lore import LoreIndex
    from trainer.commands.plan import home_of

    if not options.question.strip():
        raise RequestError("There is no question.", "Write what somebody would ask.")
    persona, passages = material(options)
    home = home_of(None)
    # A cache of its own, where the bot keeps its: no passage is read twice.
    index = LoreIndex(passages, home / "cache" / f"lore-of-{persona.id}.sqlite" if home.is_dir() else None)
    weighed = index.weigh(persona.id, options.question)
    index.close()
    shown = weighed.matches if options.all else weighed.matches[:SHOWN]
    if options.json:
        print(json.dumps(_ask_json(weighed, shown), ensure_ascii=False))
    else:
        print("\n".join(_ask_table(weighed, shown)))


def _ask_json(weighed: Weighed, shown: list[Match]) -> dict[str, Any]:
    from personas.lore import FOUND

    given = weighed.given()
    return {
        "threshold": FOUND,
        "words": weighed.terms,
        "small_talk": weighed.small_talk,
        "matches": [
            {
                "given": match in given,
                "found": match.found,
                "score": match.score,
                "by_meaning": match.by_meaning,
                "cosine": match.cosine,
                "by_words": match.by_words,
                "words": match.words,
                "source": match.passage.source,
                "heading": match.passage.heading,
                "text": match.passage.text,
            }
            for match in shown
        ],
    }


def _ask_table(weighed: Weighed, shown: list[Match]) -> list[str]:
    from personas.lore import FOUND

    found, given = [match for match in weighed.matches if match.found], weighed.given()
    words = ", ".join(weighed.terms) or "none that tell anything"
    talk = "" if weighed.small_talk is None else f"; nearness to small talk {weighed.small_talk:.2f}"
    lines = [
        f"words looked for: {words}{talk}",
        f"{len(found)} of {len(weighed.matches)} passages found (a score of {FOUND:g} or more); a prompt gets "
        f"{len(given) or 'none'}",
    ]
    for match in shown:
        shared = ", ".join(f"{word} {weight:.2f}" for word, weight in match.words.items()) or "none"
        cosine = "another language, not compared" if match.cosine is None else f"cosine {match.cosine:.2f}"
        verdict = "given" if match in given else "found" if match.found else "not found"
        lines += [
            "",
            f"{verdict:<9} {match.score:5.2f}  {match.passage.source}  [{match.passage.heading}]",
            f"          meaning {match.by_meaning:+.2f} ({cosine}); words {match.by_words:+.2f} (shared: {shared})",
            *(f"          {line}" for line in match.passage.text.splitlines()),
        ]
    return lines


def _extract(options: argparse.Namespace) -> None:
    from trainer.commands.places import require_place
    from trainer.lore.extract import extract, write_extracted

    require_place(options.out)
    persona, passages = material(options)
    found = extract(persona, passages)
    counts = write_extracted(persona, found, options.out)
    if options.json:
        print(json.dumps({**counts, "left_out": found.left_out}))
        return
    print(f"{persona.name}: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + f" in {options.out}")
    for reason, count in found.left_out.items():
        print(f"  left out {count:>4}  {reason}")


def _synthesise(options: argparse.Namespace) -> None:
    from trainer.commands.places import require_place
    from trainer.lore.synthesise import Order, synthesise, voice_of

    require_place(options.out)
    persona, passages = material(options)
    order = Order(persona, tuple(passages), options.count, options.out, options.seed)
    try:
        told = synthesise(order, voice_of(options.endpoint, options.model, options.adapter))
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)("Run it again to go on: what was made is kept.") from None
    if options.json:
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"{told['kept']} of {told['made']} dialogues kept: {told['file']}")
    for reason, count in told["dropped"].items():
        print(f"  dropped {count:>4}  {reason}")
