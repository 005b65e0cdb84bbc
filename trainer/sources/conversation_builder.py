"""Builds conversations from labelled turns and from transcripts written into one text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from personas.prompt.renderer import DATASET_ASSISTANT, DATASET_USER
from personas.schemas.chat import fold_name, to_nfc
from trainer.sources.conversation import (
    Conversation,
    RejectedRecord,
    SourceMessage,
    SourceSpeaker,
    replace_assistant,
)
from trainer.sources.record_fields import UnusableRecordError
from trainer.sources.source_format import ReadOptions

USER = SourceSpeaker("user", (DATASET_USER,))
ASSISTANT = SourceSpeaker("assistant", (DATASET_ASSISTANT,), is_persona=True)
ROLES: dict[str, SourceSpeaker | None] = {
    **dict.fromkeys(
        "user human prompter instruction input question prompt customer patient interviewer 用户 人类 "
        "问".split(),
        USER,
    ),
    **dict.fromkeys(
        "assistant gpt chatgpt gpt4 gpt-4 bing bard claude llama model bot ai chatbot "
        "response".split(),
        ASSISTANT,
    ),
    **dict.fromkeys(
        "answer output machine agent doctor expert character npc 助手 机器人 答".split(), ASSISTANT
    ),
    **dict.fromkeys(("system", "developer", "系统"), None),
}
"""Names that data sets use for the two speakers, in lower case; None is the system text."""
SPEAKING_ROLES = {role: speaker for role, speaker in ROLES.items() if speaker is not None}
NARRATORS = frozenset("narrator narration scene environment 旁白 叙述 场景".split())
PLACES = {"@first": 0, "@second": 1}
"""Names for `--as` that stand for the speaker who begins, or the other one, where names differ from
talk to talk.
"""
MAX_NAME_CHARACTERS = 64
TOOL_ROLES = frozenset(
    "tool function function_call function_response tool_call tool_response observation ipython "
    "function-call function-response tool-call tool-response".split()
)
ROLE_WORDS = frozenset((*ROLES, *TOOL_ROLES, *NARRATORS))
Turns = Sequence[tuple[str, str]]
"""Pairs of label (a role or a name) and text, in order."""
CHATML = re.compile(
    r"<\|im_start\|>\s*(\w+)\s*\n(.*?)(?=<\|im_end\|>|<\|im_start\|>|\Z)", re.DOTALL
)
LLAMA3_HEADERS = re.compile(
    r"<\|start_header_id\|>(\w+)<\|end_header_id\|>(.*?)(?=<\|eot_id\|>|<\|start_header_id\|>|\Z)",
    re.DOTALL,
)
TAGGED_TURN = re.compile(
    r"<\|(system|user|assistant|prompter|human|bot|model)\|>(.*?)(?=<\|[\w ]+\|>|</s>|<\|endoftext\|>|\Z)",
    re.DOTALL,
)
LLAMA2_INST = re.compile(
    r"\[INST\](?:\s*<<SYS>>(.*?)<</SYS>>)?(.*?)\[/INST\](.*?)(?=</s>|<s>|\[INST\]|\Z)", re.DOTALL
)
HASH_ROLE = re.compile(rf"###\s*({'|'.join(map(re.escape, ROLES))})\s*[:：]", re.IGNORECASE)
TRANSCRIPT_ROLES = "human user assistant bot chatbot ai gpt chatgpt system prompter 用户 人类 助手"
"""Roles that start a transcript line. Words such as Input or Answer are excluded: they also start
instructions.
"""
ROLE_LABEL = re.compile(
    rf"^[ \t]*(?:\*\*)?({'|'.join(TRANSCRIPT_ROLES.split())})(?:\*\*)?\s*[:：](?:\*\*)?",
    re.I | re.M,
)
NAME_LINE = re.compile(
    r"^[ \t]*[*_\[\"']{0,2}([^\W\d_][^:：\n*\[\]]{0,31}?)[*_\]\"']{0,2}[:：][*_]{0,2}[ \t]*(.*)$"
)
MAX_TRANSCRIPT_NAMES = 8
NOT_REQUESTED_ROLE = "without a line of the named character"


@dataclass(slots=True)
class RawDialogue:
    """A record's dialogue before conversion: speaker `labels` and `texts` in parallel, the other
    fields as found.

    `roles` are the labels of characters whose lines can be learned: the persona is the one with its
    name. If none is named, the first one stands for it, and of several a build asks whose lines are
    learned. `is_own`: the assistant's lines are those of the persona that is trained, whoever it
    is. `untrained` are the indices of turns that the source excludes from training.
    """

    labels: list[str]
    texts: list[str]
    system: str = ""
    rejected: str = ""
    lang: str = ""
    input_lines: int = 0
    roles: tuple[str, ...] = ()
    is_own: bool = False
    untrained: frozenset[int] = frozenset()

    @classmethod
    def of(cls, turns: Turns, system: str = "", rejected: str = "", lang: str = "") -> RawDialogue:
        """Build a dialogue from pairs of label and text."""
        labels = [label for label, _ in turns]
        texts = [text for _, text in turns]
        return cls(labels, texts, system=system, rejected=rejected, lang=lang)


def build_conversation(
    dialogue: RawDialogue, row: str, options: ReadOptions, rows: int = 1
) -> Conversation | RejectedRecord:
    """Resolve the speakers of a dialogue, or reject it with a reason. Trims texts and drops empty
    messages.
    """
    if options.languages and dialogue.lang and dialogue.lang not in options.languages:
        return RejectedRecord(row, f"language {dialogue.lang} is not requested", rows)
    dialogue.roles = dialogue.roles or _undecided_characters(dialogue.labels)
    if dialogue.roles and not _has_requested_role(dialogue, options):
        return RejectedRecord(row, NOT_REQUESTED_ROLE, rows, dialogue.roles)
    system: list[str] = []
    later: list[tuple[int, str]] = []
    labels = dialogue.labels
    texts = [to_nfc(text).strip() for text in dialogue.texts]
    if len(texts) > 1 and not dialogue.untrained and all(texts) and _alternates(labels):
        # Most rows of a large set are such, and are built without a call for each message.
        speakers = map(SPEAKING_ROLES.__getitem__, labels)
        messages = list(map(SourceMessage, speakers, texts, itertools.repeat(row)))
    else:
        try:
            messages, texts, later = _messages(labels, texts, row, options, dialogue=dialogue)
        except UnusableRecordError as error:
            return RejectedRecord(row, str(error), rows)
    # A speaker's consecutive messages are joined, so a persona's message answers somebody unless it
    # is the first.
    for message in messages[1:]:
        if message.speaker.is_persona:
            break
    else:
        return RejectedRecord(row, _fault(messages), rows)
    system += [text for start, text in later if not start]
    stated_system = to_nfc(dialogue.system).strip()
    if stated_system:
        system.insert(0, stated_system)
    conversation = Conversation(
        tuple(messages),
        options.source,
        options.right,
        raw_text="\n".join(texts),
        system="\n".join(system),
        rows=rows,
        rejected=dialogue.rejected.strip(),
        lang=dialogue.lang,
        arrived=options.arrived,
        roles=dialogue.roles,
        input_lines=dialogue.input_lines,
        later_systems=tuple((start, text) for start, text in later if start),
    )
    if dialogue.is_own and options.persona:
        return replace_assistant(options.persona, conversation)
    return conversation


def _undecided_characters(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the speakers by name, if none of the labels is the assistant's: any of them may be the
    persona.
    """
    if ROLES.keys() >= set(labels):
        return ()
    keys = set(map(fold_name, labels))
    if keys <= ROLES.keys() or any(ROLES.get(key) is ASSISTANT for key in keys):
        return ()
    # Some sets have numbers in place of names.
    numbers = [label for label in dict.fromkeys(labels) if label.strip().isdecimal()]
    return list_characters(labels) or _second_first(numbers)


def _has_requested_role(dialogue: RawDialogue, options: ReadOptions) -> bool:
    """Report whether one of the requested names is among the speakers; true if none is
    requested.
    """
    names = {fold_name(name) for name in options.all_persona_names}
    spoken = set(map(fold_name, (*dialogue.roles, *dialogue.labels)))
    return not names or not names.isdisjoint(spoken | PLACES.keys())


def _alternates(labels: list[str]) -> bool:
    """Report whether two plain roles alternate, the common case that needs no joining or
    filtering.
    """
    first = SPEAKING_ROLES.get(labels[0])
    second = SPEAKING_ROLES.get(labels[1])
    if first is None or second is None or first is second:
        return False
    return labels[2:] == labels[:-2]


def _fault(messages: list[SourceMessage]) -> str:
    if not messages:
        return "no text"
    return "nobody is answered" if messages[0].speaker.is_persona else "no answer"


def _messages(
    labels: list[str], texts: list[str], row: str, options: ReadOptions, dialogue: RawDialogue
) -> tuple[list[SourceMessage], list[str], list[tuple[int, str]]]:
    """Return the messages with consecutive ones of a speaker joined, their unjoined texts, and the
    system texts.

    A system text has the index of the first message that may know it: never one that had begun
    before it.
    """
    messages: list[SourceMessage] = []
    unjoined: list[str] = []
    system: list[tuple[int, str]] = []
    speakers = ROLES
    last: SourceSpeaker | None = None
    for number, (label, text) in enumerate(zip(labels, texts, strict=True)):
        if label not in speakers:
            # This is still the table of roles, and names or other spellings are in use.
            speakers = _speakers(labels, options, dialogue.roles)
        speaker = speakers[label]
        if not text:
            continue
        if speaker is None:
            system.append((len(messages), text))
            continue
        unjoined.append(text)
        is_trained = number not in dialogue.untrained
        if speaker is last:
            before = messages[-1]
            is_trained = is_trained and before.is_trained
            joined = f"{before.text}\n{text}"
            messages[-1] = SourceMessage(speaker, joined, row, is_trained=is_trained)
        else:
            messages.append(SourceMessage(speaker, text, row, is_trained=is_trained))
            last = speaker
    return messages, unjoined, system


def _speakers(
    labels: list[str], options: ReadOptions, roles: tuple[str, ...]
) -> dict[str, SourceSpeaker | None]:
    """Resolve labels that are not plain roles: other spellings of roles, or names."""
    labels = list(dict.fromkeys(labels))
    keys = {label: fold_name(label) for label in labels}
    if any(key in TOOL_ROLES for key in keys.values()):
        raise UnusableRecordError("contains tool calls")
    if all(key in ROLES for key in keys.values()):
        return {label: ROLES[key] for label, key in keys.items()}
    persona = _persona_label(labels, keys, options, roles)
    speakers: dict[str, SourceSpeaker | None] = {}
    for label in labels:
        if keys[label] in ROLES:
            speakers[label] = ROLES[keys[label]]
            continue
        name = to_nfc(label.strip()) or "someone"
        speakers[label] = SourceSpeaker(name, (name,))
    if persona is not None:
        speakers[persona] = _persona_speaker(to_nfc(persona.strip()), options)
    return speakers


def _persona_label(
    labels: list[str], keys: dict[str, str], options: ReadOptions, roles: tuple[str, ...]
) -> str | None:
    """Return the persona's label: the given name, or the place in the talk, else the first of
    `roles`.
    """
    own = {fold_name(name) for name in options.all_persona_names}
    talking = [label for label in labels if ROLES.get(keys[label], USER) is not None]
    for label in talking:
        if keys[label] in own:
            return label
    if any(ROLES.get(keys[label]) is ASSISTANT for label in talking):
        return None
    for name, place in PLACES.items():
        if name in own:
            return talking[place] if place < len(talking) else None
    return roles[0] if roles else None


def is_character(name: object) -> bool:
    """Report whether a label or cell is the name of a character, and no role such as `user`."""
    if not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME_CHARACTERS:
        return False
    if "\n" in name or not any(map(str.isalpha, name)):
        return False
    return fold_name(name) not in ROLE_WORDS


def list_characters(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the characters among the speakers, the second first: it is the persona if no name is
    given.
    """
    return _second_first(list(dict.fromkeys(filter(is_character, labels))))


def _second_first(names: list[str]) -> tuple[str, ...]:
    """Put the second speaker first: the first one asks."""
    return (*names[1:2], *names[:1], *names[2:])


def _persona_speaker(name: str, options: ReadOptions) -> SourceSpeaker:
    persona = options.persona
    if persona and fold_name(name) in map(fold_name, options.all_persona_names):
        return SourceSpeaker(persona.id, (persona.name,), is_persona=True)
    return SourceSpeaker(name, (name,), is_persona=True)


def parse_labelled_turns(text: str) -> list[tuple[str, str]]:
    """Parse a text that begins with a role, such as `Human:`, and has more of them; empty
    otherwise.
    """
    if not ROLE_LABEL.match(text.lstrip()):
        return []
    _, *parts = ROLE_LABEL.split(text)
    turns = list(zip(map(str.lower, parts[::2]), parts[1::2], strict=True))
    return turns if len({ROLES[role] for role, _ in turns}) > 1 else []


def parse_transcript(text: str) -> list[tuple[str, str]]:
    """Parse a transcript into pairs of label and text; empty if the text is not one."""
    turns: list[tuple[str, str]]
    for pattern in (CHATML, LLAMA3_HEADERS, TAGGED_TURN):
        turns = pattern.findall(text)
        if turns:
            return turns
    turns = list(_parse_llama2(text))
    if turns:
        return turns
    hashed = HASH_ROLE.split(text)
    if len(hashed) > 3:  # two turns at least: `### Input:` alone may be a heading
        return list(zip(map(str.lower, hashed[1::2]), hashed[2::2], strict=True))
    return parse_labelled_turns(text) or _parse_named_lines(text)


def _parse_llama2(text: str) -> Iterator[tuple[str, str]]:
    for system, prompt, reply in LLAMA2_INST.findall(text):
        if system:
            yield "system", system
        yield from (("user", prompt), ("assistant", reply))


def _parse_named_lines(text: str) -> list[tuple[str, str]]:
    """Parse lines that begin with a name and a colon; other lines continue the previous turn."""
    turns: list[tuple[str, str]] = []
    named = 0
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        match = NAME_LINE.match(line)
        if match:
            named += 1
            turns.append((match[1].strip(), match[2]))
        elif turns:
            name, text = turns[-1]
            turns[-1] = (name, f"{text}\n{line}")
        else:
            return []
    names = {name for name, _ in turns}
    # Prose may have a few lines such as `Note: …`, and a list of terms one on each line.
    if not 2 <= len(names) <= MAX_TRANSCRIPT_NAMES or 2 * named < len(lines):
        return []
    return turns
