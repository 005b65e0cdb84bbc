"""OpenAssistant conversation trees (OASST1, OASST2), as trees and as one message a row."""

from __future__ import annotations

import itertools
import operator
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from trainer.sources.conversation import Conversation, RejectedRecord, SourceMessage, SourceSpeaker
from trainer.sources.conversation_builder import ASSISTANT, USER
from trainer.sources.source_file import Peek, Record, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

ROLES = {"prompter": USER, "user": USER, "assistant": ASSISTANT}
MIN_QUALITY = 0.25  # minimum mean of the reviewers' votes (0 to 1) for a message
MESSAGE_KEYS = {"message_id", "parent_id", "text", "role"}
BAD_STATES = ("aborted_low_grade", "halted_by_moderator")
UNRANKED = float("inf")
OFF_PATH = "not on the best-ranked path"
AFTER_REJECTED = "after a rejected message: "


@dataclass(slots=True, eq=False)
class MessageNode:
    """A message of a tree. `fault` is the reason why it cannot be used, `rank` the reviewers' (0 is
    best).

    `size` counts the messages of its subtree, `answers` reports whether usable ones among them hold
    an answer.
    """

    id: str
    text: str
    speaker: SourceSpeaker | None
    rank: float
    lang: str
    fault: str
    replies: list[MessageNode] = field(default_factory=list)
    size: int = 1
    answers: bool = False


def parse_node(row: dict[str, Any]) -> MessageNode:
    """Parse a message without its replies; whatever is missing or odd becomes its fault."""
    text = row.get("text")
    text = text.strip() if isinstance(text, str) else ""
    rank = row.get("rank")
    lang = row.get("lang")
    role = row.get("role")
    speaker = ROLES.get(role) if isinstance(role, str) else None
    fault = ""
    if not text:
        fault = "no text"
    elif row.get("deleted"):
        fault = "deleted"
    elif row.get("review_result") is False or _is_low(row.get("labels")):
        fault = "low quality"
    elif speaker is None:
        fault = f"unknown role {str(role)[:20]!r}"
    return MessageNode(
        str(row.get("message_id") or ""),
        text,
        speaker,
        rank=rank if isinstance(rank, int | float) else UNRANKED,
        lang=lang if isinstance(lang, str) else "",
        fault=fault,
    )


def _is_low(labels: Any) -> bool:
    """Report a low quality rating. `labels` is {quality: {value, count}} in trees, {name: […],
    value: […]} in rows.
    """
    if not isinstance(labels, dict):
        return False
    quality = labels.get("quality")
    value = quality.get("value") if isinstance(quality, dict) else None
    names = labels.get("name")
    values = labels.get("value")
    if isinstance(names, list) and isinstance(values, list) and "quality" in names[: len(values)]:
        value = values[names.index("quality")]
    return isinstance(value, int | float) and value < MIN_QUALITY


def _recognises_trees(peek: Peek) -> bool:
    rows = peek.objects
    trees = [row for row in rows if isinstance(row.get("prompt"), dict) and "text" in row["prompt"]]
    return bool(trees) and 2 * len(trees) >= len(rows)


def _read_trees(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        prompt = row.get("prompt")
        if not isinstance(prompt, dict):
            yield RejectedRecord(place, "no tree: it has no prompt")
        else:
            tree = annotate_tree(_parse_tree(prompt))
            yield from extract_conversations(tree, str(row.get("tree_state") or ""), place, options)


def _parse_tree(prompt: dict[str, Any]) -> MessageNode:
    """Parse the tree of nested replies. Replies that are not objects become unusable nodes."""
    root = parse_node(prompt)
    open_ = [(root, prompt)]
    for node, row in open_:
        replies = row.get("replies")
        if not isinstance(replies, list):
            continue
        for reply in replies:
            if isinstance(reply, dict):
                child = parse_node(reply)
                open_.append((child, reply))
            else:
                child = MessageNode("", "", None, rank=UNRANKED, lang="", fault="no message")
            node.replies.append(child)
    return root


def annotate_tree(root: MessageNode) -> MessageNode:
    """Set `size` and `answers` in the tree, without recursion: trees may be thousands of messages
    deep.
    """
    nodes = [root]
    for node in nodes:
        nodes.extend(node.replies)
    for node in reversed(nodes):
        node.size = 1
        node.answers = node.speaker is ASSISTANT
        for reply in node.replies:
            node.size += reply.size
            node.answers = node.answers or reply.answers
        if node.fault:
            # Nothing below a message that cannot be used has its context.
            node.answers = False
    return root


def extract_conversations(
    root: MessageNode, state: str, place: str, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the conversations of a tree; every node is on a path or rejected."""
    if state in BAD_STATES:
        yield RejectedRecord(place, f"the tree was {state.replace('_', ' ')}", root.size)
        return
    if options.languages and root.lang and root.lang not in options.languages:
        yield RejectedRecord(place, f"language {root.lang} is not requested", root.size)
        return
    used: set[int] = set()
    if options.oasst_paths == "all":
        paths = _all_paths(root)
    else:
        paths = _best_paths(root)
    for path in paths:
        # A message that several paths share counts as a record of the first one.
        fresh = [node for node in path if id(node) not in used]
        used.update(map(id, fresh))
        yield _conversation(path, place, len(fresh), options)
    yield from _unused(root, used, place)


def _best_paths(root: MessageNode) -> Iterator[list[MessageNode]]:
    """Yield the path along the best-ranked replies, or without ranks the largest subtrees, from the
    root to the last answer, if there is one.
    """
    path: list[MessageNode] = []
    node: MessageNode | None = root
    while node is not None and not node.fault:
        path.append(node)
        usable = [reply for reply in node.replies if not reply.fault]
        node = min(usable, key=lambda reply: (reply.rank, -reply.size), default=None)
    while path and path[-1].speaker is not ASSISTANT:
        path.pop()
    if len(path) > 1:
        yield path


def _all_paths(root: MessageNode) -> Iterator[list[MessageNode]]:
    """Yield every path from the root to an answer that no further answer follows."""
    open_ = [[root]] if root.answers else []
    while open_:
        path = open_.pop()
        replies = [reply for reply in path[-1].replies if reply.answers]
        if not replies and len(path) > 1:
            yield path
        open_.extend([*path, reply] for reply in reversed(replies))


def _conversation(
    path: list[MessageNode], place: str, rows: int, options: ReadOptions
) -> Conversation:
    messages = [SourceMessage(node.speaker or USER, node.text, place) for node in path]
    siblings = [reply for reply in path[-2].replies if not reply.fault and reply.rank != UNRANKED]
    worst = max(siblings, key=lambda reply: reply.rank, default=path[-1])
    return Conversation.of(
        messages,
        options.source,
        options.right,
        rows=rows,
        rejected=worst.text if worst.rank > path[-1].rank else "",
        lang=path[0].lang,
        arrived=options.arrived,
    )


def _unused(root: MessageNode, used: set[int], place: str) -> Iterator[RejectedRecord]:
    """Reject the nodes on no path, counting those with the same reason together."""
    reasons: dict[str, int] = {}
    open_ = [(root, "")]
    while open_:
        node, above = open_.pop()
        fault = node.fault or above
        if id(node) not in used:
            reason = fault or (OFF_PATH if node.answers else "no answer")
            reasons[reason] = reasons.get(reason, 0) + 1
        after = AFTER_REJECTED + fault.removeprefix(AFTER_REJECTED) if fault else ""
        open_.extend((reply, after) for reply in node.replies)
    for reason, rows in reasons.items():
        yield RejectedRecord(place, reason, rows)


def _recognises_rows(peek: Peek) -> bool:
    rows = sum(row.keys() >= MESSAGE_KEYS for row in peek.records)
    return rows > 0 and 2 * rows >= len(peek.records)


def _read_rows(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    items = _tree_runs(file) if _is_grouped(file) else _sorted_on_disk(file)
    for item in items:
        if isinstance(item, RejectedRecord):
            yield item
        else:
            yield from _read_tree(item, options)


def _tree_id(row: dict[str, Any]) -> str:
    return str(row.get("message_tree_id") or row.get("message_id") or "")


def _is_grouped(file: SourceFile) -> bool:
    """Report whether each tree's messages are contiguous, as in the published files. Stores eight
    bytes per tree.
    """
    seen: set[int] = set()
    last = None
    for record in file.records():
        if isinstance(record, RejectedRecord):
            continue
        tree = _tree_id(record[1])
        if tree == last:
            continue
        if hash(tree) in seen:
            return False
        seen.add(hash(tree))
        last = tree
    return True


def _tree_runs(file: SourceFile) -> Iterator[list[Record] | RejectedRecord]:
    """Yield the rows of each tree of a file in which they are contiguous."""
    run: list[Record] = []
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        if run and _tree_id(run[0][1]) != _tree_id(record[1]):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _sorted_on_disk(file: SourceFile) -> Iterator[list[Record] | RejectedRecord]:
    """Group the trees of an unsorted file in a temporary database."""
    with tempfile.TemporaryDirectory() as folder, sqlite3.connect(f"{folder}/trees.db") as database:
        database.execute("create table node (tree text, place text, row blob)")
        for record in file.records():
            if isinstance(record, RejectedRecord):
                yield record
                continue
            place, row = record
            packed = orjson.dumps(row, default=str)
            database.execute("insert into node values (?, ?, ?)", (_tree_id(row), place, packed))
        rows = database.execute("select tree, place, row from node order by tree, rowid")
        for _, tree in itertools.groupby(rows, key=operator.itemgetter(0)):
            yield [(place, orjson.loads(packed)) for _, place, packed in tree]


def _read_tree(
    records: list[Record], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the conversations of a tree's rows, which may stand in any order: a reply before the
    message that it answers, too.
    """
    nodes: dict[str, MessageNode] = {}
    parents: list[tuple[str, MessageNode, str]] = []
    for place, row in records:
        node = parse_node(row)
        if node.id in nodes or not node.id:
            yield RejectedRecord(place, "duplicate message_id" if node.id else "no message_id")
            continue
        nodes[node.id] = node
        parents.append((place, node, str(row.get("parent_id") or "")))
    for _, node, parent in parents:
        if parent in nodes:
            nodes[parent].replies.append(node)
    state = str(records[0][1].get("tree_state") or "")
    reached = 0
    for place, root, parent in parents:
        if parent in nodes:
            continue
        reached += annotate_tree(root).size
        if parent:
            yield RejectedRecord(place, "the message it answers is missing", root.size)
        else:
            yield from extract_conversations(root, state, place, options)
    if reached < len(nodes):
        yield RejectedRecord(
            records[0][0], "messages that answer each other in a circle", len(nodes) - reached
        )


TREE_ROW = (
    '{"message_tree_id", "prompt": {"text", "role", "replies": '
    '[{"text", "role", "rank", "replies": …}]}}'
)
MESSAGE_ROW = (
    '{"message_id", "parent_id", "text", "role": "prompter" | "assistant", "lang", "rank"}'
)
FORMATS = (
    SourceFormat(
        "oasst-trees",
        "OASST conversation trees",
        TREE_ROW,
        matches=_recognises_trees,
        read=_read_trees,
    ),
    SourceFormat("oasst", "OASST messages", MESSAGE_ROW, matches=_recognises_rows, read=_read_rows),
)
