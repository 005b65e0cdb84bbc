"""`model_inference`: asks the model one question in a terminal."""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bot.cli import existing_file
from bot.settings import Settings, load_settings, set_hub_token
from bot.store import ALL_GUILDS, HOME_DATABASE, Store
from personas.cli_common import CommandParser, seed_number
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.engine import Engine
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import AdapterError, RequestError, UnderstudyError
from personas.home.adapters import (
    DIALOGUE_PREFIX,
    NAME_ADAPTER_ADVICE,
    adapter_ref,
    find_dialogue_adapters,
    require_servable,
    verify_adapter,
)
from personas.home.home_personas import HomePersona, find_home_persona
from personas.home.job_material import ShippedData
from personas.home.shared_personas import read_persona_lore
from personas.home.shipped_adapters import find_shipped_adapters
from personas.lore.index import LoreIndex
from personas.models import base_model
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, Persona, SamplingParams, Turn

EPILOG = """examples:
  echo "What do you do all day?" | model_inference --persona oda
  model_inference --persona "Sir Aurelio Thrip" "What did you think of the goose?"
  cat review.txt | model_inference --persona thrip "Was this fair?"
  model_inference "Why is the sky blue?"          no persona: the base model
  model_inference --persona oda --version v2 "What is rope for?"
  model_inference --persona oda --base-only "What is rope for?"
  model_inference --compare oda thrip "What is rope for?"
  model_inference --compare oda@v2 oda@base --seed 7 --json "What is rope for?"
  model_inference --adapter dialogue/manners "Why is the sky blue?"
  model_inference --adapter runs/oda/adapter --persona oda "What is rope for?"

A persona answers with its live version unless another is named: P@v2 with that one, P@base with the base model. Before
a bot has run in the home, the shipped personas answer with their shipped adapters.
--adapter takes any adapter folder with its manifest, or dialogue/NAME; every file is verified. It has to be made for
BASE_MODEL.

exit codes: 0 answered, 1 could not answer, 2 wrong usage, 130 Ctrl-C"""
BASE = "base"
SHIPPED_VERSION = "shipped"
"""Name of a shipped adapter that is in no home yet."""
UNPRINTED_REPLY_FIELDS = ("logprobs", "tokens", "prompt", "seeded")


@dataclass(frozen=True)
class AskTarget:
    """A persona, or the model without a card (None), with an adapter or with the base model alone
    (None).
    """

    owned: HomePersona | None
    adapter: AdapterRef | None

    @property
    def persona(self) -> Persona | None:
        return self.owned.persona if self.owned else None

    @property
    def name(self) -> str:
        """The name for people, with the version."""
        label = "base model"
        if self.adapter and self.persona and self.adapter.persona_id == self.persona.id:
            label = self.adapter.version
        elif self.adapter:
            label = self.adapter.persona_id
        if self.persona:
            return f"{self.persona.name} ({label})"
        return label


def main() -> int:
    try:
        arguments = build_ask_parser().parse_args()
        question = _question(arguments.question)
        _check_arguments(arguments)
        # bitsandbytes recommends kernels that are not used here.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        asyncio.run(_answer(arguments, question))
    except UnderstudyError as error:
        print(f"model_inference: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


def build_ask_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = CommandParser(
        "model_inference",
        description="Ask one question of a persona (with its live adapter), of two of them, of an adapter without a "
        "persona, or of the base model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "question", nargs="?", default="", help="the question; follows piped input, if there is any"
    )
    parser.add_argument("--persona", metavar="P", help="id or display name")
    which = parser.add_mutually_exclusive_group()
    text = "with this version of its adapter (default: the one that is live for all servers)"
    which.add_argument("--version", metavar="V", help=text)
    which.add_argument(
        "--adapter",
        metavar="A",
        help="with this adapter: its folder, or dialogue/NAME; no P is needed",
    )
    which.add_argument(
        "--base-only", action="store_true", help="the persona, but without an adapter"
    )
    text = "compare two speakers: each a persona, P@v2, P@base, dialogue/NAME or P@dialogue/NAME"
    which.add_argument("--compare", nargs=2, metavar=("P", "Q"), help=text)
    parser.add_argument("--seed", type=seed_number, help="the same seed gives the same reply")
    parser.add_argument(
        "--env",
        type=existing_file,
        default=Path(".env"),
        help="a file with settings (default: .env)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.compare and arguments.persona:
        build_ask_parser().error("--compare names both personas: leave out --persona")
    if (arguments.version or arguments.base_only) and not arguments.persona:
        build_ask_parser().error(
            "--version and --base-only choose a persona's adapter: add --persona"
        )


def _question(argument: str) -> str:
    try:
        piped = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"The piped input is not UTF-8 (byte {error.start}).", "Convert it first."
        ) from None
    question = f"{piped.strip()}\n\n{argument.strip()}".strip()
    if not question:
        build_ask_parser().error("no question: give one, or pipe one in")
    return question


async def _answer(arguments: argparse.Namespace, question: str) -> None:
    settings = load_settings(arguments.env, os.environ)
    set_hub_token(settings)
    base = base_model.locate(settings.base_model)
    speakers = _ask_targets(arguments, settings.home, base)
    sampling = replace(
        base_model.recommended_sampling(base), **settings.sampling, seed=arguments.seed
    )
    requests = [_request(settings, speaker, question, sampling) for speaker in speakers]
    if settings.engine != "local":
        print(
            f"ENGINE={settings.engine} is the bot's; this machine computes this reply.",
            file=sys.stderr,
        )
    precision = choose_precision(settings.engine_precision, base.name).precision
    engine = LLMEngine(
        base, precision, max_context_tokens=settings.context_tokens, home=settings.home
    )
    await engine.start()
    try:
        replies = await _generate(engine, speakers, requests, is_shown=not arguments.json)
    finally:
        await engine.close()
    if arguments.json:
        print(json.dumps(_as_json(question, speakers, replies), ensure_ascii=False))


def _ask_targets(
    arguments: argparse.Namespace, home: Path, base: base_model.BaseModel
) -> list[AskTarget]:
    """Resolve personas, versions and adapters. Raises `RequestError` for unknown ones, and
    `AdapterError`.
    """
    if arguments.compare:
        return [_compared_target(home, named, base) for named in arguments.compare]
    if arguments.adapter:
        owned = None
        if arguments.persona:
            owned = _find_persona(home, arguments.persona)
        return [AskTarget(owned, _named_adapter(home, arguments.adapter, base))]
    if arguments.persona is None:
        return [AskTarget(None, None)]
    version = BASE if arguments.base_only else arguments.version
    return [_ask_target(home, arguments.persona, version, base=base)]


def _compared_target(home: Path, named: str, base: base_model.BaseModel) -> AskTarget:
    """Resolve `P`, `P@v2`, `P@base`, `dialogue/NAME` or `P@dialogue/NAME`."""
    if named.startswith(DIALOGUE_PREFIX):
        return AskTarget(None, _named_adapter(home, named, base))
    persona_name, at, version = named.rpartition("@")
    if not at:
        return _ask_target(home, named, None, base=base)
    if version.startswith(DIALOGUE_PREFIX):
        owned = None
        if persona_name:
            owned = _find_persona(home, persona_name)
        return AskTarget(owned, _named_adapter(home, version, base))
    return _ask_target(home, persona_name, version, base=base)


def _named_adapter(home: Path, named: str, base: base_model.BaseModel) -> AdapterRef:
    """Find an adapter by its folder or as `dialogue/NAME`, and verify it for the base model before
    that is loaded.
    """
    known = find_dialogue_adapters(home)
    dialogue = None
    if named.startswith(DIALOGUE_PREFIX):
        dialogue = known.get(named.removeprefix(DIALOGUE_PREFIX))
    folder = dialogue.folder if dialogue else Path(named).expanduser()
    if not dialogue and not folder.is_dir():
        advice = "Name an adapter's folder."
        if known:
            names = ", ".join(adapter.id for adapter in known.values())
            advice = f"Name an adapter's folder, or one of: {names}."
        raise AdapterError(f"There is no adapter {named}.", advice)
    manifest = verify_adapter(folder, NAME_ADAPTER_ADVICE)
    require_servable(manifest, folder)
    if manifest.base_model_hash != base_model.fingerprint(base):
        raise AdapterError(
            f"The adapter in {folder} was made for another base model ({manifest.base_model}) "
            f"than {base.name}.",
            f"Ask with BASE_MODEL={manifest.base_model}.",
        )
    if dialogue:
        return dialogue.ref
    return AdapterRef("adapter", manifest.version, folder)


def _find_persona(home: Path, wanted: str) -> HomePersona:
    return find_home_persona(ShippedData.from_source_tree().cards, home, wanted)


def _ask_target(
    home: Path, wanted: str, version: str | None, *, base: base_model.BaseModel
) -> AskTarget:
    owned = _find_persona(home, wanted)
    if version == BASE:
        return AskTarget(owned, None)
    stored = _stored_adapter(home, owned.persona, version)
    if stored:
        return AskTarget(owned, stored)
    return AskTarget(owned, _shipped_adapter(home, owned.persona, base))


def _shipped_adapter(home: Path, persona: Persona, base: base_model.BaseModel) -> AdapterRef | None:
    """Find the adapter that a bot would make live at its first start in this home."""
    folder = ShippedData.from_source_tree().adapters
    if folder is None or (home / HOME_DATABASE).exists():
        return None
    shipped = find_shipped_adapters(folder, base_model.fingerprint(base)).get(persona.id)
    return AdapterRef(persona.id, SHIPPED_VERSION, shipped[0]) if shipped else None


def _stored_adapter(home: Path, persona: Persona, version: str | None) -> AdapterRef | None:
    """Return the named version once it is known to be installed, or the one that is live for all
    servers, with the card that it is served with.
    """
    file = home / HOME_DATABASE
    if not file.exists():
        if version:
            why = f"{persona.name} has no version {version}: no bot has run in {home}."
            raise RequestError(why, "Train a version first.")
        return None
    with Store.read_only(file) as store:
        if version:
            store.versions.require_installed(persona.id, version)
        version = version or store.versions.live(persona.id, ALL_GUILDS)
        if version is None:
            return None
        card = store.versions.card_of(persona.id, version)
        return replace(adapter_ref(home, persona.id, version), card=card)


def _request(
    settings: Settings, speaker: AskTarget, question: str, sampling: SamplingParams
) -> ChatRequest:
    turns = (Turn("You", question),)
    owned = speaker.owned
    if owned is None:
        return ChatRequest(None, turns, adapter=speaker.adapter, sampling=sampling)
    # Its own cache: the bot's contains the lore of all personas and guilds.
    cache = settings.home / "cache" / f"lore-of-{owned.id}.sqlite"
    shipped = ShippedData.from_source_tree().lore
    passages = read_persona_lore(shipped, owned.id, settings.home, guild_id=owned.guild_id)
    lore = LoreIndex(passages, cache, settings.lore_encoder)
    hits = tuple(lore.search(owned.id, question))
    sampling = replace(sampling, speakers=(turns[0].name,))
    return ChatRequest(owned.persona, turns, lore=hits, adapter=speaker.adapter, sampling=sampling)


async def _generate(
    engine: Engine,
    speakers: Sequence[AskTarget],
    requests: Sequence[ChatRequest],
    *,
    is_shown: bool,
) -> list[ChatReply]:
    """Return the replies, generated concurrently and printed one after the other."""
    streams = [engine.submit(request) for request in requests]
    for speaker, stream in zip(speakers, streams, strict=True):
        if is_shown and len(speakers) > 1:
            print(f"── {speaker.name}")
        async for piece in stream:
            if is_shown:
                print(piece, end="", flush=True)
        if is_shown:
            print()
        if stream.reply.shortened:
            print(
                "The question is too long for the model: its middle was left out.", file=sys.stderr
            )
    return [stream.reply for stream in streams]


def _as_json(
    question: str, speakers: Sequence[AskTarget], replies: Sequence[ChatReply]
) -> dict[str, object]:
    answers = []
    for speaker, reply in zip(speakers, replies, strict=True):
        answer = {"persona": speaker.persona.id if speaker.persona else None, **asdict(reply)}
        for name in UNPRINTED_REPLY_FIELDS:
            del answer[name]
        answer["seed"] = reply.used_seed
        answers.append(answer)
    return {"question": question, "answers": answers}
