"""OpenAssistant's conversation trees (OASST1, OASST2).

Format: https://github.com/LAION-AI/Open-Assistant (oasst-data, schemas). A tree is read along its best-ranked path, or
along every path to an answer. Each message is a record: those off the path, deleted or of low quality are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.talk import ASSISTANT, USER

ROLES = {"prompter": USER, "user": USER, "assistant": ASSISTANT}
LOW_QUALITY = 0.25
"""Below this mean of the reviewers' votes (0 to 1) a message is left out."""
BAD_STATES = ("aborted_low_grade", "halted_by_moderator")
OFF_PATH = "not on the best-ranked path"


@dataclass(slots=True, eq=False)
class Node:
    """A message of a tree. `fault` says why it cannot be used, `rank` is the reviewers' (0 is best).

    `size` counts the messages from here down, `answers` tells whether usable ones among them hold an answer.
    """

    id: str
    text: str
    speaker: Speaker | None
    rank: float
    lang: str
    fault: str
    replies: list[Node] = field(default_factory=list)
    size: int = 1
    answers: bool = False


def node_of(row: dict[str, Any]) -> Node:
    get = row.get
    text, rank, lang = get("text"), get("rank"), get("lang")
    role = get("role")
    speaker = ROLES.get(role) if isinstance(role, str) else None
    fault = ""
    if not isinstance(text, str) or not text.strip():
        fault = "no text"
    elif get("deleted"):
        fault = "deleted"
    elif get("review_result") is False or _is_low(get("labels")):
        fault = "low quality"
    elif speaker is None:
        fault = f"unknown role {str(role)[:20]!r}"
    return Node(
        str(get("message_id") or ""),
        text.strip() if isinstance(text, str) else "",
        speaker,
        rank if isinstance(rank, int | float) else float("inf"),
        lang if isinstance(lang, str) else "",
        fault,
    )


def _is_low(labels: Any) -> bool:
    """`labels` is {quality: {value, count}} in trees, {name: […], value: […]} in rows."""
    if not isinstance(labels, dict):
        return False
    quality = labels.get("quality")
    value = quality.get("value") if isinstance(quality, dict) else None
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list) and "quality" in names[: len(values)]:
        value = values[names.index("quality")]
    return isinstance(value, int | float) and value < LOW_QUALITY


def _recognises_trees(peek: Peek) -> bool:
    rows = peek.records or ([peek.head] if peek.head else [])
    trees = [row for row in rows if isinstance(row.get("prompt"), dict) and "text" in row["prompt"]]
    return bool(trees) and 2 * len(trees) >= len(rows)


def _read_trees(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    for record in file.records():
        if isinstance(record, Rejected):
            yield record
            continue
        place, row = record
        prompt = row.get("prompt")
        if not isinstance(prompt, dict):
            yield Rejected(place, "no tree: it has no prompt")
        else:
            yield from conversations_of(measure(_tree(prompt)), str(row.get("tree_state") or ""), place, options)


def _tree(prompt: dict[str, Any]) -> Node:
    """The tree of nested replies. Replies that are no objects become nodes that cannot be used."""
    root = node_of(prompt)
    open_ = [(root, prompt)]
    for node, row in open_:
        replies = row.get("replies")
        if not isinstance(replies, list):
            continue
        for reply in replies:
            if isinstance(reply, dict):
                child = node_of(reply)
                open_.append((child, reply))
            else:
                child = Node("", "", None, float("inf"), "", "no message")
            node.replies.append(child)
    return root


def measure(root: Node) -> Node:
    """The tree with `size` and `answers` set. Nothing here recurses: trees may be thousands of messages deep."""
    order = [root]
    for node in order:
        order.extend(node.replies)
    for node in reversed(order):
        node.size = 1 + sum([reply.size for reply in node.replies])
        below = node.speaker is ASSISTANT or any([reply.answers for reply in node.replies])
        node.answers = below and not node.fault
    return root


def conversations_of(root: Node, state: str, place: str, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """What a tree holds. Every node is on a path, or rejected."""
    if state in BAD_STATES:
        yield Rejected(place, f"the tree was {state.replace('_', ' ')}", root.size)
        return
    if options.languages and root.lang and root.lang not in options.languages:
        yield Rejected(place, f"language {root.lang} is not asked for", root.size)
        return
    used: set[int] = set()
    paths = _all_paths(root) if options.oasst_paths == "all" else filter(None, [_best_path(root)])
    for path in paths:
        fresh = [node for node in path if id(node) not in used]
        used.update(map(id, fresh))
        yield _conversation(path, place, len(fresh), options)
    yield from _unused(root, used, place)


def _best_path(root: Node) -> list[Node]:
    """From the root by the best-ranked replies to the last answer; where none is ranked, where most was said."""
    path: list[Node] = []
    node: Node | None = root
    while node is not None and not node.fault:
        path.append(node)
        usable = [reply for reply in node.replies if not reply.fault]
        node = min(usable, key=lambda reply: (reply.rank, -reply.size), default=None)
    return _to_answer(path)


def _to_answer(path: list[Node]) -> list[Node]:
    while path and path[-1].speaker is not ASSISTANT:
        path.pop()
    return path if len(path) > 1 else []


def _all_paths(root: Node) -> Iterator[list[Node]]:
    """Every path from the root to an answer that no further answer follows."""
    open_ = [[root]] if root.answers else []
    while open_:
        path = open_.pop()
        on = [reply for reply in path[-1].replies if reply.answers]
        if not on and len(path) > 1:
            yield path
        open_.extend([*path, reply] for reply in reversed(on))


def _conversation(path: list[Node], place: str, rows: int, options: ReadOptions) -> Conversation:
    messages = [Message(node.speaker or USER, node.text, place) for node in path]
    worse = [reply for reply in path[-2].replies if not reply.fault and reply.rank != float("inf")]
    worst = max(worse, key=lambda reply: reply.rank, default=path[-1])
    rejected = worst.text if worst.rank > path[-1].rank else ""
    return Conversation.of(
        messages,
        options.source,
        options.right,
        rows=rows,
        rejected=rejected,
        lang=path[0].lang,
        arrived=options.arrived,
    )


def _unused(root: Node, used: set[int], place: str) -> Iterator[Rejected]:
    """The nodes on no path, those with the same reason counted together."""
    reasons: dict[str, int] = {}
    open_ = [(root, "")]
    while open_:
        node, above = open_.pop()
        fault = node.fault or above
        if id(node) not in used:
            reason = fault or (OFF_PATH if node.answers else "no answer")
            reasons[reason] = reasons.get(reason, 0) + 1
        after = f"after a message that is left out: {fault.removeprefix(_AFTER)}" if fault else ""
        open_.extend((reply, after) for reply in node.replies)
    for reason, rows in reasons.items():
        yield Rejected(place, reason, rows)


_AFTER = "after a message that is left out: "


FORMATS = (
    Format(
        "oasst-trees",
        "OASST conversation trees",
        '{"message_tree_id", "prompt": {"text", "role", "replies": [{"text", "role", "rank", "replies": …}]}}',
        _recognises_trees,
        _read_trees,
    ),
)
