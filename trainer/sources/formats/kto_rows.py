"""Row schema of single answers with a verdict each: desirable or not (KTO, as TRL and LLaMA-Factory store it)."""

from typing import Any

from trainer.sources.columns import ColumnRoles, Row, RowSchema, find_column, message_keys
from trainer.sources.conversation_builder import RawDialogue
from trainer.sources.formats.message_rows import add_optional_roles, dialogue_from_messages
from trainer.sources.formats.qa_rows import dialogue_from_answer
from trainer.sources.record_fields import UnusableRecordError, cell_list

VERDICT_COLUMNS = tuple("is_desirable desirable kto_tag label is_good thumbs_up".split())
VERDICTS = {"true": True, "false": False}
NUMBERS = {"0": False, "1": True}
"""Only for columns that say what they are: a `label` of 0 or 1 may be any class."""
UNDESIRABLE = "marked as undesirable"


def _verdict(name: str, value: Any) -> bool | None:
    if not isinstance(value, bool | int | str):
        return None
    return (VERDICTS if name == "label" else VERDICTS | NUMBERS).get(str(value).strip().lower())


def _plan_verdict(row: Row) -> ColumnRoles | None:
    verdict = next((name for name in VERDICT_COLUMNS if _verdict(name, row.get(name)) is not None), None)
    if verdict is None:
        return None
    others = {name: cell for name, cell in row.items() if name != verdict}
    by_role = {role: name for role in ("user", "input", "assistant", "history") if (name := find_column(others, role))}
    if "user" not in by_role and "input" in by_role:
        by_role["user"] = by_role.pop("input")
    if {"user", "assistant"} <= by_role.keys():
        return ColumnRoles({**add_optional_roles(others, by_role), "verdict": verdict})
    for name in ("messages", "conversations"):
        messages = cell_list(others.get(name)) if name in others else None
        if messages and (keys := message_keys(messages)):
            return ColumnRoles({"messages": name, "verdict": verdict}, *keys)
    return None


def _dialogue_from_verdict(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a desirable answer. Raises `UnusableRecordError` for any other."""
    verdict = _verdict(columns.by_role["verdict"], columns.get(row, "verdict"))
    if verdict is None:
        raise UnusableRecordError(f"{columns.by_role['verdict']}: true or false was expected")
    if not verdict:
        raise UnusableRecordError(UNDESIRABLE)
    if columns.from_key:
        return dialogue_from_messages(row, columns)
    name = columns.by_role["assistant"]
    answer = [row[name]] if isinstance(row.get(name), dict) else row.get(name)
    return dialogue_from_answer({**row, name: answer}, columns)


KTO_ROW = '{"prompt", "completion", "label": true}, or {"context": […], "answer": {"role", "content"}, "is_desirable"}'
KTO_SCHEMAS = (RowSchema("kto", "Answers marked as desirable or not", KTO_ROW, _plan_verdict, _dialogue_from_verdict),)
