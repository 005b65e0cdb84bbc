"""Statements of rights, and what is decided from them. `tests/test_rights_matrix.py` tries it over
real material.
"""

import datetime

import pytest

from personas.errors import MaterialError
from personas.home.data_subjects import NO_CONSENT, Consent
from personas.home.rights import RightsStatement, decide_right, read_statement, statement_error
from personas.schemas.base import RIGHTS, right_error

ALLOWED = Consent(permission="Discord's letter of 2026", opted_in=frozenset({"1"}))
TABLE = {"right": "form", "stated_by": "me", "stated_on": datetime.date(2026, 11, 20), "why": "so"}


@pytest.mark.parametrize(
    "right", ["own-writing", "data-package", "form", "discord-api", "licensed:MIT", "licensed:a b"]
)
def test_rights_that_there_are(right):
    assert right_error(right) == ""


@pytest.mark.parametrize(
    "right",
    [
        "licensed",
        "licensed:",
        "licensed: ",
        "licensed:<name>",
        "licensed:a\nb",
        "licensed:" + "x" * 65,
    ],
)
def test_a_licence_has_a_name(right):
    assert "write licensed:<name>" in right_error(right)


@pytest.mark.parametrize("right", ["", "mine", "LICENSED:MIT", None, 3])
def test_rights_that_there_are_not(right):
    assert "names an unknown right" in right_error(right)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"why": ""}, "leaves out why"),
        ({"stated_on": None}, "leaves out stated_on"),
        ({"stated_on": "some day"}, "stated_on that is no date"),
        ({"stated_on": "2126-01-01"}, "has not come yet (2126-01-01)"),
        ({"right": "licensed"}, "write licensed:<name>"),
        ({"stated_on": "2026-11-20"}, ""),
        ({"stated_on": datetime.datetime(2026, 11, 20, 9)}, ""),
    ],
)
def test_a_statement_is_complete(change, words):
    wrong = statement_error(TABLE | change)
    assert words in wrong and bool(wrong) == bool(words)


def test_a_statement_says_who_when_and_why(tmp_path):
    (tmp_path / "rights.toml").write_text(
        '["a.json"]\nright = "licensed:MIT"\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "All agreed."\n'
    )
    stated = read_statement(tmp_path / "a.json")
    assert stated == RightsStatement("licensed:MIT", "Mina Vale", "2026-11-20", "All agreed.")
    assert read_statement(tmp_path / "b.json") is None


@pytest.mark.parametrize("right", ['right = "form"', 'rigth = "form"'])
def test_a_field_that_nobody_knows_is_named(tmp_path, right):
    table = f'["a.json"]\n{right}\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "so"\nuntil = 2027-01-01\n'
    (tmp_path / "rights.toml").write_text(table)
    with pytest.raises(MaterialError, match=r"for a\.json: .*until"):
        read_statement(tmp_path / "a.json")


def test_what_is_signed_goes_before_the_form_and_the_form_before_what_is_claimed():
    assert (
        decide_right("a", format_right="discord-api", stated="form", consent=NO_CONSENT).require()
        == "form"
    )
    assert (
        decide_right("a", format_right="discord-api", claimed="form", consent=ALLOWED).require()
        == "discord-api"
    )
    assert (
        decide_right("a", format_right="data-package", claimed="form", consent=NO_CONSENT).require()
        == "data-package"
    )
    assert decide_right("a", claimed="form", consent=NO_CONSENT).require() == "form"


@pytest.mark.parametrize(
    ("consent", "words"),
    [
        (
            NO_CONSENT,
            (
                "without Discord's permission",
                "DISCORD_PERMISSION (which is not stated)",
                "nobody so far",
            ),
        ),
        (Consent(opted_in=frozenset({"1", "2"})), ("without Discord's permission", "2 so far")),
        (
            Consent(permission="yes, in 2026"),
            ("nobody has opted in", "(which is stated)", "/privacy opt-in"),
        ),
    ],
)
def test_a_refusal_says_what_is_there_and_what_is_lacking(consent, words):
    verdict = decide_right("talk.json", format_right="discord-api", claimed="form", consent=consent)
    with pytest.raises(MaterialError) as refused:
        verdict.require()
    said = str(refused.value)
    assert all(
        word in said for word in (*words, "`--right form` does not change that", '["talk.json"]')
    )
    assert verdict.right == "discord-api"


def test_without_a_word_nothing_is_trained_on_and_the_refusal_says_how_to_sign():
    verdict = decide_right("talk.json", consent=ALLOWED)
    assert "nobody has stated a right" in verdict.refused
    assert all(
        word in verdict.advice for word in ("rights.toml", '["talk.json"]', "stated_by", RIGHTS[-1])
    )
