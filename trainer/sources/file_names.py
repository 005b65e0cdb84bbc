"""Tells files that may hold data from pictures, documents and metadata, by their names."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from trainer.sources.conversation import RejectedRecord

DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".yml", ".yaml", ".txt", ".zip",
                 ".png", ".charx", ".toml", ".md", ".markdown")  # fmt: skip
MEDIA_SUFFIXES = tuple(
    f".{suffix}"
    for suffix in "jpg jpeg png gif webp heic bmp svg mp4 mov avi mkv webm 3gp mp3 m4a ogg opus oga wav aac amr "
    "pdf doc docx xls xlsx ppt pptx vcf ics tgs srt ttf otf woff woff2 css js html htm lottie".split()
)
"""Pictures, sound, documents and pages: never read, except cards in PNG files."""
SAVED_DATASET_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")
"""Metadata that `save_to_disk` of `datasets` writes beside or above its Arrow files."""
METADATA_FILES = ("dataset_infos.json", "rights.toml", "columns.toml")
PROSE_SUFFIXES = ("", ".md", ".txt", ".rst", ".cff")
DOCUMENT_NAMES = ("readme", "license", "licence", "changelog", "contributing", "citation", "notice")
HUB_CACHE = ("blobs", "refs", ".no_exist")  # folders of the hub's cache beside `snapshots`


def is_media_file(name: str) -> bool:
    """Report whether a file is a picture, sound or document by its name."""
    return name.lower().endswith(MEDIA_SUFFIXES)


def has_data_suffix(name: str) -> bool:
    """Report whether a file's suffix is that of a data file."""
    return name.removesuffix(".gz").lower().endswith(DATA_SUFFIXES)


def reject_media(folder: str, names: Sequence[str]) -> Iterator[RejectedRecord]:
    """Yield a rejection for each kind of media file in a folder that no chat refers to."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(PurePosixPath(name).suffix.lower(), []).append(name)
    for suffix, alike in kinds.items():
        more = f" and {len(alike) - 1} more {suffix}" if len(alike) > 1 else ""
        yield RejectedRecord(
            f"{folder}/{alike[0]}{more}",
            "pictures, sound, documents and pages are not read",
            rows=0,
        )


def data_files(names: Sequence[str]) -> list[str]:
    """Return the files that may hold data."""
    paths = [PurePosixPath(name) for name in names]
    saved: set[PurePosixPath] = set()
    caches: set[PurePosixPath] = set()
    for path in paths:
        if path.suffix == ".arrow":
            saved |= {path.parent, path.parent.parent}
        # `snapshots` has links to `blobs`, so that all files would be read twice.
        caches |= {folder.parent for folder in path.parents if folder.name == "snapshots"}
    return [str(path) for path in paths if not _is_metadata(path, saved, caches)]


def _is_metadata(
    path: PurePosixPath, saved: set[PurePosixPath], caches: set[PurePosixPath]
) -> bool:
    name = path.name.lower()
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return True
    is_document = path.stem.lower() in DOCUMENT_NAMES and path.suffix.lower() in PROSE_SUFFIXES
    if name in METADATA_FILES or is_document:
        return True
    if path.parent in saved:
        is_cache = name.startswith(("cache-", "tmp")) and path.suffix == ".arrow"
        if is_cache or name in SAVED_DATASET_FILES:
            return True
    return any(cache / part in path.parents for cache in caches for part in HUB_CACHE)
