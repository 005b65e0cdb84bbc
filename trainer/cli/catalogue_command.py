"""`python -m trainer catalogue`: lists data sets by name, and fetches published ones from a hub."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from personas.cli_common import LogProgress, add_examples, commands_as_typed
from personas.errors import MaterialError, RequestError
from personas.home.atomic_files import fsync_tree, replace_durably, write_model
from personas.home.dataset_catalogue import (
    FETCH_RECORD,
    CatalogueEntry,
    DatasetCatalogue,
    FetchRecord,
    read_catalogue,
)
from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_download import HUB_TIMEOUT_S, ByteReport, HubFile, download, list_hub_files
from personas.home.hub_errors import hub_errors_as
from personas.models.hub_snapshot import HUB_OFFLINE_ERROR, find_hub_error
from personas.outside_names import UnsafeNameError, path_inside, require_safe_name
from personas.schemas.formatting import format_size
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.error_handling import resolve_home, with_error_handling
from trainer.cli.options import HOME, JSON, PROGRESS_INTERVAL, add_options, option
from trainer.sources.hub_source import HUB_FILE_PATTERNS

CATALOGUE_HELP = """\
Lists the data sets that training requests can name, besides the shipped ones: the operator's, from catalogue.toml in
UNDERSTUDY_HOME, and published ones, which `fetch` downloads from a hub.

  python -m trainer catalogue                  name, state, size, language and licence of each
  python -m trainer catalogue show oasst2      its uses, its limits and its source
  python -m trainer catalogue fetch oasst2     download it; run it again to resume
  python -m trainer catalogue remove oasst2    delete the downloaded files
"""
PARTIAL_SUFFIX = ".partial"
MIN_FREE_BYTES = 256 * 2**20
"""Disk space that a download leaves free."""


def add_catalogue(commands: Commands) -> None:
    """Add `catalogue` and its subcommands."""
    listing = add_command(
        commands, "catalogue", "list data sets by name; fetch published ones", CATALOGUE_HELP
    )
    _add_common(listing, list_datasets)
    inner = listing.add_subparsers(metavar="ACTION")
    for name, summary, command in (
        ("show", "show the facts about a data set", show_dataset),
        ("fetch", "fetch a data set from a hub; resumes a fetch that was stopped", fetch_dataset),
        ("remove", "delete the fetched files of a data set", remove_dataset),
    ):
        description = f"{summary[0].upper()}{summary[1:]}."
        # Without defaults of its own, so that options before the action count too.
        parser = inner.add_parser(
            name, help=summary, description=description, argument_default=argparse.SUPPRESS
        )
        add_examples(parser, f"python -m trainer catalogue {name} oasst2")
        add_options(parser, [option("name", "NAME", "a name that `catalogue` lists")])
        _add_common(parser, command)
        if name == "fetch":
            add_options(parser, [PROGRESS_INTERVAL])


def _add_common(
    parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], None]
) -> None:
    add_options(parser, [HOME, JSON])
    parser.set_defaults(command=with_error_handling(command))


# --------------------------------------------------------------------------------------- list, show


def list_datasets(options: argparse.Namespace) -> None:
    """Print all entries as a table or as JSON; invalid ones are reported on standard error."""
    catalogue = read_catalogue(resolve_home(options.home))
    for fault in catalogue.faults.values():
        print(fault, file=sys.stderr)
    entries = sorted(catalogue.entries.values(), key=lambda entry: (entry.ships, entry.name))
    if options.json:
        print(json.dumps({"datasets": [_facts(entry) for entry in entries]}, ensure_ascii=False))
        return
    rows = [("name", "state", "size", "language", "licence or right"), *map(_row, entries)]
    *padded, last = zip(*rows, strict=True)
    columns = []
    for cells in padded:
        width = max(map(len, cells))
        columns.append([cell.ljust(width) for cell in cells])
    for row in zip(*columns, last, strict=True):
        print("  ".join(row).rstrip())


def _row(entry: CatalogueEntry) -> tuple[str, ...]:
    size = format_size(entry.about.bytes) if entry.about else ""
    return entry.name, _state(entry), size, entry.language.partition(",")[0], entry.licence


def _state(entry: CatalogueEntry) -> str:
    if entry.is_here:
        return "fetched" if entry.hub else "here"
    if entry.hub:
        return "partly fetched" if _partial(entry).exists() else "not fetched"
    return "missing"


def _facts(entry: CatalogueEntry) -> dict[str, Any]:
    record = entry.record
    about = entry.about
    size_bytes = about.bytes if about else None
    if record:
        # What is on this machine counts, rather than what the hub says.
        size_bytes = sum(record.files.values())
    facts = {
        "name": entry.name,
        "state": _state(entry),
        "ships": entry.ships,
        "hub": entry.hub or None,
        "revision": record.revision if record else None,
        "bytes": size_bytes,
        "language": entry.language or None,
        "right": vars(entry.statement) if entry.statement.right else None,
    }
    if about:
        facts |= about.model_dump(mode="json", exclude={"hub", "bytes", "language"})
    return facts


def show_dataset(options: argparse.Namespace) -> None:
    """Print the facts about one data set."""
    entry = _find(read_catalogue(resolve_home(options.home)), options.name)
    if options.json:
        print(json.dumps(_facts(entry), ensure_ascii=False))
    else:
        print("\n".join(_fact_lines(entry)))


def _fact_lines(entry: CatalogueEntry) -> list[str]:
    about = entry.about
    stated = entry.statement
    record = entry.record
    state = _state(entry)
    if record:
        state += f", commit {record.revision}"
    lines = {"state": state, "hub": entry.hub}
    if about:
        lines |= {"title": about.title, "content": about.rows, "size": format_size(about.bytes)}
    lines |= {"language": entry.language, "licence": entry.licence}
    if stated.right:
        lines |= {
            "right": f"{stated.right}, stated by {stated.stated_by} on {stated.stated_on}. {stated.why}"
        }
    if about:
        lines |= {"good for": about.good_for, "not for": about.not_for}
        lines |= {"source": f"{about.hub} on the hub (read on {about.read_on})"}
    wrap = textwrap.TextWrapper(
        116, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False
    )
    return [entry.name, *(wrap.fill(f"{name:<9} {text}") for name, text in lines.items() if text)]


def _find(catalogue: DatasetCatalogue, name: str) -> CatalogueEntry:
    """Return an entry by its name. Raises `RequestError`."""
    fault = catalogue.faults.get(name)
    entry = catalogue.entries.get(name)
    if entry and not fault:
        return entry
    # The entry's own fault, or that of the whole file, which may be why the entry is not there.
    fault = fault or catalogue.faults.get("")
    if fault:
        raise RequestError(fault, "Correct it.")
    raise RequestError(
        f"There is no data set {name!r} in the catalogue.",
        f"Known: {', '.join(catalogue.entries)}.",
    )


# ------------------------------------------------------------------------------------ fetch, remove


def fetch_dataset(options: argparse.Namespace) -> None:
    """Fetch a data set with progress on standard error; prints where it is."""
    entry = _find_on_hub(options)
    if not entry.record:
        progress = sys.stderr if options.json else sys.stdout
        fetch_from_hub(entry, options.tell_every, progress)
    if options.json:
        print(json.dumps(_facts(entry), ensure_ascii=False))
    else:
        print(f"{entry.name} is in {entry.fetched}.")
        command = commands_as_typed("python -m trainer train")
        print(f"Train on it: {command} --dialogue --dataset {entry.name}")
        if not entry.statement.right:
            print(
                "Its page states no licence: state a right to it in catalogue.toml before "
                "(docs/sets.md)."
            )


def _find_on_hub(options: argparse.Namespace) -> CatalogueEntry:
    entry = _find(read_catalogue(resolve_home(options.home)), options.name)
    if not entry.hub:
        raise RequestError(
            f"{entry.name!r} is not on a hub, but a file of the operator's.",
            "There is nothing to do.",
        )
    return entry


def fetch_from_hub(entry: CatalogueEntry, interval_s: float, out: Any) -> None:
    """Fetch the entry's files into the home; a fetch that is stopped resumes. Raises
    `MaterialError`, `OSError`.
    """
    error = find_hub_error()
    if error == HUB_OFFLINE_ERROR:
        raise MaterialError(f"{entry.name} cannot be fetched: {error}.", "Unset it, and try again.")
    if error:
        raise MaterialError(
            f"{entry.name} cannot be fetched: {error}.",
            "Check the network, HF_ENDPOINT and proxies.",
        )
    folder = _folder(entry)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{entry.name}.lock"), entry.name):
        revision, files = _list_files(entry)
        total = sum(file.bytes for file in files)
        licence = entry.licence
        if entry.about:
            licence += f"; not for: {entry.about.not_for}"
        head = f"{entry.hub}, {len(files)} file(s), {format_size(total)}, {licence}"
        print(head, file=out, flush=True)
        # A folder for each commit: parts of two commits must not become one file.
        partial = _discard_other_commits(_partial(entry), revision)
        already = sum(_size(path_inside(partial, file.name)) for file in files)
        _require_space(folder.parent, total - already)
        with _progress_bar(total, interval_s) as report:
            done = 0
            for file in files:
                with hub_errors_as(MaterialError, entry.hub, entry.hub):
                    download(file, path_inside(partial, file.name), _offset(report, done))
                done += file.bytes
        sizes = {file.name: file.bytes for file in files}
        record = FetchRecord(hub=entry.hub, revision=revision, files=sizes)
        write_model(partial / FETCH_RECORD, record)
        # On disk before the folder gets its name, which says that all of it is there.
        fsync_tree(partial)
        shutil.rmtree(folder, ignore_errors=True)
        replace_durably(partial, folder)
        shutil.rmtree(_partial(entry), ignore_errors=True)


def _folder(entry: CatalogueEntry) -> Path:
    assert entry.fetched is not None  # it has a hub id
    return entry.fetched


def _partial(entry: CatalogueEntry) -> Path:
    return _folder(entry).with_name(f".{entry.name}{PARTIAL_SUFFIX}")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _discard_other_commits(partial: Path, revision: str) -> Path:
    """Delete what was fetched of other commits; returns the folder of this one."""
    for other in partial.glob("*"):
        if other.name != revision:
            shutil.rmtree(other)
    return partial / revision


@contextmanager
def _locked(file: Path, name: str) -> Iterator[None]:
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout:
        raise MaterialError(
            f"{name} is being fetched by another process.", "Wait for it."
        ) from None


def _list_files(entry: CatalogueEntry) -> tuple[str, list[HubFile]]:
    """Ask the hub for the newest commit of a data set, and the files to fetch. Raises
    `MaterialError`.
    """
    from huggingface_hub import HfApi  # takes 0.15 s

    restrict_hub_client()
    with hub_errors_as(MaterialError, entry.hub, entry.hub):
        info = HfApi().dataset_info(entry.hub, files_metadata=True, timeout=HUB_TIMEOUT_S)
        listed = list_hub_files(info, "dataset").values()
    patterns = entry.files or HUB_FILE_PATTERNS
    files = []
    for file in listed:
        if any(fnmatch(file.name, pattern) for pattern in patterns):
            files.append(file)
    if not files:
        names = ", ".join(file.name for file in listed) or "none"
        raise MaterialError(
            f"{entry.hub} has no file {' or '.join(patterns)}; it has {names}.",
            f"Name its files in catalogue.toml: [{entry.name}] with hub and files.",
        )
    for file in files:
        try:
            require_safe_name(file.name)
        except UnsafeNameError as error:
            raise MaterialError(
                f"The hub names a file whose name {error}.", "Do not use this hub."
            ) from None
    return str(info.sha), files


def _offset(report: ByteReport, done: int) -> ByteReport:
    """Report the bytes of one file after those of the files before it."""
    return lambda number: report(done + number)


def _require_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes + MIN_FREE_BYTES > free:
        needed = format_size(needed_bytes)
        left = format_size(MIN_FREE_BYTES)
        raise MaterialError(
            f"{needed} are to be fetched, and the disk of UNDERSTUDY_HOME has {format_size(free)} "
            "free.",
            f"Free disk space ({left} are left free), or set UNDERSTUDY_HOME to another disk.",
        )


@contextmanager
def _progress_bar(total: int, interval_s: float) -> Iterator[ByteReport]:
    """Show progress as a bar on a terminal, else as lines."""
    log = LogProgress(interval_s)
    with tqdm(total=total, unit="B", unit_scale=True, file=sys.stderr, disable=None) as bar:

        def report(done: int) -> None:
            bar.update(done - bar.n)
            log.update(f"{format_size(done)} of {format_size(total)} fetched")

        yield report


def remove_dataset(options: argparse.Namespace) -> None:
    """Delete the fetched files of a data set, and those of a fetch that was stopped."""
    entry = _find_on_hub(options)
    folder = _folder(entry)
    partial = _partial(entry)
    was_there = folder.exists() or partial.exists()
    if was_there:
        with _locked(folder.with_name(f".{entry.name}.lock"), entry.name):
            shutil.rmtree(partial, ignore_errors=True)
            if folder.exists():
                # Renamed first, so that it is never half there under its name.
                folder.rename(partial)
                shutil.rmtree(partial)
    if options.json:
        print(json.dumps({"removed": was_there}))
    elif was_there:
        print(f"{entry.name} is removed.")
    else:
        print(f"{entry.name} is not fetched.")
