"""Names from outside become paths in one place, at every door (personas/outside_names.py)."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from personas.outside_names import (
    UnsafeNameError,
    last_part,
    path_inside,
    require_distinct_names,
    require_safe_name,
)

ROOT = Path(__file__).parent.parent
OUTSIDE_MODULES = {"zipfile", "tarfile"}
OUTSIDE_NAMES = {
    "HubFile",
    "list_hub_files",
    "Card",
    "CardExport",
    "SourceMaterial",
    "Material",
    "AdapterManifest",
    "JobSpec",
}
"""What carries names from outside from one module to another."""
OUTSIDE_ATTRIBUTES = {
    "match_info",
    "filename",
    "rfilename",
    "namelist",
    "infolist",
    "siblings",
    "checksums",
}
GETS_THEM_AS_ARGUMENTS = {
    "bot/training/dataset_paths.py",
    "personas/home/comparison_targets.py",
    "personas/home/recipe_files.py",
    "trainer/teacher/reply_writer.py",
}
"""Modules with names from outside by none of these words: `dataset_path` of a request, the name of
a recipe, ids of earlier jobs.
"""
NUMBER_PATTERN = re.compile(
    r"\b(\w*loss\w*|\w+_s|\w*bytes|time|begin|total|samples|max|len|sum)\b|\b\d|%Y"
)
UNPACKING = {"extract", "extractall", "unpack_archive"}
REVIEWED = {
    # Parents of a path that `path_inside` has returned.
    ("bot/operations/backup/archive.py", "folder / above"),
    # Names that the program makes or lists itself: of backups, of the home's files, of ids that it
    # has checked.
    ("bot/operations/backup/create.py", "staging / name"),
    ("bot/operations/backup/create.py", "home / name"),
    ("bot/personas/registry.py", "guild_folder / persona_id"),
    ("bot/personas/registry.py", "folder / beside"),  # `face-` and a checksum
    # Ids of guilds and personas, which `new_id` made.
    ("bot/personas/registry.py", "self._root / str(guild_id)"),
    ("bot/personas/registry.py", "self._root / str(guild_id) / persona_id"),
    ("personas/home/home_personas.py", "home / 'lore' / str(guild_id)"),
    ("personas/home/home_personas.py", "home / 'lore' / str(guild_id) / persona_id"),
    ("personas/home/shared_personas.py", "home / 'lore' / str(guild_id)"),
    ("personas/home/shared_personas.py", "home / 'lore' / str(guild_id) / owner"),
    ("personas/home/adapters.py", "home / 'models' / 'dialogue' / job_name"),
    ("personas/home/adapters.py", "home / 'models' / 'persona_adapters' / persona_id"),
    ("personas/home/adapters.py", "home / 'models' / 'persona_adapters' / persona_id / version"),
    ("personas/home/shared_personas.py", "home / 'personas' / str(OPERATOR_GUILD_ID)"),
    ("personas/home/shared_personas.py", "home / 'lore' / str(OPERATOR_GUILD_ID)"),
    ("personas/home/job_folder.py", "root / name"),  # SHARED_FOLDERS
    ("personas/home/job_folder.py", "home / name"),
    # Below `source`, what its copy was made of.
    ("personas/home/job_folder.py", "source / file.relative_to(target)"),
    ("personas/home/job_folder.py", "shared / home_id(home)"),
    ("personas/home/adapters.py", "folder / name"),  # the score card's file names
    ("personas/home/effect_probe.py", "self._folder / name"),  # a digest
    ("personas/home/job_material.py", "shipped.synthetic / f'{name}.jsonl'"),
    ("trainer/cli/create_job.py", "shipped.logs / f'{persona.id}.json'"),
    ("trainer/train/job_folder.py", "draft.home / RUNS_FOLDER / name"),  # JOB_NAME_PATTERN
    ("bot/training/request_materials.py", "self._shipped.logs / f'{persona_id}.json'"),
    # A guild's id, which is the name of the folder that its card was found in.
    ("bot/training/backends/job_folder_backend.py", "home / 'jobs' / job_id"),
    ("bot/platform/web_kit/templating.py", "STATIC_FOLDER / name"),  # ASSET_PATTERN
    ("trainer/dataset/loader.py", "self._folder / file"),  # files of a run's data set
    ("trainer/dataset/run_dataset.py", "job / name"),
    ("trainer/dataset/run_dataset.py", "self.folder / file"),
    ("personas/home/recipe_files.py", "folder / f'{each}.toml'"),  # one of those that ship
    # compare.json, which the bot writes for its trainer, leads to other folders of the home.
    ("personas/home/comparison_targets.py", "folder.absolute() / path"),
    # Paths that the operator names.
    ("bot/training/dataset_paths.py", "folder / given"),
    ("bot/training/dataset_catalog.py", "self.home / place['path']"),
    # A commit that `list_hub_files` has checked.
    ("trainer/cli/catalogue_command.py", "partial / revision"),
    # The four names in IMPORTED_FILES.
    ("personas/home/external_adapter.py", "folder / name"),
    ("personas/home/external_adapter_files.py", "source / name"),
    ("personas/home/external_adapter_files.py", "folder / name"),
    ("personas/home/external_adapter_hub.py", "folder / file.name"),
    ("personas/home/external_adapter_hub.py", "cache / file.name"),
    ("personas/home/external_adapter_files.py", "parent / name"),
    # The folder of a repository, whose name HUB_ID_PATTERN or HUB_FILE has checked.
    ("personas/home/model_fetch.py", "Path(constants.HF_HUB_CACHE) / f'models--{owner}--{name}'"),
    # A repository's name without its slash, and a commit that `list_hub_files` has checked.
    ("personas/home/external_adapter_hub.py", "cached / repository.replace('/', '--')"),
    (
        "personas/home/external_adapter_hub.py",
        "cached / repository.replace('/', '--') / str(info.sha)",
    ),
    # The operator's own folder, as it was listed.
    ("trainer/sources/source_file.py", "self.path / name"),
}
"""Joins of a folder and a name that is no constant, in modules that get names from outside. New
ones need a reason.
"""


def modules(words: Collection[str]) -> Iterator[tuple[str, ast.Module]]:
    """Parse the modules in which one of these words occurs."""
    pattern = re.compile("|".join(rf"\b{word}\b" for word in words))
    for package in ("bot", "personas", "sandbox", "trainer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if pattern.search(text):
                yield path.relative_to(ROOT).as_posix(), ast.parse(text)


def gets_outside_names(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and OUTSIDE_MODULES & {alias.name for alias in node.names}:
            return True
        if isinstance(node, ast.ImportFrom) and OUTSIDE_NAMES & {
            alias.name for alias in node.names
        }:
            return True
        if isinstance(node, ast.Attribute) and node.attr in OUTSIDE_ATTRIBUTES:
            return True
    return False


def is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.BinOp) or (
        isinstance(node, ast.Name) and node.id.isupper()
    )


def is_checked(node: ast.expr) -> bool:
    """Tell whether a name comes from `last_part`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "last_part"
    )


def joins(tree: ast.Module) -> Iterator[str]:
    """List the joins of paths with a name that is no constant, as their source text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            if not (is_constant(node.right) or is_checked(node.right) or is_arithmetic(node)):
                yield ast.unparse(node)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "joinpath"
        ):
            yield ast.unparse(node)


def is_arithmetic(node: ast.BinOp) -> bool:
    """Tell whether a division is of numbers: by a literal, a function that counts, or a name with
    its unit.
    """
    return NUMBER_PATTERN.search(ast.unparse(node)) is not None


HOSTILE = (
    "", "/", "/etc/passwd", "//etc/passwd", "a//b", "a/", "./a", "a/./b", "..", "../a", "a/../../b", "a/..",
    "\\\\host\\share", "..\\a", "a\\b", "C:\\a", "C:a", "c:/a",
    "con", "NUL.txt", "a/aux", "lpt1.md", "COM¹", "conout$", "a.", "a ", "a/b. /c", "a\0b", "a\nb", "a\x1b[31m",
    "a\u202eb", "\ufeffa", "\ud800", "a" * 256, "a/" * 600 + "a",
)  # fmt: skip
PLAIN = (
    "a", "a/b/c.json", ".hidden", "Act 1: The Harbour.md", "Überfahrt/Füße.md", "e\u0301.md", "日本.md",
    "\U0001f469\u200d\U0001f9b0.png",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(UnsafeNameError):
        path_inside(tmp_path, name)
    assert list(tmp_path.iterdir()) == []
    assert last_part(name, "x.zip") == "x.zip" or require_safe_name(last_part(name, "x.zip"))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_of_any_script_stay_inside(tmp_path, name):
    assert path_inside(tmp_path, name) == tmp_path / name
    assert require_safe_name(name).as_posix() == name


def test_names_that_only_windows_reads_otherwise_are_allowed_in_a_backup():
    for name in ("lore/0/oda/con.md", "lore/0/oda/notes."):
        assert require_safe_name(name, portable=False).as_posix() == name
        with pytest.raises(UnsafeNameError):
            require_safe_name(name)


def test_a_link_on_the_way_is_refused_wherever_it_leads(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "away").symlink_to(tmp_path)
    (tmp_path / "home" / "near").symlink_to(tmp_path / "home")
    for name in ("away", "away/file", "near/file"):
        with pytest.raises(UnsafeNameError, match="is behind a link"):
            path_inside(tmp_path / "home", name)


def test_names_that_are_one_file_elsewhere_are_refused():
    require_distinct_names(["a", "b", "a/b"])
    for pair in (("a.md", "A.md"), ("é.md", "e\u0301.md"), ("Straße", "STRASSE")):
        with pytest.raises(UnsafeNameError, match="is the same file as"):
            require_distinct_names(pair)


def test_no_other_way_leads_from_a_name_outside_to_a_path():
    words = OUTSIDE_MODULES | OUTSIDE_NAMES | OUTSIDE_ATTRIBUTES
    doors = {path: tree for path, tree in modules(words) if gets_outside_names(tree)}
    for path in GETS_THEM_AS_ARGUMENTS:
        doors[path] = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = {(path, join) for path, tree in doors.items() for join in joins(tree)}
    assert found - REVIEWED == set(), "use personas.outside_names.path_inside"
    assert REVIEWED - found == set(), "these are gone: remove them from REVIEWED"


def test_nothing_is_unpacked_by_the_archive_s_own_names():
    calls = [
        (path, ast.unparse(node))
        for path, tree in modules(UNPACKING)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in UNPACKING
    ]
    unpacking = [
        call for call in calls if call[0] != "bot/operations/backup/restore.py"
    ]  # it calls ArchiveReader.extract
    assert unpacking == []
