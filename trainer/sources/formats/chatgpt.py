"""ChatGPT's export (`conversations.json`): conversations as trees of messages, of which one branch
is shown.

Source: OpenAI's "Export data" of 2023 to 2026. `mapping` holds nodes with `parent`, `children` and
a message or null; `current_node` is the end of the shown branch. Edits and regenerated answers are
the other branches.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.record_fields import UnusableRecordError, cell_text, object_field
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

HIDDEN_CONTENT = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
"""Content that the page does not show as a message."""
TEXT_CONTENT = ("text", "multimodal_text")
ALL_RECIPIENTS = "all"
TRANSCRIPT = "audio_transcription"
RECORDINGS = ("audio_asset_pointer", "real_time_user_audio_video_asset_pointer")
PICTURES = "contains pictures or sound"
ENDLESS = "its branch has no beginning"


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the current branch of each conversation."""
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        row, conversation = record
        try:
            turns = list(filter(None, map(_turn, _current_branch(conversation))))
        except UnusableRecordError as error:
            yield RejectedRecord(row, str(error))
            continue
        yield build_conversation(RawDialogue.of(turns), row, options)


def _current_branch(conversation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes from the root to the current one. Raises `UnusableRecordError` for a broken
    tree.
    """
    nodes = object_field(conversation, "mapping")
    branch: list[dict[str, Any]] = []
    seen: set[str] = set()
    at = conversation.get("current_node")
    if not isinstance(at, str) or at not in nodes:
        at = _latest_leaf(nodes)
    while isinstance(at, str):
        node = nodes.get(at)
        if not isinstance(node, dict):
            break
        if at in seen:
            raise UnusableRecordError(ENDLESS)
        seen.add(at)
        branch.append(node)
        at = node.get("parent")
    return branch[::-1]


def _latest_leaf(nodes: Mapping[str, Any]) -> str:
    """Return the end of the branch of last children, which is shown if no current node is
    stored.
    """
    at = _root(nodes)
    seen: set[str] = set()
    while at not in seen:
        node = nodes.get(at)
        if not isinstance(node, dict):
            break
        seen.add(at)
        children = [id for id in node.get("children") or () if isinstance(id, str) and id in nodes]
        if not children:
            return at
        at = children[-1]
    if at:
        raise UnusableRecordError(ENDLESS)
    return at


def _root(nodes: Mapping[str, Any]) -> str:
    for id, node in nodes.items():
        if isinstance(node, dict) and not node.get("parent"):
            return id
    return ""


def _turn(node: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return a node's role and text; None if it is not shown. Raises `UnusableRecordError` for
    tools and pictures.
    """
    message = object_field(node, "message")
    role = object_field(message, "author").get("role")
    content = object_field(message, "content")
    metadata = object_field(message, "metadata")
    kind = content.get("content_type", "text")
    is_hidden = metadata.get("is_visually_hidden_from_conversation") is True
    if not message or role == "system" or is_hidden or kind in HIDDEN_CONTENT:
        return None
    # An answer to a tool's result cannot be learned without the result.
    is_for_tool = message.get("recipient", ALL_RECIPIENTS) != ALL_RECIPIENTS
    if role == "tool" or is_for_tool or kind not in TEXT_CONTENT:
        raise UnusableRecordError("contains tool calls")
    parts = content.get("parts")
    if not isinstance(parts, list):
        raise UnusableRecordError("a message without parts")
    return str(role), _text(parts)


def _text(parts: list[Any]) -> str:
    """Return the texts of a message, and what was said in a voice chat, whose recordings are
    passed over; empty where nothing was understood. Raises `UnusableRecordError` for pictures, and
    for sound that is not written down.
    """
    texts: list[Any] = []
    has_sound = has_transcript = False
    for part in parts:
        kind = part.get("content_type") if isinstance(part, dict) else ""
        if kind == TRANSCRIPT:
            texts.append(part.get("text"))
            has_transcript = True
        elif kind in RECORDINGS and not part.get("frames_asset_pointers"):
            has_sound = True
        elif isinstance(part, dict):
            raise UnusableRecordError(PICTURES)
        else:
            texts.append(part)
    text = cell_text(texts)
    if has_sound and not has_transcript and not text.strip():
        raise UnusableRecordError(PICTURES)
    return text


def _recognises(peek: Peek) -> bool:
    rows = peek.objects
    trees = sum(_is_tree(row.get("mapping")) for row in rows)
    return trees > 0 and 2 * trees > len(rows)


def _is_tree(mapping: object) -> bool:
    nodes = list(mapping.values())[:8] if isinstance(mapping, dict) else []
    for node in nodes:
        if not isinstance(node, dict) or "message" not in node or "children" not in node:
            return False
    return bool(nodes)


EXPECTED = 'ChatGPT\'s conversations.json: [{"title", "mapping": {id: {message, parent, children}}, "current_node"}]'
FORMAT = SourceFormat(
    "chatgpt",
    "ChatGPT export",
    EXPECTED,
    matches=_recognises,
    read=read,
    meanings=(
        "of edited and regenerated messages, the branch that is shown is read; the others are left "
        "out",
    ),
)
