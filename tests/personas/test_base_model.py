"""Naming a base model: what keeps it from being fetched is told apart."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from personas.base_model import locate
from personas.errors import BaseModelError

ANSWER = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.GatedRepoError("gated", response=ANSWER), r"accepted its terms.*set HF_TOKEN"),
        (errors.RepositoryNotFoundError("none", response=ANSWER), r"no such model, or it is private"),
        (errors.HFValidationError("not an id"), r"neither a folder nor a model's id.*owner/name"),
        (errors.LocalEntryNotFoundError("offline"), r"no hub could be reached \(LocalEntryNotFoundError\)"),
        (OSError("no route"), r"no hub could be reached \(OSError\).*Check the network"),
    ],
)
def test_each_reason_has_its_own_words(monkeypatch, error, words):
    def fetch(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BaseModelError, match=words):
        locate("owner/name")


def test_without_fetching_only_what_was_fetched_before_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseModelError, match=r"'harbour/tiny' is not on this machine.*fetched from a hub before"):
        locate("harbour/tiny", fetch=False)
    with pytest.raises(BaseModelError, match=r"'no such thing' is not on this machine"):
        locate("no such thing", fetch=False)
    cached = tmp_path / "models--harbour--tiny"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    for name in ("config.json", "model.safetensors"):
        (cached / "snapshots" / "abc" / name).write_text("{}")
    assert locate("harbour/tiny", fetch=False).folder == cached / "snapshots" / "abc"
