"""The keys of a job folder: the home's for its data set, or random ones that stay."""

import stat

import pytest

from personas.errors import KeyFileError
from personas.home.pseudonyms import HomeKey, JobKeys, pseudonym_dataset_name
from personas.schemas.training import TrainingRequest


def test_a_homes_keys_differ_by_data_set_and_agree_on_people(tmp_path):
    one, again, two = (JobKeys.of(tmp_path, name) for name in ("ada/ada", "ada/ada", "ada/history"))
    assert one == again and one.pseudonyms != two.pseudonyms and one.people == two.people
    assert one.people == HomeKey.of(tmp_path).people()


def test_a_folder_without_keys_gets_random_ones_that_stay(tmp_path):
    (tmp_path / "other").mkdir()
    made = JobKeys.in_folder(tmp_path)
    assert JobKeys.in_folder(tmp_path) == made != JobKeys.in_folder(tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"pseudonyms": "zz", "people": "00"}', '{"pseudonyms": 1, "people": 2}'],
)
def test_damaged_keys_are_not_made_anew(tmp_path, text):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(KeyFileError, match=r"keys\.json has no valid keys"):
        JobKeys.in_folder(tmp_path)
    assert (tmp_path / "keys.json").read_text() == text


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"persona": "ada"}, "ada/ada"),
        ({"persona": "ada", "dataset": "history"}, "ada/history"),
        ({"persona": "ada", "dataset_path": "/x.json"}, "ada//x.json"),
        ({"task_type": "dialogue", "dataset": "general-chat"}, "dialogue/general-chat"),
    ],
)
def test_what_a_data_set_is_called(fields, name):
    assert pseudonym_dataset_name(TrainingRequest(job_name="j", **fields)) == name
