"""Data sets as `dataset build` leaves them, written by hand, of any size; and a trainer's program
that makes such.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from personas.home.data_subjects import write_people

PEOPLE = {"0123456789abcdef0123456789abcdef": 3}
STATED = {
    "right": "own-writing",
    "stated_by": "Mina Vale",
    "stated_on": "2026-11-20",
    "why": "Written for this.",
}
SPREAD = {
    "min": 80,
    "median": 104,
    "p95": 127,
    "max": 129,
    "edges": [80, 105, 130],
    "counts": [20, 26],
}
CARD = "You are Ballast, a dock crane. Lantern is a word of this card alone."


def line(n: int, source: str = "talk.json") -> dict[str, Any]:
    """A sample of a talk of two; every talk has two samples."""
    asked = f"Corvin asks about hawser {n} & <b>bold</b>, mail galen123@example.com"
    return {
        "messages": [
            {"role": "system", "content": CARD},
            {"role": "user", "content": f"Galen: {asked}"},
            {"role": "assistant", "content": f"I lifted crate {n} by dawn."},
        ],
        "kind": "persona",
        "source": source,
        "row": f"messages {2 * n + 1}",
        "talk": f"messages {4 * (n // 2)}",
        "right": "own-writing",
        "speakers": ["Galen", "Ballast"],
        "arrived": "2026-11-20",
        "tokens": 80 + n % 50,
        "reply_tokens": 9,
        "lore": [],
    }


def dropped(n: int) -> dict[str, Any]:
    """A record that is not used."""
    reason = "near duplicate" if n % 2 else "too long"
    return {"source": "talk.json", "row": f"messages {9000 + n}", "reason": reason, "rows": 1,
            "text": f"dropped text {n}", "right": "own-writing", "speakers": [], "arrived": ""}  # fmt: skip


def put_set(
    folder: Path,
    train: int = 40,
    held_out: int = 6,
    left_out: int = 4,
    persona: str | None = "ballast",
) -> Path:
    """A whole data set of so many samples."""
    folder.mkdir(parents=True)
    sides = {"train.jsonl": range(train), "eval.jsonl": range(train, train + held_out)}
    for name, numbers in sides.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(line(n, "talk.json" if n % 4 else "more.jsonl")) + "\n" for n in numbers
            )
    (folder / "dropped.jsonl").write_text(
        "".join(json.dumps(dropped(n)) + "\n" for n in range(left_out))
    )
    every = [*range(train + held_out)]
    of_more = sum(n % 4 == 0 for n in every)
    by_source = {
        "talk.json": figures(len(every) - of_more, rows=2 * train + left_out),
        "more.jsonl": figures(of_more, rows=train),
    }
    reasons = {"near duplicate": left_out // 2, "too long": left_out - left_out // 2}
    stats = {
        "samples": {"train": train, "eval": held_out},
        "tokens": 100 * len(every),
        "rows": 3 * train + left_out,
        "rows_used": 3 * train,
        "dropped": {reason: count for reason, count in reasons.items() if count},
        "sources": {name: of["train"] + of["eval"] for name, of in by_source.items()},
        "hash": "0" * 64,
        "persona": persona,
        "base_model": "embedded",
        "recipe": {"max_length": 512},
        "reply_tokens": 9 * len(every),
        "by_source": by_source,
        "by_right": {"own-writing": len(every)},
        "tokens_per_sample": SPREAD,
        "statements": {"talk.json": STATED},
        "replaced": {"PERSON": 46, "EMAIL_ADDRESS": 46},
    }  # fmt: skip
    (folder / "stats.json").write_text(json.dumps(stats))
    (folder / "README.md").write_text(
        "# The set\n\n<script>alert(1)</script>\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n"
    )
    write_people(folder, PEOPLE)
    return folder


def figures(samples: int, rows: int) -> dict[str, int]:
    """What came of a source."""
    return {"train": samples - samples // 8, "eval": samples // 8, "tokens": 100 * samples, "rows": rows,
            "rows_used": rows}  # fmt: skip


TRAINER = """\
import json, os, pathlib, sys, time
words = sys.argv[1:]
def option(name):
    return words[words.index(name) + 1] if name in words else ""
pathlib.Path("said.json").write_text(json.dumps(words))
print("reading talk.json: 1,200 rows", file=sys.stderr, flush=True)
if option("--persona") == "oda":
    sys.exit("talk.json holds no reply of Oda. Name her: --as")
if option("--persona") == "thrip":
    time.sleep(60)
if words[:2] == ["dataset", "inspect"] and any(word.endswith(".gz") for word in words):
    sys.exit("talk.jsonl.gz is not packed as gz. Send it as it is.")
elif words[:2] == ["dataset", "inspect"] and any("odd" in word for word in words):
    sys.exit("odd.json is in no known format. Known formats:\\n" + "\\n".join(f"  format-{n}" for n in range(40)))
elif words[:2] == ["dataset", "inspect"] and any("unclear" in word for word in words):
    if not pathlib.Path("uploads/columns.toml").exists():
        looks = [("wer", "2 names that recur", ["Wenda Quill"]), ("was", "texts", ["The ferry is late."])]
        columns = [{"name": name, "looks_like": look, "examples": shown} for name, look, shown in looks]
        print(json.dumps({"format": "columns", "question": {"columns": columns, "has_header": False,
                                                             "proposal": {"speaker": "wer", "text": "was"}}}))
        sys.exit("unclear.csv is a table in no known form.")
    taken = {"as_is": [{"what": "column was (what is said)", "why": ""}], "other_meaning": [],
             "not_taken": [{"what": "column id", "why": "it has no role"}]}
    print(json.dumps({"format": "columns", "rows": 7, "conversations": 1, "turns": 7, "report": taken, "examples": []}))
elif words[:2] == ["dataset", "inspect"]:
    turn = {"speaker": "Mina <i>", "persona": False, "text": "Who is it?"}
    print(json.dumps({"format": "sharegpt", "rows": 7, "conversations": 5, "turns": 12, "languages": {"en": 5},
                      "rejected_count": 2, "reasons": {"no answer": 2}, "rejected": [],
                      "examples": [{"row": "line 1", "messages": [turn]}]}))
else:
    from tests.bot.web.dataset_folders import put_set
    import shutil
    out = pathlib.Path(option("--out"))
    shutil.rmtree(out, ignore_errors=True)
    put_set(out)
    review = pathlib.Path(option("--review"))
    review.parent.mkdir(parents=True, exist_ok=True)
    found = {"source": "talk.json", "row": "messages 4", "context": "… asks about …"}
    review.write_text("".join(json.dumps(line) + "\\n" for line in [
        {"delete_on": "2026-12-05T00:00:00+00:00", "why": "It names people."},
        *[{**found, "kind": "PERSON", "original": "Wenda Quill", "replacement": "Galen"}] * 3,
        {**found, "kind": "EMAIL_ADDRESS", "original": "wenda@harbour-post.net", "replacement": "galen123@example.com"},
    ]))
    print(json.dumps({"samples": {"train": 40, "eval": 6}, "rows": 124, "rows_used": 120}))
"""
"""Stands in for `python -m trainer`: says what it was asked in `said.json`; Oda's build fails, as
does looking into what ends with .gz, or is called odd; Thrip's takes long.
"""
