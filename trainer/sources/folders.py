"""Which files of a folder or archive are worth opening: all but those that stand beside data and hold none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from trainer.conversation import Rejected

DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".yml", ".yaml", ".txt", ".zip",
                 ".png", ".charx", ".toml", ".md", ".markdown")  # fmt: skip
MEDIA_SUFFIXES = tuple(
    f".{suffix}"
    for suffix in "jpg jpeg png gif webp heic bmp svg mp4 mov avi mkv webm 3gp mp3 m4a ogg opus oga wav aac amr "
    "pdf doc docx xls xlsx ppt pptx vcf ics tgs srt ttf otf woff woff2 css js html htm lottie".split()
)
"""Pictures, sound, documents and pages: never read here, but for cards in PNG."""
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
"""What `save_to_disk` of `datasets` writes beside its Arrow files, or above the folders with them."""
ABOUT = ("dataset_infos.json", "rights.toml")
PROSE_SUFFIXES = ("", ".md", ".txt", ".rst", ".cff")
TOLD_BY = ("readme", "license", "licence", "changelog", "contributing", "citation", "notice")
HUB_CACHE = ("blobs", "refs", ".no_exist")
"""What the hub's cache keeps beside `snapshots`."""


def is_medium(name: str) -> bool:
    """Whether a file is a picture, sound or document by its name, as are sent in chats."""
    return name.lower().endswith(MEDIA_SUFFIXES)


def is_called_data(name: str) -> bool:
    """Whether a file's name says that it is one of the kinds that hold data."""
    return name.removesuffix(".gz").lower().endswith(DATA_SUFFIXES)


def media_left(folder: str, names: Sequence[str]) -> Iterator[Rejected]:
    """What is said of pictures and the like in a folder that belong to no chat: a line for each kind."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(PurePosixPath(name).suffix.lower(), []).append(name)
    for suffix, alike in kinds.items():
        more = f" and {len(alike) - 1} more {suffix}" if len(alike) > 1 else ""
        yield Rejected(f"{folder}/{alike[0]}{more}", "pictures, sound, documents and pages are not read", rows=0)


def opened(names: Sequence[str]) -> list[str]:
    """The files that may hold data."""
    paths = [PurePosixPath(name) for name in names]
    saved = {folder for path in paths if path.suffix == ".arrow" for folder in (path.parent, path.parent.parent)}
    caches = {folder.parent for path in paths for folder in path.parents if folder.name == "snapshots"}
    return [str(path) for path in paths if not _is_aside(path, saved, caches)]


def _is_aside(path: PurePosixPath, saved: set[PurePosixPath], caches: set[PurePosixPath]) -> bool:
    name = path.name.lower()
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return True
    if name in ABOUT or (path.stem.lower() in TOLD_BY and path.suffix.lower() in PROSE_SUFFIXES):
        return True
    if path.parent in saved and (name in SAVED or (name.startswith(("cache-", "tmp")) and path.suffix == ".arrow")):
        return True
    return any(cache / part in path.parents for cache in caches for part in HUB_CACHE)
