"""Asks an adapter for one reply: loads the base model, the adapter and a card or facts, and prints
the reply.

python examples/persona_chat.py ADAPTER CARD "What do you do all day?"
python examples/persona_chat.py ~/.understudy/jobs/JOB/adapter personas/cards/oda.toml "Is there soup?" --seed 1
python examples/persona_chat.py owner/name personas/cards/oda.toml "Is there soup?" --base-model embedded
python examples/persona_chat.py ADAPTER "Do you like honey?" --fact "I keep bees." --fact "I live by the sea."
python examples/persona_chat.py ADAPTER --facts ann.txt --history talk.txt
python examples/persona_chat.py ADAPTER "Why?" --turn "Do you like honey?" --turn "I do not."

As in PersonaChat, the reply is the next line of person B: the facts are B's, and the dialogue so
far ends with A's. Lines that all begin with A: and B: (or Person A:, User 1:) say who speaks;
others alternate. The prompt is that of the training samples. Without a card and facts, there is
neither in it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from pathlib import Path

from personas.card.card_reader import read_card_file
from personas.card.toml_card import to_persona
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import NAME_ADAPTER_ADVICE, verify_adapter
from personas.home.external_adapter import open_any_adapter
from personas.models.base_model import locate
from personas.prompt.renderer import system_card
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn

SPEAKER_LABEL = re.compile(r"(?:(?:person|user|speaker)\s*)?([AB12])\s*:\s*", re.IGNORECASE)


def main() -> int:
    """Returns the exit code: 0 answered, 1 could not answer, 2 wrong usage."""
    parser = build_parser()
    options = parser.parse_intermixed_args()  # a question may follow options
    if len(options.words) == 2 and not options.card:
        options.card = Path(options.words.pop(0))
    if len(options.words) > 1 or (options.card and (options.fact or options.facts)):
        parser.error("give an adapter, one card or facts about B, and one question")
    if options.max_new_tokens < 1:
        parser.error("--max-new-tokens has to be 1 or more")
    if not (options.words or options.turn or options.history):
        parser.error("there is nothing to answer: add a question, --turn or --history")
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it warns about kernels that are not used here
    try:
        persona = read_persona(options)
        turns = read_turns(options)
        with open_any_adapter(options.adapter, options.base_model or "", print_progress) as folder:
            asyncio.run(answer(options, folder, persona, turns))
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("adapter", help="a training run's or peft's folder, a zip of one, or owner/name on a hub")
    add(
        "words",
        nargs="*",
        metavar="[CARD] QUESTION",
        help="a card (TOML, JSON, PNG or CHARX), and A's last line",
    )
    add(
        "--card",
        type=Path,
        metavar="CARD",
        help="the same card, where the dialogue so far takes the question's place",
    )
    add("--fact", action="append", default=[], metavar="F", help="a fact about B; may repeat")
    add("--facts", type=Path, metavar="FILE", help="facts about B from a text file, one a line")
    add(
        "--turn",
        action="append",
        default=[],
        metavar="T",
        help="a line of the dialogue so far; may repeat",
    )
    add(
        "--history",
        type=Path,
        metavar="FILE",
        help="the dialogue so far from a text file, one line a turn",
    )
    add(
        "--base-model",
        metavar="M",
        help="the adapter's base model (default: the model that it names)",
    )
    add("--max-new-tokens", type=int, default=120, metavar="N", help="its length (default: 120)")
    add("--seed", type=int, help="the same seed gives the same reply")
    return parser


def print_progress(text: str) -> None:
    print(f"… {text}", file=sys.stderr)


def read_persona(options: argparse.Namespace) -> Persona | None:
    """Returns the card, or one made of the facts as in training; None without both. Raises
    `UnderstudyError`.
    """
    if options.card:
        return to_persona(read_card_file(options.card), str(options.card))
    facts = [*options.fact, *read_lines(options.facts)]
    return system_card("\n".join(facts)) if facts else None


def read_turns(options: argparse.Namespace) -> tuple[Turn, ...]:
    """Returns the dialogue so far, which ends with A's line. Raises `RequestError`."""
    lines = [*read_lines(options.history), *options.turn]
    labels = [SPEAKER_LABEL.match(line) for line in lines]
    count = len(lines) + len(options.words)
    name = "You" if options.card else ""
    if all(labels):
        sides = [label[1].upper() in "B2" for label in labels if label]
        lines = [line[label.end() :] for line, label in zip(lines, labels, strict=True) if label]
    else:
        sides = [(count - at) % 2 == 0 for at in range(len(lines))]
    if not options.words and sides[-1]:
        raise RequestError(
            "The dialogue so far ends with a line of B.", "Add A's line as the question."
        )
    return tuple(
        Turn(name, *turn) for turn in zip([*lines, *options.words], [*sides, False], strict=False)
    )


def read_lines(file: Path | None) -> list[str]:
    """Returns the lines of a text file that are not blank. Raises `RequestError`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RequestError(
            f"{file} cannot be read: {why}.", "Name a text file, one entry a line."
        ) from error
    if file and not any(map(str.strip, lines)):
        raise RequestError(f"{file} is empty.", "Write one entry a line.")
    return [line.strip() for line in lines if line.strip()]


async def answer(
    options: argparse.Namespace, folder: Path, persona: Persona | None, turns: tuple[Turn, ...]
) -> None:
    """Prints the reply as it is generated. Raises `UnderstudyError` for missing, damaged or
    incompatible files.
    """
    manifest = verify_adapter(folder, NAME_ADAPTER_ADVICE)
    stop = (f"\n{turns[-1].name}:",) if turns[-1].name else ()
    sampling = SamplingParams(max_new_tokens=options.max_new_tokens, seed=options.seed, stop=stop)
    adapter = AdapterRef("adapter", manifest.version, folder)
    base = locate(options.base_model or manifest.base_model)
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    await engine.start()
    try:
        async for piece in engine.submit(
            ChatRequest(persona, turns, adapter=adapter, sampling=sampling)
        ):
            print(piece, end="", flush=True)
        print()
    finally:
        await engine.close()


if __name__ == "__main__":
    sys.exit(main())
