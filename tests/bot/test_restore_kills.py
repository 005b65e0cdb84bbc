"""`restore` is killed, anywhere: there is the old home or the new one, and nobody in it who was
forgotten.
"""

import os
import shutil
import sys

import pytest

from bot.operations.backup.cli import reapply_deletions
from bot.operations.backup.restore import finish_restore
from tests.bot.sample_home import PLANTED, fill, planted_backup, put_back, tree, where


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


@pytest.fixture
def planted(home, tmp_path):
    return planted_backup(home, tmp_path / "planted.zip")


CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "shutil.copyfile",
    "sqlite3.connect",
}


def killed_at(step, work):
    """Run `work` in a process that kills itself at its step-th change to the disk. False when it
    ended before that.
    """
    if (child := os.fork()) == 0:
        left = [step]

        def watch(event, arguments):
            if event in CHANGES or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            ):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(watch)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_at(steps, home, backup, tmp_path):
    """Restore and kill at each of these steps, then start anew; gives what each left, until one
    ends before.
    """
    shutil.copytree(home, tmp_path / "as-it-was")
    old = tree(home)
    put_back(backup, home, reapply_deletions)
    new = tree(home)
    left = []
    for step in steps:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "as-it-was", home)
        if not killed_at(step, lambda: put_back(backup, home, reapply_deletions)):
            return left
        killed_at(1 + step % 7, lambda: finish_restore(home))  # and once more while that is mended
        finish_restore(home)
        left.append("old" if (home / "jobs").exists() else "new")
        assert tree(home).keys() == (new if left[-1] == "new" else old).keys(), step
        assert where(home, *PLANTED) == [] and not (home / ".restore").exists(), step
    raise AssertionError("it was killed at every step")


def test_a_kill_leaves_the_old_home_or_the_new_one_and_nobody_who_was_forgotten(
    home, planted, tmp_path
):
    left = kill_at([1, 30, 60, *range(75, 500, 16)], home, planted, tmp_path)
    assert left == sorted(left, reverse=True) and left.count("old") >= 3 and left.count("new") >= 3


@pytest.mark.slow
def test_so_does_a_kill_at_any_step(home, planted, tmp_path):
    left = kill_at(range(1, 500), home, planted, tmp_path)
    assert left == sorted(left, reverse=True) and left.count("old") > 30 and left.count("new") > 30
