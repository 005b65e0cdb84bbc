"""What other programs read of a plan, a build and an inspection: masks, what did not fit, what was
anonymised.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from personas.shipped_folders import SHIPPED_DATA
from tests.trainer.job_folders import export, message, sign, talks
from trainer.cli.dataset_args import find_named_source
from trainer.dataset.data_mixture import SourceSpec
from trainer.dataset.sample_renderer import TOO_LONG


@pytest.fixture
def source(tmp_path):
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "talk.json").write_text(export(talks(30)))
    sign(tmp_path / "talk.json")
    return ("--persona", "ada.toml", "--source", "talk.json")


def of_people(path, count=30):
    """A log in which Wenda Quill asks, and mails her address around."""
    lines = []
    for n in range(count):
        asked = message(
            f"It is Wenda Quill, mail wenda.quill{n}@harbour-post.net, clock {n}?",
            "wenda",
            minute=90 * n,
        )
        lines += [
            asked,
            message(f"I mended clock {n} for you and Corvo.", "Ada", minute=90 * n + 1),
        ]
    path.write_text(export(lines))
    sign(path)


def test_a_plan_shows_samples_in_parts_whose_learned_ones_are_the_reply(source, command):
    result = json.loads(command("plan", *source, "--json", "--samples")[1])
    masks = json.loads(command("mask", "talk.json", *source[:2], "--json", "--limit", "3")[1])
    assert result["masks"] == masks["shown"] and len(result["masks"]) == 3
    for mask, text in zip(result["masks"], result["examples"], strict=True):
        assert "".join(f"⟦{part}⟧" if learned else part for part, learned in mask["parts"]) == text


@pytest.mark.slow
def test_a_plan_of_a_built_set_shows_its_samples_too(source, command):
    command("dataset", "build", *source, "--out", "out")
    result = json.loads(command("plan", "--dataset", "out", "--json", "--samples")[1])
    line = json.loads(Path("out/train.jsonl").read_text().splitlines()[0])
    assert (
        result["masks"][0]["tokens"] == line["tokens"]
        and result["masks"][0]["trained_tokens"] == line["reply_tokens"]
    )
    assert result["masks"][0]["parts"][-1] == [line["messages"][-1]["content"], True]


@pytest.mark.slow
def test_what_does_not_fit_is_counted(tmp_path, command):
    lines = []
    for n in range(80):
        minute = 120 * (n // 4) + n % 4
        asked = message(" ".join(f"gear{n}x{k}" for k in range(8)), minute=minute)
        reply = " ".join(f"wheel{n}y{k}" for k in range(60 if n == 7 else 4))
        lines += [asked, message(reply, "Ada", minute=minute + 0.1)]
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "talk.json").write_text(export(lines))
    sign(tmp_path / "talk.json")
    words = ("--persona", "ada.toml", "--source", "talk.json", "--set", "max_length=160", "--json")
    code, output, errors = command("plan", *words)
    assert code == 0, errors
    result = json.loads(output)
    assert result["truncation"] == {
        "max_length": 160,
        "history_trimmed": result["truncation"]["history_trimmed"],
        "too_long": 1,
    }
    command("dataset", "build", *words, "--out", "out")
    stats = json.loads(Path("out/stats.json").read_text())
    assert stats["with_trimmed_history"] == result["truncation"]["history_trimmed"] > 10
    assert stats["dropped_replies"][TOO_LONG] == 1
    of_set = json.loads(command("plan", "--dataset", "out", "--set", "max_length=160", "--json")[1])
    assert of_set["truncation"] == result["truncation"]


def test_a_build_lists_what_it_anonymises_for_its_owner_alone(tmp_path, command, monkeypatch):
    of_people(tmp_path / "talk.json")
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    words = ("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "out")
    code, _, errors = command(*words, "--review", "checks/review.jsonl")
    assert code == 0, errors
    first, *found = [
        json.loads(line) for line in Path("checks/review.jsonl").read_text().splitlines()
    ]
    assert first["delete_on"] and stat.S_IMODE(Path("checks/review.jsonl").stat().st_mode) == 0o600
    mails = [one for one in found if one["kind"] == "EMAIL_ADDRESS"]
    assert len(mails) == 30 and {one["source"] for one in found} == {"talk.json"}
    lines = [
        line
        for side in ("train", "eval")
        for line in Path(f"out/{side}.jsonl").read_text().splitlines()
    ]
    rows = {json.loads(line)["talk"] for line in lines}
    assert {one["row"] for one in found} == rows, "each find leads to the samples of its talk"
    assert (
        str(tmp_path / "checks" / "review.jsonl")
        in (tmp_path / "home" / "reviews.json").read_text()
    )


def test_corrections_decide_what_a_build_keeps_and_replaces(tmp_path, command):
    of_people(tmp_path / "talk.json")
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "corrections.txt").write_text("also Corvo\n- keep Wenda Quill\n")
    words = ("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "out")
    before = command(*words)[0] or Path("out/train.jsonl").read_text()
    assert "Wenda" not in before
    code, _, errors = command(*words, "--corrections", "corrections.txt")
    after = Path("out/train.jsonl").read_text()
    assert code == 0 and "It is Wenda Quill" in after and "Corvo" not in after, errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--review", "out/review.jsonl"), "in the data set's folder"),
        (
            ("--corrections", "bad.txt"),
            "bad.txt, line 2: 'maybe Ada' is not a correction. Write `keep NAME`",
        ),
        (("--corrections", "none.txt"), "none.txt: No such file"),
        (("--review-days", "0"), ""),
        (("--tell-every", "soon"), ""),
    ],
)
def test_what_cannot_be_is_said(source, tmp_path, command, words, said):
    (tmp_path / "bad.txt").write_text("keep Ada\nmaybe Ada\n")
    if not said:
        with pytest.raises(SystemExit):
            command("dataset", "build", *source, "--out", "out", *words)
        return
    code, _, errors = command("dataset", "build", *source, "--out", "out", *words)
    assert code == 1 and said in errors and not Path("out").exists()


def test_an_inspection_counts_every_reason_and_says_how_far_it_is(tmp_path, command):
    rows = [{"messages": [{"role": "user", "content": "hm"}]}] * 3 + [{"messages": []}] * 2
    good = {
        "messages": [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Me, as ever."},
        ]
    }
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, *rows]))
    _, output, errors = command("dataset", "inspect", "talk.jsonl", "--json", "--tell-every", "0")
    result = json.loads(output)
    assert sum(result["reasons"].values()) == result["rejected_count"] == 5
    assert list(result["reasons"].values()) == [3, 2] and "reading: 1 rows" in errors


def test_sources_are_named_as_in_the_catalogue(tmp_path, command):
    home = tmp_path / "home"
    home.mkdir()
    of_people(tmp_path / "wick.json")
    (home / "catalogue.toml").write_text(
        '[harbour]\npath = "../wick.json"\nright = "form"\nstated_by = "Mina"\nstated_on = 2026-11-20\nwhy = "so"\n'
        'persona_names = ["Ada"]\n'
    )
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    words = ("dataset", "build", "--persona", "ada.toml", "--json", "--out", "out")
    code, output, errors = command(*words, "--source", "harbour:10")
    assert code == 0 and json.loads(output)["sources"] == {"wick.json": 10}, errors
    statements = json.loads(Path("out/stats.json").read_text())["statements"]
    assert statements["wick.json"]["stated_by"] == "Mina", "the catalogue's word, not the folder's"
    assert find_named_source("ballast", home) == SourceSpec(SHIPPED_DATA / "logs" / "ballast.json")
    assert find_named_source("general-dialogue", home) == SourceSpec(
        SHIPPED_DATA / "general" / "dialogue.jsonl"
    )
    code, _, errors = command(*words, "--source", "harbor")
    assert code == 1 and "There is no file harbor" in errors
