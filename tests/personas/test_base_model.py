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
