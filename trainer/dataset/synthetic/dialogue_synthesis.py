"""Synthesises in-character dialogues about lore with a model, resumable after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from personas.cli_common import LogProgress
from personas.errors import MaterialError
from personas.home.data_subjects import Storing
from personas.lore.passages import WORLD, Passage
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import LoreHit, Persona, Turn
from trainer.dataset.quality_filters import detect_main_language
from trainer.dataset.synthetic.extraction_files import write_file_atomically
from trainer.dataset.synthetic.lore_extraction import question_about
from trainer.dataset.synthetic.lore_subjects import find_language, find_subject
from trainer.dataset.synthetic.reply_backends import ReplyBackend, ReplySession
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject
from trainer.process.run_control import run_until_terminated

COMBINED_FILE = "all_characters_synthetic.jsonl"
MAX_ATTEMPTS_PER_DIALOGUE = (
    12  # limit of attempts per requested dialogue, for models that are not up to it
)
WORLD_SHARE = 0.25
FOLLOW_UPS = "How do you feel about that?|Did it trouble you?|Tell me more.|And what did you say?|Why is that?".split(
    "|"
)
OPENING_TEMPLATES = (
    "Good evening. {}|{}|I have been wondering. {}|Sit with me a while. {}|{} I am new here.".split(
        "|"
    )
)


@dataclass(frozen=True)
class SynthesisRequest:
    """A request for dialogues. Every dialogue and the result are stored within `storing`."""

    persona: Persona
    passages: tuple[Passage, ...]
    count: int
    out: Path
    seed: int = 0
    storing: Storing = nullcontext

    @property
    def journal(self) -> Path:
        """The file of all attempts."""
        return self.out / f"{self.persona.id}_synthetic.attempts.jsonl"


@dataclass(frozen=True)
class SynthesisAttempt:
    """The plan of one attempt, by its number."""

    number: int
    passage: Passage
    questions: tuple[str, ...]
    seed: int


def synthesise_dialogues(request: SynthesisRequest, backend: ReplyBackend) -> dict[str, Any]:
    """Generate dialogues until `count` are kept: {made, kept, dropped: {reason: n}, file}. Raises
    `UnderstudyError`.

    Raises `MaterialError` if the folder belongs to another request, or the model does not yield
    enough, and `ErasedMeanwhileError`.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.out / ".synthetic.lock", timeout=0):
            return _run_synthesis(request, backend)
    except Timeout:
        raise MaterialError(
            f"Another run writes to {request.out}.", "Wait for it, or name another --out."
        ) from None


def _run_synthesis(request: SynthesisRequest, backend: ReplyBackend) -> dict[str, Any]:
    journal = _Journal(request, backend.name)
    reply_filter = ReplyFilter(request.persona, request.passages)
    for row in journal.kept:
        reply_filter.keep(_replies(row["messages"]))
    if len(journal.kept) < request.count:
        run_until_terminated(_generate_until_enough(request, backend, journal, reply_filter))
    kept = journal.kept[: request.count]
    file = request.out / f"{request.persona.id}_synthetic.jsonl"
    with request.storing():
        write_file_atomically(
            file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        )
        files = sorted(
            path for path in request.out.glob("*_synthetic.jsonl") if path.name != COMBINED_FILE
        )
        write_file_atomically(
            request.out / COMBINED_FILE, "".join(path.read_text("utf-8") for path in files)
        )
    dropped = dict(journal.dropped.most_common())
    result = {"made": journal.made, "kept": len(kept), "dropped": dropped, "file": str(file)}
    if len(kept) < request.count:
        reasons = ", ".join(
            f"{count} × {reason}" for reason, count in journal.dropped.most_common(3)
        )
        raise MaterialError(
            f"Of {journal.made} dialogues {len(kept)} could be kept ({reasons}); they are in "
            f"{file}.",
            "Use a larger model or the persona's adapter, or ask for fewer.",
        )
    return result


async def _generate_until_enough(
    request: SynthesisRequest, backend: ReplyBackend, journal: _Journal, reply_filter: ReplyFilter
) -> None:
    plain = LogProgress()
    async with backend.open_session() as session:
        with tqdm(total=request.count, initial=len(journal.kept), desc=request.persona.name, unit=" dialogues",
                  file=sys.stderr, disable=None) as bar:  # fmt: skip
            while (
                len(journal.kept) < request.count
                and journal.made < MAX_ATTEMPTS_PER_DIALOGUE * request.count
            ):
                missing = request.count - len(journal.kept)
                numbers = range(journal.made, journal.made + min(backend.at_once, missing))
                attempts = [plan_attempt(request, number) for number in numbers]
                done = await asyncio.gather(
                    *(_generate_dialogue(request, session, each) for each in attempts)
                )
                for each, messages in zip(attempts, done, strict=True):
                    fault = _fault(reply_filter, messages, each.passage)
                    journal.add(each, messages, fault)
                    if fault is None:
                        reply_filter.keep(_replies(messages))
                        bar.update()
                dropped = sum(journal.dropped.values())
                bar.set_postfix(dropped=dropped)
                kept = f"{request.persona.name}: {len(journal.kept)} of {request.count} dialogues"
                plain.update(f"{kept}, {dropped} dropped")


async def _generate_dialogue(
    request: SynthesisRequest, session: ReplySession, attempt: SynthesisAttempt
) -> list[dict[str, str]]:
    hit = LoreHit(attempt.passage.source, attempt.passage.heading, attempt.passage.text, 1.0)
    turns: list[Turn] = []
    for place, question in enumerate(attempt.questions):
        turns.append(Turn(EXAMPLE_USER, question))
        reply = await session.reply(request.persona, turns, hit, attempt.seed + place)
        turns.append(
            Turn(
                request.persona.name,
                reply.text if reply.complete else trim_to_sentence(reply.text),
                True,
            )
        )
        if not turns[-1].text:
            break
    roles = {True: "assistant", False: "user"}
    return [{"role": roles[turn.by_persona], "content": turn.text} for turn in turns]


def trim_to_sentence(text: str) -> str:
    """Cut the unfinished last sentence off a truncated reply."""
    ends = [
        match.end()
        for match in re.finditer(r"[.!?…][*\"”’)]*(?=\s|$)|[。！？…][*\"”’)」』]*", text)
    ]
    return text[: ends[-1]] if ends else ""


def _fault(reply_filter: ReplyFilter, messages: list[dict[str, str]], about: Passage) -> str | None:
    questions = [message["content"] for message in messages if message["role"] == "user"]
    for question, reply in zip(questions, _replies(messages), strict=True):
        if fault := reply_filter.fault(reply, question, about):
            return fault
    return None


def plan_attempt(request: SynthesisRequest, number: int) -> SynthesisAttempt:
    """Plan an attempt: every passage is used once before any repeats, in a seeded random order."""
    own = [passage for passage in request.passages if passage.owner != WORLD]
    world = _world_passages(request.passages, find_language(request.persona, own))
    shared = not own or (
        bool(world) and _seeded_index(request, f"world {number}", 1000) < 1000 * WORLD_SHARE
    )
    chosen = (world if shared else own) or list(request.passages)
    turn, place = divmod(number, len(chosen))
    ranked = sorted(
        range(len(chosen)),
        key=lambda index: _seeded_index(request, f"passage {turn} {index}", 2**48),
    )
    passage = chosen[ranked[place]]
    subject = find_subject(request.persona, own)
    question = (
        question_about(passage.heading, subject) if passage.heading else subject.follow_ups[-1]
    )
    rules = subject.rules if isinstance(subject, SubstitutedSubject) else None
    openers, follow_ups = (
        (rules.openers, rules.feelings) if rules else (OPENING_TEMPLATES, FOLLOW_UPS)
    )
    opener = openers[_seeded_index(request, f"opener {number}", len(openers))]
    follow_up = (
        follow_ups[_seeded_index(request, f"aside {number}", len(follow_ups))] if follow_ups else ""
    )
    questions = (opener.format(question), follow_up)[
        : 1 + _seeded_index(request, f"turns {number}", 2)
    ]
    seed = _seeded_index(request, f"seed {number}", 2**31 - 8)
    return SynthesisAttempt(number, passage, tuple(filter(None, questions)), seed)


@lru_cache(maxsize=1)
def _world_passages(passages: tuple[Passage, ...], language: str) -> list[Passage]:
    """Return the world's passages in the persona's language."""
    world = [passage for passage in passages if passage.owner == WORLD]
    return [passage for passage in world if detect_main_language([passage.text]) == language]


def _seeded_index(request: SynthesisRequest, what: str, below: int) -> int:
    key = f"understudy synthetic {request.seed}"
    message = f"{request.persona.id} {what}"
    digest = hmac.digest(key.encode(), message.encode(), "sha256")
    return int.from_bytes(digest[:8], "big") % below


class _Journal:
    """All attempts so far, on disk. A partial last line after a kill is removed, and its attempt
    repeated.
    """

    def __init__(self, request: SynthesisRequest, generator: str) -> None:
        self._request = request
        self._generator = generator
        self._path = request.journal
        self.kept: list[dict[str, Any]] = []
        self.dropped: Counter[str] = Counter()
        self.made = 0
        lines = list(self._whole_lines())
        if not lines:
            write_file_atomically(self._path, json.dumps(self._header()) + "\n")
        elif lines[0] != self._header():
            message = f"{self._path} contains dialogues of another model, card, lore or seed."
            raise MaterialError(message, "Name another --out.")
        for line in lines[1:]:
            self._count(line)

    def add(
        self, attempt: SynthesisAttempt, messages: list[dict[str, str]], fault: str | None
    ) -> None:
        """Record an attempt. Raises `ErasedMeanwhileError`."""
        passage = attempt.passage
        where = {"source": passage.source, "heading": passage.heading, "generator": self._generator,
                 "seed": attempt.seed, "attempt": attempt.number}  # fmt: skip
        row = {"messages": messages, "persona": self._request.persona.id, "provenance": where}
        line = {"row": row, "dropped": fault}
        with self._request.storing(), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        self.made += 1
        if line["dropped"]:
            self.dropped[line["dropped"]] += 1
        else:
            self.kept.append(line["row"])

    def _header(self) -> dict[str, Any]:
        material = repr(
            (self._request.persona.name, self._request.persona.description, self._request.passages)
        )
        return {"generator": self._generator, "seed": self._request.seed,
                "material": hashlib.sha256(material.encode()).hexdigest()}  # fmt: skip

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                raise MaterialError(
                    f"{self._path} is damaged.", "Remove it, or name another --out."
                ) from None


def _replies(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "assistant"]
