"""OpenAssistant's messages (OASST1, OASST2) as one a row, put together to trees again."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from trainer.conversation import Conversation, Rejected
from trainer.sources.files import Peek, Record, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.oasst import Node, conversations_of, measure, node_of


def _recognises_rows(peek: Peek) -> bool:
    rows = [row for row in peek.records if {"message_id", "parent_id", "text", "role"} <= row.keys()]
    return bool(rows) and 2 * len(rows) >= len(peek.records)


def _read_rows(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    grouped = _runs(file) if _is_grouped(file) else _sorted_on_disk(file)
    for item in grouped:
        if isinstance(item, Rejected):
            yield item
        else:
            yield from _of_one_tree(item, options)


def _tree_id(row: dict[str, Any]) -> str:
    return str(row.get("message_tree_id") or row.get("message_id") or "")


def _is_grouped(file: SourceFile) -> bool:
    """Whether each tree's messages stand together, as in the published files. Eight bytes a tree are kept."""
    seen: set[int] = set()
    current = ""
    for record in file.records():
        if isinstance(record, Rejected):
            continue
        if (tree := _tree_id(record[1])) != current:
            if hash(tree) in seen:
                return False
            seen.add(hash(tree))
            current = tree
    return True


def _runs(file: SourceFile) -> Iterator[list[Record] | Rejected]:
    run: list[Record] = []
    for record in file.records():
        if isinstance(record, Rejected):
            yield record
            continue
        if run and _tree_id(run[0][1]) != _tree_id(record[1]):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _sorted_on_disk(file: SourceFile) -> Iterator[list[Record] | Rejected]:
    """The trees of a file in which they are mixed up, put together in a database that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, sqlite3.connect(f"{folder}/trees.db") as database:
        database.execute("create table node (tree text, place text, row blob)")
        for record in file.records():
            if isinstance(record, Rejected):
                yield record
            else:
                packed = orjson.dumps(record[1], default=str)
                database.execute("insert into node values (?, ?, ?)", (_tree_id(record[1]), record[0], packed))
        yield from _grouped(database.execute("select tree, place, row from node order by tree, rowid"))


def _grouped(rows: Iterable[tuple[str, str, bytes]]) -> Iterator[list[Record]]:
    run: list[Record] = []
    current = None
    for tree, place, packed in rows:
        if run and tree != current:
            yield run
            run = []
        current = tree
        run.append((place, orjson.loads(packed)))
    if run:
        yield run


def _of_one_tree(records: list[Record], options: ReadOptions) -> Iterator[Conversation | Rejected]:
    nodes: dict[str, Node] = {}
    parents: list[tuple[str, Node, str]] = []
    for place, row in records:
        node = node_of(row)
        if node.id in nodes or not node.id:
            yield Rejected(place, "a message of this id came before" if node.id else "no message_id")
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
        reached += measure(root).size
        if parent:
            yield Rejected(place, "the message it answers is not there", root.size)
        else:
            yield from conversations_of(root, state, place, options)
    if reached < len(nodes):
        yield Rejected(records[0][0], "messages that answer each other in a circle", len(nodes) - reached)


FORMATS = (
    Format(
        "oasst",
        "OASST messages",
        '{"message_id", "parent_id", "text", "role": "prompter" | "assistant", "lang", "rank"}',
        _recognises_rows,
        _read_rows,
    ),
)
