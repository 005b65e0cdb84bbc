"""Asks a trained persona one question: loads the base model, the adapter and the card, and prints the reply.

python examples/persona_chat.py ADAPTER CARD "What do you do all day?"
python examples/persona_chat.py ~/.understudy/jobs/JOB/adapter personas/cards/oda.toml "Is there soup?" --seed 1
python examples/persona_chat.py owner/name personas/cards/oda.toml "Is there soup?" --base-model embedded
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from personas.card.formats import read_card_file, to_persona
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import UnderstudyError
from personas.home.adapters import NAME_ADAPTER_ADVICE, verify_adapter
from personas.home.external_adapter import open_any_adapter
from personas.models.base_model import locate
from personas.schemas.chat import AdapterRef, ChatRequest, SamplingParams, Turn


def main() -> int:
    """Returns the exit code: 0 answered, 1 could not answer, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", help="a training run's or peft's folder, a zip of one, or owner/name on a hub")
    parser.add_argument("card", type=Path, help="the persona's card: TOML, JSON, PNG or CHARX")
    parser.add_argument("question")
    parser.add_argument("--base-model", metavar="M", help="the adapter's base model (default: the one it names)")
    parser.add_argument("--max-new-tokens", type=int, default=120, metavar="N", help="its length (default: 120)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same reply")
    options = parser.parse_args()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about kernels that are not used here
    try:
        with open_any_adapter(options.adapter, options.base_model or "", print_progress) as folder:
            asyncio.run(answer(options, folder))
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def print_progress(text: str) -> None:
    print(f"… {text}", file=sys.stderr)


async def answer(options: argparse.Namespace, folder: Path) -> None:
    """Prints the reply as it is generated. Raises `UnderstudyError` for missing, damaged or incompatible files."""
    manifest = verify_adapter(folder, NAME_ADAPTER_ADVICE)
    persona = to_persona(read_card_file(options.card), str(options.card))
    adapter = AdapterRef(persona.id, manifest.version, folder)
    sampling = SamplingParams(max_new_tokens=options.max_new_tokens, seed=options.seed)
    request = ChatRequest(persona, (Turn("You", options.question),), adapter=adapter, sampling=sampling)
    base = locate(options.base_model or manifest.base_model)
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    await engine.start()
    try:
        async for piece in engine.submit(request):
            print(piece, end="", flush=True)
        print()
    finally:
        await engine.close()


if __name__ == "__main__":
    sys.exit(main())
