"""A home's key, lists of who is in a folder, and who allowed what."""

import multiprocessing
import stat

import pytest

from personas.errors import KeyFileError, MaterialError
from personas.home.data_subjects import (
    CONSENT_FILE,
    NO_CONSENT,
    PEOPLE_FILE,
    Consent,
    contains_any_person,
    read_consent,
    read_people,
    write_consent,
    write_people,
)
from personas.home.pseudonyms import KEY_FILE, HomeKey, keyed_person


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    first = HomeKey.of(tmp_path)
    assert HomeKey.of(tmp_path) == first
    assert len(first.secret) == 32
    assert (mode(tmp_path / KEY_FILE), mode((tmp_path / KEY_FILE).parent)) == (0o600, 0o700)
    assert [path.name for path in (tmp_path / KEY_FILE).parent.iterdir()] == [KEY_FILE.name]


def test_processes_that_make_the_key_at_once_agree_on_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        keys = pool.map(HomeKey.of, [tmp_path] * 8)
    assert len(set(keys)) == 1


def test_two_homes_and_two_data_sets_cannot_be_joined(tmp_path):
    here = HomeKey.of(tmp_path / "here")
    there = HomeKey.of(tmp_path / "there")
    keys = [
        here.pseudonyms("a"),
        here.pseudonyms("b"),
        there.pseudonyms("a"),
        here.people(),
        there.people(),
    ]
    assert len(set(keys)) == len(keys)
    assert (
        keyed_person(here.people(), "123")
        == keyed_person(here.people(), "123")
        != keyed_person(there.people(), "123")
    )


@pytest.mark.parametrize("content", [b"", b"abc", b"zz" * 32, b"00" * 31, b"\xff\xfe"])
def test_a_damaged_key_is_an_error_and_stays_as_it_is(tmp_path, content):
    file = tmp_path / KEY_FILE
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(KeyFileError, match="backup"):
        HomeKey.of(tmp_path)
    assert file.read_bytes() == content


def test_a_folder_says_who_is_in_it_and_nobody_else_can_tell(tmp_path):
    key = HomeKey.of(tmp_path).people()
    mina = keyed_person(key, "1001")
    joren = keyed_person(key, "name:joren")
    write_people(tmp_path, {mina: 3, joren: 1})
    assert read_people(tmp_path) == {mina: 3, joren: 1}
    assert contains_any_person(tmp_path, {joren, keyed_person(key, "7")})
    assert not contains_any_person(tmp_path, {keyed_person(key, "7")})
    assert "1001" not in (tmp_path / PEOPLE_FILE).read_text()


def test_a_folder_without_a_list_holds_nobody_and_a_damaged_list_may_hold_anybody(tmp_path):
    assert not contains_any_person(tmp_path, {"0" * 32})
    for damaged in ('{"format": 1, "people": {"mina": 1}}', '{"format": 2, "people": {}}', "{"):
        (tmp_path / PEOPLE_FILE).write_text(damaged)
        assert contains_any_person(tmp_path, {"0" * 32})
        with pytest.raises(MaterialError, match=PEOPLE_FILE):
            read_people(tmp_path)


def test_consent_is_kept_for_its_owner_only_and_read_back(tmp_path):
    consent = Consent(permission="by letter of 3 May", opted_in=frozenset({"20", "3"}))
    write_consent(tmp_path, NO_CONSENT)
    write_consent(tmp_path, consent)
    assert read_consent(tmp_path) == consent
    assert mode(tmp_path / CONSENT_FILE) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [CONSENT_FILE]


def test_without_a_consent_file_nobody_has_allowed_anything(tmp_path):
    assert read_consent(tmp_path) == NO_CONSENT == Consent(permission="", opted_in=frozenset())


@pytest.mark.parametrize("damaged", ["", "[]", '{"opted_in": [1.5]}', '{"allowed": true}'])
def test_a_damaged_consent_file_is_an_error_and_not_a_consent(tmp_path, damaged):
    (tmp_path / CONSENT_FILE).write_text(damaged)
    with pytest.raises(MaterialError, match=CONSENT_FILE):
        read_consent(tmp_path)
