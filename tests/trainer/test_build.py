"""`dataset build` and `dataset export`: what is written, that it is whole, and that every record is
accounted for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError, RequestError, UnderstudyError
from personas.home.data_subjects import read_people
from personas.home.pseudonyms import INVENTED_NAMES, HomeKey, keyed_person
from personas.models.base_model import locate
from personas.schemas.chat import Persona
from tests.trainer.conversations import dialogue, sentence, talk
from tests.trainer.job_folders import export, message, sign, talks
from trainer.cli.main import main
from trainer.dataset.builder import DatasetBuilder, DatasetPlan
from trainer.dataset.dedup_split import SplitKey
from trainer.dataset.layout import staging_folder
from trainer.dataset.ledger import Ledger
from trainer.dataset.writer import write_dataset
from trainer.sources.conversation import RejectedRecord

CARD = 'id = "ada"\nname = "Ada"\ndescription = "You are Ada, a clockmaker."\n'
FILES = {
    "README.md", "composition.png", "composition.svg", "dropped.jsonl", "eval.jsonl", "heldout.bin", "lengths.png",
    "lengths.svg", "people.json", "stats.json", "train.jsonl",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("blank_charts")


def rows(*dialogues):
    return "\n".join(
        json.dumps(
            {
                "messages": [
                    {"role": ("user", "assistant")[n % 2], "content": text}
                    for n, text in enumerate(one)
                ]
            }
        )
        for one in dialogues
    )


@pytest.fixture
def training_home(tmp_path, monkeypatch):
    """A folder with a card, a log in which its persona speaks, and general talk; it is the working
    directory.
    """
    monkeypatch.chdir(tmp_path)
    Path("ada.toml").write_text(CARD, encoding="utf-8")
    Path("talk.json").write_text(export(talks(60)), encoding="utf-8")
    general = [(sentence(n, 12), sentence(n + 10_000, 12)) for n in range(120)]
    Path("general.jsonl").write_text(rows(*general), encoding="utf-8")
    names = "talk.json general.jsonl more.jsonl synthetic.jsonl one.jsonl broken.jsonl others.json"
    sign(*(tmp_path / name for name in names.split()))
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `python -m trainer …` in this process: exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["trainer", *words])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_persona_data_set_is_written_whole(training_home, command, drawn_charts):
    words = (
        "dataset",
        "build",
        "--persona",
        "ada.toml",
        "--source",
        "talk.json",
        "--out",
        "out",
        "--json",
    )
    code, output, errors = command(*words)
    result = json.loads(output)
    assert code == 0 and not errors and {path.name for path in Path("out").iterdir()} == FILES
    train = lines("out/train.jsonl")
    held_out = lines("out/eval.jsonl")
    assert (
        result["samples"] == {"train": len(train), "eval": len(held_out)}
        and len(train) + len(held_out) == 60
    )
    assert (
        result["sources"] == {"talk.json": 60}
        and result["rows"] == result["rows_used"] == 120
        and result["dropped"] == {}
    )
    assert result["tokens"] == sum(line["tokens"] for line in train + held_out)
    first = train[0]
    assert [m["role"] for m in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][0]["content"] == "You are Ada, a clockmaker."
    assert first["messages"][-1]["content"].startswith("I mended clock")
    assert "mira_wet" not in json.dumps(train + held_out), "members have pseudonyms"
    assert {key: first[key] for key in ("kind", "source", "right", "lore", "arrived")} == {
        "kind": "persona", "source": "talk.json", "right": "own-writing", "lore": [], "arrived": "2026-11-20"
    }  # fmt: skip
    asked = first["messages"][1]["content"].partition(":")[0]
    assert first["speakers"] == [asked, "Ada"] and asked in INVENTED_NAMES
    stats = json.loads(Path("out/stats.json").read_text())
    assert {key: stats[key] for key in result} == result and stats["persona"] == "ada"
    assert sum(stats["tokens_per_sample"]["counts"]) == 60
    sheet = Path("out/README.md").read_text()
    assert "| source | train | eval | share | tokens | records used |" in sheet
    assert f"| talk.json | {len(train)} | {len(held_out)} | 100% |" in sheet
    assert "(composition.svg)" in sheet and result["hash"] in sheet
    assert Path("out/lengths.svg").read_text().lstrip().startswith("<?xml")
    assert Path("out/lengths.png").read_bytes().startswith(b"\x89PNG")


def test_a_right_that_is_stated_goes_with_each_sample(training_home, command):
    sign(training_home / "talk.json", right="form")
    words = (
        "dataset",
        "build",
        "--persona",
        "ada.toml",
        "--source",
        "talk.json",
        "--source",
        "general.jsonl",
    )
    _, _, errors = command(*words, "--out", "out", "--right", "licensed:CC0")
    assert {(line["source"], line["right"]) for line in lines("out/train.jsonl")} == {
        ("talk.json", "form"),
        ("general.jsonl", "licensed:CC0"),
    }
    sheet = Path("out/README.md").read_text()
    today = datetime.now(UTC).date().isoformat()
    assert not errors and "| form | 60 |" in sheet
    assert "| talk.json | form | the tests | 2026-11-20 | Made up. |" in sheet
    assert f"| general.jsonl | licensed:CC0 | stated on the command line | {today} |" in sheet
    assert (
        json.loads(Path("out/stats.json").read_text())["statements"]["general.jsonl"]["stated_on"]
        == today
    )


def test_dropped_records_say_where_they_are_from_too(training_home, command):
    unwanted = [
        message("Who are you?", minute=9000),
        message("As an AI, I cannot say.", "Ada", 9001),
    ]
    alone = message("Nobody but Corvin Tarn is here.", "Corvin Tarn", 12000)
    Path("talk.json").write_text(export([*talks(8), *unwanted, alone]), encoding="utf-8")
    command("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "out")
    unanswered, dropped = sorted(
        lines("out/dropped.jsonl"), key=lambda line: line["reason"], reverse=True
    )
    assert unanswered["reason"] == "nobody answers" and unanswered["speakers"][0] in INVENTED_NAMES
    assert "Corvin" not in json.dumps(unanswered), "members have pseudonyms here too"
    assert (dropped["reason"], dropped["right"], dropped["arrived"]) == (
        "boilerplate",
        "own-writing",
        "2026-11-20",
    )
    assert dropped["speakers"][0] in INVENTED_NAMES and dropped["speakers"][1:] == ["Ada"]


def test_people_are_listed_under_a_key_and_two_data_sets_cannot_be_joined(training_home, command):
    for name in ("talk.json", "more.jsonl", "others.json"):
        (training_home / name).write_text(export(talks(8)), encoding="utf-8")
    result = [("one", "talk.json"), ("two", "more.jsonl"), ("three", "others.json")]
    for out, source in result:
        command("dataset", "build", "--persona", "ada.toml", "--source", source, "--out", out)
    key = HomeKey.of(Path(os.environ["UNDERSTUDY_HOME"])).people()
    player = message("", "Ada")["author"]["id"]  # nothing says that a bot speaks for Ada
    people = [
        keyed_person(key, person)
        for person in (message("")["author"]["id"], "name:mira_wet", player)
    ]
    for out, _ in result:
        assert read_people(Path(out)) == {person: 8 for person in people}
        assert "mira" not in Path(out, "people.json").read_text()
    called = [lines(f"{out}/train.jsonl")[0]["speakers"][0] for out, _ in result]
    assert len(set(called)) > 1, (
        "another in the next; all three are the same by chance in one home of 14,000"
    )


def test_the_same_input_gives_the_same_hash_and_files(training_home, command):
    words = (
        "dataset",
        "build",
        "--persona",
        "ada.toml",
        "--source",
        "general.jsonl",
        "--source",
        "talk.json",
    )
    result = [json.loads(command(*words, "--mix", "60:40", "--out", out, "--json", *more)[1]) for out, *more in
            (("one",), ("two",), ("three", "--seed", "1"))]  # fmt: skip
    assert result[0] == result[1] and result[0]["hash"] != result[2]["hash"]
    for name in FILES - {"README.md"}:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


def test_a_mix_keeps_its_ratio_and_accounts_for_the_rest(training_home, command):
    words = (
        "dataset",
        "build",
        "--persona",
        "ada.toml",
        "--out",
        "out",
        "--json",
        "--mix",
        "80:20",
    )
    for order in (("general.jsonl", "talk.json"), ("talk.json", "general.jsonl")):
        result = json.loads(
            command(*words, *(word for name in order for word in ("--source", name)))[1]
        )
        kinds = [
            Counter(line["kind"] for line in lines(f"out/{side}.jsonl"))
            for side in ("train", "eval")
        ]
        assert kinds[0]["general"] == pytest.approx(4 * kinds[0]["persona"], abs=4), (
            "general:persona, in any order"
        )
        assert result["sources"]["general.jsonl"] > 90
        assert result["dropped"]["over the mix"] == result["rows"] - result["rows_used"]


def test_a_mix_of_general_talk_goes_by_source(training_home, command, drawn_charts):
    Path("more.jsonl").write_text(
        rows(*((sentence(n, 12), sentence(-n, 12)) for n in range(500, 560)))
    )
    sources = ("--source", "general.jsonl", "--source", "more.jsonl")
    result = json.loads(
        command("dataset", "build", *sources, "--mix", "1:2", "--out", "out", "--json")[1]
    )
    assert result["sources"]["more.jsonl"] == pytest.approx(
        2 * result["sources"]["general.jsonl"], abs=4
    )
    sheet = Path("out/README.md").read_text()
    chart = Path("out/composition.svg").read_text()
    for name, count in result["sources"].items():
        share = count / sum(result["sources"].values())
        assert re.search(rf"\| {name} \|.*\| {share:.0%} \|", sheet), (
            "the table has the share of each source"
        )
        assert f"{count:,} ({share:.0%})" in chart and f">{name}<" in chart
    code, _, errors = command("dataset", "build", *sources, "--mix", "1:2:3", "--out", "out")
    assert code == 1 and "3 numbers for 2 sources" in errors


def test_a_source_named_general_is_mixed_like_any_other(renderer, recipe):
    """It was taken for the kind of that name, so that the mix was of kinds."""
    names = {"general": 0, "second": 100, "third": 200}
    plan = DatasetPlan(renderer, recipe, None, mix=(1, 1, 2), key=b"k")
    with DatasetBuilder(plan, Ledger(lambda drop: None)) as builder:
        for name, first in names.items():
            talks = [
                dialogue(sentence(n, 12), sentence(-n, 12)) for n in range(first + 1, first + 41)
            ]
            builder.add_source(name, talks)
        sources = Counter(built.source for built in builder.samples())
    assert sources["third"] > 30
    assert sources["third"] == pytest.approx(2 * sources["general"], abs=4)


def test_a_source_gives_as_many_samples_as_it_may(training_home, command):
    sources = ("--source", "talk.json:25", "--source", "general.jsonl:40")
    result = json.loads(
        command("dataset", "build", "--persona", "ada.toml", *sources, "--out", "out", "--json")[1]
    )
    assert result["sources"] == {"talk.json": 25, "general.jsonl": 40}
    assert (
        result["dropped"] == {"over the source's limit": 2 * 35 + 80}
        and result["samples"]["eval"] > 4
    )


def test_what_a_small_data_set_held_out_stays_so_when_it_is_built_again(training_home, command):
    """Of so few none may be drawn; the nearest is held out then, and noted."""
    every = Path("general.jsonl").read_text().splitlines()
    drawn_high = [line for line in every if draw(line) > 0.5]
    drawn_low = [line for line in every if draw(line) < 0.15]
    held_out = set()
    for used in (drawn_high[:5], drawn_high[:20], drawn_high[:20] + drawn_low[:3]):
        Path("general.jsonl").write_text("\n".join(used))
        assert command("dataset", "build", "--source", "general.jsonl", "--out", "out")[0] == 0
        now = {line["messages"][-1]["content"] for line in lines("out/eval.jsonl")}
        assert now >= held_out
        held_out = now
    assert len(held_out) == 4


def draw(line):
    return SplitKey.of(
        dialogue(*(message["content"] for message in json.loads(line)["messages"]))
    ).draw


def test_two_stages_put_general_talk_first(training_home, command):
    sources = ("--source", "talk.json", "--source", "general.jsonl")
    command("dataset", "build", "--persona", "ada.toml", *sources, "--two-stage", "--out", "out")
    stages = [line["stage"] for line in lines("out/train.jsonl")]
    assert stages == sorted(stages) and set(stages) == {1, 2}


def test_the_data_sheet_counts_histories_that_go_on_into_earlier_conversations(
    training_home, command
):
    words = ("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "out")
    for share, said in (("1", r"In \d+ training samples, these turns go on into"), ("0", "")):
        assert command(*words, "--set", f"cross_session_share={share}")[0] == 0
        sheet = Path("out/README.md").read_text()
        stats = json.loads(Path("out/stats.json").read_text())
        assert bool(re.search(said or "go on into the conversations", sheet)) == bool(said)
        assert (stats["with_earlier_history"] > 20) == bool(said)


def test_the_assistant_speaks_for_a_persona_that_is_named_nowhere(training_home, command):
    command(
        "dataset", "build", "--persona", "ada.toml", "--source", "general.jsonl", "--out", "out"
    )
    first = lines("out/train.jsonl")[0]
    assert first["kind"] == "persona" and "clockmaker" in first["messages"][0]["content"]


def test_messages_that_say_whose_they_are_are_that_personas(training_home, command):
    said = [json.loads(line) for line in Path("general.jsonl").read_text().splitlines()[:30]]
    owned = [
        one | {"persona": ("ada", "oda")[n % 2], "provenance": {}} for n, one in enumerate(said)
    ]
    Path("synthetic.jsonl").write_text("\n".join(map(json.dumps, owned)))
    sources = ("--source", "synthetic.jsonl", "--source", "talk.json")
    result = json.loads(
        command("dataset", "build", "--persona", "ada.toml", *sources, "--out", "out", "--json")[1]
    )
    assert result["sources"] == {"synthetic.jsonl": 15, "talk.json": 60} and result["dropped"] == {
        "speaks as oda": 15
    }
    assert {line["kind"] for line in lines("out/train.jsonl")} == {"persona"}


def test_what_came_with_a_dialogue_stands_where_a_card_does(renderer, recipe):
    plan = DatasetPlan(renderer, recipe)
    with DatasetBuilder(plan, Ledger()) as builder:
        builder.add_source(
            "a", [dialogue(sentence(n), sentence(-n), system="I like tea.") for n in range(1, 9)]
        )
        made = [built.made for built in builder.samples()]
    assert {renderer.messages(m.persona, m.turns)[0]["content"] for m in made} == {"I like tea."}


def test_a_data_set_is_replaced_and_nothing_else_is(training_home, command):
    words = ("dataset", "build", "--persona", "ada.toml", "--source", "talk.json")
    assert command(*words, "--out", "out")[0] == command(*words, "--out", "out")[0] == 0
    Path("mine").mkdir()
    Path("mine/letter.txt").touch()
    code, _, errors = command(*words, "--out", "mine")
    assert code == 1 and "exists and is not a data set" in errors
    assert sorted(path.name for path in Path().iterdir()) == [
        "ada.toml", "general.jsonl", "mine", "out", "rights.toml", "talk.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--persona", "adda", "--source", "talk.json"),
            "'adda'. Known: ballast",
        ),
        (("--source", "gone.json"), "gone.json"),
        (("--source", "talk.json=telegraph"), "no format 'telegraph'"),
        (("--source", "talk.json", "--mix", "80"), "'80' is no ratio"),
        (
            ("--source", "talk.json"),
            "Name the speaker: --persona",
        ),
        (
            ("--source", "broken.jsonl"),
            "Nothing in broken.jsonl can be used: line 1: no answer. Expected: {",
        ),
        (("--source", "one.jsonl"), "only one conversation"),
        (("--persona", "ada.toml", "--source", "others.json"), "Ada never speaks in others.json"),
        (("--source", "general.jsonl", "--base-model", "nowhere"), "nowhere"),
        (("--source", "general.jsonl", "--recipe", "best"), "There is no recipe 'best'"),
        (("--source", "general.jsonl", "--max-length", "3"), "max_length cannot be '3'"),
        (("--source", "general.jsonl", "--languages", "vi"), "no conversation with a reply"),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_nothing(training_home, command, words, said):
    Path("one.jsonl").write_text(rows(("hello there", "good day")))
    Path("broken.jsonl").write_text(rows(("is anyone there",), ("hello",)) + '\n{"messages": [\n')
    Path("others.json").write_text(export([message("hello"), message("hi", "brinejack", 1)]))
    if "--languages" in words:
        Path("general.jsonl").write_text(
            rows(("How many clocks are there?", "There are nine clocks, I think."))
        )
    before = sorted(Path().iterdir())
    code, output, errors = command("dataset", "build", *words, "--out", "out")
    assert code == 1 and said in errors and not output and "Traceback" not in errors
    assert sorted(Path().iterdir()) == before


def test_a_full_disk_leaves_nothing_half(training_home, renderer, recipe, monkeypatch):
    from trainer.dataset import writer as module

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "draw_lengths", full)
    talks = [dialogue(sentence(n), sentence(-n)) for n in range(1, 9)]
    order = module.DatasetBuildSpec(
        DatasetPlan(renderer, recipe), locate("embedded"), [("a", talks)]
    )
    with pytest.raises(OSError, match="No space left"):
        write_dataset(training_home / "out", order, lambda *_: None)
    assert not (training_home / "out").exists() and not list(training_home.glob(".out*"))


# -------------------------------------------------------------------------------- nothing is silent


texts = st.sampled_from(
    [*(sentence(n, 14) for n in range(8)), "...", "as an AI language model", "x " * 700, "ok"]
)
logs = st.lists(texts, min_size=0, max_size=9).map(lambda said: talk(*said))
tables = st.lists(texts, min_size=0, max_size=5).map(lambda said: dialogue(*said, rows=1))
rejected = st.builds(
    RejectedRecord, st.just("line 1"), st.sampled_from(["no JSON", "command"]), st.integers(0, 3)
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(logs, tables, rejected), max_size=12), min_size=1, max_size=3),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from([(), (80, 20)]),
)
def test_every_record_is_used_or_dropped_with_a_reason(
    renderer, recipe, sources, has_persona, limit, mix
):
    persona = Persona("ada", "Ada") if has_persona else None
    plan = DatasetPlan(
        renderer, recipe, persona, limits={"0": limit} if limit else {}, mix=mix, key=b"k"
    )
    received = []
    ledger = Ledger(received.append)
    with DatasetBuilder(plan, ledger) as builder:
        try:
            for place, items in enumerate(sources):
                builder.add_source(str(place), items)
            made = list(builder.samples())
        except UnderstudyError as error:
            assert isinstance(error, MaterialError | RequestError)
            return
    records = sum(item.rows for items in sources for item in items)
    assert ledger.rows == records == ledger.rows_used + sum(ledger.dropped.values())
    assert sum(drop.rows for drop in received) == sum(ledger.dropped.values())
    assert not limit or sum(built.source == "0" for built in made) <= limit
    assert len({(built.made.sample.ids) for built in made}) == len(made)


# -------------------------------------------------------------------------------- held out for ever


def held(folder="out"):
    return {line["messages"][-1]["content"] for line in lines(f"{folder}/eval.jsonl")}


def learned(folder="out"):
    return {line["messages"][-1]["content"] for line in lines(f"{folder}/train.jsonl")}


def other_questions(name, start=20_000):
    """The same replies to other questions, so that no opening tells which they are."""
    said = [json.loads(line)["messages"] for line in Path("general.jsonl").read_text().splitlines()]
    Path(name).write_text(
        rows(*((sentence(start + n, 12), one[1]["content"]) for n, one in enumerate(said)))
    )


def test_what_one_data_set_held_out_no_other_of_the_home_learns(training_home, command):
    command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    other_questions("more.jsonl")
    words = ("dataset", "build", "--source", "more.jsonl", "--json", "--out")
    code, output, errors = command(*words, "again")
    assert code == 0 and not errors and len(held()) > 10 and not held() & learned("again")
    result = json.loads(command(*words, "third")[1])
    assert result["hash"] == json.loads(output)["hash"], "the same input, seed and list"
    planned = json.loads(command("plan", "--source", "more.jsonl", "--json")[1])
    assert planned["hash"] == result["hash"] and planned["samples"] == result["samples"]
    command("dataset", "build", "--persona", "ada.toml", "--source", "more.jsonl", "--out", "hers")
    assert held() & learned("hers"), "each persona has a list of its own"


def test_a_data_set_remembers_what_it_held_out_where_the_home_does_not(
    training_home, command, monkeypatch
):
    command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    home = Path(os.environ["UNDERSTUDY_HOME"])
    before = held()
    (home / "heldout" / "dialogue.bin").unlink()
    other_questions("more.jsonl")
    assert command("dataset", "build", "--source", "more.jsonl", "--out", "out")[0] == 0
    assert len(before) > 10 and not before & learned()


def test_a_plan_leaves_no_trace_in_the_list(training_home, command):
    home = Path(os.environ["UNDERSTUDY_HOME"])
    command("plan", "--source", "general.jsonl", "--json")
    assert not (home / "heldout").exists()


@pytest.mark.parametrize("where", ["home", "out"])
def test_a_damaged_list_stops_the_build_and_leaves_all_as_it_was(training_home, command, where):
    command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    file = (
        Path(os.environ["UNDERSTUDY_HOME"], "heldout", "dialogue.bin")
        if where == "home"
        else Path("out/heldout.bin")
    )
    file.write_bytes(file.read_bytes()[:-1])
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    code, _, errors = command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    assert code == 1 and str(file) in errors and "damaged" in errors and "from a backup" in errors
    assert before == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_a_reply_that_was_held_out_before_is_dropped_by_that_name(training_home, command):
    command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    reply = sorted(held())[0]
    fresh = [
        (sentence(n, 12), sentence(-n, 12), sentence(n, 9), sentence(-n, 9))
        for n in range(30_000, 30_030)
    ]
    long = [part for one in fresh[:4] for part in one]
    Path("more.jsonl").write_text(rows(*fresh[4:], [*long[:2], "And besides?", reply, *long[2:]]))
    result = json.loads(
        command("dataset", "build", "--source", "more.jsonl", "--out", "out", "--json")[1]
    )
    drops = [line for line in lines("out/dropped.jsonl") if line["reason"] == "held out before"]
    assert reply not in learned() and (
        reply in held() or [drop["text"] for drop in drops] == [reply]
    )
    assert result["rows"] == result["rows_used"] == 27


# --------------------------------------------------------------------------------- what is replaced


def files_in(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_nothing_is_replaced_that_a_build_has_not_made(training_home, command):
    words = ("dataset", "build", "--source", "general.jsonl", "--out", "out")
    command(*words)
    Path("out/notes.txt").write_text("mine")
    before = files_in("out")
    code, _, errors = command(*words)
    assert code == 1 and "contains other files: notes.txt" in errors and before == files_in("out")
    for stats in ('{"samples": 3}', "[]", "no JSON"):
        Path("theirs").mkdir(exist_ok=True)
        Path("theirs/stats.json").write_text(stats)
        Path("theirs/train.jsonl").write_text("")
        Path("theirs/thesis.txt").write_text("mine")
        code, _, errors = command(*words[:-1], "theirs")
        assert code == 1 and "theirs exists" in errors and "not a data set" in errors
        assert Path("theirs/thesis.txt").read_text() == "mine"


def test_what_came_into_a_data_set_while_another_was_made_stays(
    training_home, command, monkeypatch
):
    from trainer.dataset import writer as module

    words = ("dataset", "build", "--source", "general.jsonl", "--out", "out")
    command(*words)
    monkeypatch.setattr(module, "draw_lengths", lambda *_: Path("out/notes.txt").write_text("mine"))
    code, _, errors = command(*words)
    assert code == 1 and "notes.txt" in errors and Path("out/notes.txt").read_text() == "mine"
    assert not list(Path().glob(".out*"))


def slow_build(training_home):
    """A build, a process of its own, that is at its samples and waits there."""
    script = """
import sys, time
from pathlib import Path
from trainer.dataset import writer as module
from trainer.cli.main import main

def wait(*_):
    Path("waits").touch()
    time.sleep(60)

module.draw_lengths = wait
sys.argv = ["trainer", "dataset", "build", "--source", "general.jsonl", "--out", "out"]
sys.exit(main())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=training_home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (training_home / "waits").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_a_build_that_is_asked_to_end_leaves_nothing_and_says_so(training_home):
    process = slow_build(training_home)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143 and errors.decode() == "Stopped.\n"
    assert not list(training_home.glob(".out*")) and not (training_home / "out").exists()


def test_two_builds_at_once_are_distinguished_and_what_a_killed_one_left_goes(
    training_home, command
):
    words = ("dataset", "build", "--source", "general.jsonl", "--out", "out")
    with staging_folder(training_home / "out") as other:
        code, _, errors = command(*words)
        assert code == 1 and "Another build is making" in errors
        assert list(training_home.glob(".out*")) == [other]
    other.mkdir()  # as a killed build leaves it
    (training_home / ".out.theirs").mkdir()
    assert command(*words)[0] == 0
    assert [path.name for path in training_home.glob(".out*")] == [".out.theirs"]


DAMAGES = [
    ("train.jsonl", "{", "train.jsonl, line 1 is not a sample"),
    (
        "eval.jsonl",
        '{"messages": [{"role": "user", "content": "x"}]}',
        "eval.jsonl, line 1 is not a sample",
    ),
    ("stats.json", "{}", "is not a complete data set: stats.json lacks base_model, dropped"),
    ("train.jsonl", "", "train.jsonl contains no samples"),
    (
        "stats.json",
        None,
        "out/stats.json cannot be read: No such file or directory. Build the data set again",
    ),
    ("people.json", None, "out is not a complete data set: it has no people.json"),
]


def test_a_plan_names_what_is_damaged(training_home, command):
    command("dataset", "build", "--source", "general.jsonl", "--out", "out")
    Path("out").rename("whole")
    for file, text, said in DAMAGES:
        shutil.copytree("whole", "out")
        Path("out", file).unlink() if text is None else Path("out", file).write_text(text)
        code, _, errors = command("plan", "--dataset", "out")
        assert code == 1 and said in errors
        shutil.rmtree("out")


def test_a_plan_for_one_persona_is_not_made_of_anothers_data_set(training_home, command):
    command("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "hers")
    command("dataset", "build", "--source", "general.jsonl", "--out", "general")
    code, _, errors = command("plan", "--persona", "oda", "--dataset", "hers")
    assert code == 1 and "built for ada, not for oda" in errors
    code, _, errors = command("plan", "--persona", "oda", "--dataset", "general")
    assert code == 1 and "built for dialogue, not for oda" in errors
    assert command("plan", "--persona", "ada.toml", "--dataset", "hers")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--languages", "klingon"), "language 'klingon'"),
        (("--languages", "en,xx"), "language 'xx'"),
        (
            ("--min-reply-words", "9", "--max-reply-words", "3"),
            "--min-reply-words 9 is above --max-reply-words 3",
        ),
    ],
)
def test_what_nothing_can_meet_is_refused_by_name(training_home, command, words, said):
    code, _, errors = command(
        "dataset", "build", "--source", "general.jsonl", *words, "--out", "out"
    )
    assert code == 1 and said in errors and not Path("out").exists()


@pytest.mark.parametrize("how", [("dataset", "build", "--out", "out"), ("plan",)])
def test_what_fails_says_what_was_dropped_and_why(training_home, command, how):
    words = ("--source", "general.jsonl", "--min-reply-words", "400")
    code, _, errors = command(*how, *words)
    assert code == 1 and "120 × reply too short" in errors


ARABIC_TALKS = (
    ("متى يفتح السوق غدا؟", "يفتح السوق في الصباح الباكر"),
    ("هل عندك خبز؟", "نعم عندي خبز وزيتون"),
    ("كيف البحر اليوم؟", "البحر هادئ والهواء لطيف"),
    ("ماذا نطبخ الليلة؟", "نطبخ العدس مع البصل والليمون"),
    ("هل الطريق بعيد؟", "الطريق قريب خلف التل"),
    ("متى تعود القوارب؟", "تعود القوارب قبل غروب الشمس"),
)


def test_reports_say_in_which_scripts_names_were_looked_for(command, tmp_path):
    lines = []
    for hour, (asked, said) in enumerate(ARABIC_TALKS, 10):
        lines += [f"05/01/2024, {hour}:00 - Wick: {asked}", f"05/01/2024, {hour}:01 - Oda: {said}"]
    talk = tmp_path / "talk.txt"
    talk.write_text("\n".join(lines), encoding="utf-8")
    built = tmp_path / "set"
    of_source = ("--persona", "oda", "--right", "own-writing")
    sentence = "names of people outside the log were not looked for in Arabic (12 texts)"
    code, out, err = command(
        "dataset", "build", "--source", str(talk), *of_source, "--out", str(built)
    )
    assert code == 0, err
    assert sentence in out + err
    stats = json.loads((built / "stats.json").read_text())
    assert stats["name_search"] == {"Arabic": {"none": 12}}
    assert sentence in (built / "README.md").read_text()
    trained = (built / "train.jsonl").read_text() + (tmp_path / "set" / "eval.jsonl").read_text()
    assert all(said in trained for _, said in ARABIC_TALKS), "everyday words stay"
    assert sentence in command("mask", str(talk), *of_source)[1]
    for words in (("mask", str(built)), ("plan", "--dataset", str(built))):
        assert json.loads(command(*words, "--json")[1])["name_search"] == stats["name_search"]
