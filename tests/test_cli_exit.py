"""How command lines end: output that nobody takes, a stream that is closed, letters that it lacks,
Ctrl-C.
"""

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = [
    "bot doctor --quick",
    "trainer recipes",
    "personas card show personas/cards/oda.toml --json",
]
FULL = "The disk is full. Free some space, then run the same command again.\n"


@pytest.fixture
def environ(tmp_path):
    """An empty home, and output that is held back until it is much, as it is for most people."""
    others = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return others | {"UNDERSTUDY_HOME": str(tmp_path), "WEB_PORT": "0", "DISCORD_TOKEN": ""}


def typed(command, environ, redirected="", **how):
    """What becomes of `python -m COMMAND` in a shell."""
    line = f"exec {sys.executable} -m {command} {redirected}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, env=environ, **how
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_nobody_takes_or_has_room_for_is_no_traceback(command, environ):
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", *command.split()]
    unheard = subprocess.run(
        line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environ
    )
    os.close(writer)
    assert (unheard.returncode, unheard.stderr) == (141, "")
    refused = typed(command, environ, "> /dev/full")
    assert (refused.returncode, refused.stderr) == (1, FULL)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_closed_or_lacks_letters_loses_them_alone(command, environ):
    closed = typed(command, environ, "<&- >&- 2>&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    lacking = typed(command, environ | {"PYTHONIOENCODING": "ascii", "LANGUAGE": ""})
    assert (lacking.returncode, lacking.stderr) == (0, "") and lacking.stdout.isascii()


# ---------------------------------------------------------------------------------- cut-off bytecode

IMPORTING = """
import sys
from personas import cli_entry

def load():
    if sys.argv[1] == "early":
        import full_of_words

    def command():
        import full_of_words
        return len(full_of_words.WORDS) - 1000

    return command

sys.exit(cli_entry.run(load))
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_bytecode_that_a_full_disk_cut_off_is_removed_and_named(when, tmp_path, environ):
    module = tmp_path / "full_of_words.py"
    module.write_text(f"WORDS = {[f'word {number}' for number in range(1000)]}\n")
    cached = Path(py_compile.compile(str(module)))
    cached.write_bytes(cached.read_bytes()[:4096])
    environ = environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    line = [sys.executable, "-c", IMPORTING, when]
    damaged = subprocess.run(line, capture_output=True, text=True, env=environ)
    assert (damaged.returncode, damaged.stdout) == (1, "")
    assert damaged.stderr.startswith(f"{cached} was cut off") and "\n" not in damaged.stderr[:-1]
    again = subprocess.run(line, capture_output=True, text=True, env=environ)
    assert (again.returncode, again.stderr) == (0, "")


# ------------------------------------------------------------------------------------------- Ctrl-C

WHILE_IMPORTING = """
import runpy, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {heavy!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = [{module!r}, "--help"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
AT_WORK = """
import signal, sys, threading, time
from personas import cli_entry
def command():
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("so far")
    signal.raise_signal(signal.SIGINT)
sys.exit(cli_entry.run(lambda: command))
"""
AT_THE_END = """
import atexit, signal, sys
from personas import cli_entry
atexit.register(signal.raise_signal, signal.SIGINT)
sys.exit(cli_entry.run(lambda: lambda: 0))
"""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bot", "bot.settings"),
        ("trainer", "trainer.train.resume_config"),
        ("personas", "personas.card"),
    ],
)
def test_ctrl_c_while_a_command_is_being_loaded_is_a_line_and_130(module, heavy):
    interrupted(WHILE_IMPORTING.format(module=module, heavy=heavy))


def test_ctrl_c_at_work_waits_for_no_thread_and_keeps_what_was_said():
    assert interrupted(AT_WORK) == "so far\n"


def test_ctrl_c_at_the_very_end_is_no_traceback():
    interrupted(AT_THE_END)


def interrupted(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")
    return done.stdout


def test_what_a_shell_runs_in_the_background_stays_deaf_to_ctrl_c():
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom personas import "
        "cli_entry\ncli_entry.run("
    )
    code += "lambda: lambda: signal.raise_signal(signal.SIGINT) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
