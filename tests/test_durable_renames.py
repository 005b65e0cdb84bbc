"""Files and folders get their names by the durable writer, so that a crash leaves the old or the
whole new one.
"""

import ast
from pathlib import Path

import pytest

from tests.test_layering import ROOT

ALLOWED = {
    "personas/card/card_cli.py:_write_files": "flushes the file itself: personas.home imports its package",
    "personas/models/gguf_file.py:unpack_gguf": "flushes files and folder itself, likewise",
    "personas/home/atomic_files.py:replace_durably": "the durable writer itself",
    "bot/operations/backup/restore.py:_move": "many moves, both folders are flushed after all of them",
    "bot/privacy/home_files.py:delete_path": "moved away to be deleted",
    "bot/privacy/pending_jobs.py:_set_aside": "moved away to be deleted",
    "bot/versions/actions.py:remove": "moved away to be deleted",
    "trainer/cli/catalogue_command.py:remove_dataset": "moved away to be deleted",
    "trainer/dataset/layout.py:install_dataset": "the old one is moved away; the new one is named durably",
    "trainer/study/sweep.py:_install_best_adapter": "the old one is moved away; the new one is named durably",
}


def bare_renames(path):
    """The functions of a file that rename something without flushing its new name, by line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute):
            continue
        owner = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
        moves = (owner, call.func.attr) in (("os", "replace"), ("os", "rename"), ("shutil", "move"))
        names = (
            call.func.attr in ("replace", "rename") and len(call.args) == 1 and not call.keywords
        )
        if moves or names:
            inside = [
                it.name for it in functions if it.lineno <= call.lineno <= (it.end_lineno or 0)
            ]
            yield call.lineno, inside[-1] if inside else ""


@pytest.mark.parametrize("package", ["bot", "personas", "sandbox", "trainer"])
def test_nothing_is_renamed_without_being_flushed(package):
    found = [
        (f"{path.relative_to(ROOT)}:{name}", line)
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in bare_renames(path)
    ]
    assert [(where, line) for where, line in found if where not in ALLOWED] == []
    stale = {one for one in ALLOWED if one.startswith(f"{package}/")} - {
        where for where, _ in found
    }
    assert not stale, "nothing is renamed there any more"


def test_a_bare_rename_is_found(tmp_path):
    file = Path(tmp_path / "a.py")
    file.write_text('import os\ndef write(part, out, text):\n    text.replace("a", "b")\n    os.replace(part, out)\n'
                    "def move(part, out):\n    part.rename(out)\n")  # fmt: skip
    assert [*bare_renames(file)] == [(4, "write"), (6, "move")]
