"""All command lines of the project: each help teaches by an example that can be typed, shells
complete them.
"""

import argparse
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import bot.__main__
import bot.cli.ask
import bot.cli.parser
import bot.cli.run
import personas.card.card_cli
import sandbox.__main__
import trainer.cli.main
from personas.cli_common import (
    SHELLS,
    CommandParser,
    completion_script,
    iter_parsers,
    supports_colour,
)
from personas.errors import BundledModelError, RequestError
from trainer.process.environment import RESTARTED_VARIABLE

ROOT = Path(__file__).parent.parent
EXTRA_MODULES = ("_yaml", "functorch", "mpl_toolkits", "pip", "pylab", "torchgen")
"""Modules that the declared packages install beside those that they are imported by, and pip, which
is started.
"""
PROGRAMS = {
    "bot": bot.cli.parser.build_parser,
    "trainer": trainer.cli.main.build_parser,
    "model_inference": bot.cli.ask.build_ask_parser,
    "personas": personas.card.card_cli.build_parser,
    "sandbox": sandbox.__main__.command_line,
}
WHOLE = [make() for make in PROGRAMS.values()]
EVERY = [parser for whole in WHOLE for parser in iter_parsers(whole)]


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """The lines of a help that show how to type this very command, without what is said behind
    them.
    """
    text = "\n".join(filter(None, [parser.description, parser.epilog])).replace("\\\n", " ")
    lines = [
        re.split(r"(?<=\S) {3,}", line.strip())[0]
        for line in text.splitlines()
        if line.startswith("  ")
    ]
    return [
        line.removeprefix("$ ")
        for line in lines
        if re.search(rf"{re.escape(parser.prog)}(\s|$)", line)
    ]


def test_each_help_has_an_example_of_this_very_command():
    for parser in EVERY:
        assert examples(parser), f"{parser.prog} --help shows no example"
        assert parser.format_help(), parser.prog


def test_each_command_of_the_bot_has_its_function():
    for parser in EVERY:
        for value in parser._defaults.values():
            if isinstance(value, bot.cli.parser.Deferred):
                assert callable(pkgutil.resolve_name(value.name)), parser.prog


def test_each_example_can_be_typed(monkeypatch):
    def refuse(self, message):
        pytest.fail(f"{self.prog}: {message}")

    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    for parser in EVERY:
        whole = max(
            (it for it in WHOLE if parser.prog.startswith(it.prog)), key=lambda it: len(it.prog)
        )
        for line in examples(parser):
            if "…" in line.split("|")[-1] and "DISCORD_TOKEN" not in line:
                continue  # it stands for others, which are tried with their own commands
            typed = next(
                part for part in reversed(re.split(r" [|>] ", line)) if parser.prog in part
            )
            words = shlex.split(typed)
            words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
            with suppress(RequestError):  # a path that is not there
                whole.parse_args(words[len(shlex.split(whole.prog)) :])


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_get_a_script_that_knows_commands_and_options(shell):
    script = completion_script([bot.cli.parser.build_parser("understudy")], shell)
    for word in ("backup", "restore", "doctor", "keep-previous"):
        assert word in script


@pytest.mark.parametrize(
    ("typed", "offered"), [("do", "doctor"), ("backup --o", "--out"), ("completion z", "zsh")]
)
def test_bash_completes(typed, offered):
    words = ["understudy", *typed.split()]
    script = completion_script([bot.cli.parser.build_parser("understudy")], "bash")
    asked = (
        f"{script}\nCOMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "$(complete -p understudy | sed -E 's/.*-F ([^ ]+) .*/\\1/') 2>/dev/null\nprintf '%s\\n' "
        '"${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert offered in done.stdout.split()


def test_completion_is_printed_before_anything_heavy_is_loaded():
    code = (
        "import sys, runpy; sys.argv = ['trainer', 'completion', 'bash']\n"
        "try: runpy.run_module('trainer', run_name='__main__')\n"
        "except SystemExit as end: print('\\nended', end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "understudy-trainer" in done.stdout, done.stderr
    assert done.stdout.endswith("ended 0 False\n"), done.stderr


def test_without_the_packages_it_is_advised_how_to_get_them():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "bot"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "make run" in done.stderr and "is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_a_declared_package_is_reported_as_missing():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = {
        Requirement(line).name.replace("_", "-").lower()
        for line in tomllib.loads(text)["project"]["dependencies"]
    }
    modules = set()
    for module, owners in packages_distributions().items():
        if not declared.isdisjoint(owner.replace("_", "-").lower() for owner in owners):
            modules.add(module)
    assert modules - set(EXTRA_MODULES) == bot.__main__.PACKAGES
    code = (
        "import sys; from bot import __main__ as entry\n"
        "def load(): import nowhere.at_all\n"
        "entry._load_main = load; sys.exit(entry.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "ModuleNotFoundError: No module named 'nowhere'" in done.stderr


def test_the_scripts_of_the_package_lead_to_these_commands():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in (
        'understudy = "bot.__main__:main"',
        'understudy-trainer = "trainer.__main__:main"',
        'understudy-personas = "personas.__main__:main"',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colours_are_left_out_where_nobody_sees_or_wants_them(
    environ, terminal, coloured, monkeypatch
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert supports_colour() is coloured


# --------------------------------------------------------------------------------------- exit codes

NOT_THERE = [
    "bot restore /nowhere",
    "bot --env /nowhere doctor",
    "model_inference --env /nowhere hello",
    "trainer run /nowhere",
    "trainer matrix --adapter a=/nowhere --job a=/nowhere",
    "trainer dataset inspect /nowhere",
    "trainer dataset build --persona ballast --source /nowhere --right own-writing --out made",
    "trainer dataset export /nowhere --to openai --out made",
    "trainer plan --persona ballast --dataset /nowhere",
    "trainer mask /nowhere",
    "trainer train --persona ballast --dataset /nowhere",
    "trainer preference --adapter /nowhere --pairs /nowhere",
    "trainer evaluate --adapter /nowhere",
    "trainer export --adapter /nowhere --to gguf --out made",
    "trainer anonymise --in /nowhere --out made --report report.json",
    "trainer lore ask Why --persona ballast --lore /nowhere",
    "personas card show /nowhere",
    "personas card convert /nowhere made.png",
]
REFUSED = [
    "trainer plan --persona ballast --set foo=1",
    "trainer plan --persona ballast --mix 80",
    "trainer recipes foo",
    "trainer train --persona nobody",
]
MAINS = {
    "bot": bot.cli.run.main,
    "model_inference": bot.cli.ask.main,
    "trainer": trainer.cli.main.main,
    "personas": personas.card.card_cli.main,
}


def ended(monkeypatch, line):
    """The exit code of a command line, in this process."""
    program, *words = line.split()
    monkeypatch.setattr(sys, "argv", [program, *words])
    try:
        return MAINS[program]()
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("line", [*NOT_THERE, *REFUSED])
def test_what_is_not_there_or_is_refused_is_reported_with_1(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(
        RESTARTED_VARIABLE, "yes"
    )  # else what computes takes the place of this process
    assert ended(monkeypatch, line) == 1, capsys.readouterr().err
    said = capsys.readouterr().err
    assert said.strip() and "Traceback" not in said and "usage:" not in said


def test_a_bundled_model_that_cannot_be_fetched_is_not_blamed_on_base_model(
    tmp_path, monkeypatch, capsys
):
    async def serve(*_):
        raise BundledModelError("The bundled models cannot be fetched.", "Check the network.")

    monkeypatch.setattr("bot.cli.serve.serve", serve)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BASE_MODEL", "embedded")
    assert ended(monkeypatch, "bot --env /dev/null") == 1
    said = capsys.readouterr().err
    assert "The bundled models cannot be fetched" in said and "BASE_MODEL" not in said


def test_words_that_a_command_does_not_take_are_reported_with_2(capsys):
    for parser in EVERY:
        with pytest.raises(SystemExit) as refused:
            parser.parse_args(["--no-such-option"])
        assert refused.value.code == 2 and "usage:" in capsys.readouterr().err, parser.prog


OWN_PARSERS = [
    parser
    for name, build in PROGRAMS.items()
    if name != "sandbox"  # which has no commands
    for parser in iter_parsers(build())
]


def test_each_command_reports_itself_what_it_does_not_know_and_gives_each_number_a_range():
    assert all(isinstance(parser, CommandParser) for parser in OWN_PARSERS)
    bare = [
        (parser.prog, action.option_strings)
        for parser in OWN_PARSERS
        for action in parser._actions
        if action.type in (int, float)
    ]
    assert not bare


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("plan", "--persona", "oda", "--epochs", "-3"),
         "python -m trainer plan: error: unknown arguments: --epochs -3 (did you mean "
         "--set num_train_epochs=-3?)"),
        (("train", "--lora-r=-1"), "(did you mean --set lora_r=-1?)"),
        (("plan", "--persona", "oda", "--lanuages", "de"), "(did you mean --languages?)"),
        (("train", "--threads", "-3"), "argument --threads: expected a number of at least 1, got '-3'"),
        (("train", "--nice", "99"), "argument --nice: expected 0 to 19, got '99'"),
        (("study", "scale", "--sizes", "5", "--run", "0"), "argument --runs: expected 1 to 1000 runs, got '0'"),
        (("lore", "ask", "--persona", "oda", "What?", "--alll"), "(did you mean --all?)"),
        (("plan", "--seed", "-1"), "argument --seed: expected 0 to 4294967295, got '-1'"),
        (("plan", "--min-reply-words", "-1"), "argument --min-reply-words: expected 0 to 1000000, got '-1'"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_named_with_its_option_and_range(words, error, capsys):
    with pytest.raises(SystemExit) as ended:
        trainer.cli.main.build_parser().parse_args(words)
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert shown.startswith(f"usage: python -m trainer {words[0]} ") and error in shown
