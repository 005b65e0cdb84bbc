"""Lines of characters: rows that name a role (RoleBench, CharacterEval, PIPPA), scenes (CoSER),
scripts, quotes.
"""

import html
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import fold_name
from trainer.sources.column_profile import cell_at
from trainer.sources.columns import (
    ROLE_COLUMNS,
    ColumnRoles,
    Row,
    RowSchema,
    find_column,
    message_keys,
)
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    ASSISTANT,
    NAME_LINE,
    ROLES,
    USER,
    RawDialogue,
    build_conversation,
    is_character,
    list_characters,
)
from trainer.sources.formats.message_rows import dialogue_from_messages, have_names
from trainer.sources.formats.qa_rows import dialogue_from_answer
from trainer.sources.header_names import chat_roles, normalise_column
from trainer.sources.json_recovery import decode_json
from trainer.sources.message_order import is_number_key, parse_numbers
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

CHARACTER_COLUMNS = (
    *"role character character_name role_name char_name agent_role_name agent_role agent_name bot_name char".split(),
    *"role_b npc 角色 人物".split(),
)
ANSWER_COLUMNS = (
    *ROLE_COLUMNS["assistant"],
    *"generated character_answer agent_response bot_response".split(),
)
SCENE_COLUMNS = tuple("context scene dialogue dialog conversation history chat script text".split())
PROFILE_COLUMNS = tuple(
    "system system_prompt character_profile role_profile profile bot_description persona".split()
)
QUOTE_COLUMNS = tuple(
    "quote quotes quotation saying one_liner catchphrase 名言 台词 语录 trích_dẫn câu_nói".split()
)
SETTING_COLUMNS = tuple("scenario background setting summary plot".split())
AUTHOR_COLUMNS = ("author", "speaker", "by", "said_by", "who", "name", *CHARACTER_COLUMNS)
LINE_COLUMNS = tuple("line text utterance dialogue dialog message content".split())
LOG_LEVELS = frozenset("debug info notice warn warning error critical fatal trace".split())
SceneLine = tuple[str, str, str]
"""Place, name and text of a line."""


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line of a table with its conversation, None without such a column, and its number in
    there.
    """

    line: SceneLine
    conversation: str | None
    number: str


MAX_SCENE_TURNS = (
    24  # a script without marks of its scenes is cut into conversations of this many turns
)
SAMPLED_TEXTS = 64
MIN_TEXTS = 3
MAX_MEAN_QUOTE_CHARACTERS = 160
QUESTION_END = re.compile(r"[?？؟][\"'”’」』)]*$")
SENTENCE_END = re.compile(r"[.!?…。！？؟～~♪*][\"'”’」』)）*]*$")
LIST_MARK = re.compile(r"^(?:[-*•·]\s+|\(?\d{1,4}[.)、]\s*)")
ATTRIBUTION = re.compile(
    r"^(.*[.!?…。！？\"'”’」』])\s*(?:[-–—―~]{1,2}|――|——)\s*([^\W\d_][^.!?:：\"“”「」]{0,40})$",
    re.DOTALL,
)
QUOTE_MARKS = {"“": "”", "「": "」", "『": "』", '"': '"', "«": "»", "„": "“", "‘": "’"}
SCENE_BREAK = re.compile(r"^\s*(?:[#=*~_-]\s*){3,}$")
NAME = r"(?:[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*){0,2}|[\u3040-\u30ff\u3400-\u9fff·]{1,8})"
INLINE_LABEL = re.compile(
    rf"(?:^|(?<=[\s.!?…。！？」』”\"）)*])) *({NAME})(?:：|: | ?:(?=[「『“\"]))"
)
THOUGHT = re.compile(r"\s*\[[^\[\]]*\]")
ACTION = re.compile(r"(?<!\s)\s*\((?:speaking|thinking)\)(?=:|$)")
END_OF_TURN = "<|eot|>"
ENGLISH_WORDS = (
    "the and you your not that what with this have has never always who whose but they will would "
    "from when where "
    "there nothing every don't can't won't i'm it's i've"
)
PROMPTS = (
    (re.compile("[\u3040-\u30ff]"), "何か言って。"),
    (re.compile("[\u3400-\u9fff]"), "说句话吧。"),
    (
        re.compile("[ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE),
        "Nói gì đi.",
    ),
    (re.compile(rf"\b(?:{'|'.join(ENGLISH_WORDS.split())})\b", re.IGNORECASE), "Say something."),
)
"""Neutral prompts that quotes answer, by language; short ones, which do not decide on the side of a
split.
"""
OTHER_PROMPT = "…"


def clean_line(text: str, name: str = "") -> str:
    """Return a line without surrounding spaces, quotation marks and its speaker's name; resolves
    HTML entities.
    """
    text = (html.unescape(text) if "&" in text else text).strip()
    match = NAME_LINE.match(text.split("\n", 1)[0]) if name else None
    if match and fold_name(match[1]) == fold_name(name):
        text = text[match.start(2) :]
    closing = QUOTE_MARKS.get(text[:1])
    if (
        closing
        and len(text) > 2
        and text.endswith(closing)
        and not {*text[1:-1]} & {text[0], closing}
    ):
        return text[1:-1].strip()
    return text


# Rows that name a role


def _column(row: Row, names: Sequence[str]) -> str | None:
    """Return the first column of these names that is not empty."""
    columns = {normalise_column(column): column for column in row if isinstance(column, str)}
    return next((columns[name] for name in names if name in columns and row[columns[name]]), None)


def _roles(keys: tuple[str, str] = ("", ""), /, **by_role: str | None) -> ColumnRoles:
    return ColumnRoles({role: column for role, column in by_role.items() if column}, *keys)


def _plan_role_play(row: Row) -> ColumnRoles | None:
    """Find the character, and its messages in a list, its lines in a scene, or its answer to a
    question.
    """
    role, answer, system = (
        _column(row, names) for names in (CHARACTER_COLUMNS, ANSWER_COLUMNS, PROFILE_COLUMNS)
    )
    if role and not is_character(row[role]):
        return None
    user, given, history = (find_column(row, kind) for kind in ("user", "input", "history"))
    user, given = (user, given) if user else (given, None)
    for name, cell in row.items():
        messages = cell_list(cell) if isinstance(cell, list | dict) else None
        keys = message_keys(messages) if messages and isinstance(messages[0], dict) else None
        if messages and keys and (role or have_names(messages, keys[0])):
            if name == answer and user:
                return _roles(character=role, user=user, assistant=name, system=system)
            return _roles(keys, character=role, messages=name, system=system)
    text = row[answer] if answer else None
    if (
        isinstance(text, str) and len(ACTION.findall(text)) > 1
    ):  # Character-LLM: the setting, then a scene
        return _roles(scene=answer, system=user)
    character = row[role] if role else _quoted_speaker(text)
    for name in row if character else ():
        if (
            normalise_column(name) in SCENE_COLUMNS
            and name != answer
            and isinstance(row[name], str)
        ):
            labels = {label for label, _ in parse_scene(row[name], character)[1]}
            if (answer and labels) or (len(labels) > 1 and _own_label(labels, character)):
                asked = user if user != name else None
                return _roles(
                    character=role, scene=name, user=asked, assistant=answer, system=system
                )
    if not role or not user or not answer:
        return None
    return _roles(
        character=role, user=user, input=given, history=history, assistant=answer, system=system
    )


def _quoted_speaker(answer: object) -> str:
    """Return the name before an answer in quotation marks: `Oda: 「…」` (ChatHaruhi)."""
    match = INLINE_LABEL.match(answer) if isinstance(answer, str) else None
    return match[1] if match and match.string[match.end() :].lstrip()[:1] in QUOTE_MARKS else ""


def _own_label(labels: set[str], character: str) -> str | None:
    """Return the character's label in a scene: its name, or a word of it."""
    own = fold_name(character)
    return next((label for label in labels if fold_name(label) == own), None) or next(
        (label for label in labels if fold_name(label) in own.split()), None
    )


def _dialogue_from_role(row: Row, columns: ColumnRoles) -> RawDialogue:
    character = columns.get(row, "character")
    if "character" in columns.by_role and not is_character(character):
        raise UnusableRecordError(
            f"{columns.by_role['character']}: the name of a character was expected"
        )
    if "scene" in columns.by_role:
        character = character or _quoted_speaker(columns.get(row, "assistant"))
        dialogue = _dialogue_from_scene(row, columns, character)
    else:
        dialogue = (dialogue_from_messages if columns.from_key else dialogue_from_answer)(
            row, columns
        )
    names = {ASSISTANT: character or "assistant"}
    if any("{{user}}" in text for text in dialogue.texts):
        names[USER] = EXAMPLE_USER
    speakers = [ROLES.get(fold_name(label)) for label in dialogue.labels]
    pairs = zip(speakers, dialogue.labels, strict=True)
    dialogue.labels = [names.get(speaker, label) if speaker else label for speaker, label in pairs]
    texts = (
        text.replace("{{user}}", EXAMPLE_USER).replace("{{char}}", names[ASSISTANT])
        for text in dialogue.texts
    )
    dialogue.texts = [
        clean_line(text, label) for label, text in zip(dialogue.labels, texts, strict=True)
    ]
    dialogue.roles = (character,) if character else list_characters(dialogue.labels)
    return dialogue


def _character_keys(messages: list[Any]) -> tuple[str, str] | None:
    """Return the keys of messages whose speakers are in `character`; None for anything else."""
    keys = message_keys(messages) if messages and isinstance(messages[0], dict) else None
    return keys if keys and keys[0] == "character" and have_names(messages, keys[0]) else None


def _plan_scenes(row: Row) -> ColumnRoles | None:
    """Find messages by characters, in a column or in the scenes of a plot."""
    for name, cell in (
        row.items() if not _column(row, (*CHARACTER_COLUMNS, *ANSWER_COLUMNS)) else ()
    ):
        if not isinstance(cell, list) or not cell:
            continue
        if keys := _character_keys(cell):
            return _roles(keys, messages=name)
        for inner, lines in cell[0].items() if isinstance(cell[0], dict) else ():
            if isinstance(lines, list) and (keys := _character_keys(lines)):
                return _roles(keys, scenes=name, messages=inner)
    return None


def _dialogues_from_scenes(row: Row, columns: ColumnRoles) -> list[RawDialogue]:
    """Build a dialogue from each scene, without thoughts; the setting is its system text."""
    scenes = columns.get(row, "scenes") if "scenes" in columns.by_role else [row]
    if (
        not isinstance(scenes, list)
        or not scenes
        or not all(isinstance(scene, dict) for scene in scenes)
    ):
        raise UnusableRecordError("no scenes")
    lines = _roles((columns.from_key, columns.value_key), messages=columns.by_role["messages"])
    dialogues = []
    for scene in scenes:
        dialogue = dialogue_from_messages(scene, lines)
        texts = zip(dialogue.labels, dialogue.texts, strict=True)
        dialogue.texts = [clean_line(THOUGHT.sub("", text), label) for label, text in texts]
        dialogue.roles = list_characters(dialogue.labels)
        settings = [place.get(name) for place in (scene, row) for name in SETTING_COLUMNS]
        dialogue.system = next((it for it in settings if isinstance(it, str)), "")
        dialogues.append(dialogue)
    return dialogues


def _dialogue_from_scene(row: Row, columns: ColumnRoles, character: str) -> RawDialogue:
    """Build a dialogue from a scene, the question after it, and the character's answer."""
    preface, turns = parse_scene(cell_text(columns.get(row, "scene")), character)
    if not turns:
        raise UnusableRecordError(f"{columns.by_role['scene']}: no names of speakers")
    own = _own_label({label for label, _ in turns}, character) if character else None
    turns = [(character if label == own else label, text) for label, text in turns]
    if columns.by_role.keys() & {"user", "assistant"}:
        rest = dialogue_from_answer(row, columns)
        turns += [turn for turn in zip(rest.labels, rest.texts, strict=True) if turn[1].strip()]
    system = columns.get(row, "system")
    return RawDialogue.of(
        turns, "\n".join(filter(None, (system if isinstance(system, str) else "", preface)))
    )


def parse_scene(text: str, character: str = "") -> tuple[str, list[tuple[str, str]]]:
    """Split a scene into what precedes it and its turns: `NAME: text`, on lines of their own or in
    one line.

    Names may be in any script, colons full-width. There are no turns if less than half of the lines
    have a speaker.
    """
    preface: list[str] = []
    turns: list[tuple[str, str]] = []
    for line in text.replace(END_OF_TURN, "\n").splitlines():
        if not line.strip() or SCENE_BREAK.match(line):
            continue
        if match := NAME_LINE.match(line):
            turns.append((match[1].strip(), match[2]))
        elif turns:
            turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line}")
        else:
            preface.append(line)
    if sum(text.count("\n") for _, text in turns) > len(turns):
        return "", []
    spoken = [(ACTION.sub("", label), text) for label, text in turns if "(thinking)" not in label]
    names = {fold_name(name) for name in (character, *(label for label, _ in spoken)) if name}
    return "\n".join(preface), [
        turn for label, text in spoken for turn in _split_inline(label, text, names)
    ]


def _split_inline(label: str, text: str, names: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the turns within a line; names that begin no line count only if there are at most two
    that do.
    """
    start = 0
    for match in INLINE_LABEL.finditer(text):
        if match.start() and (fold_name(match[1]) in names or len(names) <= 2):
            yield label, text[start : match.start()]
            label = match[1]
            start = match.end()
    yield label, text[start:]


# Lists of texts and tables of lines: quotes and scripts


def read_texts(file: SourceFile) -> Iterator[tuple[str, str, str] | RejectedRecord]:
    """Yield place, name and text of each line of a text, or of each text in a JSON list or in lists
    by name.
    """
    if file.kind not in ("JSON array", "JSON object"):
        for number, line in enumerate(file.lines(), start=1):
            if text := line.strip():
                value = (
                    decode_json(text.encode(errors="replace"))
                    if text[0] == text[-1] == '"'
                    else None
                )
                yield f"line {number}", "", value if type(value) is str else text
        return
    for number, (key, value) in enumerate(file.values(), start=1):
        if type(value) is str and value.strip():
            yield (
                f"row {number}",
                "" if normalise_column(key) in (*QUOTE_COLUMNS, *LINE_COLUMNS) else key,
                value,
            )
        else:
            yield RejectedRecord(f"row {number}", "a text was expected")


def peek_texts(peek: Peek) -> list[str]:
    """Return the first texts of a list of texts; empty for anything else."""
    if peek.kind == "text":
        return [line.strip() for line in peek.text.splitlines() if line.strip()][:SAMPLED_TEXTS]
    lists = list(peek.head.values()) if peek.kind == "JSON object" else [list(peek.texts)]
    values = [value for each in lists for value in (each if isinstance(each, list) else [None])]
    texts = [value for value in values if isinstance(value, str)]
    return texts[:SAMPLED_TEXTS] if len(texts) == len(values) else []


def are_questions(texts: Sequence[str]) -> bool:
    """Report whether most texts are questions."""
    return len(texts) >= MIN_TEXTS and 5 * sum(
        bool(QUESTION_END.search(text)) for text in texts
    ) >= 4 * len(texts)


def _are_quotes(texts: Sequence[str]) -> bool:
    """Report whether most texts are short and end as sentences do."""
    ends = sum(bool(SENTENCE_END.search(text) or ATTRIBUTION.match(text)) for text in texts)
    is_short = sum(map(len, texts)) <= MAX_MEAN_QUOTE_CHARACTERS * len(texts)
    return (
        len(texts) >= MIN_TEXTS
        and is_short
        and 5 * ends >= 4 * len(texts)
        and not are_questions(texts)
    )


def line_names(peek: Peek) -> set[str]:
    """Return the names before the colons of a list of texts, if most have one and names recur."""
    lines = [text for text in peek_texts(peek) if not SCENE_BREAK.match(text)]
    names = Counter(
        match[1].strip() for line in lines if (match := NAME_LINE.match(LIST_MARK.sub("", line)))
    )
    is_named = (
        len(lines) >= MIN_TEXTS
        and 10 * names.total() >= 7 * len(lines)
        and 2 * len(names) <= names.total() + 1
    )
    return {*names} if is_named and not {*map(fold_name, names)} <= LOG_LEVELS else set()


def script_columns(peek: Peek) -> dict[str, str]:
    """Return the columns of a table with one line of a script in each row, by role; empty for
    anything else.

    They are `speaker` and `text`, perhaps `conversation`, and then perhaps `order`.
    """
    first = peek.records[0] if peek.records else {}
    name = _column(first, ("speaker", *CHARACTER_COLUMNS))
    line = _column(first, LINE_COLUMNS)
    if not name or not line or find_column(first, "assistant"):
        return {}
    names = [row.get(name) for row in peek.records]
    is_recurring = 1 < len({*map(str, names)}) <= (len(names) + 1) / 2
    is_text = all(isinstance(row.get(line), str) for row in peek.records)
    if not is_recurring or not is_text or not any(map(is_character, names)):
        return {}
    return {"speaker": name, "text": line, **_scene_columns(peek.records, (name, line))}


def _scene_columns(rows: Sequence[Row], taken: Sequence[str]) -> dict[str, str]:
    """Return the column that says to which conversation a row belongs, and that of its place in
    there.
    """
    columns = [column for column in rows[0] if isinstance(column, str) and column not in taken]
    ids = [
        column
        for column in columns
        if "conversation" in chat_roles(column) and _recurs(rows, column)
    ]
    if len(ids) != 1:
        return {}
    order = next((column for column in columns if is_number_key(column)), None)
    return {"conversation": ids[0], **({"order": order} if order else {})}


def _recurs(rows: Sequence[Row], column: str) -> bool:
    cells = [row.get(column) for row in rows]
    is_plain = all(isinstance(cell, str | int | float) for cell in cells)
    return is_plain and any(map(str, cells)) and len({*map(str, cells)}) < len(cells)


def _read_script(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield conversations of the lines of several characters, up to a break between scenes or 24
    turns.
    """
    if columns := script_columns(file.peek()):
        yield from build_scenes(_table_lines(file, columns), options)
        return
    lines: list[SceneLine] = []
    for item in _text_lines(file):
        if isinstance(item, RejectedRecord):
            yield item
        elif item:
            lines.append(item)
        if lines and (item is None or len(lines) >= MAX_SCENE_TURNS):
            yield build_scene(lines, options)
            lines = []
    if lines:
        yield build_scene(lines, options)


def _table_lines(
    file: SourceFile, columns: Mapping[str, str]
) -> Iterator[PlacedLine | RejectedRecord]:
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        label = row.get(columns["speaker"])
        text = row.get(columns["text"])
        if isinstance(label, str) and isinstance(text, str):
            yield PlacedLine((place, label.strip(), text), *place_in_talk(row, columns))
        else:
            yield RejectedRecord(place, "no name or no line")


def place_in_talk(row: Row, columns: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the conversation of a row, None without such a column, and its number in there, empty
    without one.
    """
    if "conversation" not in columns:
        return None, ""
    cells = [
        cell_at(row, columns[role]) if role in columns else "" for role in ("conversation", "order")
    ]
    return cell_text(cells[0]), str(cells[1])


def build_scenes(
    items: Iterable[PlacedLine | RejectedRecord], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the conversations of a table's lines.

    All lines of a conversation belong together, wherever they are, by their numbers if all of them
    have different ones; lines without a conversation are cut into scenes of at most
    `MAX_SCENE_TURNS`. A system text begins a scene.
    """
    conversations: dict[str, list[PlacedLine]] = {}
    lines: list[SceneLine] = []
    for item in items:
        if isinstance(item, RejectedRecord):
            yield item
        elif item.conversation is not None:
            conversations.setdefault(item.conversation, []).append(item)
        else:
            if lines and (is_system_line(item.line) or len(lines) >= MAX_SCENE_TURNS):
                yield build_scene(lines, options)
                lines = []
            lines.append(item.line)
    if lines:
        yield build_scene(lines, options)
    for placed in conversations.values():
        numbers = parse_numbers([item.number for item in placed])
        ordered = (
            [placed[at] for at in sorted(range(len(placed)), key=numbers.__getitem__)]
            if numbers
            else placed
        )
        yield from _split_at_systems([item.line for item in ordered], options)


def _split_at_systems(
    lines: list[SceneLine], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    starts = [0, *(at for at, line in enumerate(lines) if at and is_system_line(line)), len(lines)]
    for start, end in itertools.pairwise(starts):
        yield build_scene(lines[start:end], options)


def is_system_line(line: SceneLine) -> bool:
    """Report whether a line is a system text."""
    return ROLES.get(line[1].casefold(), ()) is None


def _text_lines(file: SourceFile) -> Iterator[tuple[str, str, str] | RejectedRecord | None]:
    """Yield place, name and text of each line; a line without a name continues the last one. None
    is a break.
    """
    name = ""
    for item in read_texts(file):
        if isinstance(item, RejectedRecord):
            yield item
        elif SCENE_BREAK.match(item[2]):
            yield None
        elif match := NAME_LINE.match(LIST_MARK.sub("", item[2])):
            name = match[1].strip()
            yield item[0], name, match[2]
        else:
            yield (item[0], name, item[2]) if name else RejectedRecord(item[0], "no name before it")


def build_scene(
    lines: Sequence[SceneLine], options: ReadOptions, rows: int | None = None
) -> Conversation | RejectedRecord:
    """Build the conversation of a scene's lines. `rows` counts those that no other scene has (by
    default all).
    """
    labels = [{"q": "user", "a": "assistant"}.get(fold_name(name), name) for _, name, _ in lines]
    dialogue = RawDialogue(labels, [clean_line(text) for _, _, text in lines])
    if not any(ROLES.get(fold_name(label)) is ASSISTANT for label in labels):
        dialogue.roles = list_characters(labels)
    return build_conversation(dialogue, lines[0][0], options, len(lines) if rows is None else rows)


def _read_quotes(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    is_named = len(line_names(file.peek())) == 1
    for item in read_texts(file):
        if isinstance(item, RejectedRecord):
            yield item
            continue
        place, name, text = item
        if match := NAME_LINE.match(LIST_MARK.sub("", text)) if is_named else None:
            name = match[1].strip()
            text = match[2]
        if place == "line 1" and normalise_column(text) in QUOTE_COLUMNS:
            yield RejectedRecord(place, "the name of the column", rows=0)
        else:
            yield build_conversation(_dialogue_from_quote(text, name), place, options)


def _dialogue_from_quote(text: str, name: str = "") -> RawDialogue:
    """Build a dialogue from a quote: the reply of its author, or of the persona itself, to a
    neutral prompt.
    """
    text = LIST_MARK.sub("", clean_line(text))
    if match := ATTRIBUTION.match(text):
        text = match[1]
        name = name or match[2].strip()
    text = clean_line(text)
    prompt = next((prompt for pattern, prompt in PROMPTS if pattern.search(text)), OTHER_PROMPT)
    return RawDialogue(
        ["user", name or "assistant"],
        [prompt, text],
        roles=(name,) if name else (),
        is_own=not name,
    )


def _plan_quote(row: Row) -> ColumnRoles | None:
    quote = _column(row, QUOTE_COLUMNS)
    author = _column(row, AUTHOR_COLUMNS)
    if (
        not quote
        or not isinstance(row[quote], str)
        or (find_column(row, "user") and find_column(row, "assistant"))
    ):
        return None
    return _roles(quote=quote, character=author if author and is_character(row[author]) else None)


def _dialogue_from_quote_row(row: Row, columns: ColumnRoles) -> RawDialogue:
    name = columns.get(row, "character")
    return _dialogue_from_quote(
        cell_text(columns.get(row, "quote")), name.strip() if is_character(name) else ""
    )


ROLE_ROW = '{"role": "Oda", "question": "…", "answers": ["…"]}, or {"role": "Oda", "context": "Guest: …\\nOda: …"}'
SCENES_ROW = (
    '{"plot": "…", "conversation": [{"scenario": "…", '
    '"dialogues": [{"character": "Oda", "message": "[thought] …"}]}]}'
)
QUOTE_ROW = '{"quote": "…", "author": "…"}'
QUOTE_LIST = (
    "short texts, one a line or in a JSON list, with or without NAME: before or — NAME after them"
)
SCRIPT = (
    "lines such as NAME: text of several characters, or a table with a column of names and one of "
    "lines"
)
QUOTES_NOTE = "Each quote is learned as a reply to a neutral prompt, such as “Say something.”"
CHARACTER_SCHEMAS = (
    RowSchema("scenes", "Scenes of a story", SCENES_ROW, _plan_scenes, _dialogues_from_scenes),
    RowSchema("role-play", "Role-play", ROLE_ROW, _plan_role_play, _dialogue_from_role),
    RowSchema("quotes", "Quotes", QUOTE_ROW, _plan_quote, _dialogue_from_quote_row),
)
TEXT_FORMATS = (
    SourceFormat(
        "script",
        "Script",
        SCRIPT,
        lambda peek: len(line_names(peek)) > 1 or bool(script_columns(peek)),
        _read_script,
    ),
    SourceFormat(
        "quote-list",
        "List of quotes",
        QUOTE_LIST,
        lambda peek: len(line_names(peek)) == 1 or _are_quotes(peek_texts(peek)),
        _read_quotes,
        note=QUOTES_NOTE,
        meanings=("each line is taken as the persona's reply to a neutral prompt",),
    ),
)
