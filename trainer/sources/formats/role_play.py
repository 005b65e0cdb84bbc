"""Rows that name a role (RoleBench, CharacterEval, PIPPA), and scenes of a story (CoSER)."""

import re
from collections.abc import Iterator

from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import fold_name
from trainer.sources.columns import (
    CHARACTER_COLUMNS,
    ROLE_COLUMNS,
    ColumnRoles,
    Row,
    RowSchema,
    column_roles,
    find_column,
    find_filled_column,
    message_keys,
)
from trainer.sources.conversation_builder import (
    ASSISTANT,
    NAME_LINE,
    ROLES,
    USER,
    RawDialogue,
    is_character,
    list_characters,
)
from trainer.sources.formats.message_rows import dialogue_from_messages, have_names
from trainer.sources.formats.qa_rows import dialogue_from_answer
from trainer.sources.formats.text_lists import QUOTE_MARKS, SCENE_BREAK, clean_line
from trainer.sources.header_names import normalise_column
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text

ANSWER_COLUMNS = (
    *ROLE_COLUMNS["assistant"],
    *"generated character_answer agent_response bot_response".split(),
)
SCENE_COLUMNS = tuple("context scene dialogue dialog conversation history chat script text".split())
PROFILE_COLUMNS = tuple(
    "system system_prompt character_profile role_profile profile bot_description persona".split()
)
SETTING_COLUMNS = tuple("scenario background setting summary plot".split())
STORY_COLUMNS = tuple("text topic key_characters character_profiles".split())
"""What CoSER's scenes are taken from."""
NAME = r"(?:[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*){0,2}|[\u3040-\u30ff\u3400-\u9fff·]{1,8})"
INLINE_LABEL = re.compile(
    rf"(?:^|(?<=[\s.!?…。！？」』”\"）)*])) *({NAME})(?:：|: | ?:(?=[「『“\"]))"
)
THOUGHT = re.compile(r"\s*\[[^\[\]]*\]")
ACTION = re.compile(r"(?<!\s)\s*\((?:speaking|thinking)\)(?=:|$)")
END_OF_TURN = "<|eot|>"


def _plan_role_play(row: Row) -> ColumnRoles | None:
    """Find the character, and its messages in a list, its lines in a scene, or its answer to a
    question.
    """
    role = find_filled_column(row, CHARACTER_COLUMNS)
    answer = find_filled_column(row, ANSWER_COLUMNS)
    system = find_filled_column(row, PROFILE_COLUMNS)
    if role and not is_character(row[role]):
        return None
    user = find_column(row, "user")
    given = find_column(row, "input")
    if not user:
        user = given
        given = None
    for name, cell in row.items():
        keys = _message_list_keys(cell, needs_names=not role)
        if keys and name == answer and user:
            return column_roles(character=role, user=user, assistant=name, system=system)
        if keys:
            return column_roles(keys, character=role, messages=name, system=system)
    text = row[answer] if answer else None
    if isinstance(text, str) and len(ACTION.findall(text)) > 1:
        # Character-LLM: the prompt is a setting, and the answer a whole scene.
        return column_roles(scene=answer, system=user)
    scene = _scene_column(row, row[role] if role else _quoted_speaker(text), answer)
    if scene:
        asked = user if user != scene else None
        return column_roles(
            character=role, scene=scene, user=asked, assistant=answer, system=system
        )
    if not role or not user or not answer:
        return None
    history = find_column(row, "history")
    return column_roles(
        character=role, user=user, input=given, history=history, assistant=answer, system=system
    )


def _message_list_keys(cell: object, *, needs_names: bool) -> tuple[str, str] | None:
    """Return the keys of speaker and text if a cell is a list of messages, whose speakers may have
    to be names.
    """
    messages = cell_list(cell) if isinstance(cell, list | dict) else None
    if not messages or not isinstance(messages[0], dict):
        return None
    keys = message_keys(messages)
    if keys and needs_names and not have_names(messages, keys[0]):
        return None
    return keys


def _scene_column(row: Row, character: str, answer: str | None) -> str | None:
    """Return the column with a scene: one in which the character speaks, or, beside an answer,
    anybody.
    """
    if not character:
        return None
    for name, cell in row.items():
        if name == answer or normalise_column(name) not in SCENE_COLUMNS or type(cell) is not str:
            continue
        labels = {label for label, _ in parse_scene(cell, character)[1]}
        if (answer and labels) or (len(labels) > 1 and _own_label(labels, character)):
            return name
    return None


def _quoted_speaker(answer: object) -> str:
    """Return the name before an answer in quotation marks: `Oda: 「…」` (ChatHaruhi)."""
    match = INLINE_LABEL.match(answer) if isinstance(answer, str) else None
    if match is None:
        return ""
    quotation = match.string[match.end() :].lstrip()
    return match[1] if quotation[:1] in QUOTE_MARKS else ""


def _own_label(labels: set[str], character: str) -> str | None:
    """Return the character's label in a scene: its name, or a word of it."""
    name = fold_name(character)
    for spellings in ([name], name.split()):
        for label in labels:
            if fold_name(label) in spellings:
                return label
    return None


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
        parse = dialogue_from_messages if columns.from_key else dialogue_from_answer
        dialogue = parse(row, columns)
    names = {ASSISTANT: character or "assistant"}
    if any("{{user}}" in text for text in dialogue.texts):
        names[USER] = EXAMPLE_USER
    for number, text in enumerate(dialogue.texts):
        label = dialogue.labels[number]
        speaker = ROLES.get(fold_name(label))
        if speaker:
            label = names.get(speaker, label)
        text = text.replace("{{user}}", EXAMPLE_USER).replace("{{char}}", names[ASSISTANT])
        dialogue.labels[number] = label
        dialogue.texts[number] = clean_line(text, label)
    dialogue.roles = (character,) if character else list_characters(dialogue.labels)
    return dialogue


def _dialogue_from_scene(row: Row, columns: ColumnRoles, character: str) -> RawDialogue:
    """Build a dialogue from a scene, the question after it, and the character's answer."""
    preface, turns = parse_scene(cell_text(columns.get(row, "scene")), character)
    if not turns:
        raise UnusableRecordError(f"{columns.by_role['scene']}: no names of speakers")
    if character:
        own_label = _own_label({label for label, _ in turns}, character)
        turns = [(character if label == own_label else label, text) for label, text in turns]
    if columns.by_role.keys() & {"user", "assistant"}:
        answer = dialogue_from_answer(row, columns)
        for label, text in zip(answer.labels, answer.texts, strict=True):
            if text.strip():
                turns.append((label, text))
    system = columns.get(row, "system")
    texts = [text for text in (system, preface) if isinstance(text, str) and text]
    return RawDialogue.of(turns, system="\n".join(texts))


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
        match = NAME_LINE.match(line)
        if match:
            turns.append((match[1].strip(), match[2]))
        elif turns:
            label, text = turns[-1]
            turns[-1] = (label, f"{text}\n{line}")
        else:
            preface.append(line)
    unnamed = sum(text.count("\n") for _, text in turns)
    if unnamed > len(turns):
        return "", []
    spoken = [(ACTION.sub("", label), text) for label, text in turns if "(thinking)" not in label]
    names = {fold_name(label) for label, _ in spoken if label}
    if character:
        names.add(fold_name(character))
    split: list[tuple[str, str]] = []
    for label, text in spoken:
        split += _split_inline(label, text, names)
    return "\n".join(preface), split


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


def _plan_scenes(row: Row) -> ColumnRoles | None:
    """Find messages by characters, in a column or in the scenes of a plot."""
    if find_filled_column(row, (*CHARACTER_COLUMNS, *ANSWER_COLUMNS)):
        return None
    for name, cell in row.items():
        if not isinstance(cell, list) or not cell:
            continue
        keys = _character_keys(cell)
        if keys:
            return column_roles(keys, messages=name)
        if not isinstance(cell[0], dict):
            continue
        for inner, lines in cell[0].items():
            keys = _character_keys(lines)
            if keys:
                return column_roles(keys, scenes=name, messages=inner)
    return None


def _character_keys(messages: object) -> tuple[str, str] | None:
    """Return the keys of messages whose speakers are in `character`; None for anything else."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return None
    keys = message_keys(messages)
    if keys and keys[0] == "character" and have_names(messages, keys[0]):
        return keys
    return None


def _dialogues_from_scenes(row: Row, columns: ColumnRoles) -> list[RawDialogue]:
    """Build a dialogue from each scene, without thoughts; the setting is its system text."""
    scenes = columns.get(row, "scenes") if "scenes" in columns.by_role else [row]
    if not isinstance(scenes, list) or not scenes:
        raise UnusableRecordError("no scenes")
    if not all(isinstance(scene, dict) for scene in scenes):
        raise UnusableRecordError("no scenes")
    keys = (columns.from_key, columns.value_key)
    lines = column_roles(keys, messages=columns.by_role["messages"])
    dialogues = []
    for scene in scenes:
        dialogue = dialogue_from_messages(scene, lines)
        for number, label in enumerate(dialogue.labels):
            spoken = THOUGHT.sub("", dialogue.texts[number])
            dialogue.texts[number] = clean_line(spoken, label)
        dialogue.roles = list_characters(dialogue.labels)
        # A scene's own setting precedes that of the whole plot.
        settings = [scene.get(name) for name in SETTING_COLUMNS]
        settings += [row.get(name) for name in SETTING_COLUMNS]
        dialogue.system = next((text for text in settings if isinstance(text, str)), "")
        dialogues.append(dialogue)
    return dialogues


ROLE_ROW = '{"role": "Oda", "question": "…", "answers": ["…"]}, or {"role": "Oda", "context": "Guest: …\\nOda: …"}'
SCENES_ROW = (
    '{"plot": "…", "conversation": [{"scenario": "…", '
    '"dialogues": [{"character": "Oda", "message": "[thought] …"}]}]}'
)
ROLE_PLAY_SCHEMAS = (
    RowSchema(
        "scenes",
        "Scenes of a story",
        SCENES_ROW,
        plan=_plan_scenes,
        parse=_dialogues_from_scenes,
        also_read=(*SETTING_COLUMNS, *STORY_COLUMNS),
    ),
    RowSchema("role-play", "Role-play", ROLE_ROW, plan=_plan_role_play, parse=_dialogue_from_role),
)
