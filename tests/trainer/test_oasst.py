"""OASST trees: which path is taken, what is left out and why; trees and flat rows give the same."""

import random
from collections import Counter

import pytest

from tests.trainer.read_sources import everything, jsonl, spoken
from trainer.sources.registry import detect_format


def node(text, *replies, rank=None, role=None, **fields):
    return {
        "message_id": text,
        "text": text,
        "rank": rank,
        "lang": "en",
        "replies": list(replies),
        **fields,
    }


def tree(prompt, state="ready_for_export"):
    """The published form: roles by depth, parents named."""

    def settle(at, depth, parent):
        at.setdefault("role", "prompter" if depth % 2 == 0 else "assistant")
        at["parent_id"] = parent
        for reply in at["replies"]:
            settle(reply, depth + 1, at["message_id"])

    settle(prompt, 0, None)
    return {"message_tree_id": prompt["message_id"], "tree_state": state, "prompt": prompt}


def flat(trees):
    rows = []
    for each in trees:
        stack = [each["prompt"]]
        while stack:
            at = stack.pop(0)
            stack[:0] = at["replies"]
            labels = {
                "name": list(at.get("labels", {})),
                "value": [v["value"] for v in at.get("labels", {}).values()],
            }
            rows.append(
                {key: value for key, value in at.items() if key != "replies"}
                | {
                    "labels": labels,
                    "message_tree_id": each["message_tree_id"],
                    "tree_state": each["tree_state"],
                }
            )
    return rows


def bell():
    return tree(
        node(
            "Why does it ring?",
            node("Because.", node("And then?", rank=0), rank=2),
            node(
                "It is noon.",
                node("Always?", node("At one, too.", rank=1), node("Daily.", rank=0)),
                node("Thanks."),
                rank=0,
            ),
            node("No idea.", rank=1),
            lang="en",
        )
    )


def read(tmp_path, rows, **options):
    path = tmp_path / "oasst.json"
    path.write_bytes(jsonl(rows))
    return everything(path, **options)


@pytest.mark.parametrize("rows", [[bell()], flat([bell()])], ids=["trees", "rows"])
def test_the_best_ranked_path_is_taken(tmp_path, rows):
    (conversation,), rejected = read(tmp_path, rows)
    assert spoken(conversation) == [
        ("user", "Why does it ring?"),
        ("assistant*", "It is noon."),
        ("user", "Always?"),
        ("assistant*", "Daily."),
    ]
    assert (conversation.rows, conversation.rejected, conversation.lang) == (
        4,
        "At one, too.",
        "en",
    )
    assert {r.reason: r.rows for r in rejected} == {
        "not on the best-ranked path": 3,
        "no answer": 2,
    }


@pytest.mark.parametrize("rows", [[bell()], flat([bell()])], ids=["trees", "rows"])
def test_all_paths_can_be_taken_and_each_message_is_counted_once(tmp_path, rows):
    used, rejected = read(tmp_path, rows, oasst_paths="all")
    assert [c.messages[-1].text for c in used] == ["Because.", "At one, too.", "Daily.", "No idea."]
    assert [c.rows for c in used] == [2, 3, 1, 1]
    assert [(r.reason, r.rows) for r in rejected] == [("no answer", 2)]


def test_the_formats_are_distinguished(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(jsonl([bell()]))
    assert detect_format(path).name == "oasst-trees"
    path.write_bytes(jsonl(flat([bell()])))
    assert detect_format(path).name == "oasst"


def test_deleted_rejected_and_bad_messages_are_left_out_with_what_follows(tmp_path):
    spoilt = [
        node("Deleted.", deleted=True, rank=0),
        node("Spam.", node("What?", node("More.")), review_result=False, rank=1),
        node("Poor.", labels={"quality": {"value": 0.1, "count": 3}}, rank=2),
        node(" ", rank=3),
        node("Fine.", labels={"quality": {"value": 0.9, "count": 3}}, review_result=True, rank=4),
    ]
    for rows in ([tree(node("Who?", *spoilt))], flat([tree(node("Who?", *spoilt))])):
        (conversation,), rejected = read(tmp_path, rows)
        assert conversation.messages[-1].text == "Fine."
        assert {r.reason: r.rows for r in rejected} == {
            "deleted": 1,
            "low quality": 2,
            "no text": 1,
            "after a rejected message: low quality": 2,
        }


def test_trees_in_other_languages_halted_or_without_answer_are_rejected_whole(tmp_path):
    german = tree(node("Warum?", node("Darum."), lang="de"))
    halted = tree(node("Hm?", node("Hm.")), state="halted_by_moderator")
    lonely = tree(node("Anybody?"), state="prompt_lottery_waiting")
    used, rejected = read(
        tmp_path, [german, halted, lonely, {"prompt": 1}, bell()], languages=("en",)
    )
    assert len(used) == 1
    assert [(r.reason, r.rows) for r in rejected[:4]] == [
        ("language de is not requested", 2),
        ("the tree was halted by moderator", 2),
        ("no answer", 1),
        ("no tree: it has no prompt", 1),
    ]


def test_mixed_up_rows_are_put_together_again(tmp_path):
    trees = [tree(node(f"Q{n}", node(f"A{n}", node(f"Q{n}b", node(f"A{n}b"))))) for n in range(20)]
    rows = flat(trees)
    random.Random(4).shuffle(rows)
    used, rejected = read(tmp_path, rows)
    assert not rejected and sum(c.rows for c in used) == 80
    assert sorted(c.raw_text for c in used) == sorted(
        f"Q{n}\nA{n}\nQ{n}b\nA{n}b" for n in range(20)
    )


def test_rows_that_make_no_tree_are_counted(tmp_path):
    rows = flat([bell()])
    lost = {**rows[1], "message_id": "x", "parent_id": "gone"}
    circle = [{**rows[1], "message_id": a, "parent_id": b} for a, b in (("c", "d"), ("d", "c"))]
    nameless = {**rows[1], "message_id": None}
    used, rejected = read(tmp_path, [*rows, lost, *circle, nameless, rows[1]])
    assert len(used) == 1
    assert Counter({r.reason: r.rows for r in rejected}) >= Counter(
        {
            "the message it answers is missing": 1,
            "messages that answer each other in a circle": 2,
            "no message_id": 1,
            "duplicate message_id": 1,
        }
    )
    assert sum(item.rows for item in [*used, *rejected]) == len(rows) + 5


def test_trees_may_be_thousands_of_messages_deep(tmp_path):
    rows = [
        {
            "message_id": str(n),
            "parent_id": str(n - 1) if n else None,
            "message_tree_id": "0",
            "text": f"turn {n}",
        }
        | {"role": "assistant" if n % 2 else "prompter"}
        for n in range(6000)
    ]
    for paths in ("best", "all"):
        (conversation,), rejected = read(tmp_path, rows, oasst_paths=paths)
        assert len(conversation.messages) == conversation.rows == 6000 and not rejected
