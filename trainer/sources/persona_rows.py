"""Rows of persona dialogues: facts about the one who answers, what was said so far, the answer.

Sources of the shapes: Hugging Face's transfer-learning-conv-ai (`personality`, `utterances` with `history` and
`candidates`, the last of which was said), and tables of `persona_b`, `dialogue`, `reference` (the dialogue begins and
ends with the other one; Person B's next line is the reference).
"""

from __future__ import annotations

import re
from typing import Any

from trainer.sources.columns import Columns, Row, find
from trainer.sources.shapes import Shape
from trainer.sources.talk import Talk, Turns, Unusable, list_of, text_of

SILENCE = "__ SILENCE __"
LABEL = re.compile(r"\s*(?:persona?|user|speaker)?\s*([AB12])\s*[:：]\s*", re.IGNORECASE)
REFERENCES = tuple("reference response answer output label target reply next_utterance".split())
SAID = tuple("dialogue dialog history context conversation".split())


def facts_of(value: Any) -> str:
    """Facts one a line, from a list or a text."""
    facts = list_of(value)
    return "\n".join(text_of(fact).strip() for fact in facts) if facts is not None else text_of(value).strip()


def _plan_utterances(row: Row) -> Columns | None:
    if "personality" in row and (isinstance(row.get("utterances"), list) or {"history", "candidates"} <= row.keys()):
        return Columns({"facts": "personality"})
    return None


def _talk_of_utterances(row: Row, columns: Columns) -> Talk:
    """The longest of the dialogue's states: its history, and the last candidate as the answer."""
    states = list_of(row["utterances"]) if "utterances" in row else [row]
    if not states or not isinstance(states[-1], dict):
        raise Unusable("no utterances")
    history, candidates = list_of(states[-1].get("history")), list_of(states[-1].get("candidates"))
    if not history or not candidates:
        raise Unusable("an utterance without history or candidates")
    return Talk.of(alternating([*map(text_of, history), text_of(candidates[-1])]), facts_of(row["personality"]))


def alternating(texts: list[str]) -> Turns:
    """Texts by two in turn, the last by the persona; silence is no turn."""
    turns = [("assistant" if place % 2 == 0 else "user", text) for place, text in enumerate(reversed(texts))]
    return [(role, text) for role, text in reversed(turns) if text.strip() != SILENCE]


def _plan_reference(row: Row) -> Columns | None:
    facts = find(row, "facts")
    said = next((name for name in SAID if name in row), None)
    reference = next((name for name in REFERENCES if name in row), None)
    if not facts or not said or not reference or isinstance(row[reference], list):
        return None
    return Columns({"facts": facts, "history": said, "assistant": reference})


def _talk_of_reference(row: Row, columns: Columns) -> Talk:
    said = columns.get(row, "history")
    lines = list_of(said)
    if lines is None:
        lines = [line for line in text_of(said).splitlines() if line.strip()]
    texts = [text_of(line) for line in lines]
    marks = [LABEL.match(text) for text in texts]
    answer = text_of(columns.get(row, "assistant"))
    if texts and all(marks):
        labels = [
            ("user" if mark[1].upper() in "A1" else "assistant", text[mark.end() :])
            for mark, text in zip(marks, texts, strict=True)
            if mark
        ]
        turns: Turns = [*labels, ("assistant", LABEL.sub("", answer, count=1))]
    else:
        turns = alternating([*texts, answer])
    return Talk.of(turns, facts_of(columns.get(row, "facts")))


PERSONA_ROWS: tuple[Shape, ...] = (
    Shape(
        "personality",
        "PersonaChat with candidates",
        '{"personality": […], "utterances": [{"history": […], "candidates": […]}]}',
        _plan_utterances,
        _talk_of_utterances,
    ),
    Shape(
        "persona-rows",
        "Facts, dialogue, next line",
        '{"persona_b": […], "dialogue": […], "reference": "…"}',
        _plan_reference,
        _talk_of_reference,
    ),
)
