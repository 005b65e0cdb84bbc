"""PersonaChat: ConvAI2 and ParlAI text, ParlAI acts in YAML, Synthetic-Persona-Chat CSV, persona
dialogue rows.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from trainer.sources.columns import ColumnRoles, Row, RowSchema, find_column
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    RawDialogue,
    Turns,
    build_conversation,
    parse_transcript,
)
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.table_reader import first_line

SILENCE = "__ SILENCE __"
SPEAKER_LABEL = re.compile(r"\s*(?:persona?|user|speaker)?\s*([AB12])\s*[:：]\s*", re.IGNORECASE)
REPLY_COLUMNS = tuple("reference response answer output label target reply next_utterance".split())
HISTORY_COLUMNS = tuple("dialogue dialog history context conversation".split())
OWN_PERSONA = re.compile(r"(?:your persona|_self_persona)\s*[:：]?\s*(.*)", re.IGNORECASE)
ABOUT_OTHERS = re.compile(
    r"(?:partner's persona|_partner_(?!say\b|act\b|emote\b)\w+|_self_say|_task_\w+)\b",
    re.IGNORECASE,
)
SETTING = re.compile(r"_(setting_name|setting_desc|self_name|object_desc)\s+(.*)")
PARTNER_SAYS = re.compile(r"_partner_say\s+(.*)")
PARTNER_ACTS = re.compile(r"_partner_(?:act|emote)\s+(.*)")
NUMBERED = re.compile(r"(\d+) (.*)", re.DOTALL)
CSV_SPEAKERS = {"user 1": "user", "user 2": "assistant"}
CSV_PERSONA_COLUMN = "user 2 personas"
CSV_DIALOGUE_COLUMN = "Best Generated Conversation"


def join_facts(value: Any) -> str:
    """Join facts from a list or a text, one per line."""
    facts = cell_list(value)
    return (
        "\n".join(cell_text(fact).strip() for fact in facts)
        if facts is not None
        else cell_text(value).strip()
    )


def _plan_utterances(row: Row) -> ColumnRoles | None:
    if "personality" in row and (
        isinstance(row.get("utterances"), list) or {"history", "candidates"} <= row.keys()
    ):
        return ColumnRoles({"facts": "personality"})
    return None


def _dialogue_from_utterances(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build the longest of the dialogue's states: its history, with the last candidate as the
    answer.
    """
    states = cell_list(row["utterances"]) if "utterances" in row else [row]
    if not states or not isinstance(states[-1], dict):
        raise UnusableRecordError("no utterances")
    history = cell_list(states[-1].get("history"))
    candidates = cell_list(states[-1].get("candidates"))
    if not history or not candidates:
        raise UnusableRecordError("an utterance without history or candidates")
    return RawDialogue.of(
        alternate_turns([*map(cell_text, history), cell_text(candidates[-1])]),
        join_facts(row["personality"]),
    )


def alternate_turns(texts: list[str]) -> Turns:
    """Return texts of two alternating speakers, the last by the persona; silence is skipped."""
    turns = [
        ("assistant" if place % 2 == 0 else "user", text)
        for place, text in enumerate(reversed(texts))
    ]
    return [(role, text) for role, text in reversed(turns) if text.strip() != SILENCE]


def _plan_reference(row: Row) -> ColumnRoles | None:
    facts = find_column(row, "facts")
    history = next((name for name in HISTORY_COLUMNS if name in row), None)
    reference = next((name for name in REPLY_COLUMNS if name in row), None)
    if not facts or not history or not reference or isinstance(row[reference], list):
        return None
    return ColumnRoles({"facts": facts, "history": history, "assistant": reference})


def _dialogue_from_reference(row: Row, columns: ColumnRoles) -> RawDialogue:
    history = columns.get(row, "history")
    lines = cell_list(history)
    if lines is None:
        lines = [line for line in cell_text(history).splitlines() if line.strip()]
    texts = [cell_text(line) for line in lines]
    marks = [SPEAKER_LABEL.match(text) for text in texts]
    answer = cell_text(columns.get(row, "assistant"))
    if texts and all(marks):
        labelled = ((mark, text) for mark, text in zip(marks, texts, strict=True) if mark)
        turns: Turns = [
            *(
                ("user" if mark[1].upper() in "A1" else "assistant", text[mark.end() :])
                for mark, text in labelled
            ),
            ("assistant", SPEAKER_LABEL.sub("", answer, count=1)),
        ]
    else:
        turns = alternate_turns([*texts, answer])
    return RawDialogue.of(turns, join_facts(columns.get(row, "facts")))


PERSONALITY_ROW = '{"personality": […], "utterances": [{"history": […], "candidates": […]}]}'
REFERENCE_ROW = '{"persona_b": […], "dialogue": […], "reference": "…"}'
PERSONA_SCHEMAS = (
    RowSchema(
        "personality",
        "PersonaChat with candidates",
        PERSONALITY_ROW,
        plan=_plan_utterances,
        parse=_dialogue_from_utterances,
    ),
    RowSchema(
        "persona-rows",
        "Facts, dialogue, next line",
        REFERENCE_ROW,
        plan=_plan_reference,
        parse=_dialogue_from_reference,
    ),
)


@dataclass(frozen=True)
class _Act:
    """A partner's turn, which facts may precede, and the persona's answer."""

    place: str
    text: str
    answer: str
    is_first: bool = False
    is_last: bool = False


class _Episode:
    """A dialogue under construction: facts, turns, and its number of records."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._rows = 0
        self._facts: list[str] = []
        self._turns: list[tuple[str, str]] = []

    def add(self, text: str, label: str) -> None:
        """Add the texts of an act."""
        self._rows += 1
        prompt = "\n".join(
            line for line in text.splitlines() if not self._is_fact(line.strip())
        ).strip()
        if prompt and prompt != SILENCE:
            self._turns.append(("user", prompt))
        if label.strip():
            self._turns.append(("assistant", label))

    def _is_fact(self, line: str) -> bool:
        if own := OWN_PERSONA.match(line) or SETTING.match(line):
            self._facts.append(own[own.lastindex or 1].strip())
            return True
        return bool(ABOUT_OTHERS.match(line)) or line.startswith("_self_")

    def finish(self, options: ReadOptions) -> Conversation | RejectedRecord:
        """Return the dialogue as a conversation."""
        turns = [
            (role, PARTNER_ACTS.sub(r"*\1*", PARTNER_SAYS.sub(r"\1", text)))
            for role, text in self._turns
        ]
        return build_conversation(
            RawDialogue.of(turns, "\n".join(self._facts)), self._place, options, self._rows
        )


def _episode_reader(
    acts_of: Callable[[SourceFile], Iterator[_Act | RejectedRecord]],
) -> Callable[[SourceFile, ReadOptions], Iterator[Conversation | RejectedRecord]]:
    return lambda file, options: _build_episodes(acts_of(file), options)


def _build_episodes(
    acts: Iterable[_Act | RejectedRecord], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Join acts to dialogues, which end at a last act or before a first one."""
    episode = None
    for act in acts:
        if isinstance(act, RejectedRecord):
            yield act
            continue
        if episode and act.is_first:
            yield episode.finish(options)
            episode = None
        episode = episode or _Episode(act.place)
        episode.add(act.text, act.answer)
        if act.is_last:
            yield episode.finish(options)
            episode = None
    if episode:
        yield episode.finish(options)


def _first_lines(peek: Peek) -> list[str]:
    return [line for line in peek.text.splitlines()[:-1] or [peek.text] if line.strip()][:64]


def _recognises_text(peek: Peek) -> bool:
    lines = _first_lines(peek)
    texts = [match[2] for line in lines if (match := NUMBERED.match(line))]
    acts = sum(
        "\t" in text or bool(OWN_PERSONA.match(text) or ABOUT_OTHERS.match(text)) for text in texts
    )
    return peek.kind in ("text", "TSV", "CSV") and bool(lines) and acts >= 0.8 * len(lines)


def _text_acts(file: SourceFile) -> Iterator[_Act | RejectedRecord]:
    """Yield lines numbered from 1 within a dialogue: facts, then `text TAB answer TAB reward TAB
    candidates`.
    """
    for number, line in enumerate(file.lines(), start=1):
        place = f"line {number}"
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        match = NUMBERED.match(line)
        if not match:
            yield RejectedRecord(place, "a line without number")
            continue
        text, _, rest = match[2].partition("\t")
        yield _Act(place, text, rest.split("\t")[0], is_first=int(match[1][:9]) == 1)


def _recognises_fields(peek: Peek) -> bool:
    lines = _first_lines(peek)
    fields = sum(line.startswith("text:") and "\tlabels:" in line for line in lines)
    return bool(lines) and 2 * fields > len(lines)


def _field_acts(file: SourceFile) -> Iterator[_Act | RejectedRecord]:
    """Yield one act per line: `text:…TAB labels:…TAB episode_done:True`."""
    for number, line in enumerate(file.lines(), start=1):
        if not line.strip():
            continue
        fields = dict(cell.partition(":")[::2] for cell in line.rstrip("\r\n").split("\t"))
        if "text" not in fields:
            yield RejectedRecord(f"line {number}", "no text: field")
            continue
        label = fields.get("labels", fields.get("eval_labels", "")).split("|")[0]
        text, answer = (
            part.replace("\\n", "\n").replace("<NEWL>", "\n") for part in (fields["text"], label)
        )
        yield _Act(f"line {number}", text, answer, is_last=fields.get("episode_done") == "True")


def _recognises_acts(peek: Peek) -> bool:
    return peek.kind == "YAML" and peek.text.startswith("acts:") and "text:" in peek.text


def _act(place: str, act: Any) -> _Act | RejectedRecord:
    if not isinstance(act, dict):
        return RejectedRecord(place, "not an act")
    labels = act.get("labels") or act.get("eval_labels") or act.get("labels_choice") or []
    answer = labels[0] if isinstance(labels, list) and labels else ""
    if isinstance(act.get("text"), list | dict) or isinstance(
        answer, list | dict
    ):  # with aliases, endless as a text
        return RejectedRecord(place, "its text or label is not a text")
    text, answer = ("" if value is None else str(value) for value in (act.get("text"), answer))
    return _Act(place, text, answer, is_last=act.get("episode_done") is True)


def _yaml_acts(file: SourceFile) -> Iterator[_Act | RejectedRecord]:
    """Yield the acts. Each item of the list `acts` is parsed separately."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    number = 0
    for block in _blocks(file):
        try:
            items = yaml.load(block, loader)  # nosec B506  # a safe loader
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            number += 1
            yield RejectedRecord(f"act {number}", f"not valid YAML: {first_line(error)}")
            continue
        for item in items if isinstance(items, list) else [items]:
            for act in item if isinstance(item, list) else [item]:
                number += 1
                yield _act(f"act {number}", act)


def _blocks(file: SourceFile) -> Iterator[str]:
    """Yield the items of the list under `acts:` as text; everything outside that list is
    ignored.
    """
    block: list[str] = []
    inside = False
    for line in file.lines():
        if line[:1] not in (" ", "-", "\n", "\r", "#"):
            inside = line.startswith("acts:")
            line = ""
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


def _recognises_csv(peek: Peek) -> bool:
    first = peek.records[0] if peek.records else {}
    return {CSV_PERSONA_COLUMN, CSV_DIALOGUE_COLUMN} <= {*peek.columns, *first}


def _read_csv(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        turns = parse_transcript(cell_text(row.get(CSV_DIALOGUE_COLUMN)))
        if not turns:
            yield RejectedRecord(place, "no speaker labels")
        else:
            # The facts are those of User 2, who is therefore the persona.
            turns = [
                (CSV_SPEAKERS.get(" ".join(label.lower().split()), label), text)
                for label, text in turns
            ]
            yield build_conversation(
                RawDialogue.of(turns, join_facts(row.get(CSV_PERSONA_COLUMN))), place, options
            )


TEXT_LINES = "numbered lines: 1 your persona: …; 2 text TAB answer TAB reward TAB candidates"
FIELD_LINES = "one act per line: text:… TAB labels:… TAB episode_done:True"
YAML_ACTS = "YAML: acts: [[{text, labels, episode_done}]]"
CSV_COLUMNS = f"CSV with user 1 personas, {CSV_PERSONA_COLUMN}, {CSV_DIALOGUE_COLUMN}"
FORMATS = (
    *(
        SourceFormat(name, title, expected, matches=recognises, read=_episode_reader(acts))
        for name, title, expected, recognises, acts in (
            (
                "convai2",
                "PersonaChat text (ConvAI2, ParlAI)",
                TEXT_LINES,
                _recognises_text,
                _text_acts,
            ),
            ("parlai-text", "ParlAI dialogue text", FIELD_LINES, _recognises_fields, _field_acts),
            ("parlai", "ParlAI acts", YAML_ACTS, _recognises_acts, _yaml_acts),
        )
    ),
    SourceFormat(
        "synthetic-persona-chat",
        "Synthetic-Persona-Chat",
        CSV_COLUMNS,
        matches=_recognises_csv,
        read=_read_csv,
    ),
)
