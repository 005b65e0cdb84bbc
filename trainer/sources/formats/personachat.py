"""PersonaChat: ConvAI2 and ParlAI text, ParlAI acts in YAML, and Synthetic-Persona-Chat CSV."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    RawDialogue,
    build_conversation,
    parse_transcript,
)
from trainer.sources.formats.persona_rows import SILENCE, join_facts
from trainer.sources.record_fields import cell_text
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.table_reader import first_line

OWN_PERSONA = re.compile(r"(?:your persona|_self_persona)\s*[:：]?\s*(.*)", re.IGNORECASE)
ABOUT_OTHERS = re.compile(
    r"(?:partner's persona|_partner_(?!say\b|act\b|emote\b)\w+|_self_say|_task_\w+)\b",
    re.IGNORECASE,
)
SETTING = re.compile(r"_(setting_name|setting_desc|self_name|object_desc)\s+(.*)")
PARTNER_SAYS = re.compile(r"_partner_say\s+(.*)")
PARTNER_ACTS = re.compile(r"_partner_(?:act|emote)\s+(.*)")
NUMBERED = re.compile(r"(\d+) (.*)", re.DOTALL)
SAMPLED_LINES = 64
CSV_SPEAKERS = {"user 1": "user", "user 2": "assistant"}
CSV_PERSONA_COLUMN = "user 2 personas"
CSV_DIALOGUE_COLUMN = "Best Generated Conversation"


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
        lines = [line for line in text.splitlines() if not self._take_fact(line.strip())]
        prompt = "\n".join(lines).strip()
        if prompt and prompt != SILENCE:
            self._turns.append(("user", prompt))
        if label.strip():
            self._turns.append(("assistant", label))

    def _take_fact(self, line: str) -> bool:
        """Store a fact about the persona or its setting; report whether a line is nobody's turn."""
        own = OWN_PERSONA.match(line) or SETTING.match(line)
        if own:
            self._facts.append(own[own.lastindex or 1].strip())
            return True
        # Facts about the partner, tasks and echoes of acts are nobody's words.
        return bool(ABOUT_OTHERS.match(line)) or line.startswith("_self_")

    def finish(self, options: ReadOptions) -> Conversation | RejectedRecord:
        """Return the dialogue as a conversation."""
        turns = []
        for role, text in self._turns:
            spoken = PARTNER_SAYS.sub(r"\1", text)
            turns.append((role, PARTNER_ACTS.sub(r"*\1*", spoken)))
        dialogue = RawDialogue.of(turns, "\n".join(self._facts))
        return build_conversation(dialogue, self._place, options, self._rows)


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
    # The last line may be cut in the middle.
    lines = peek.text.splitlines()[:-1] or [peek.text]
    return [line for line in lines if line.strip()][:SAMPLED_LINES]


def _recognises_text(peek: Peek) -> bool:
    lines = _first_lines(peek)
    if peek.kind not in ("text", "TSV", "CSV") or not lines:
        return False
    acts = sum(map(_is_numbered_act, lines))
    return acts >= 0.8 * len(lines)


def _is_numbered_act(line: str) -> bool:
    match = NUMBERED.match(line)
    if match is None:
        return False
    text = match[2]
    return "\t" in text or bool(OWN_PERSONA.match(text) or ABOUT_OTHERS.match(text))


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
        text = _with_line_breaks(fields["text"])
        labels = fields.get("labels", fields.get("eval_labels", ""))
        answer = _with_line_breaks(labels.split("|")[0])
        is_last = fields.get("episode_done") == "True"
        yield _Act(f"line {number}", text, answer, is_last=is_last)


def _with_line_breaks(text: str) -> str:
    return text.replace("\\n", "\n").replace("<NEWL>", "\n")


def _recognises_acts(peek: Peek) -> bool:
    return peek.kind == "YAML" and peek.text.startswith("acts:") and "text:" in peek.text


def _act(place: str, act: Any) -> _Act | RejectedRecord:
    if not isinstance(act, dict):
        return RejectedRecord(place, "not an act")
    labels = act.get("labels") or act.get("eval_labels") or act.get("labels_choice") or []
    answer = labels[0] if isinstance(labels, list) and labels else None
    text = act.get("text")
    if isinstance(text, list | dict) or isinstance(answer, list | dict):
        # Never converted to a text: YAML aliases may make it gigabytes long.
        return RejectedRecord(place, "its text or label is not a text")
    return _Act(
        place,
        "" if text is None else str(text),
        "" if answer is None else str(answer),
        is_last=act.get("episode_done") is True,
    )


def _yaml_acts(file: SourceFile) -> Iterator[_Act | RejectedRecord]:
    """Yield the acts. Each item of the list `acts` is parsed separately, so that a damaged one does
    not end the file.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    number = 0
    for block in _blocks(file):
        try:
            items = yaml.load(block, loader)  # nosec B506  # a safe loader
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            number += 1
            yield RejectedRecord(f"act {number}", f"not valid YAML: {first_line(error)}")
            continue
        if not isinstance(items, list):
            items = [items]
        for item in items:
            # An item is one act, or the list of an episode's.
            acts = item if isinstance(item, list) else [item]
            for act in acts:
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
        turns = []
        for label, text in parse_transcript(cell_text(row.get(CSV_DIALOGUE_COLUMN))):
            # The facts are those of User 2, who is therefore the persona.
            speaker = CSV_SPEAKERS.get(" ".join(label.lower().split()), label)
            turns.append((speaker, text))
        if not turns:
            yield RejectedRecord(place, "no speaker labels")
            continue
        dialogue = RawDialogue.of(turns, join_facts(row.get(CSV_PERSONA_COLUMN)))
        yield build_conversation(dialogue, place, options)


TEXT_LINES = "numbered lines: 1 your persona: …; 2 text TAB answer TAB reward TAB candidates"
FIELD_LINES = "one act per line: text:… TAB labels:… TAB episode_done:True"
YAML_ACTS = "YAML: acts: [[{text, labels, episode_done}]]"
CSV_COLUMNS = f"CSV with user 1 personas, {CSV_PERSONA_COLUMN}, {CSV_DIALOGUE_COLUMN}"
FORMATS = (
    SourceFormat(
        "convai2",
        "PersonaChat text (ConvAI2, ParlAI)",
        TEXT_LINES,
        matches=_recognises_text,
        read=_episode_reader(_text_acts),
    ),
    SourceFormat(
        "parlai-text",
        "ParlAI dialogue text",
        FIELD_LINES,
        matches=_recognises_fields,
        read=_episode_reader(_field_acts),
    ),
    SourceFormat(
        "parlai",
        "ParlAI acts",
        YAML_ACTS,
        matches=_recognises_acts,
        read=_episode_reader(_yaml_acts),
    ),
    SourceFormat(
        "synthetic-persona-chat",
        "Synthetic-Persona-Chat",
        CSV_COLUMNS,
        matches=_recognises_csv,
        read=_read_csv,
    ),
)
