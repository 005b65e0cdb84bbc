"""Builds a release into `dist/` (`make release`): wheel, source distribution, list of contents, notes, checksums.

The same commit gives the same files: their times are the commit's. The wheel is built from the source
distribution, so that this is known to be complete, and compared with one built from the tree.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess  # nosec B404  # git and the build backend, with constant arguments
import sys
import tarfile
import tempfile
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[1]
LOCKED_LISTS = ("build.txt", "lock.txt", "model.txt", "torch.txt")
"""What an environment with the project has; the bundled models are packages."""
NOTES_NAME = "notes.md"
SBOM_NAME = "sbom.cdx.json"
UNRELEASED = r"Unreleased\]"
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)")
PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.MULTILINE)
BUILD_CODE = (
    "import sys, hatchling.build as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
)
NAMESPACE = uuid.UUID("6f0f7c52-3f0a-4b57-9d0c-2c9b5a1c8f11")
"""Of the serial numbers of lists of contents."""


class ReleaseError(Exception):
    """Why there is no release of this tree, and what to do."""


def build(target: str, source: Path, out: Path, epoch: int) -> Path:
    """Build `wheel` or `sdist` of a tree into a folder; return the file."""
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(  # nosec B603
        [sys.executable, "-c", BUILD_CODE, f"build_{target}", str(out)],
        cwd=source,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"The {target} cannot be built:\n{done.stderr[-2000:]}")
    return out / done.stdout.split()[-1]


def build_distributions(out: Path, epoch: int) -> tuple[Path, Path]:
    """Build source distribution and wheel. Raises `ReleaseError` where the wheel of the tree differs
    from the one of the source distribution.
    """
    sdist = build("sdist", ROOT, out, epoch)
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdist) as archive:
            # extractall's `filter` is unknown to Python 3.11 before 3.11.4, such as Debian 12's.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(scratch)
        (unpacked,) = Path(scratch).iterdir()
        wheel = build("wheel", unpacked, out, epoch)
        of_tree = build("wheel", ROOT, Path(scratch) / "tree", epoch)
        if wheel.read_bytes() != of_tree.read_bytes():
            raise ReleaseError(
                "The source distribution and the tree build different wheels. See `only-include` in "
                "pyproject.toml."
            )
    return wheel, sdist


def release_notes(changelog: str, version: str, *, allow_changes: bool = False) -> str:
    """Return the section of a version; with `allow_changes`, else what is not released. Raises
    `ReleaseError` where there is none or it has no date.
    """
    section = _section(changelog, rf"{re.escape(version)}\] - \d{{4}}-\d\d-\d\d")
    if not section and allow_changes:
        section = _section(changelog, UNRELEASED)
    if not section:
        raise ReleaseError(f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD` with text.")
    return section + "\n"


def _section(changelog: str, heading: str) -> str:
    found = re.search(
        rf"^## \[{heading}\n(.*?)(?=^## \[|^\[[^\]]+\]: |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else ""


def refuse_unreleased(changelog: str) -> None:
    """Raise `ReleaseError` where changes have no number: the notes would be without them."""
    if _section(changelog, UNRELEASED):
        raise ReleaseError(
            "CHANGELOG.md has text under `## [Unreleased]`. Move it into the section of the version, "
            "or set the next version (CONTRIBUTING.md); --allow-changes builds a trial."
        )


def with_whole_links(notes: str, version: str, environ: Mapping[str, str]) -> str:
    """Return the notes with links into the repository's files of that version, because a release's page
    has no files beside it. Without `GITHUB_REPOSITORY` they stay relative.
    """
    if not (repository := environ.get("GITHUB_REPOSITORY")):
        return notes
    server = environ.get("GITHUB_SERVER_URL", "https://github.com")
    return RELATIVE_LINK.sub(f"]({server}/{repository}/blob/v{version}/", notes)


def locked_packages() -> dict[str, str]:
    """Return the versions of the locked packages by name."""
    lists = (ROOT / "requirements" / name for name in LOCKED_LISTS)
    return dict(pin for path in lists for pin in PIN.findall(path.read_text(encoding="utf-8")))


def contents(version: str, epoch: int) -> str:
    """Return the list of contents (SBOM) as CycloneDX JSON: the project, and the locked packages with
    their licences as far as their metadata state an SPDX expression.
    """
    project = Component(
        name="understudy", version=version, type=ComponentType.APPLICATION, bom_ref="understudy"
    )
    packages = list(_components(locked_packages().items()))
    bom = Bom(
        components=packages, serial_number=uuid.uuid5(NAMESPACE, f"understudy {version} {epoch}")
    )
    bom.metadata.component = project
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.register_dependency(project, packages)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)


def _components(pins: Iterable[tuple[str, str]]) -> Iterator[Component]:
    for name, version in sorted(pins):
        purl = PackageURL("pypi", name=name, version=version)
        component = Component(name=name, version=version, purl=purl, bom_ref=str(purl))
        # Of another platform, a package is not installed.
        with suppress(metadata.PackageNotFoundError):
            fields = metadata.metadata(name)
            if "License-Expression" in fields:
                stated = LicenseFactory().make_from_string(fields["License-Expression"])
                component.licenses.add(stated)
        yield component


def checksums(files: Iterable[Path]) -> str:
    """Return lines as `sha256sum` writes them."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(files)
    )


def release(out: Path, *, allow_changes: bool) -> list[Path]:
    """Write the release of this tree into a folder, which is emptied; return its files.

    Raises `ReleaseError`, also where the tree or the changelog has changes that are not released, unless
    these are allowed.
    """
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not allow_changes:
        refuse_unreleased(changelog)
        if changes := _git("status", "--porcelain"):
            raise ReleaseError(f"The tree has changes; commit them or take them back:\n{changes}")
    epoch = int(_git("log", "-1", "--format=%ct"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    notes = release_notes(changelog, version, allow_changes=allow_changes)
    notes = with_whole_links(notes, version, os.environ)
    shutil.rmtree(out, ignore_errors=True)
    wheel, sdist = build_distributions(out, epoch)
    _check_metadata(sdist)
    written = {NOTES_NAME: notes, SBOM_NAME: contents(version, epoch)}
    for name, text in written.items():
        (out / name).write_text(text, encoding="utf-8")
    sums = out / "SHA256SUMS"
    # Of the files that a release has: `sha256sum --check` fails where one is missing. The notes are its text.
    sums.write_text(checksums([wheel, sdist, out / SBOM_NAME]), encoding="utf-8")
    return [wheel, sdist, *(out / name for name in written), sums]


def _check_metadata(sdist: Path) -> None:
    """Raise for core metadata that an index would refuse."""
    with tarfile.open(sdist) as archive:
        file = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        Metadata.from_email(file.read(), validate=True)


def _git(*arguments: str) -> str:
    done = subprocess.run(  # nosec B603 B607
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"git says: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser("python -m tools.release", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--allow-changes", action="store_true", help="for trials: in the tree, and unreleased ones"
    )
    arguments = parser.parse_args()
    try:
        files = release(arguments.out, allow_changes=arguments.allow_changes)
    except ReleaseError as error:
        print(f"There is no release. {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"{file.stat().st_size:>12,} bytes  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
