"""Has a teacher write a persona's replies into a job's folder, resumable after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file
from personas.home.written_replies import (
    ATTEMPTS_FILE,
    SUMMARY_FILE,
    Author,
    WrittenReply,
    read_earlier_jobs,
    read_struck,
    read_summary,
    read_written,
    store_written,
    struck_file,
    written_file,
)
from personas.lore.index import LoreIndex
from personas.lore.passages import Passage
from personas.lore.ranking import MAX_LORE_PASSAGES
from personas.outside_names import UnsafeNameError, path_inside
from personas.prompt.renderer import EXAMPLE_USER, system_text
from personas.schemas.chat import LoreHit, Persona, Turn
from personas.schemas.training import WrittenReplies
from trainer.dataset.synthetic.attempt_journal import append_to_journal, read_journal
from trainer.dataset.synthetic.card_replies import LoreAnswers, ReplyLength, sincere_replies
from trainer.dataset.synthetic.dialogue_synthesis import trim_to_sentence
from trainer.dataset.synthetic.question_bank import CARD, LORE, Question
from trainer.dataset.synthetic.reply_backends import (
    PromptRefusedError,
    ReplyBackend,
    ReplySession,
    ServerRefusesError,
)
from trainer.dataset.synthetic.speaking_notes import speaking_notes, with_closing_instructions
from trainer.dataset.synthetic.speaking_style import measure_style
from trainer.teacher.reply_judge import ReplyJudge
from trainer.teacher.restyle import lower_if_small, restyle

MIN_SHARE = 0.3
"""With fewer of the replies that are left to the teacher than this share, nothing is trained."""
FEW_QUESTIONS = 60
"""After so many questions without a good reply, the others are not asked."""
MAX_REFUSED_QUESTIONS = 5
"""After so many questions that the teacher's server refused, one after another, the fault is not
theirs.
"""
GUEST = re.compile(rf"\b{EXAMPLE_USER}\b")
GREETINGS = (
    *("hey", "hi", "hello", "hiya", "yo", "bye", "goodbye", "thanks", "thank you"),
    *("good morning", "good afternoon", "good evening", "good night"),
)
AFTER_GREETING = "|".join(rf"(?<=\b{greeting} )" for greeting in GREETINGS)
SMALL_GUEST = re.compile(
    rf"\b{EXAMPLE_USER}\b"
    rf"|(?i:(?:{AFTER_GREETING})guest\b"
    r"|(?<=, )guest\b(?!['’-]|\s+\w)|(?:^|(?<=[.!?…] ))guest(?=,))",
    re.MULTILINE,
)
"""In small letters, the name is a word: it is whoever asks where somebody is addressed by it."""
STOP_POLL_INTERVAL_S = 0.5
"""While replies are awaited, it is asked so often whether to stop."""
WritingProgress = Callable[[int, int], None]
"""Gets the number of the replies that are kept, and of the questions that were asked."""


@dataclass(frozen=True)
class WritingTask:
    """What is to be written: `count` replies to the first of the questions that get a good one.

    `drafts` are written for each question, and one is kept. `written_by` tells teachers of the same
    name apart.
    """

    persona: Persona
    lore: LoreIndex | None
    questions: Sequence[Question]
    count: int
    drafts: int
    seed: int
    licence: str = ""
    written_by: str = ""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The passages of the lore."""
        return tuple(self.lore.passages) if self.lore else ()


def write_replies(
    job: Path,
    task: WritingTask,
    backend: ReplyBackend,
    between: Callable[[], None] = lambda: None,
    progress: WritingProgress = lambda kept, asked: None,
    resumed: WritingProgress = lambda kept, asked: None,
    fence: Callable[[], None] = lambda: None,
) -> None:
    """Write a task's replies and the summary into a job's folder.

    `between` is called between two questions, and while replies are awaited; it may raise to stop.
    `progress` gets the numbers of replies and questions so far, and `resumed`, first, those which a
    stopped writing left; `fence` is called before the file gets its name. A killed or stopped
    writing goes on where it was.
    Raises `MaterialError` where too few replies are good enough, and `UnderstudyError` where the
    teacher fails.
    """
    journal = _Journal(written_file(job).parent / ATTEMPTS_FILE, task, teacher=backend.name)
    notes = speaking_notes(task.persona, task.passages)
    judge = ReplyJudge(task.persona, task.passages, notes)
    for reply in journal.kept:
        judge.keep(reply.reply)
    writing = _Writing(task, backend, journal=journal, judge=judge, notes=notes)
    resumed(len(journal.kept), journal.asked)
    if not writing.is_done:
        asyncio.run(writing.run(between, progress))
    _require_enough(task, journal, teacher=backend.name)
    summary = WrittenReplies(
        teacher=backend.name,
        licence=task.licence,
        asked=journal.asked,
        kept=len(journal.kept),
        by_rules=len(journal.kept) - journal.by_teacher,
        dropped=dict(journal.dropped.most_common()),
    )
    fence()
    folder = written_file(job).parent
    write_private_file(folder / SUMMARY_FILE, _format_summary(summary))
    store_written(written_file(job), journal.kept)


def take_over_replies(
    job: Path, task: WritingTask, teacher: str, fence: Callable[[], None] = lambda: None
) -> str:
    """Take over the replies to the same task from the first of a job's earlier ones that has written
    them to their end: as they were changed there, with what was struck out.

    Returns that job's id, empty where there is none. `fence` is called before anything is stored.
    Raises `MaterialError` where the list of earlier jobs is damaged.
    """
    folder = written_file(job).parent
    header = _first_line(_header(task, teacher))
    for job_id in read_earlier_jobs(job):
        try:
            old = path_inside(job.parent, job_id)
            attempts = (written_file(old).parent / ATTEMPTS_FILE).read_bytes()
            if not attempts.startswith(header):
                continue
            summary = read_summary(old)
            replies = read_written(written_file(old))
            struck = read_struck(old)
        except (
            OSError,
            MaterialError,
            UnsafeNameError,
        ):  # not written to its end, being deleted, or damaged
            continue
        if summary is None:
            continue
        fence()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store_written(struck_file(job), struck)
        changes = {"licence": task.licence, "taken_from": job_id}
        write_private_file(folder / SUMMARY_FILE, _format_summary(summary, **changes))
        store_written(written_file(job), replies)
        # Last: a whole journal without the replies would make them anew from the unedited drafts.
        write_private_file(folder / ATTEMPTS_FILE, attempts)
        return job_id
    return ""


def _format_summary(summary: WrittenReplies, **changes: str) -> bytes:
    return summary.model_copy(update=changes).model_dump_json(indent=1).encode() + b"\n"


def _require_enough(task: WritingTask, journal: _Journal, teacher: str) -> None:
    kept = journal.by_teacher
    by_rules = len(journal.kept) - kept
    wanted = min(task.count, len(task.questions)) - by_rules
    if journal.kept and kept >= MIN_SHARE * wanted:
        return
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in journal.dropped.most_common(4))
    raise MaterialError(
        f"{teacher} wrote too few usable replies for {task.persona.name}: {kept} of {wanted}, to "
        f"{journal.asked} questions. Left out: {reasons or 'nothing'}.",
        "Name a larger teacher (TEACHER), or add example dialogue to the card: three examples show "
        "how it speaks.",
    )


@dataclass(frozen=True)
class _Draft:
    """What came of a prompt: a text, or why there is none."""

    text: str
    fault: str = ""


@dataclass(frozen=True)
class _Asked:
    """A question that was asked: the drafts that are written, or what nobody has to write."""

    number: int
    drafts: tuple[asyncio.Task[_Draft], ...] = ()
    given: str = ""
    from_lore: str = ""


class _Writing:
    """Asks the questions in order, several at once, and judges the drafts in the same order: a reply
    is compared with those before it, and a resumed writing has to judge as a whole one does.
    """

    def __init__(
        self,
        task: WritingTask,
        backend: ReplyBackend,
        journal: _Journal,
        judge: ReplyJudge,
        notes: str,
    ) -> None:
        self._task = task
        self._backend = backend
        self._journal = journal
        self._judge = judge
        self._asked_persona, self._instructions = with_closing_instructions(
            task.persona, EXAMPLE_USER, notes
        )
        self._length = ReplyLength.measure(task.persona)
        self._style = measure_style(task.persona)
        self._known = LoreAnswers(task.persona, task.passages)
        self._given = sincere_replies(task.persona, says_i=self._style.says_i)
        card = (task.persona.mes_example, task.persona.first_mes, system_text(task.persona, ""))
        self._guest = GUEST if self._style.capitals else SMALL_GUEST
        self._card_has_guest = any(map(self._guest.search, card))
        self._next = journal.asked
        self._pending: deque[_Asked] = deque()
        self._refusals = 0

    @property
    def is_done(self) -> bool:
        """True if there are enough replies, no more questions, or no hope."""
        journal = self._journal
        if len(journal.kept) >= self._task.count or journal.asked >= len(self._task.questions):
            return True
        return not journal.by_teacher and journal.asked >= FEW_QUESTIONS

    async def run(self, between: Callable[[], None], progress: WritingProgress) -> None:
        """Ask and judge until it is done."""
        writing: list[asyncio.Task[_Draft]] = []
        async with self._backend.open_session() as session:
            at_once = asyncio.Semaphore(self._backend.at_once)
            try:
                while not self.is_done:
                    between()
                    self._ask_ahead(session, at_once)
                    writing = [task for asked in self._pending for task in asked.drafts]
                    asked = self._pending.popleft()
                    await self._wait_for(asked, between)
                    self._judge_drafts(asked, [task.result() for task in asked.drafts])
                    progress(len(self._journal.kept), self._journal.asked)
            finally:
                # All of them end before the session does.
                for task in writing:
                    task.cancel()
                await asyncio.gather(*writing, return_exceptions=True)

    async def _wait_for(self, asked: _Asked, between: Callable[[], None]) -> None:
        """Wait until all drafts are written. A stop does not wait for a server that hangs."""
        open_drafts: set[asyncio.Task[_Draft]] = set(asked.drafts)
        while open_drafts:
            ended, open_drafts = await asyncio.wait(
                open_drafts,
                timeout=STOP_POLL_INTERVAL_S,
                return_when=asyncio.FIRST_EXCEPTION,
            )
            for task in ended:
                task.result()  # raises what the teacher's failure is
            if open_drafts:
                between()

    def _ask_ahead(self, session: ReplySession, at_once: asyncio.Semaphore) -> None:
        most = self._backend.at_once
        while len(self._pending) < most and self._next < len(self._task.questions):
            self._pending.append(self._ask(session, at_once, self._next))
            self._next += 1

    def _ask(self, session: ReplySession, at_once: asyncio.Semaphore, number: int) -> _Asked:
        question = self._task.questions[number]
        if given := self._given.get(question.text):
            return _Asked(number, given=restyle(given, self._style))
        persona = self._task.persona
        lore: list[LoreHit] = []
        if self._task.lore:
            lore = self._task.lore.search(persona.id, question.text, MAX_LORE_PASSAGES)
        # As in the card's examples: of somebody with a name of their own, small models speak.
        turns = [Turn(EXAMPLE_USER, question.text)]

        async def draft(place: int) -> _Draft:
            seed = self._seeded(f"draft {number} {place}", 2**31 - 1)
            async with at_once:
                try:
                    reply = await session.reply(
                        self._asked_persona,
                        turns,
                        lore=lore,
                        seed=seed,
                        instructions=self._instructions,
                        max_tokens=self._length.tokens,
                    )
                except PromptRefusedError as error:
                    self._refusals += 1
                    if self._refusals < self._most_refusals:
                        return _Draft("", "refused by the server")
                    if self._journal.by_teacher:  # a server that has taken others may do so again
                        raise ServerRefusesError(error.message, error.advice) from error
                    raise
            self._refusals = 0
            text = reply.text
            if not reply.complete:
                text = trim_to_sentence(text)
                if not text:
                    return _Draft("", "cut off")
            if not text:
                return _Draft("", "empty")
            return _Draft(restyle(self._length.cut(text), self._style))

        drafts = [asyncio.create_task(draft(place)) for place in range(self._task.drafts)]
        known = self._known.answer(lore, question.text) if question.kind == LORE else ""
        return _Asked(number, tuple(drafts), from_lore=restyle(known, self._style))

    @property
    def _most_refusals(self) -> int:
        """The drafts of some questions: if all are refused one after another, no other is asked for."""
        return MAX_REFUSED_QUESTIONS * self._task.drafts

    def _judge_drafts(self, asked: _Asked, drafts: Sequence[_Draft]) -> None:
        question = self._task.questions[asked.number]
        by: Author = "given"
        best = asked.given
        faults: list[str] = []
        if not best:
            best, faults = self._judge.choose(
                question.text,
                [draft.text for draft in drafts if not draft.fault],
                asked.from_lore,
                asks_facts=question.kind in (CARD, LORE),
            )
            faults += [draft.fault for draft in drafts if draft.fault]
            by = "lore" if best == asked.from_lore else "teacher"
        reply = None
        if best:
            said = lower_if_small(self._without_guest(best), self._style)
            reply = WrittenReply(
                asked.number, question.text, said, kind=question.kind, lang=question.lang, by=by
            )
            self._judge.keep(said)
        self._journal.add(asked.number, reply, faults)

    def _without_guest(self, reply: str) -> str:
        """Return a reply with the macro of whoever asks in place of the name that the teacher was
        given for them, or a version would call every member so.
        """
        return reply if self._card_has_guest else self._guest.sub("{{user}}", reply)

    def _seeded(self, what: str, below: int) -> int:
        """Return a number below `below` that follows from the seed, the persona and `what` alone."""
        key = f"understudy teacher {self._task.seed}"
        digest = hmac.digest(key.encode(), f"{self._task.persona.id} {what}".encode(), "sha256")
        return int.from_bytes(digest[:8], "big") % below


class _Journal:
    """All questions asked so far, on disk. A partial last line after a kill is removed, and its
    question asked again; a journal of another teacher, card, lore or seed is begun anew.
    A new one goes on with the same writing of another job beside it that was stopped.
    """

    def __init__(self, path: Path, task: WritingTask, teacher: str) -> None:
        self._path = path
        self.kept: list[WrittenReply] = []
        self.dropped: Counter[str] = Counter()
        self.asked = 0
        header = _header(task, teacher)
        advice = f"Remove {path.parent} and run the same job again."
        lines = read_journal(path, advice)
        if lines[:1] != [header]:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            start = _first_line(header)
            write_private_file(path, start + _stopped_writing(path, start, len(task.questions)))
            lines = read_journal(path, advice)
        for line in lines[1:]:
            self._count(line)

    @property
    def by_teacher(self) -> int:
        """The number of replies that the teacher has written."""
        return sum(reply.by == "teacher" for reply in self.kept)

    def add(self, number: int, reply: WrittenReply | None, faults: Sequence[str]) -> None:
        """Record what became of a question."""
        line = {
            "number": number,
            "reply": asdict(reply) if reply else None,
            "faults": list(faults),
        }
        append_to_journal(self._path, line)
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        self.asked = line["number"] + 1
        self.dropped.update(line["faults"])
        if line["reply"]:
            self.kept.append(WrittenReply(**line["reply"]))


def _stopped_writing(path: Path, start: bytes, questions: int) -> bytes:
    """Return the longest beginning of the same writing in the folder of another job, which was
    stopped before it ended; empty if there is none. `start` is the journal's first line.
    """
    written = b""
    for file in path.parents[2].glob(f"*/{path.parent.name}/{path.name}"):
        if file == path or (file.parent / SUMMARY_FILE).exists():
            continue
        with suppress(OSError, ValueError):  # it is being deleted, or damaged
            data = file.read_bytes()
            lines = data[len(start) : data.rfind(b"\n") + 1]
            for line in lines.splitlines():
                json.loads(line)
            # With all questions asked, or no reply of the teacher's, it has failed.
            is_open = lines.count(b"\n") < questions and b'"by": "teacher"' in lines
            if data.startswith(start) and is_open and len(lines) > len(written):
                written = lines
    return written


def _first_line(header: dict[str, Any]) -> bytes:
    return json.dumps(header).encode() + b"\n"


def _header(task: WritingTask, teacher: str) -> dict[str, Any]:
    questions = [question.text for question in task.questions]
    material = repr((task.persona, task.passages, questions, task.drafts, task.written_by))
    return {
        "teacher": teacher,
        "seed": task.seed,
        "material": hashlib.sha256(material.encode()).hexdigest(),
    }
