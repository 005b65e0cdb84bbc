"""Row schemas of a persona's facts with a dialogue, as sets made from PersonaChat store them."""

import re
from typing import Any

from trainer.sources.columns import ColumnRoles, Row, RowSchema, find_column
from trainer.sources.conversation_builder import RawDialogue
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text

SILENCE = "__ SILENCE __"
"""The text of a partner who has not spoken yet."""
SPEAKER_LABEL = re.compile(r"\s*(?:persona?|user|speaker)?\s*([AB12])\s*[:：]\s*", re.IGNORECASE)
REPLY_COLUMNS = tuple("reference response answer output label target reply next_utterance".split())
HISTORY_COLUMNS = tuple("dialogue dialog history context conversation".split())


def join_facts(value: Any) -> str:
    """Join facts from a list or a text, one per line."""
    facts = cell_list(value)
    if facts is None:
        return cell_text(value).strip()
    return "\n".join(cell_text(fact).strip() for fact in facts)


def _plan_utterances(row: Row) -> ColumnRoles | None:
    has_utterances = isinstance(row.get("utterances"), list)
    if "personality" in row and (has_utterances or {"history", "candidates"} <= row.keys()):
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
    texts = [cell_text(text) for text in (*history, candidates[-1])]
    return RawDialogue.of(_alternate_turns(texts), join_facts(row["personality"]))


def _alternate_turns(texts: list[str]) -> list[tuple[str, str]]:
    """Return texts of two alternating speakers, the last by the persona; silence is skipped."""
    turns: list[tuple[str, str]] = []
    # Counted from the end: who begins is not said, but the last text is the answer.
    is_persona = len(texts) % 2 == 1
    for text in texts:
        if text.strip() != SILENCE:
            turns.append(("assistant" if is_persona else "user", text))
        is_persona = not is_persona
    return turns


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
    answer = cell_text(columns.get(row, "assistant"))
    turns = _labelled_turns(texts)
    if turns:
        turns.append(("assistant", SPEAKER_LABEL.sub("", answer, count=1)))
    else:
        turns = _alternate_turns([*texts, answer])
    return RawDialogue.of(turns, join_facts(columns.get(row, "facts")))


def _labelled_turns(texts: list[str]) -> list[tuple[str, str]]:
    """Return the turns of texts that begin with A and B, or 1 and 2; none unless all of them do."""
    turns = []
    for text in texts:
        label = SPEAKER_LABEL.match(text)
        if label is None:
            return []
        role = "user" if label[1].upper() in "A1" else "assistant"
        turns.append((role, text[label.end() :]))
    return turns


PERSONALITY_ROW = '{"personality": […], "utterances": [{"history": […], "candidates": […]}]}'
REFERENCE_ROW = '{"persona_b": […], "dialogue": […], "reference": "…"}'
PERSONA_SCHEMAS = (
    RowSchema(
        "personality",
        "PersonaChat with candidates",
        PERSONALITY_ROW,
        plan=_plan_utterances,
        parse=_dialogue_from_utterances,
        also_read=("utterances", "history", "candidates"),
    ),
    RowSchema(
        "persona-rows",
        "Facts, dialogue, next line",
        REFERENCE_ROW,
        plan=_plan_reference,
        parse=_dialogue_from_reference,
    ),
)
