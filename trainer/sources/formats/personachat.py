"""PersonaChat: ConvAI2 and ParlAI text, ParlAI acts in YAML, Synthetic-Persona-Chat CSV, persona dialogue rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from trainer.sources.columns import ColumnRoles, Row, RowSchema, find_column
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    RawDialogue,
    Turns,
    UnusableRecordError,
    build_conversation,
    cell_list,
    cell_text,
    parse_transcript,
)
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

SILENCE = "__ SILENCE __"
SPEAKER_LABEL = re.compile(r"\s*(?:persona?|user|speaker)?\s*([AB12])\s*[:：]\s*", re.IGNORECASE)
REPLY_COLUMNS = tuple("reference response answer output label target reply next_utterance".split())
HISTORY_COLUMNS = tuple("dialogue dialog history context conversation".split())
OWN_PERSONA = re.compile(r"(?:your persona|_self_persona)\s*[:：]?\s*(.*)", re.IGNORECASE)
ABOUT_OTHERS = re.compile(
    r"(?:partner's persona|_partner_(?!say\b|act\b|emote\b)\w+|_self_say|_task_\w+)\b", re.IGNORECASE
)
SETTING = re.compile(r"_(setting_name|setting_desc|self_name|object_desc)\s+(.*)")
PARTNER_SAYS = re.compile(r"_partner_say\s+(.*)")
PARTNER_ACTS = re.compile(r"_partner_(?:act|emote)\s+(.*)")
NUMBERED = re.compile(r"(\d+) (.*)", re.DOTALL)
CSV_PERSONA_COLUMN, CSV_DIALOGUE_COLUMN = "user 2 personas", "Best Generated Conversation"


def join_facts(value: Any) -> str:
    """Join facts from a list or a text, one per line."""
    facts = cell_list(value)
    return "\n".join(cell_text(fact).strip() for fact in facts) if facts is not None else cell_text(value).strip()


def _plan_utterances(row: Row) -> ColumnRoles | None:
    if "personality" in row and (isinstance(row.get("utterances"), list) or {"history", "candidates"} <= row.keys()):
        return ColumnRoles({"facts": "personality"})
    return None


def _dialogue_from_utterances(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build the longest of the dialogue's states: its history, with the last candidate as the answer."""
    states = cell_list(row["utterances"]) if "utterances" in row else [row]
    if not states or not isinstance(states[-1], dict):
        raise UnusableRecordError("no utterances")
    history, candidates = cell_list(states[-1].get("history")), cell_list(states[-1].get("candidates"))
    if not history or not candidates:
        raise UnusableRecordError("an utterance without history or candidates")
    return RawDialogue.of(
        alternate_turns([*map(cell_text, history), cell_text(candidates[-1])]), join_facts(row["personality"])
    )


def alternate_turns(texts: list[str]) -> Turns:
    """Return texts of two alternating speakers, the last by the persona; silence is skipped."""
    turns = [("assistant" if place % 2 == 0 else "user", text) for place, text in enumerate(reversed(texts))]
    return [(role, text) for role, text in reversed(turns) if text.strip() != SILENCE]


def _plan_reference(row: Row) -> ColumnRoles | None:
    facts = find_column(row, "facts")
    said = next((name for name in HISTORY_COLUMNS if name in row), None)
    reference = next((name for name in REPLY_COLUMNS if name in row), None)
    if not facts or not said or not reference or isinstance(row[reference], list):
        return None
    return ColumnRoles({"facts": facts, "history": said, "assistant": reference})


def _dialogue_from_reference(row: Row, columns: ColumnRoles) -> RawDialogue:
    said = columns.get(row, "history")
    lines = cell_list(said)
    if lines is None:
        lines = [line for line in cell_text(said).splitlines() if line.strip()]
    texts = [cell_text(line) for line in lines]
    marks = [SPEAKER_LABEL.match(text) for text in texts]
    answer = cell_text(columns.get(row, "assistant"))
    if texts and all(marks):
        labels = [
            ("user" if mark[1].upper() in "A1" else "assistant", text[mark.end() :])
            for mark, text in zip(marks, texts, strict=True)
            if mark
        ]
        turns: Turns = [*labels, ("assistant", SPEAKER_LABEL.sub("", answer, count=1))]
    else:
        turns = alternate_turns([*texts, answer])
    return RawDialogue.of(turns, join_facts(columns.get(row, "facts")))


PERSONA_SCHEMAS: tuple[RowSchema, ...] = (
    RowSchema(
        "personality",
        "PersonaChat with candidates",
        '{"personality": […], "utterances": [{"history": […], "candidates": […]}]}',
        _plan_utterances,
        _dialogue_from_utterances,
    ),
    RowSchema(
        "persona-rows",
        "Facts, dialogue, next line",
        '{"persona_b": […], "dialogue": […], "reference": "…"}',
        _plan_reference,
        _dialogue_from_reference,
    ),
)


class _Episode:
    """A dialogue under construction: facts, turns, and its number of records."""

    def __init__(self, place: str) -> None:
        self.place, self.rows = place, 0
        self._facts: list[str] = []
        self._turns: list[tuple[str, str]] = []

    def add(self, text: str, label: str) -> None:
        """Add a partner's turn (preceded by facts) and the persona's answer."""
        heard = [line for line in text.splitlines() if not self._is_fact(line.strip())]
        said = "\n".join(heard).strip()
        if said and said != SILENCE:
            self._turns.append(("user", said))
        if label.strip():
            self._turns.append(("assistant", label))

    def _is_fact(self, line: str) -> bool:
        if own := OWN_PERSONA.match(line) or SETTING.match(line):
            self._facts.append(own[own.lastindex or 1].strip())
            return True
        return bool(ABOUT_OTHERS.match(line)) or line.startswith("_self_")

    def finish(self, options: ReadOptions) -> Conversation | RejectedRecord:
        """Return the dialogue as a conversation."""
        turns = [(role, PARTNER_ACTS.sub(r"*\1*", PARTNER_SAYS.sub(r"\1", text))) for role, text in self._turns]
        return build_conversation(RawDialogue.of(turns, "\n".join(self._facts)), self.place, options, self.rows)


# ------------------------------------------------------------------------------------------------ text


def _recognises_text(peek: Peek) -> bool:
    lines = [line for line in peek.text.splitlines()[:-1] or [peek.text] if line.strip()][:64]
    numbered = [match for line in lines if (match := NUMBERED.match(line))]
    talk = sum(
        "\t" in match[2] or bool(OWN_PERSONA.match(match[2])) or bool(ABOUT_OTHERS.match(match[2]))
        for match in numbered
    )
    return peek.kind in ("text", "TSV", "CSV") and bool(lines) and talk >= 0.8 * len(lines)


def _read_text(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Read lines numbered from 1 within a dialogue: facts, then `said TAB answer TAB reward TAB candidates`."""
    episode = None
    for number, line in enumerate(file.lines(), start=1):
        place, line = f"line {number}", line.rstrip("\r\n")
        if not line.strip():
            continue
        match = NUMBERED.match(line)
        if not match:
            yield RejectedRecord(place, "a line without number")
            continue
        if episode and int(match[1][:9]) == 1:
            yield episode.finish(options)
            episode = None
        episode = episode or _Episode(place)
        said, _, rest = match[2].partition("\t")
        episode.add(said, rest.split("\t")[0])
        episode.rows += 1
    if episode:
        yield episode.finish(options)


def _recognises_fields(peek: Peek) -> bool:
    lines = [line for line in peek.text.splitlines()[:-1] or [peek.text] if line.strip()][:64]
    fields = sum(line.startswith("text:") and "\tlabels:" in line for line in lines)
    return bool(lines) and 2 * fields > len(lines)


def _read_fields(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Read one act per line: `text:…TAB labels:…TAB episode_done:True`."""
    episode = None
    for number, line in enumerate(file.lines(), start=1):
        if not line.strip():
            continue
        fields = dict(cell.partition(":")[::2] for cell in line.rstrip("\r\n").split("\t"))
        if "text" not in fields:
            yield RejectedRecord(f"line {number}", "no text: field")
            continue
        episode = episode or _Episode(f"line {number}")
        label = fields.get("labels", fields.get("eval_labels", "")).split("|")[0]
        episode.add(*(part.replace("\\n", "\n").replace("<NEWL>", "\n") for part in (fields["text"], label)))
        episode.rows += 1
        if fields.get("episode_done") == "True":
            yield episode.finish(options)
            episode = None
    if episode:
        yield episode.finish(options)


# ------------------------------------------------------------------------------------------------ acts


def _recognises_acts(peek: Peek) -> bool:
    return peek.kind == "YAML" and peek.text.startswith("acts:") and "text:" in peek.text


def _read_acts(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    episode = None
    for place, act in _acts(file):
        if not isinstance(act, dict):
            yield RejectedRecord(place, act)
            continue
        labels = act.get("labels") or act.get("eval_labels") or act.get("labels_choice") or []
        episode = episode or _Episode(place)
        episode.add(_plain(act.get("text")), _plain(labels[0] if isinstance(labels, list) and labels else ""))
        episode.rows += 1
        if act.get("episode_done") is True:
            yield episode.finish(options)
            episode = None
    if episode:
        yield episode.finish(options)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _acts(file: SourceFile) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield the acts, or the reason why one cannot be read. Each item of the list `acts` is parsed separately."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    number = 0
    for block in _blocks(file):
        try:
            items = yaml.load(block, loader)
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            number += 1
            yield f"act {number}", f"not valid YAML: {str(error).splitlines()[0]}"
            continue
        for item in items if isinstance(items, list) else [items]:
            for act in item if isinstance(item, list) else [item]:
                number += 1
                yield f"act {number}", act if isinstance(act, dict) else "no act"


def _blocks(file: SourceFile) -> Iterator[str]:
    """Yield the items of the list under `acts:` as text; everything outside that list is ignored."""
    block: list[str] = []
    inside = False
    for line in file.lines():
        if line[:1] not in (" ", "-", "\n", "\r", "#"):
            inside, line = line.startswith("acts:"), ""
        if line.startswith("- ") and block:
            yield "".join(block)
            block = []
        if inside and line:  # empty lines mean something inside quoted texts
            block.append(line)
        elif block and not inside:
            yield "".join(block)
            block = []
    if block:
        yield "".join(block)


# ------------------------------------------------------------------------------------------------ CSV


def _recognises_csv(peek: Peek) -> bool:
    return {CSV_PERSONA_COLUMN, CSV_DIALOGUE_COLUMN} <= {
        *peek.columns,
        *(name for row in peek.records[:1] for name in row),
    }


def _read_csv(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        turns = parse_transcript(cell_text(row.get(CSV_DIALOGUE_COLUMN)))
        if not turns:
            yield RejectedRecord(place, "no line says who speaks")
        else:
            yield build_conversation(RawDialogue.of(turns, join_facts(row.get(CSV_PERSONA_COLUMN))), place, options)


FORMATS = (
    SourceFormat(
        "convai2",
        "PersonaChat text (ConvAI2, ParlAI)",
        "numbered lines: 1 your persona: …; 2 said TAB answer TAB reward TAB candidates",
        _recognises_text,
        _read_text,
    ),
    SourceFormat(
        "parlai-text",
        "ParlAI dialogue text",
        "a line an act: text:… TAB labels:… TAB episode_done:True",
        _recognises_fields,
        _read_fields,
    ),
    SourceFormat("parlai", "ParlAI acts", "YAML: acts: [[{text, labels, episode_done}]]", _recognises_acts, _read_acts),
    SourceFormat(
        "synthetic-persona-chat",
        "Synthetic-Persona-Chat",
        f"CSV with user 1 personas, {CSV_PERSONA_COLUMN}, {CSV_DIALOGUE_COLUMN}",
        _recognises_csv,
        _read_csv,
    ),
)
