"""Source × right × setting × consent → trained or refused, all of it, over real files and on every
way to training.

What is expected stands in the tables here and is worked out from nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from personas.errors import RequestError, UnderstudyError
from personas.home.data_subjects import CONSENT_FILE, Consent, write_consent
from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.home.rights import REQUEST_STATEMENT
from personas.schemas.training import TrainingRequest
from tests.rights_sources import ADA, ANSWERED, ASKED, BO, CARD, KINDS, MIRA, PERMISSION
from tests.trainer.job_folders import dialogues, sign, write_request
from trainer.cli import dataset_args
from trainer.cli.dataset_command import add_build
from trainer.dataset.builder import DatasetBuilder
from trainer.dataset.job_inputs import read_job_inputs, read_job_talk
from trainer.dataset.ledger import Ledger
from trainer.recipe.recipe_file import requested_recipe
from trainer.train.job import load_fast_tokenizer

API = "discord-api"
RIGHTS = ("own-writing", "data-package", "form", "licensed:CC-BY-4.0", API)

BY_FORM = {
    "own log": API,
    "Discord JSON": API,
    "Discord CSV": API,
    "history": API,
    "data package": "data-package",
    "Telegram": "",
    "WhatsApp": "",
    "dialogue set": "",
    "character card": "",
}
"""What a source counts as by itself."""

CONSENT = {
    "both": {MIRA, BO, ADA},
    "one": {MIRA, ADA},
    "none of them": {"100000000000000999"},
    "nobody": set(),
}
"""Who has opted in. Ada is among them, since a CSV does not say that a bot speaks for her."""

BOTH = {MIRA, BO}
MIRAS = {MIRA}
NOTHING = set()
KNOWN = {"both": BOTH, "one": MIRAS, "none of them": NOTHING, "nobody": NOTHING}
HERS = {"both": BOTH, "one": BOTH, "none of them": NOTHING, "nobody": NOTHING}
UNKNOWN = dict.fromkeys(CONSENT, NOTHING)
UNDER_API = {
    "own log": KNOWN,
    "Discord JSON": KNOWN,
    "Discord CSV": KNOWN,
    "history": KNOWN,
    "data package": HERS,  # all of it is Mira's
    "Telegram": UNKNOWN,  # whoever speaks in these is not known by a Discord id
    "WhatsApp": UNKNOWN,
    "dialogue set": UNKNOWN,
    "character card": UNKNOWN,
}
"""Whose questions and answers are trained on under discord-api once the permission is stated."""


def expected(kind: str, right: str, is_permitted: bool, consent: str) -> set[str]:
    """Whose talk is trained on; nobody's means refused."""
    if right == API:
        return UNDER_API[kind][consent] if is_permitted else NOTHING
    return BOTH if right else NOTHING


@dataclass(frozen=True)
class Case:
    """A source, and how a right is stated: `sidecar`, `flag` (--right) or `` for not at all."""

    kind: str
    how: str
    stated: str

    @property
    def right(self) -> str:
        """What it counts as."""
        if self.how == "sidecar":
            return self.stated
        return BY_FORM[self.kind] or self.stated

    def __str__(self) -> str:
        return f"{self.kind}, {self.how or 'nothing'} {self.stated}".strip()


CASES = [
    Case(kind, how, right)
    for kind in KINDS
    for how, right in [
        ("", ""),
        *(("sidecar", right) for right in RIGHTS),
        *(("flag", right) for right in RIGHTS),
    ]
]
SITUATIONS = [(is_permitted, consent) for is_permitted in (False, True) for consent in CONSENT]
"""Whether Discord's permission is stated, and who has opted in."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of every kind, made once."""
    return {kind: make(tmp_path_factory.mktemp("made")) for kind, make in KINDS.items()}


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """A home for each situation, with its `consent.json`."""
    homes = {situation: tmp_path_factory.mktemp("home") for situation in SITUATIONS}
    for (is_permitted, consent), home in homes.items():
        permission = PERMISSION if is_permitted else ""
        write_consent(home, Consent(permission=permission, opted_in=frozenset(CONSENT[consent])))
    return homes


@pytest.fixture
def training_home(tmp_path, monkeypatch):
    """A folder to work in. The tokenizer is loaded once for all."""
    monkeypatch.setattr(dataset_args, "load_fast_tokenizer", _tokenizer)
    (tmp_path / "ada.toml").write_text(CARD)
    return tmp_path


@functools.cache
def _tokenizer(base):
    return load_fast_tokenizer(base)


def laid(case: Case, made: dict[str, Path], folder: Path) -> Path:
    """The source in a folder of its own, with what is stated beside it."""
    source = made[case.kind]
    path = folder / made[case.kind].name
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    if case.how == "sidecar":
        sign(path, right=case.stated)
    return path


def whose(texts: list[str]) -> set[str]:
    """Whose questions or answers there are. Those of a data package are Ada's answers alone."""
    found = "\n".join(texts)
    return {
        who for who in (MIRA, BO) if any(said in found for said in (*ASKED[who], *ANSWERED[who]))
    }


def check_refusal(error: UnderstudyError, right: str) -> None:
    """That the refusal says what would be needed."""
    needed = ("DISCORD_PERMISSION", "/privacy opt-in") if right == API else ("rights.toml",)
    said = str(error)
    assert all(word in said for word in needed) or "/privacy opt-in" in error.advice, said


# ------------------------------------------------------------------------------ on the command line


def options(case: Case, training_home: Path, path: Path) -> argparse.Namespace:
    words = [
        "build",
        "--persona",
        str(training_home / "ada.toml"),
        "--source",
        str(path),
        "--out",
        str(training_home / "out"),
    ]
    parser = argparse.ArgumentParser()
    add_build(parser.add_subparsers())
    return parser.parse_args([*words, *(["--right", case.stated] if case.how == "flag" else [])])


def trained_by_build(given: argparse.Namespace, home: Path, right: str) -> set[str]:
    """Whose talk is in the samples that `dataset build` makes and `plan` tells of."""
    order = dataset_args.make_build_spec(given, home=home)
    ledger = Ledger()
    with DatasetBuilder(order.plan, ledger) as builder:
        for name, items in order.sources:
            builder.add_source(name, items)
        built = list(builder.samples())
    assert ledger.rows == ledger.rows_used + sum(ledger.dropped.values())
    assert {one.right for one in built} == {right}
    assert all(one.made.arrived and "Ada" in one.made.speakers for one in built)
    return whose(
        [
            text
            for one in built
            for text in (*(turn.text for turn in one.made.turns), one.made.reply)
        ]
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dataset_build_and_plan(case, made, homes, training_home):
    given = options(case, training_home, laid(case, made, training_home))
    for (is_permitted, consent), home in homes.items():
        wanted = expected(case.kind, case.right, is_permitted, consent)
        try:
            found = trained_by_build(given, home, case.right)
        except UnderstudyError as error:
            check_refusal(error, case.right)
            found = NOTHING
        assert found == wanted, (
            f"{'permitted' if is_permitted else 'not permitted'}, {consent} opted in"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_licensed_is_refused_with_the_form_that_is_wanted(kind, made, training_home, capsys):
    case = Case(kind, "sidecar", "licensed")
    with pytest.raises(UnderstudyError, match=r"licensed:<name>, such as licensed:CC-BY-4\.0"):
        dataset_args.make_build_spec(options(case, training_home, laid(case, made, training_home)))
    with pytest.raises(SystemExit):
        options(Case(kind, "flag", "licensed"), training_home, made[kind])
    assert "licensed:<name>" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- in a job


def job_folder(case: Case, made: dict[str, Path], folder: Path) -> Path:
    """A job over the source, `sidecar` standing for a right that the catalogue passed on, `flag` for
    one of the request.
    """
    material = folder / "material"
    material.mkdir(parents=True)
    (material / "ada.toml").write_text(CARD)
    (material / "general.jsonl").write_text(dialogues(3))
    path = laid(Case(case.kind, "", ""), made, material)
    write_request(
        folder,
        "embedded",
        {"card": "ada.toml", "log": path.name, "general": "general.jsonl"},
        persona="ada",
    )
    request = json.loads((folder / "request.json").read_text())
    by = {"": "", "flag": REQUEST_STATEMENT}
    stated_by = by.get(case.how, "the operator")
    request["materials"][1] |= {"right": case.stated or "own-writing", "stated_by": stated_by}
    (folder / "request.json").write_text(json.dumps(request))
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_job(case, made, homes, tmp_path):
    folder = job_folder(case, made, tmp_path / "job")
    spec = read_spec(folder)
    for (is_permitted, consent), home in homes.items():
        shutil.copyfile(home / CONSENT_FILE, folder / CONSENT_FILE)
        wanted = expected(case.kind, case.right, is_permitted, consent)
        try:
            content = read_job_talk(read_job_inputs(folder, spec), requested_recipe(spec.request))
        except UnderstudyError as error:
            check_refusal(error, case.right)
            found = NOTHING
        else:
            found = whose(
                [message.text for talk in content.conversations for message in talk.messages]
            )
        assert found == wanted, (
            f"{'permitted' if is_permitted else 'not permitted'}, {consent} opted in"
        )


@pytest.mark.parametrize("kind", ["card", "lore"])
@pytest.mark.parametrize("right", RIGHTS)
def test_cards_and_lore_of_a_job_say_nobodys_name_and_can_never_be_discords(
    kind, right, made, homes, tmp_path
):
    folder = job_folder(Case("Telegram", "sidecar", "form"), made, tmp_path)
    (folder / "material" / "lore" / "ada").mkdir(parents=True)
    (folder / "material" / "lore" / "ada" / "oil.md").write_text("# Oil\nWhale oil, never lard.")
    kinds = {"card": "ada.toml", "log": "result.json", "lore": "lore", "general": "general.jsonl"}
    write_request(folder, "embedded", kinds, persona="ada")
    request = json.loads((folder / "request.json").read_text())
    for material in request["materials"]:
        material |= {"right": right} if material["kind"] == kind else {}
    (folder / "request.json").write_text(json.dumps(request))
    spec = read_spec(folder)
    for home in homes.values():
        shutil.copyfile(home / CONSENT_FILE, folder / CONSENT_FILE)
        if right == API:
            with pytest.raises(UnderstudyError, match="came through Discord's API"):
                read_job_inputs(folder, spec)
        else:
            assert read_job_talk(
                read_job_inputs(folder, spec), requested_recipe(spec.request)
            ).conversations


def test_a_bare_licensed_in_a_job_is_refused_with_the_form_that_is_wanted(made, tmp_path):
    with pytest.raises(RequestError, match=r"licensed:<name>, such as licensed:CC-BY-4\.0"):
        read_spec(job_folder(Case("Telegram", "sidecar", "licensed"), made, tmp_path))


# ------------------------------------------------------------------------------------- from Discord


@pytest.mark.parametrize("stated", ["", *RIGHTS])
@pytest.mark.parametrize("where", ["beside the log", "in the catalogue"])
def test_what_is_named_on_discord_is_refused_before_it_is_queued(
    stated, where, made, homes, tmp_path
):
    """Before the log is read, somebody must have opted in; whether it is one of those who speak in
    it, a job finds.
    """
    shipped = ShippedData.of(tmp_path, cards=tmp_path / "cards")
    for folder in vars(shipped).values():
        folder.mkdir(parents=True, exist_ok=True)
    (shipped.cards / "ada.toml").write_text(CARD)
    (shipped.recipes / "demo-cpu.toml").touch()
    shutil.copyfile(made["Discord JSON"], shipped.logs / "ada.json")
    name = "ada"
    if where == "in the catalogue":
        name = "talk"
        right = f'right = "{stated}"\n' if stated else ""
        (tmp_path / "catalogue.toml").write_text(
            f'[talk]\npath = "data/logs/ada.json"\n{right}stated_by = "me"\nstated_on = 2026-11-20\nwhy = "so"\n'
        )
    elif stated:
        sign(shipped.logs / "ada.json", right=stated)
    catalogue = DatasetCatalog(shipped, "embedded", tmp_path)
    request = TrainingRequest(job_name="j", persona="ada", dataset=name)
    by_itself = "" if where == "in the catalogue" else API
    for (is_permitted, consent), home in homes.items():
        shutil.copyfile(home / CONSENT_FILE, tmp_path / CONSENT_FILE)
        right = stated or by_itself
        wanted = bool(CONSENT[consent]) and is_permitted if right == API else bool(right)
        try:
            found = gather_materials(catalogue, request)[1].right == right
        except UnderstudyError as error:
            assert "DISCORD_PERMISSION" in str(error) or not right
            found = False
        assert found == wanted, (
            f"{'permitted' if is_permitted else 'not permitted'}, {consent} opted in"
        )
