"""The command line takes each id and name that the bot shows of a persona, and trains, asks and plans
a server's own persona as the bot does.
"""

import json
from pathlib import Path

import pytest

from bot.cli.ask import _ask_targets, _request, build_ask_parser
from bot.settings import load_settings
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.cli_common import iter_parsers
from personas.errors import RequestError
from personas.home.home_personas import find_home_persona
from personas.home.job_material import ShippedData
from personas.home.lore_sets import LoreSets
from personas.home.persona_ids import guild_suffix
from personas.models.base_model import locate
from personas.models.base_model_setting import base_model_name
from personas.schemas.chat import SamplingParams
from trainer.cli.main import build_parser

HERE = 910000000000000001
THERE = 910000000000000002
GUS = f"gus-pellham{guild_suffix(HERE)}"
QUESTION = "What colour is the ferry's funnel?"
ASKING = SamplingParams()


def write_guild_card(home, guild_id, short_id, name):
    folder = home / "personas" / str(guild_id) / f"{short_id}{guild_suffix(guild_id)}"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(
        f'id = "{folder.name}"\nname = "{name}"\ndescription = "A ferryman."\n', encoding="utf-8"
    )
    return folder.name


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    assert write_guild_card(home, HERE, "gus-pellham", "Gus Pellham") == GUS
    lore = home / "lore" / str(HERE) / GUS
    lore.mkdir(parents=True)
    (lore / "ferry.md").write_text("# Ferry\n\nThe ferry's funnel is painted green.\n")
    return home


@pytest.mark.parametrize(
    "wanted", [GUS, GUS.upper(), "gus-pellham", "Gus Pellham", " gus PELLHAM "]
)
def test_each_name_of_a_servers_persona_is_taken(home, wanted):
    owned = find_home_persona(SHIPPED_CARDS, home, wanted)
    assert (owned.id, owned.guild_id, owned.persona.name) == (GUS, HERE, "Gus Pellham")


def test_a_name_that_two_have_is_refused_with_their_ids_and_an_id_is_not(home):
    other = write_guild_card(home, THERE, "gus-pellham", "Gus Pellham")
    for wanted in ("gus-pellham", "Gus Pellham"):
        with pytest.raises(RequestError) as refused:
            find_home_persona(SHIPPED_CARDS, home, wanted)
        assert refused.value.advice == f"Name one by its id: {GUS}, {other}."
    assert find_home_persona(SHIPPED_CARDS, home, other).guild_id == THERE
    # An id comes before the same name of another persona.
    write_guild_card(home, THERE, "landlady", "oda")
    assert find_home_persona(SHIPPED_CARDS, home, "oda").persona.name == "Oda Marrow"


def test_what_is_unknown_is_refused_with_what_there_is(home):
    with pytest.raises(RequestError) as refused:
        find_home_persona(SHIPPED_CARDS, home, "Gus Pelham")
    assert refused.value.message == "There is no persona 'Gus Pelham'. Did you mean 'Gus Pellham'?"
    assert GUS in refused.value.advice and "oda" in refused.value.advice


def test_a_card_that_cannot_be_read_leaves_the_others(home, caplog):
    (home / "personas" / str(HERE) / GUS / "card.toml").write_bytes(b"\xff")
    assert find_home_persona(SHIPPED_CARDS, home, "oda").id == "oda"
    assert GUS in caplog.text


def test_a_run_gets_its_card_and_lore(command, home):
    code, out, errors = command("train", "--persona", "Gus Pellham", "--from-card", "--make-only")
    assert code == 0, errors
    folder = Path(out.strip().splitlines()[-1])
    request = json.loads((folder / "request.json").read_text())
    assert request["request"]["persona"] == GUS
    rights = {material["kind"]: material["stated_by"] for material in request["materials"]}
    assert rights["card"] == rights["lore"] == "moderators of a server"
    (card,) = folder.rglob("card.toml")
    assert read_card(card).name == "Gus Pellham"
    assert list(folder.rglob(f"lore/{GUS}/ferry.md"))


def test_the_other_commands_know_it_too(command, home):
    code, out, errors = command("lore", "ask", "--persona", "gus-pellham", QUESTION)
    assert code == 0 and "painted green" in out, errors
    for words in (("plan",), ("train", "--dry-run")):
        code, _, errors = command(*words, "--persona", GUS)
        assert code == 1 and "There is no chat log of Gus Pellham to learn from." in errors


@pytest.mark.parametrize("words", [("--persona", GUS), ("--compare", "Gus Pellham@base", "oda")])
def test_model_inference_asks_it_with_its_lore(command, home, words):
    arguments = build_ask_parser().parse_args(words)
    target = _ask_targets(arguments, home, locate("embedded"))[0]
    settings = load_settings(Path("none.env"), {"UNDERSTUDY_HOME": str(home)})
    request = _request(settings, target, QUESTION, ASKING)
    assert request.persona.id == GUS
    assert any("painted green" in hit.text for hit in request.lore)


def test_it_has_the_lore_sets_that_its_server_chose(command, home):
    LoreSets(ShippedData.from_source_tree().lore, home).choose(
        "_world", True, guild_id=HERE, persona_id=GUS
    )
    code, out, errors = command("train", "--persona", GUS, "--lore-pairs", "1", "--make-only")
    assert code == 0, errors
    assert list(Path(out.strip().splitlines()[-1]).rglob("lore-sets/_world/*.md"))


OF_AN_ADAPTER = {"preference", "import"}
"""Commands whose default is the base model that an adapter names."""


def test_each_command_takes_the_base_model_of_the_settings(command, tmp_path, monkeypatch):
    for parser in iter_parsers(build_parser()):
        if parser.prog.removeprefix("python -m trainer ") in OF_AN_ADAPTER:
            continue
        for action in parser._actions:
            if action.dest == "base_model":
                assert (action.default, action.type) == ("", base_model_name), parser.prog
    monkeypatch.delenv("BASE_MODEL", raising=False)
    assert base_model_name("") == "embedded"
    (tmp_path / ".env").write_text("BASE_MODEL=owner/of-the-file\n")
    assert base_model_name("") == "owner/of-the-file"
    monkeypatch.setenv("BASE_MODEL", "owner/of-the-environment")
    assert base_model_name("") == "owner/of-the-environment"
    assert base_model_name("owner/named") == "owner/named"


def test_a_run_is_over_the_base_model_of_the_settings(command, tiny_base, monkeypatch):
    monkeypatch.setenv("BASE_MODEL", tiny_base.source)
    code, out, errors = command("train", "--persona", "ballast", "--make-only")
    assert code == 0, errors
    folder = Path(out.strip().splitlines()[-1])
    request = json.loads((folder / "request.json").read_text())
    assert request["request"]["base_model"] == tiny_base.source
