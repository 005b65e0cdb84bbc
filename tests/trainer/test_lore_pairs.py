"""Training on pairs from lore, alone or with a log: what is taken, in which share, under whose
right.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.errors import MaterialError
from personas.home.adapters import verify_adapter
from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD
from personas.models.base_model import locate
from personas.prompt.renderer import Renderer
from tests.trainer.job_folders import ADA, export, sign, talks
from trainer.dataset.job_inputs import (
    EXTRACTED_SOURCE,
    OVER_PAIRS_SHARE,
    read_job_inputs,
    read_job_talk,
)
from trainer.dataset.loader import load_job_dataset
from trainer.dataset.synthetic.speaking_style import CONTRACTION
from trainer.report.run_plan import plan_job
from trainer.run import run_job
from trainer.train.job import load_fast_tokenizer
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = (
    *(
        "--set",
        "lora_r=4",
        "--set",
        "num_train_epochs=1",
        "--set",
        "max_length=256",
        "--set",
        "heldout_share=0.2",
    ),
    *("--set", "lore_share=0"),
)
TOPICS = "bell cat hat garden piano window river kitchen coat ladder".split()
LORE = "# Ada\n\n" + "\n".join(
    f"## The {it}\nAda keeps a {it} that is {n} years old. Ada found it in {1800 + n}.\n"
    for n, it in enumerate(TOPICS)
)
SHIPPED = ShippedData.from_source_tree()
SYNTHETIC = SHIPPED.synthetic
STATED = 'right = "own-writing"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "Mine."\n'


def synthetic_lines(count, persona="ada"):
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Good evening. What about drawer {TOPICS[n]}?"},
                    {
                        "role": "assistant",
                        "content": f"I keep {n} springs in the {TOPICS[n]} drawer, and one is mine.",
                    },
                ],
                "persona": persona,
                "provenance": {
                    "source": "ada/ada.md",
                    "heading": f"Ada: The {TOPICS[n]}",
                    "generator": "me",
                },
            }
        )
        + "\n"
        for n in range(count)
    )


@pytest.fixture
def make(command, tmp_path):
    """Makes the folder of a run with Ada's card, a log, lore and a synthesised set of the
    catalogue.
    """
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(12)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    (tmp_path / "lore" / "characters").mkdir(parents=True)
    (tmp_path / "lore" / "characters" / "Ada.md").write_text(LORE, encoding="utf-8")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "made.jsonl").write_text(
        synthetic_lines(6) + synthetic_lines(2, "bo"), encoding="utf-8"
    )
    entry = f'[ada_synthetic-2]\npath = "made.jsonl"\n{STATED}'
    (tmp_path / "home" / "catalogue.toml").write_text(entry, encoding="utf-8")

    def made(*words, fails=""):
        code, out, errors = command("train", "--persona", "ada.toml", *SMALL, *words, "--make-only")
        assert (code, fails in errors) == (1 if fails else 0, True), errors
        return Path(out.strip())

    return made


def talk_of(folder):
    inputs = read_job_inputs(folder, read_spec(folder))
    return read_job_talk(inputs, plan_job(folder).settings)


def test_a_share_of_lore_pairs_is_added_to_a_log(make, tiny_base):
    folder = make(
        "--dataset",
        "talk.json",
        "--lore",
        "lore",
        "--lore-pairs",
        "0.25",
        "--base-model",
        tiny_base.source,
    )
    talk = talk_of(folder)
    sources = [one.source for one in talk.conversations]
    assert sources.count("talk.json") == 12 and len(sources) == 12 + 4, "4 of 16 replies"
    assert talk.pairs["lore_pairs_synthesised"] == 6 and talk.pairs["lore_pairs_used"] == 4
    reasons = [one.reason for one in talk.rejected]
    assert reasons.count(OVER_PAIRS_SHARE) == sum(talk.pairs.values()) - 4 - 4
    assert sum("speaks as bo" in reason for reason in reasons) == 2, "another persona's dialogues"
    plan = plan_job(folder).as_json(())
    assert plan["lore_pairs"]["lore_pairs_used"] == 4 and plan["rows"] == plan["rows_used"] + sum(
        plan["dropped"].values()
    )


@pytest.mark.usefixtures("make")
def test_plan_counts_the_pairs_as_train_does(command, tiny_base):
    words = (
        "--persona",
        "ada.toml",
        *SMALL,
        "--dataset",
        "talk.json",
        "--lore",
        "lore",
        "--lore-pairs",
        "0.25",
    )
    code, planned, _ = command("plan", *words, "--base-model", tiny_base.source)
    assert code == 0 and "6 synthesised; 4 used" in planned
    _, trained, _ = command("train", "--dry-run", *words, "--base-model", tiny_base.source)
    # Both measure the machine, which may be a minute faster the second time.
    minutes = r"about \d+ min"
    assert re.sub(minutes, "", trained) == re.sub(minutes, "", planned)
    code, _, errors = command(
        "plan", "--persona", "ada.toml", "--source", "talk.json", "--lore-pairs", "0.25"
    )
    assert code == 1 and "--lore-pairs goes without --source." in errors and "--dataset" in errors
    code, _, errors = command(
        "plan", "--persona", "ada.toml", "--lore", "nowhere", "--lore-pairs", "1"
    )
    assert code == 1 and "no lore of Ada in nowhere" in errors


def test_a_shortage_of_pairs_is_a_caveat(make, tiny_base):
    words = (
        "--dataset",
        "talk.json",
        "--lore",
        "lore",
        "--lore-pairs",
        "0.9",
        "--base-model",
        tiny_base.source,
    )
    plan = plan_job(make(*words))
    assert any("Lore pairs were to be 90%" in note for note in plan.notes)


def test_lore_alone_is_enough(make, tiny_base):
    folder = make("--lore", "lore", "--lore-pairs", "1", "--base-model", tiny_base.source)
    spec = read_spec(folder)
    assert {it.kind for it in spec.materials} == {
        "card",
        "lore",
        "pairs",
        "general",
        "general-training",
    } and spec.request.lore_pairs == 1
    (pairs,) = (it for it in spec.materials if it.kind == "pairs")
    assert (pairs.right, pairs.stated_by, pairs.why) == ("own-writing", "me", "Mine.")
    data = load_job_dataset(
        folder,
        spec,
        read_job_inputs(folder, spec),
        Renderer(load_fast_tokenizer(locate(tiny_base.source))),
        plan_job(folder).settings,
        locate(tiny_base.source),
        stores=False,
    )
    replies = {it.reply for it in (*data.train_prompt_replies, *data.heldout_prompt_replies)}
    assert any("I keep a piano that is 4 years old." in reply for reply in replies), (
        "in the first person"
    )
    assert any("springs in the bell drawer" in reply for reply in replies)


@pytest.mark.slow
def test_from_lore_alone_to_an_adapter_that_says_where_its_samples_come_from(make, tiny_base):
    folder = make("--lore", "lore", "--lore-pairs", "1", "--base-model", tiny_base.source)
    run_job(folder, RunControl())
    manifest = verify_adapter(folder / "adapter")
    assert (
        manifest.dataset["lore_pairs_synthesised"] == 6
        and manifest.dataset["samples_from_lore"] > 10
    )
    sheet = json.loads((folder / "adapter" / "datasheet.json").read_text())
    assert sheet["by_source"].keys() == {EXTRACTED_SOURCE, "ada_synthetic-2.jsonl"}
    assert {(it["kind"], it["right"]) for it in sheet["materials"]} >= {
        ("lore", "own-writing"),
        ("pairs", "own-writing"),
    }


def test_bad_requests_are_refused_with_what_to_do(make, command, tmp_path, capsys):
    make(fails="Name a --dataset, or train on lore alone: --lore-pairs 1.")
    make("--lore-pairs", "1", "--dataset", "talk.json", fails="lore_pairs 1 trains on lore alone")
    make("--lore", "nowhere", "--lore-pairs", "1", fails="There is no lore of Ada in nowhere.")
    with pytest.raises(SystemExit):
        command("train", "--persona", "oda", "--lore-pairs", "1.5", "--dry-run")
    assert "from 0 to 1, got '1.5'" in capsys.readouterr().err
    code, _, errors = command(
        "train", "--dialogue", "--dataset", "talk.json", "--lore-pairs", "0.5", "--make-only"
    )
    assert code == 1 and "--lore-pairs is for a persona, and none is named." in errors
    (tmp_path / "home" / "catalogue.toml").unlink()
    (tmp_path / "lore" / "characters" / "Ada.md").write_text("# Ada\n\n", encoding="utf-8")
    (tmp_path / "lore" / "world.md").write_text("# Fog\n\nFog is common.\n", encoding="utf-8")
    folder = make("--lore", "lore", "--lore-pairs", "1")
    with pytest.raises(MaterialError, match=r"No pairs .*lore of Ada"):
        plan_job(folder)


def test_one_passage_of_lore_is_too_little(make, tmp_path):
    (tmp_path / "home" / "catalogue.toml").unlink()
    lore = tmp_path / "lore" / "characters" / "Ada.md"
    text = " ".join(f"Ada keeps a {topic}." for topic in TOPICS[:6])
    lore.write_text(f"# Ada\n\n## Things\n{text}\n", encoding="utf-8")
    folder = make("--lore", "lore", "--lore-pairs", "1")
    with pytest.raises(MaterialError, match=r"lore of Ada has only one passage.*at least one more"):
        plan_job(folder)


def test_unsigned_dialogues_are_not_trained_on(make, tmp_path):
    (tmp_path / "home" / "catalogue.toml").write_text(
        '[ada_synthetic]\npath = "made.jsonl"\nright = "own-writing"\n'
    )
    folder = make("--lore", "lore", "--lore-pairs", "1")
    assert not [it for it in read_spec(folder).materials if it.kind == "pairs"], (
        "the entry is invalid"
    )


@pytest.mark.slow
def test_the_dialogues_that_ship_are_data_sets(command, tmp_path):
    texts = {
        path.stem: path.read_text(encoding="utf-8") for path in sorted(SYNTHETIC.glob("*.jsonl"))
    }
    everyone = texts.pop("all_characters_synthetic")
    assert everyone == "".join(texts.values()) and len(texts) == 3
    sources = {}
    for name, text in texts.items():
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) >= 60 and sum(len(row["messages"]) > 2 for row in rows) >= 15, (
            "with several turns"
        )
        assert {f"{row['persona']}_synthetic" for row in rows} == {name}
        persona = read_card(SHIPPED_CARDS / f"{rows[0]['persona']}.toml")
        lore = {
            (it.source, it.heading)
            for it in read_lore(SHIPPED.lore, (persona, WORLD), ("ballast", "oda", "thrip"))
        }
        assert {(row["provenance"]["source"], row["provenance"]["heading"]) for row in rows} <= lore
        for row in rows:
            replies = [
                message["content"] for message in row["messages"] if message["role"] == "assistant"
            ]
            assert not [reply for reply in replies if not in_voice(persona.id, reply)]
        sources[name] = len(rows)
    words = (
        "--persona",
        "oda",
        "--source",
        "all_characters_synthetic",
        "--out",
        str(tmp_path / "built"),
        "--json",
        "--max-length",
        "1024",
    )
    code, out, errors = command("dataset", "build", *words)
    assert code == 0, errors
    built = json.loads(out)
    assert built["rows_used"] == sources["oda_synthetic"] and built["rows"] == sum(sources.values())
    assert built["dropped"] == {"speaks as ballast": 170, "speaks as thrip": 156}, (
        "no near duplicates"
    )


def in_voice(persona, reply):
    """The habits that all examples of the card share."""
    if persona == "thrip":
        return reply.startswith("*") and not CONTRACTION.search(reply)
    return (
        "!" not in reply
        and "*" not in reply
        and (persona == "oda" or not CONTRACTION.search(reply))
    )
