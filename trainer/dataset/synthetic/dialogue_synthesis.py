"""Synthesises in-character dialogues about lore with a model, resumable after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
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
from personas.lore.passages import Passage, is_lore_set
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import LoreHit, Persona, Turn
from trainer.dataset.synthetic.attempt_journal import append_to_journal, read_journal
from trainer.dataset.synthetic.extraction_files import write_file_atomically
from trainer.dataset.synthetic.lore_extraction import question_about
from trainer.dataset.synthetic.lore_subjects import find_language, find_subject
from trainer.dataset.synthetic.reply_backends import ReplyBackend, ReplySession
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject
from trainer.languages import detect_main_language
from trainer.process.run_control import run_until_terminated

COMBINED_FILE = "all_characters_synthetic.jsonl"
MAX_ATTEMPTS_PER_DIALOGUE = 12  # so that a model that is not up to it is not asked for ever
WORLD_SHARE = 0.25
REPLY_END = re.compile(r"[.!?…][*\"”’)]*(?=\s|$)|[。！？…][*\"”’)」』]*")
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
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in kept]
    with request.storing():
        write_file_atomically(file, "".join(lines))
        # The combined file's own name matches the pattern of those that it is made of.
        names = sorted(request.out.glob("*_synthetic.jsonl"))
        parts = [path.read_text("utf-8") for path in names if path.name != COMBINED_FILE]
        write_file_atomically(request.out / COMBINED_FILE, "".join(parts))
    if len(kept) < request.count:
        commonest = journal.dropped.most_common(3)
        reasons = ", ".join(f"{count} × {reason}" for reason, count in commonest)
        raise MaterialError(
            f"Of {journal.made} dialogues {len(kept)} could be kept ({reasons}); they are in "
            f"{file}.",
            "Use a larger model or the persona's adapter, or ask for fewer.",
        )
    dropped = dict(journal.dropped.most_common())
    return {"made": journal.made, "kept": len(kept), "dropped": dropped, "file": str(file)}


async def _generate_until_enough(
    request: SynthesisRequest, backend: ReplyBackend, journal: _Journal, reply_filter: ReplyFilter
) -> None:
    plain = LogProgress()
    most = MAX_ATTEMPTS_PER_DIALOGUE * request.count
    async with backend.open_session() as session:
        with tqdm(total=request.count, initial=len(journal.kept), desc=request.persona.name, unit=" dialogues",
                  file=sys.stderr, disable=None) as bar:  # fmt: skip
            while len(journal.kept) < request.count and journal.made < most:
                missing = request.count - len(journal.kept)
                numbers = range(journal.made, journal.made + min(backend.at_once, missing))
                attempts = [plan_attempt(request, number) for number in numbers]
                dialogues = [_generate_dialogue(request, session, plan) for plan in attempts]
                finished = await asyncio.gather(*dialogues)
                # Judged in the order of their numbers, not of their ends: the filter compares a
                # reply with those before it, and a resumed run has to judge as this one does.
                for plan, messages in zip(attempts, finished, strict=True):
                    fault = _fault(reply_filter, messages, plan.passage)
                    journal.add(plan, messages, fault)
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
        reply = await session.reply(request.persona, turns, (hit,), attempt.seed + place)
        text = reply.text if reply.complete else trim_to_sentence(reply.text)
        turns.append(Turn(request.persona.name, text, True))
        if not text:
            break
    roles = {True: "assistant", False: "user"}
    return [{"role": roles[turn.by_persona], "content": turn.text} for turn in turns]


def trim_to_sentence(text: str) -> str:
    """Cut the unfinished last sentence off a truncated reply."""
    end = 0
    for match in REPLY_END.finditer(text):
        end = match.end()
    return text[:end]


def _fault(reply_filter: ReplyFilter, messages: list[dict[str, str]], about: Passage) -> str | None:
    questions = [message["content"] for message in messages if message["role"] == "user"]
    for question, reply in zip(questions, _replies(messages), strict=True):
        fault = reply_filter.fault(reply, question, about)
        if fault:
            return fault
    return None


def plan_attempt(request: SynthesisRequest, number: int) -> SynthesisAttempt:
    """Plan an attempt: every passage is used once before any repeats, in a seeded random order."""
    # Each choice is a hash of the attempt's number, so that a resumed run plans what a whole one
    # would have, whatever was asked before.
    own = [passage for passage in request.passages if not is_lore_set(passage.owner)]
    world = _world_passages(request.passages, find_language(request.persona, own))
    takes_world = not own
    if own and world:
        takes_world = _seeded_index(request, f"world {number}", 1000) < 1000 * WORLD_SHARE
    chosen = world if takes_world else own
    passages = chosen or list(request.passages)
    turn, place = divmod(number, len(passages))
    order = sorted(
        range(len(passages)),
        key=lambda index: _seeded_index(request, f"passage {turn} {index}", 2**48),
    )
    passage = passages[order[place]]
    subject = find_subject(request.persona, own)
    if passage.heading:
        question = question_about(passage.heading, subject)
    else:
        question = subject.follow_ups[-1]
    openers: Sequence[str] = OPENING_TEMPLATES
    follow_ups: Sequence[str] = FOLLOW_UPS
    if isinstance(subject, SubstitutedSubject):
        openers = subject.rules.openers
        follow_ups = subject.rules.feelings
    opener = openers[_seeded_index(request, f"opener {number}", len(openers))]
    questions = [opener.format(question)]
    has_second_turn = _seeded_index(request, f"turns {number}", 2) == 1
    if has_second_turn and follow_ups:
        questions.append(follow_ups[_seeded_index(request, f"aside {number}", len(follow_ups))])
    seed = _seeded_index(request, f"seed {number}", 2**31 - 8)
    return SynthesisAttempt(number, passage, tuple(filter(None, questions)), seed)


@lru_cache(maxsize=1)  # every attempt asks for them, and to detect a language takes time
def _world_passages(passages: tuple[Passage, ...], language: str) -> list[Passage]:
    """Return the world's passages in the persona's language."""
    world = [passage for passage in passages if is_lore_set(passage.owner)]
    return [passage for passage in world if detect_main_language([passage.text]) == language]


def _seeded_index(request: SynthesisRequest, what: str, below: int) -> int:
    """Return a number below `below` that follows from the seed, the persona and `what` alone."""
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
        lines = read_journal(self._path, "Remove it, or name another --out.")
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
        with self._request.storing():
            append_to_journal(self._path, line)
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        self.made += 1
        if line["dropped"]:
            self.dropped[line["dropped"]] += 1
        else:
            self.kept.append(line["row"])

    def _header(self) -> dict[str, Any]:
        persona = self._request.persona
        material = repr((persona.name, persona.description, self._request.passages))
        return {"generator": self._generator, "seed": self._request.seed,
                "material": hashlib.sha256(material.encode()).hexdigest()}  # fmt: skip


def _replies(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "assistant"]
