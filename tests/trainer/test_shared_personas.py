"""What the operator wrote on the bot's pages is what the command line trains on, plans with and
asks.
"""

import json
from pathlib import Path

import pytest

from bot.operations.doctor.local_checks import check_lore
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.errors import CardError
from personas.home.job_material import ShippedData
from personas.home.lore_sets import LoreSets
from personas.home.shared_personas import lore_material, read_persona_lore, read_shared_personas
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD

SHIPPED = ShippedData.from_source_tree()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def write_card(home, persona, **changes):
    folder = home / "personas" / "0" / persona
    folder.mkdir(parents=True)
    ships = SHIPPED_CARDS / f"{persona}.toml"
    text = (
        ships.read_text(encoding="utf-8")
        if ships.is_file()
        else f'id = "{persona}"\nname = "Nobody"\n'
    )
    for field, said in changes.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{field} =")]
        text = "\n".join([f'{field} = "{said}"', *lines]) + "\n"
    (folder / "card.toml").write_text(text, encoding="utf-8")
    return folder / "card.toml"


def write_lore(home, owner, name, text):
    path = home / "lore" / "0" / owner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def made(command, persona):
    """The folder of a job that was made and not run, and what its request says of its material."""
    code, out, errors = command("train", "--persona", persona, "--make-only")
    assert code == 0, errors
    folder = Path(out.strip().splitlines()[-1])
    request = next(json.loads(path.read_text()) for path in folder.glob("request*.json"))
    return folder, {material["kind"]: material for material in request["materials"]}


def test_a_run_gets_the_operators_card_and_lore(command, home):
    write_card(home, "ballast", tagline="Counts by another book.")
    write_lore(home, "ballast", "attic.md", "# Attic\n\nThe attic holds forty blue lanterns.\n")
    left_out = next(path.name for path in sorted((SHIPPED.lore / "ballast").glob("*.md")))
    write_lore(home, "ballast", left_out, "")
    folder, materials = made(command, "ballast")
    (card,) = folder.rglob("card.toml")
    assert read_card(card).tagline == "Counts by another book."
    assert materials["card"]["right"] == "form" and materials["lore"]["right"] == "form"
    assert {path.name for path in folder.rglob("lore/ballast/*.md")} >= {"attic.md"}
    assert not list(folder.rglob(f"lore/ballast/{left_out}")), "an empty file leaves out what ships"


@pytest.mark.slow
def test_a_plan_shows_prompts_with_the_operators_card(command, home):
    write_card(home, "oda", tagline="x", system_prompt="You answer from under the new stove.")
    code, out, errors = command("plan", "--persona", "oda", "--json", "--samples")
    assert code == 0, errors
    assert "You answer from under the new stove." in json.loads(out)["examples"][0]


def test_lore_is_asked_as_the_bot_finds_it(command, home):
    write_lore(
        home,
        "ballast",
        "attic.md",
        "# Attic\n\nThe attic holds forty blue lanterns from the regatta.\n",
    )
    code, out, errors = command(
        "lore", "ask", "--persona", "ballast", "How many lanterns are in the attic?"
    )
    assert code == 0 and "ballast/attic.md" in out and "forty blue lanterns" in out, errors
    (home / "lore" / "0" / "ballast" / "attic.md").write_bytes(b"\xff\xfe")
    code, _, errors = command(
        "lore", "ask", "--persona", "ballast", "How many lanterns are in the attic?"
    )
    assert code == 1 and "attic.md is not UTF-8" in errors


def test_the_operators_own_persona_is_known_by_name_and_has_the_worlds_lore_if_it_takes_it(
    command, home
):
    write_card(home, "nobody")
    assert read_shared_personas(SHIPPED_CARDS, home)["nobody"].name == "Nobody"
    assert read_persona_lore(SHIPPED.lore, "nobody", home) == []
    assert lore_material(SHIPPED, home, "nobody") == []
    LoreSets(SHIPPED.lore, home).choose("_world", True, guild_id=0, persona_id="nobody")
    assert {passage.owner for passage in read_persona_lore(SHIPPED.lore, "nobody", home)} == {
        "_world"
    }
    (material,) = lore_material(SHIPPED, home, "nobody")
    assert all(place.startswith("lore/_world/") for _, place in material.copies)
    code, _, errors = command("train", "--persona", "Nobodi", "--dry-run")
    assert code == 1 and "There is no persona 'Nobodi'." in errors and "nobody" in errors
    code, _, errors = command("train", "--persona", "Nobody", "--dry-run")
    assert code == 1 and "no chat log of Nobody" in errors


def test_a_card_of_theirs_that_cannot_be_read_is_named(command, home):
    path = write_card(home, "ballast")
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(CardError, match=r"card\.toml"):
        read_shared_personas(SHIPPED_CARDS, home)
    code, _, errors = command("train", "--persona", "ballast", "--dry-run")
    assert code == 1 and str(path) in errors


def test_a_run_gets_lore_in_any_layout_and_all_files_are_listed_with_the_skipped_ones(
    command, tmp_path, home
):
    shipped = ShippedData.of(tmp_path / "tree")
    files = {
        "characters/Oda Marrow.md": "# Hat\nOda has a straw hat.",
        "shared/fog.md": "# Fog\nFog is common.",
        "thrip/egg.md": "# Egg\nIt was the chandelier.",
        "both.md": "---\npersonas: [thrip, oda]\n---\n# Gull\nThe gull is called Net.",
        "harbour/x.md": "Nobody's.",
        "shared/old.md": "Replaced.",
    }
    for name, text in files.items():
        (path := shipped.lore / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    write_lore(home, "_world", "old.md", "# New\nThe operator's.")
    (material,) = lore_material(shipped, home, "oda")
    names = {place for _, place in material.copies}
    assert names == {
        "lore/characters/Oda Marrow.md",
        "lore/shared/fog.md",
        "lore/both.md",
        "lore/_world/old.md",
    }
    job = tmp_path / "job"
    for path, place in material.copies:
        (job / place).parent.mkdir(parents=True, exist_ok=True)
        (job / place).write_bytes(path.read_bytes())
    oda = read_card(SHIPPED_CARDS / "oda.toml")
    assert {(it.owner, it.heading) for it in read_lore(job / "lore", (oda, WORLD))} == {
        ("oda", "Hat"), ("oda", "Gull"), ("_world", "Fog"), ("_world", "New")
    }  # fmt: skip
    code, out, _ = command("lore", "files", "--lore", str(shipped.lore))
    assert code == 0 and "5 files are read, 1 skipped" in out and "oda" in out
    assert "harbour/x.md: its folder 'harbour'" in out and "front matter" in out
    check = check_lore(shipped.lore, home)
    assert (
        check.state == "warn"
        and "5 of 6 files" in check.found
        and "skipped: harbour/x.md" in check.found
    )
    assert check_lore(SHIPPED.lore, home).state == "ok"
    assert "There is no folder" in command("lore", "files", "--lore", str(tmp_path / "none"))[2]
    (tmp_path / "empty").mkdir()
    assert "There is no markdown" in command("lore", "files", "--lore", str(tmp_path / "empty"))[1]
