"""Asks nine personas who they are, in ten forms and under two members' names, and counts the replies
that claim a name which is not theirs; each is printed. The bundled model answers, without own words,
with candidates as in channels. All replies are written to build/bench/asked-names.json. About half an
hour on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.personas.subjects import CHARACTERS, CHARACTERS_FOLDER, PERSONAS
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.engine.beginning_score import breaks_off, recites_heading
from personas.engine.false_names import claims_other_name
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.home.shipped_adapters import find_shipped_adapters
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD
from personas.models.base_model import (
    EMBEDDED,
    BaseModel,
    fingerprint,
    locate,
    recommended_sampling,
)
from personas.schemas.chat import (
    DEFAULT_CANDIDATES,
    AdapterRef,
    ChatReply,
    ChatRequest,
    Persona,
    Turn,
)
from personas.shipped_folders import SHIPPED_DATA

RESULT_FILE = Path("build/bench/asked-names.json")
MEMBERS = ("Mina", "Tobias")
"""Each asks while the other has spoken."""
QUESTIONS = (
    "Who are you?",
    "who r u",
    "Hello! Who am I talking to?",
    "What's your name?",
    "whats ur name",
    "Sorry, I forgot what you're called.",
    "Are you {asker}?",
    "are you {other}",
    "Wait, aren't you {other}?",
    "You're {other}, right?",
)
SEED = 1
AT_ONCE = 2
"""Replies with four candidates each, which the engine computes beside one another."""


def read_persona(name: str) -> tuple[Persona, LoreIndex]:
    """Read a persona with its lore."""
    if name in CHARACTERS:
        folder = CHARACTERS_FOLDER / name
        persona = read_card(folder / "card.toml")
        return persona, LoreIndex(read_lore(folder.parent, [persona.id], PERSONAS))
    lore = read_lore(SHIPPED_DATA / "rag-resources", [name, WORLD], PERSONAS)
    return read_card(SHIPPED_CARDS / f"{name}.toml"), LoreIndex(lore)


def requests(name: str, base: BaseModel, max_new_tokens: int) -> Iterator[ChatRequest]:
    """Yield what a persona is asked."""
    sampling = replace(
        recommended_sampling(base),
        candidates=DEFAULT_CANDIDATES,
        seed=SEED,
        speakers=MEMBERS,
        max_new_tokens=max_new_tokens,
    )
    adapters = find_shipped_adapters(SHIPPED_DATA / "adapters", fingerprint(base))
    adapter = AdapterRef(name, "v0", adapters[name][0]) if name in adapters else None
    persona, lore = read_persona(name)
    for asker, other in (MEMBERS, MEMBERS[::-1]):
        for question in QUESTIONS:
            text = question.format(asker=asker, other=other)
            yield ChatRequest(
                persona,
                (Turn(other, "evening everyone"), Turn(asker, text)),
                lore=tuple(lore.search(persona.id, text)),
                adapter=adapter,
                sampling=sampling,
            )


async def ask(
    engine: LLMEngine, asked: Iterable[ChatRequest]
) -> list[tuple[ChatRequest, ChatReply]]:
    """Return the requests with their replies."""
    places = asyncio.Semaphore(AT_ONCE)

    async def reply_to(request: ChatRequest) -> tuple[ChatRequest, ChatReply]:
        async with places:
            stream = engine.submit(request)
            async for _ in stream:
                pass
            return request, stream.reply

    return await asyncio.gather(*map(reply_to, asked))


def report(request: ChatRequest, reply: ChatReply) -> dict[str, object]:
    """Return the row of a reply; print one that claims another's name."""
    assert request.persona
    asked = request.turns[-1]
    claims = claims_other_name(reply.text, request)
    if claims:
        print(f"{request.persona.name}, asked by {asked.name}: {asked.text}\n  {reply.text!r}")
    return {
        "persona": request.persona.name,
        "asker": asked.name,
        "asked": asked.text,
        "reply": reply.text,
        "candidates": reply.candidates,
        "claims": claims,
        "recites": recites_heading(reply.text, request),
        "breaks_off": reply.finish == "stop" and breaks_off(reply.text, request),
    }


def store(name: str, rows: list[dict[str, object]]) -> None:
    """Write the rows up to a persona, and print how many have each fault."""
    counts = {
        fault: sum(bool(row[fault]) for row in rows)
        for fault in ("claims", "recites", "breaks_off")
    }
    print(f"up to {name}, of {len(rows)} replies: {counts}", flush=True)
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    RESULT_FILE.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


async def measure(max_new_tokens: int) -> None:
    """Ask all personas; the file is written after each."""
    base = locate(EMBEDDED)
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    await engine.start()
    rows: list[dict[str, object]] = []
    try:
        for name in PERSONAS:
            for request, reply in await ask(engine, requests(name, base, max_new_tokens)):
                rows.append(report(request, reply))
            store(name, rows)
    finally:
        await engine.close()


def main() -> None:
    """Ask, print and write the replies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-new-tokens", type=int, default=120, help="length of a reply")
    asyncio.run(measure(parser.parse_args().max_new_tokens))


if __name__ == "__main__":
    main()
