"""The scripts of `completion` in the shells that they are for, installed as the help says."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

import bot.cli.ask
import bot.cli.parser
import trainer.cli.main
from personas.cli_common import completion_script

OFFERED = [
    ("understudy doctor --", ("--quick", "--json"), ("--persona", "--seed")),
    ("model_inference --", ("--persona", "--seed"), ("--quick",)),
    ("understudy-trainer --", ("--help",), ("--persona",)),
    ("understudy-trainer study scale --", ("--sizes", "--runs"), ("--adapter",)),
]
SHOWN_S = 20.0


def script(shell, of):
    """What the bot's `completion` prints, or the trainer's."""
    if of == "understudy-trainer":
        return completion_script([trainer.cli.main.build_parser(of)], shell)
    return completion_script(
        [bot.cli.parser.build_parser("understudy"), bot.cli.ask.build_ask_parser()], shell
    )


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


# ---------------------------------------------------------------------------------------------- zsh


class Terminal:
    """A zsh at a terminal of its own."""

    def __init__(self, home):
        self.process, self.master = pty.fork()
        if not self.process:
            environ = {
                "HOME": str(home),
                "ZDOTDIR": str(home),
                "PATH": os.environ["PATH"],
                "TERM": "dumb",
            }
            os.execve(
                shutil.which("zsh"),
                ["zsh", "-i"],
                environ | {"LC_ALL": "C.UTF-8", "COLUMNS": "200"},
            )

    def type(self, keys):
        os.write(self.master, keys.encode())

    def shown(self, until):
        """All that is shown until a text is."""
        seen = ""
        since = time.monotonic()
        while until not in seen:
            left = SHOWN_S - (time.monotonic() - since)
            assert left > 0 and select.select([self.master], [], [], left)[0], seen
            seen += os.read(self.master, 65536).decode(errors="replace")
        return seen

    def end(self):
        os.close(self.master)
        os.waitpid(self.process, 0)


@pytest.fixture(params=["fpath", "eval", "source"])
def zsh(request, tmp_path):
    """A zsh in which the scripts are installed in one of the ways that it knows."""
    functions = tmp_path / ".zfunc"
    functions.mkdir()
    ways = {"fpath": "", "eval": 'eval "$(<%s)"', "source": "source <(cat %s)"}
    lines = [
        f"fpath=({functions} $fpath)" if request.param == "fpath" else "",
        "autoload -Uz compinit",
        "compinit -u",
    ]
    for of in ("understudy", "understudy-trainer"):
        file = functions / f"_{of}"
        file.write_text(script("zsh", of), encoding="utf-8")
        lines.append(ways[request.param].replace("%s", str(file)))
    lines += ["LISTMAX=1000", "bindkey '^I' list-choices", "PROMPT='ready> '"]
    (tmp_path / ".zshrc").write_text("\n".join(lines), encoding="utf-8")
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.end()


@needs("zsh")
def test_zsh_completes_each_command_however_the_script_came_in(zsh):
    assert "only be called" not in zsh.shown("ready> ")
    for typed, offered, strange in OFFERED:
        zsh.type(f"{typed}\t")
        shown = zsh.shown(offered[-1])
        zsh.type(f"\x15: {typed[:12]} seen\n")
        shown += zsh.shown("ready> ")
        assert all(word in shown for word in offered), shown
        assert not any(word in shown for word in strange), shown


# --------------------------------------------------------------------------------------- fish, bash


@needs("fish")
@pytest.mark.parametrize("way", ["files", "source"])
@pytest.mark.parametrize(("typed", "offered", "strange"), OFFERED)
def test_fish_completes_each_command_by_a_file_of_its_name_or_at_once(
    typed, offered, strange, way, tmp_path
):
    folder = tmp_path / "fish" / "completions"
    folder.mkdir(parents=True)
    of = typed.split()[0] if typed.startswith("understudy-trainer") else "understudy"
    file = folder / f"{typed.split()[0]}.fish" if way == "files" else tmp_path / "script"
    file.write_text(script("fish", of), encoding="utf-8")
    read = f"source < {file}; " if way == "source" else ""
    program = tmp_path / typed.split()[0]  # fish looks for no file of a command that is not there
    program.touch(mode=0o755)
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": f"{os.environ['PATH']}:{tmp_path}",
    }
    asked = ["fish", "-c", f"{read}complete -C '{typed}'"]
    done = subprocess.run(asked, capture_output=True, text=True, env=environ, check=True)
    words = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert words >= set(offered) and words.isdisjoint(strange), done


def test_bash_keeps_the_variables_of_whoever_is_at_the_shell():
    asked = (
        f"{script('bash', 'understudy')}\nline=mine\nCOMP_WORDS=(understudy doctor --); "
        "COMP_CWORD=2\n"
        '_shtab_understudy 2>/dev/null\necho "${COMPREPLY[*]} $line"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--help", "--quick", "--json", "mine"]
