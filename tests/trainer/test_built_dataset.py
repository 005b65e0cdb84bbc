"""Runs over a data set that `dataset build` made: the same samples, asked again, and all that is
known of them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bot.data.built_datasets import read_dataset
from personas.errors import MaterialError
from personas.home.adapters import verify_adapter
from personas.home.data_subjects import Consent, read_people, write_consent
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex
from personas.home.pseudonyms import JobKeys
from tests.trainer.job_folders import ADA, built_job, dialogues, export, message, sign, talks
from trainer.cli.main import main
from trainer.dataset.holdout_fingerprints import match_held_out
from trainer.run import run_job
from trainer.train.job import prepare_job_without_torch
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

BOT_TALK = [
    line | {"author": line["author"] | {"isBot": line["author"]["name"] == "Ada"}}
    for line in talks(12)
]
MIRA = message("")["author"]["id"]


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds Ada's data set of a log, each log once, in a folder with the home, the card and the
    set.
    """
    made: dict[str, Path] = {}

    def build(log, right):
        key = json.dumps([log, right])
        if key not in made:
            folder = made[key] = tmp_path_factory.mktemp("built")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("UNDERSTUDY_HOME", str(folder / "home"))
                _build(patch, log, right)
        return made[key]

    return build


def _build(patch, log, right):
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(log), encoding="utf-8")
    if right:
        sign(Path("talk.json").absolute(), right=right)
    else:
        allow(Path("home"), MIRA)
    words = ("--persona", "ada.toml", "--source", "talk.json", "--out", "set")
    patch.setattr(sys, "argv", ["trainer", "dataset", "build", *words])
    assert main() == 0


@pytest.fixture
def build(built, tmp_path, monkeypatch):
    """A data set of Ada's in `set`, and what `dataset build` said of it."""

    def made(log=None, right="own-writing"):
        shutil.copytree(
            built(talks(16) if log is None else log, right), tmp_path, dirs_exist_ok=True
        )
        monkeypatch.chdir(tmp_path)
        return json.loads(Path("set/stats.json").read_text())

    return made


@pytest.fixture
def job(tmp_path, home, tiny_base):
    """Makes a job for Ada over the data set in `set`."""

    def made(base=None, **changes):
        return built_job(
            tmp_path / "job",
            home,
            base or tiny_base.source,
            tmp_path / "set",
            persona="ada",
            **changes,
        )

    return made


def change_lines(file: Path, change):
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps(change(line)) + "\n" for line in lines), encoding="utf-8")


def test_messages_are_known_without_the_name_of_their_speaker(build, job, tmp_path):
    build()
    asked = [pair.message for pair in prepare_job_without_torch(job()).data.train_prompt_replies]
    rendered = [line["messages"][-2]["content"] for line in lines_of("set/train.jsonl")]

    assert all(shown.endswith(f": {said}") for shown, said in zip(rendered, asked, strict=True))


def test_a_set_of_older_versions_is_read_as_it_was_rendered(build, job, tmp_path):
    build()
    change_lines(tmp_path / "set" / "train.jsonl", _without_message)
    rendered = [line["messages"][-2]["content"] for line in lines_of("set/train.jsonl")]
    data = prepare_job_without_torch(job()).data

    assert [pair.message for pair in data.train_prompt_replies] == rendered


def _without_message(line):
    return {name: value for name, value in line.items() if name != "message"}


def test_the_samples_are_the_sets_and_what_is_known_of_them_goes_into_the_adapter(build, job, home):
    result = build()
    folder = job()
    data = prepare_job_without_torch(folder).data
    assert data.hash == result["hash"] and len(data.train) == result["samples"]["train"]
    received = []
    run_job(folder, RunControl(received.append))
    manifest = verify_adapter(folder / "adapter")
    sheet = json.loads((folder / "adapter" / "datasheet.json").read_text())
    assert manifest.dataset_hash == result["hash"] and manifest.rights == {"own-writing": 16}
    assert manifest.dataset["samples_train"] + manifest.dataset["samples_heldout"] == 16
    assert manifest.metrics.loss_tuned < manifest.metrics.loss_base
    assert (
        sheet["by_source"] == {"talk.json": 16}
        and sheet["stated"]["talk.json"]["stated_by"] == "the tests"
    )
    assert sheet["arrived"] == {"2026-11-20": 16}
    assert (
        "| talk.json | own-writing | the tests |"
        in (folder / "adapter" / "datasheet.md").read_text()
    )
    people = JobKeys.in_folder(folder).people
    assert read_people(folder / "adapter") == read_people(folder / "material" / "set") != {}
    kept = HoldoutIndex.read(folder / "heldout_new.bin", people)
    assert len(kept) == result["samples"]["eval"]


def test_the_bot_reads_the_figures_of_a_set(build, tmp_path):
    """The trainer writes stats.json, and the bot's model of it is another one."""
    result = build()
    shown = read_dataset("talk", tmp_path / "set", is_own=True).stats
    assert shown.hash == result["hash"] and shown.count == sum(result["samples"].values())


def test_a_set_for_somebody_else_is_refused(build, job, tmp_path, home, tiny_base):
    build()
    other = built_job(tmp_path / "other", home, tiny_base.source, tmp_path / "set")
    with pytest.raises(MaterialError, match="for ada, not for dialogue"):
        prepare_job_without_torch(other)
    stats = json.loads((tmp_path / "set" / "stats.json").read_text())
    (tmp_path / "set" / "stats.json").write_text(json.dumps({**stats, "persona": "oda"}))
    with pytest.raises(MaterialError, match="for oda, not for ada"):
        prepare_job_without_torch(job())


def test_what_is_too_long_for_the_run_is_dropped_and_counted(build, job):
    clocks = [
        f"what about clock number {n}, does the bell ring?" + " tick" * (40 * (n % 2))
        for n in range(16)
    ]
    asked = [message(text, minute=120 * n) for n, text in enumerate(clocks)]
    build(
        [
            line
            for n, one in enumerate(asked)
            for line in (one, message(f"Clock {n}, yes.", "Ada", 120 * n + 1))
        ]
    )
    data = prepare_job_without_torch(job(hyperparameters={"max_length": 70})).data
    assert data.counts["dropped: too long"] == 8 and len(data.train) + len(data.heldout) == 8
    assert data.ledger.rows_used == 32  # as it was built


def test_another_models_template_renders_the_set_anew(build, job, tmp_path, tiny_base):
    from personas.prompt.renderer import Renderer
    from trainer.dataset.layout import read_samples
    from trainer.dataset.loader import render_lines

    build()
    tokenizer = prepare_job_without_torch(job()).tokenizer
    no_system = Renderer(_with_template(tokenizer, NO_SYSTEM))
    found = list(render_lines(read_samples(tmp_path / "set" / "train.jsonl"), no_system, {}))
    text = tokenizer.decode(found[0][1].ids)
    assert (
        text.startswith("[Q]You are Ada, a clockmaker.\n\n")
        and text.count("[Q]") == 1
        and "system" not in text
    )
    assert [part for part, on in zip(found[0][1].ids, found[0][1].mask, strict=True) if on]


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif "
    "%}"
    "{{ ('[Q]' if m.role == 'user' else '[A]') + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[A]{% endif %}"
)


def _with_template(tokenizer, template):
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def test_what_was_held_out_since_is_not_learned(build, job, home, tmp_path):
    build()
    folder = job()
    before = prepare_job_without_torch(folder).data
    reply = next(line for line in lines_of("set/train.jsonl"))["messages"][-1]["content"]
    assert len(reply.split()) < 8  # too short to be known by itself
    change_lines(folder / "material" / "set" / "train.jsonl", _long_reply)
    resign(folder)
    key = JobKeys.in_folder(folder).people
    listed = held_out_talk(key, LONG)
    assert match_held_out([LONG, reply], listed) == [True, False]
    assert prepare_job_without_torch(folder).data.counts["samples_train"] == len(before.train)
    listed.write(folder / HOLDOUT_FILE)
    data = prepare_job_without_torch(folder).data
    assert data.counts["dropped: held out before"] == 1 and len(data.train) == len(before.train) - 1


LONG = "I wound the tower clock on the eve of the fair, and it stopped."


def _long_reply(line, seen=[]):  # noqa: B006
    if not seen:
        seen.append(1)
        line["messages"][-1]["content"] = LONG
    return line


def held_out_talk(people_key: bytes, reply: str) -> HoldoutIndex:
    """A list that holds one talk with this reply."""
    from trainer.dataset.dedup_split import ConversationSplitter
    from trainer.dataset.quality_filters import QualityFilters
    from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

    bo = SourceSpeaker("1", ("Bo",))
    ada = SourceSpeaker("ada", ("Ada",), is_persona=True)
    talks = [
        Conversation.of(
            [SourceMessage(bo, f"what of clock {n}?", "1"), SourceMessage(ada, text, "2")],
            "x",
            "own-writing",
        )
        for n, text in enumerate((reply, "Nothing that anybody would want to hear about it today."))
    ]
    with ConversationSplitter(QualityFilters(), before=HoldoutIndex.empty(people_key)) as sieve:
        for talk in talks:
            sieve.add(talk)
        for share in (0.5, 0.9, 0.1, 0.99, 0.01):
            sieve.outcomes(share)
            if any(match_held_out([reply], sieve.held_out)):
                return sieve.held_out
    raise AssertionError("the reply was on no side that is held out")


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def resign(folder: Path) -> None:
    """Have the job take its data set as it is now."""
    from personas.home.job_folder import material_digest

    request = json.loads((folder / "request.json").read_text())
    for material in request["materials"]:
        material["sha256"] = material_digest(folder / "material" / material["path"])
    (folder / "request.json").write_text(json.dumps(request))


# --------------------------------------------------------------------------- what came from Discord


@pytest.fixture
def from_discord(build, job, home):
    """A job over what opted-in members said; its set was built under the permission."""
    build(BOT_TALK, right="")
    folder = job()
    request = json.loads((folder / "request.json").read_text())
    next(it for it in request["materials"] if it["kind"] == "dataset")["right"] = "discord-api"
    (folder / "request.json").write_text(json.dumps(request))
    return folder


def allow(folder, *people, permission="Discord's letter of 3 March 2026 permits it."):
    folder.mkdir(exist_ok=True)
    write_consent(folder, Consent(permission=permission, opted_in=frozenset(people)))


def test_it_trains_while_all_whose_words_they_are_allow_it(from_discord):
    allow(from_discord, MIRA)
    data = prepare_job_without_torch(from_discord).data
    assert data.rights == {"discord-api": 12} and data.permission.startswith("Discord's letter")


@pytest.mark.parametrize(
    ("people", "permission", "said"),
    [
        ((), "Discord's letter", "nobody has opted in"),
        ((MIRA,), "", "DISCORD_PERMISSION"),
        (("777",), "Discord's letter", "12 × said by somebody who has not opted in"),
    ],
)
def test_without_any_of_it_nothing_is_trained_on(from_discord, people, permission, said):
    allow(from_discord, *people, permission=permission)
    with pytest.raises(MaterialError, match=said):
        prepare_job_without_torch(from_discord)


def test_a_set_is_not_made_free_by_what_the_job_says_of_it(from_discord):
    request = json.loads((from_discord / "request.json").read_text())
    next(it for it in request["materials"] if it["kind"] == "dataset")["right"] = "own-writing"
    (from_discord / "request.json").write_text(json.dumps(request))
    allow(from_discord, "777", permission="")
    with pytest.raises(MaterialError, match="DISCORD_PERMISSION"):
        prepare_job_without_torch(from_discord)


def test_samples_that_do_not_say_whose_words_they_are_train_nobody(from_discord):
    allow(from_discord, MIRA)
    set_folder = from_discord / "material" / "set"
    for name in ("train.jsonl", "eval.jsonl"):
        change_lines(
            set_folder / name, lambda line: {k: v for k, v in line.items() if k != "people"}
        )
    resign(from_discord)
    with pytest.raises(MaterialError, match="whose words they are"):
        prepare_job_without_torch(from_discord)


# ----------------------------------------------------------------------------------------- dialogue


def test_a_set_of_dialogue_trains_a_dialogue_job(command, tmp_path, home, tiny_base):
    Path("chat.jsonl").write_text(dialogues(12))
    sign(Path("chat.jsonl").absolute())
    code, out, errors = command(
        "dataset", "build", "--source", "chat.jsonl", "--out", "set", "--json"
    )
    assert code == 0, errors
    data = prepare_job_without_torch(
        built_job(tmp_path / "job", home, tiny_base.source, tmp_path / "set")
    ).data
    assert data.hash == json.loads(out)["hash"] and len(data.general) == 3
