"""Adapter folders: sealed, verified, never half there."""

import pytest

from personas.errors import AdapterError
from personas.home.adapters import (
    adapter_ref,
    install_adapter_folder,
    verify_adapter,
    write_manifest,
)
from personas.home.atomic_files import atomic_folder
from personas.schemas.training import AdapterManifest
from personas.schemas.training_events import ScoreSummary

SCORES = ScoreSummary(
    heldout_replies=1, heldout_tokens=9, loss_base=3.0, loss_tuned=2.0, general_loss_base=2.0,
    general_loss_tuned=2.0, precision="bfloat16",
)  # fmt: skip


def manifest() -> AdapterManifest:
    return AdapterManifest(
        persona="ada", version="v1", job_id="j1", created_at="2026-01-01T00:00:00Z", base_model="embedded",
        base_model_hash="0" * 64, prompt_version="1", lora={"r": 16}, recipe="demo-cpu", hyperparameters={},
        training_precision="nf4", serving_precision="bfloat16", dataset_hash="0" * 64, dataset={}, rights={}, seed=0,
        packages={}, metrics=SCORES, checksums={},
    )  # fmt: skip


def write_adapter(final):
    with atomic_folder(final) as aside:
        (aside / "adapter_model.safetensors").write_bytes(b"weights")
        (aside / "adapter_config.json").write_text("{}")
        (aside / "report").mkdir()
        (aside / "report" / "losses.csv").write_text("step,loss\n")
        write_manifest(aside, manifest())


def test_a_sealed_folder_verifies(tmp_path):
    write_adapter(tmp_path / "adapter")
    assert set(verify_adapter(tmp_path / "adapter").checksums) == {
        "adapter_model.safetensors", "adapter_config.json", "report/losses.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "report/losses.csv"]
)
def test_one_changed_byte_is_found_and_named(tmp_path, name):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / name).write_bytes(b"other")
    with pytest.raises(AdapterError, match=name):
        verify_adapter(tmp_path / "adapter")


def test_a_missing_file_and_an_extra_file_are_found(tmp_path):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterError, match=r"manifest: adapter_model\.bin"):
        verify_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.bin").unlink()
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json .*checksum"):
        verify_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff\xfe"])
def test_an_unreadable_manifest_is_an_adapter_error(tmp_path, content):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "manifest.json").write_bytes(content)
    with pytest.raises(AdapterError, match=r"manifest\.json .*damaged: "):
        verify_adapter(tmp_path / "adapter")


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(OSError, match="disk full"), atomic_folder(tmp_path / "adapter") as aside:
        (aside / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_not_overwritten(tmp_path):
    write_adapter(tmp_path / "adapter")
    with pytest.raises(FileExistsError):
        write_adapter(tmp_path / "adapter")
    verify_adapter(tmp_path / "adapter")


def test_install_copies_once_and_refuses_another_under_the_same_name(tmp_path):
    write_adapter(tmp_path / "job" / "adapter")
    ref = adapter_ref(tmp_path / "home", "ada", "v1")
    install_adapter_folder(tmp_path / "job" / "adapter", ref.folder)
    install_adapter_folder(tmp_path / "job" / "adapter", ref.folder)
    assert [path.name for path in ref.folder.parent.iterdir()] == ["v1"]
    (tmp_path / "other").mkdir()
    with atomic_folder(tmp_path / "other" / "adapter") as aside:
        (aside / "adapter_model.safetensors").write_bytes(b"different")
        (aside / "adapter_config.json").write_text("{}")
        write_manifest(aside, manifest())
    with pytest.raises(AdapterError, match="another adapter"):
        install_adapter_folder(tmp_path / "other" / "adapter", ref.folder)
