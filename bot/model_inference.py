"""A thin door to the model for the terminal: `echo "…" | model_inference [--persona P] ["question"]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from bot.catalogue import ShippedData
from bot.settings import existing_file, load_settings
from bot.store import Store
from personas import base_model
from personas.adapters import adapter_ref
from personas.card import find_persona, read_cards
from personas.contracts import AdapterRef, ChatRequest, Persona, Sampling, Turn
from personas.engine.local import LocalEngine
from personas.errors import RequestError, UnderstudyError
from personas.lore import WORLD, LoreIndex, read_lore

EPILOG = """examples:
  echo "What do you do all day?" | model_inference --persona oda
  model_inference --persona "Sir Aurelio Thrip" "What did you think of the goose?"
  cat review.txt | model_inference --persona thrip "Was this fair?"
  model_inference "Why is the sky blue?"          no persona: the base model

exit codes: 0 answered, 1 could not answer, 2 wrong usage"""


def main() -> int:
    """Answer one question on standard output, as it is made."""
    arguments = _parser().parse_args()
    try:
        question = _question(arguments.question)
    except UnicodeDecodeError as error:
        _parser().error(f"what is piped in is not UTF-8 (byte {error.start})")
    if not question:
        _parser().error("nothing was asked: give a question, or pipe one in")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels that nothing here uses
    try:
        asyncio.run(_answer(arguments, question))
    except UnderstudyError as error:
        print(f"model_inference: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "model_inference",
        description="Ask a persona (with its live adapter) or the base model one question.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", default="", help="asked after what is piped in, if anything is")
    parser.add_argument("--persona", help="id or display name")
    parser.add_argument("--seed", type=int, help="the same seed gives the same answer")
    parser.add_argument("--env", type=existing_file, default=Path(".env"), help="a file with settings (default: .env)")
    return parser


def _question(argument: str) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8")
    return "\n\n".join(part for part in (piped.strip(), argument.strip()) if part)


async def _answer(arguments: argparse.Namespace, question: str) -> None:
    settings = load_settings(arguments.env, os.environ)
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=arguments.seed,
    )
    request = _request(settings.home, arguments.persona, question, sampling)
    engine = LocalEngine(base_model.locate(settings.base_model), base_model.best_precision())
    await engine.start()
    try:
        async for piece in engine.submit(request):
            print(piece, end="", flush=True)
        print()
    finally:
        await engine.close()


def _request(home: Path, wanted: str | None, question: str, sampling: Sampling) -> ChatRequest:
    if wanted is None:
        return ChatRequest(None, (Turn("You", question),), sampling=sampling)
    shipped = ShippedData.beside_the_code()
    personas = read_cards(shipped.cards)
    persona = find_persona(personas, wanted)
    if persona is None:
        known = ", ".join(f"{p.name} ({p.id})" for p in personas.values())
        raise RequestError(f"There is no persona {wanted!r}.", f"Known: {known}.")
    # A cache of its own: the bot's holds the lore of all personas and guilds.
    lore = LoreIndex(read_lore(shipped.lore, [persona.id, WORLD]), home / "cache" / f"lore-of-{persona.id}.sqlite")
    hits = tuple(lore.search(persona.id, question))
    return ChatRequest(persona, (Turn("You", question),), hits, _live_adapter(home, persona), sampling)


def _live_adapter(home: Path, persona: Persona) -> AdapterRef | None:
    database = home / "understudy.sqlite"
    if not database.exists():  # no bot has run here yet
        return None
    store = Store.read_only(database)
    try:
        version = store.versions.live(persona.id)
    finally:
        store.close()
    return adapter_ref(home, persona.id, version) if version else None


if __name__ == "__main__":
    sys.exit(main())
