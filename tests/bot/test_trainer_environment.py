"""The processes of trainings and of speech recognition: what they import."""

import os
import subprocess

import pytest

from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from bot.transcription.transcriber import worker_command, worker_environ

STARTS = {
    "trainer": ((*TRAINER_COMMAND, "--help"), lambda: trainer_environment(os.environ, {})),
    "recogniser": (worker_command("nothing"), worker_environ),
}


@pytest.mark.parametrize("start", STARTS)
def test_nothing_is_imported_from_the_folder_that_the_bot_is_started_in(start, tmp_path):
    """`understudy` starts in any folder, and many have a `bot.py` or a `random.py`."""
    for name in ("trainer", "bot", "personas", "random"):
        (tmp_path / f"{name}.py").write_text('raise SystemExit("a file of somebody\'s own")')
    command, environ = STARTS[start]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "somebody's own" not in done.stdout + done.stderr
    assert "usage: " in done.stdout or "problem" in done.stdout
