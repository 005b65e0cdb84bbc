"""A zip of very many entries is refused by the size of its directory, before that is read."""

import io
import struct
import zipfile

import pytest

from personas.card import charx
from personas.errors import AdapterError, CardError
from personas.home import external_adapter_files
from personas.zip_directory import MAX_ENTRY_BYTES, require_few_entries


def zip_of(count: int, comment: bytes = b"", name_chars: int = 10) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number:0{name_chars}}", b"")
        archive.comment = comment
    return buffer.getvalue()


def large(zipped: bytes, directory_bytes: int) -> bytes:
    """The zip with another size of its directory; the number of entries stays a lie."""
    at = zipped.rfind(b"PK\x05\x06")
    return zipped[: at + 12] + struct.pack("<L", directory_bytes) + zipped[at + 16 :]


def zip64(zipped: bytes, directory_bytes: int) -> bytes:
    """The zip with a zip64 end, which overrides the size in the usual one."""
    at = zipped.rfind(b"PK\x05\x06")
    end64 = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, directory_bytes, 0)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, at, 1)
    return zipped[:at] + end64 + locator + zipped[at:]


@pytest.mark.parametrize("comment", [b"", b"a comment", b"PK\x05\x06"])
def test_what_is_small_is_read(comment):
    file = io.BytesIO(zip_of(20, comment))
    file.seek(3)
    require_few_entries(file, 20)
    assert file.tell() == 3
    for no_zip in (b"", b"PK", b"no zip at all", bytes(100_000)):
        require_few_entries(io.BytesIO(no_zip), 1)


@pytest.mark.parametrize("comment", [b"", b"a comment"])
@pytest.mark.parametrize("change", [large, zip64])
def test_a_large_directory_is_refused_whatever_number_it_states(change, comment):
    zipped = change(zip_of(3, comment), 20 * MAX_ENTRY_BYTES + 1)
    with pytest.raises(zipfile.BadZipFile, match="more than 20 files have"):
        require_few_entries(io.BytesIO(zipped), 20)


def test_it_is_found_where_zipfile_finds_it():
    """The directory of a real zip, with names as long as they may be."""
    zipped = zip_of(40, name_chars=600)
    with pytest.raises(zipfile.BadZipFile):
        require_few_entries(io.BytesIO(zipped), 40)
    require_few_entries(io.BytesIO(zip_of(40, name_chars=400)), 40)


def test_cards_and_adapters_of_very_many_files_are_not_opened(tmp_path, monkeypatch):
    zipped = large(zip_of(1), 2001 * MAX_ENTRY_BYTES)
    (tmp_path / "many.zip").write_bytes(zipped)
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)
    with pytest.raises(CardError, match="more than 2,000 files have"):
        charx.read(zipped, "many.charx")
    with pytest.raises(AdapterError, match="more than 2,000 files have"):
        external_adapter_files.unpack_zip(tmp_path / "many.zip", tmp_path)
