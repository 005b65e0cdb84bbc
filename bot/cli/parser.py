"""The command line of `python -m bot`: its commands and options, without the modules that run
them.
"""

import argparse
import pkgutil
from dataclasses import dataclass
from pathlib import Path

from bot.cli import existing_file
from personas import cli_entry
from personas.cli_common import SHELLS, CommandParser, CommandParsers, ShowVersion, add_command

DESCRIPTION = "The bot: on Discord with a token, and in its own guild on this machine without."
EPILOG = """examples:
  python -m bot                      no DISCORD_TOKEN: a guild on this machine; prints its address
  DISCORD_TOKEN=… python -m bot      the same bot on Discord
  WEB_PORT=0 python -m bot           any free port
  python -m bot doctor               checks the settings and this machine
  python -m bot models               which base model fits here
  python -m bot invite               the invite URL of the bot
  python -m bot backup --out /mnt/backups

exit codes: 0 done, or ended by Ctrl-C or SIGTERM while it served; 1 could not start, broke off or was refused; 2 wrong
usage; 130 Ctrl-C in a command. docs/commands.md has all of them."""
DOCTOR_NOTES = """\
examples:
  python -m bot doctor
  python -m bot doctor --quick        without Discord, the engine's servers and the trainer; a moment
  python -m bot doctor --json

It looks at the settings, the home and its disk, the port and the token; with a token at the bot's permissions; with
other engines than local at each server, and with TRAINER=ray at the cluster, by a short job; then it asks the trainer's
doctor, half a minute. Nothing is changed, and the bot may run meanwhile.

exit codes: 0 the bot works (something may be missing or slower), 1 something does not work"""
VLLM_NOTES = """\
examples:
  python -m bot vllm install

Makes an environment of its own for vLLM in UNDERSTUDY_HOME, for the graphics card or else the processor, from the
versions and hashes of requirements/. With ENGINE=vllm and without ENGINE_URLS, the bot starts and ends its server."""
MODELS_NOTES = """\
examples:
  python -m bot models
  python -m bot models fetch qwen3-1.7b
  python -m bot models fetch owner/name:Q4_K_M    any GGUF file of a hub; owner/name is a repository with safetensors
  python -m bot models use qwen3-1.7b

What a dozen base models take on this machine: memory to serve and to train, disk, and tokens per second, expected and,
once a model was used, measured. Some seconds; without a command it downloads nothing. docs/models.md has each model's
facts with their sources.

`fetch` shows the licence first, continues after a cut, and checks each file. `use` writes BASE_MODEL, and ENGINE
where another one serves it best here, into the .env of this folder (or --env FILE), and says what becomes of each
persona's version; the bot reads it at its next start."""
INVITE_NOTES = """\
examples:
  python -m bot invite                                     the bot of DISCORD_TOKEN
  python -m bot invite --application 1100000000000000001   without a token: the Application ID of the Developer Portal
  python -m bot invite --json

Open the URL with an account that has Manage Server in the target server. Discord lists the same permissions; each can
be unticked, and the list here names the features that need it."""
DEMO_NOTES = """\
examples:
  python -m bot demo
  python -m bot demo --all            all three personas with the full recipe: some two hours
  python -m bot demo --out ~/demo

Plays a session in a guild of its own and prints it: a question to each shipped persona without its shipped version, a
training of Ballast by /finetune start (on a CPU with the recipe quick) while another persona answers, Promote, and the
same question again. It reads no settings and uses no other home. The figures are in result.json of its folder."""
COMPLETION_NOTES = """\
examples:
  python -m bot completion bash | tee ~/.local/share/bash-completion/completions/{understudy,model_inference}
  python -m bot completion zsh > ~/.zfunc/_understudy
  python -m bot completion fish | tee ~/.config/fish/completions/{understudy,model_inference}.fish

Completes `understudy`, which is the same as `python -m bot`, and `model_inference`; both are in .venv/bin. The folders
above must exist; in zsh, ~/.zfunc must be in fpath before compinit. bash (with bash-completion) and fish look for files
with the commands' names. For the current terminal only, in bash or zsh: source <(.venv/bin/understudy completion bash),
and in fish: .venv/bin/understudy completion fish | source. The trainer's commands are `understudy-trainer`: python -m
trainer completion bash."""
PRIVACY_NOTES = """\
examples:
  python -m bot privacy show --user 734829104458293761
  python -m bot privacy export --user 734829104458293761 --out about-them.json
  python -m bot privacy forget --user 734829104458293761 --name "Ada Winter" --name ada_w

For people who have left the server, or who contact you. Members use /privacy themselves. The bot may keep running.
Names are searched for in all files of the home, so give only names that nobody else has."""
HISTORY_NOTES = """\
examples:
  python -m bot history --guild 910000000000000001 --persona oda --out oda-history.jsonl
  python -m trainer dataset inspect oda-history.jsonl

Needs Discord's permission (DISCORD_PERMISSION), and exports only messages of members who opted in."""
BACKUP_NOTES = """\
examples:
  python -m bot backup --out /mnt/backups
  python -m bot backup --out before-the-move.zip --json

The bot may run and write meanwhile. The file is readable by its owner only and not encrypted: it contains members'
messages, and the keys of pseudonyms. It has no caches, no local guild and no folders of jobs. See docs/backup.md."""
RESTORE_NOTES = """\
examples:
  python -m bot restore before-the-move.zip
  python -m bot restore --latest                  # after the database was damaged
  python -m bot restore before-the-move.zip --home ~/elsewhere --keep-previous

Stop the bot first. Members who were forgotten or opted out after the backup stay so, and messages deleted on Discord
stay deleted. The current home is deleted unless --keep-previous is given. See docs/backup.md."""


@dataclass(frozen=True)
class Deferred:
    """A command's function, `module:name`, whose module is imported when the command runs."""

    name: str

    def __call__(self, *arguments: object) -> int:
        with cli_entry.importing():
            function = pkgutil.resolve_name(self.name)
        return int(function(*arguments))


def build_parser(prog: str = "python -m bot") -> argparse.ArgumentParser:
    """Build the parser. A command sets `run`, which takes the arguments and the home, or
    `before_settings`, which takes the arguments alone; both return the exit code.
    """
    parser: argparse.ArgumentParser = CommandParser(
        prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--env",
        type=existing_file,
        default=Path(".env"),
        help="a file with settings (default: .env)",
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_doctor(commands)
    _add_models(commands)
    _add_vllm(commands)
    _add_invite(commands)
    _add_privacy_and_history(commands)
    _add_backup_and_restore(commands)
    _add_demo(commands)
    _add_completion(commands)
    return parser


def _add_doctor(commands: CommandParsers) -> None:
    summary = "check settings, home, port, token, permissions and this machine, with remedies"
    doctor = add_command(commands, "doctor", summary, DOCTOR_NOTES)
    doctor.add_argument("--quick", action="store_true", help="only the quick checks")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    # The doctor reports unreadable settings, too.
    doctor.set_defaults(before_settings=Deferred("bot.operations.doctor.cli:run_doctor"))


def _add_models(commands: CommandParsers) -> None:
    models = add_command(
        commands, "models", "list the base models that fit here; fetch and use one", MODELS_NOTES
    )
    models.add_argument("--json", action="store_true", help="print one JSON object")
    models.set_defaults(run=Deferred("bot.models.cli:run_models"))
    subcommands = models.add_subparsers(metavar="COMMAND")
    fetch = add_command(subcommands, "fetch", "fetch a base model from the hub", MODELS_NOTES)
    form = fetch.add_mutually_exclusive_group()
    for option, value in (("--gguf", "gguf"), ("--safetensors", "safetensors")):
        form.add_argument(
            option,
            dest="format",
            action="store_const",
            const=value,
            help=f"in the form of {value} (default: the one that is served best here)",
        )
    fetch.set_defaults(run=Deferred("bot.models.cli:run_fetch_command"), format="best")
    use = add_command(subcommands, "use", "serve another base model", MODELS_NOTES)
    use.set_defaults(run=Deferred("bot.models.cli:run_use_command"))
    names = "a name of the table or a hub's id: owner/name, owner/name:Q4_K_M"
    fetch.add_argument("name", metavar="NAME", help=names)
    local = (
        "; or embedded, the path of a GGUF file or of a model's folder, an Ollama name: qwen3:4b"
    )
    use.add_argument("name", metavar="NAME", help=names + local)
    for command in (fetch, use):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    fetch.add_argument("--yes", action="store_true", help="accept the licence without being asked")
    use.add_argument("--yes", action="store_true", help="do not ask")


def _add_vllm(commands: CommandParsers) -> None:
    vllm = add_command(commands, "vllm", "install vLLM for ENGINE=vllm", VLLM_NOTES)
    subcommands = vllm.add_subparsers(required=True, metavar="COMMAND")
    install = add_command(subcommands, "install", "install vLLM into the home", VLLM_NOTES)
    install.add_argument("--yes", action="store_true", help="do not ask")
    install.set_defaults(run=Deferred("bot.operations.vllm_setup:run_install"))


def _add_invite(commands: CommandParsers) -> None:
    command = add_command(
        commands, "invite", "the invite URL, with the reason for each permission", INVITE_NOTES
    )
    hint = "of this application (default: the token's)"
    command.add_argument("--application", type=_application_id, metavar="ID", help=hint)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=Deferred("bot.operations.doctor.cli:run_invite"))


def _application_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no Discord id (a number)")
    return int(text)


def _add_privacy_and_history(commands: CommandParsers) -> None:
    privacy = add_command(
        commands, "privacy", "show, export or erase a member's data", PRIVACY_NOTES
    )
    subcommands = privacy.add_subparsers(required=True, metavar="COMMAND")
    show = add_command(subcommands, "show", "show the data stored about a member", PRIVACY_NOTES)
    show.set_defaults(run=Deferred("bot.privacy.cli:run_show"))
    export = add_command(
        subcommands, "export", "write everything stored about a member to a file", PRIVACY_NOTES
    )
    export.set_defaults(run=Deferred("bot.privacy.cli:run_export"))
    forget = add_command(subcommands, "forget", "erase a member for good", PRIVACY_NOTES)
    forget.set_defaults(run=Deferred("bot.privacy.cli:run_forget"))
    for command in (show, export, forget):
        command.add_argument(
            "--user", type=_discord_id, required=True, metavar="ID", help="their Discord id"
        )
        command.add_argument(
            "--name",
            action="append",
            default=[],
            help="a name of theirs; may be given several times",
        )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    for command in (show, export, forget):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    history = add_command(commands, "history", "write stored conversations as a log", HISTORY_NOTES)
    history.add_argument(
        "--guild", type=_discord_id, required=True, metavar="ID", help="the server's id"
    )
    history.add_argument(
        "--persona", required=True, metavar="ID", help="the persona whose replies are exported"
    )
    history.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to write"
    )
    history.add_argument("--json", action="store_true", help="print one JSON object")
    history.set_defaults(run=Deferred("bot.privacy.cli:run_history"))


def _discord_id(text: str) -> int:
    from bot.privacy.identifiers import MIN_ID_DIGITS  # with the search of lore, which is heavy

    if not (
        text.isascii() and text.isdecimal() and len(text) >= MIN_ID_DIGITS and int(text) < 2**63
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no Discord id (a number of {MIN_ID_DIGITS} digits or more)"
        )
    return int(text)


def _add_backup_and_restore(commands: CommandParsers) -> None:
    backup = add_command(commands, "backup", "back the home up into one file", BACKUP_NOTES)
    backup.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="FILE",
        help="the file, or a folder for it (default: this folder)",
    )
    backup.set_defaults(run=Deferred("bot.operations.backup.cli:run_backup"))
    restore = add_command(commands, "restore", "restore a backup", RESTORE_NOTES)
    source = restore.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="a file that `backup` created"
    )
    source.add_argument(
        "--latest", action="store_true", help="the newest automatic backup of the home"
    )
    restore.add_argument(
        "--home", type=Path, metavar="DIR", help="the home to restore (default: UNDERSTUDY_HOME)"
    )
    restore.add_argument(
        "--keep-previous", action="store_true", help="keep the current home beside the restored one"
    )
    restore.set_defaults(run=Deferred("bot.operations.backup.cli:run_restore"))
    for command in (backup, restore):
        command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_demo(commands: CommandParsers) -> None:
    summary = "play a session without a browser: a reply, a training, the reply after it"
    demo = add_command(commands, "demo", summary, DEMO_NOTES)
    text = "train all three personas and compare their adapters"
    demo.add_argument("--all", action="store_true", help=text)
    text = "its folder, which is emptied first (default: build/demo)"
    demo.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help=text)
    demo.set_defaults(before_settings=Deferred("bot.demo:run_demo"))


def _add_completion(commands: CommandParsers) -> None:
    command = add_command(
        commands, "completion", "print a shell completion script", COMPLETION_NOTES
    )
    command.add_argument("shell", choices=SHELLS, help="which shell")
    command.set_defaults(before_settings=Deferred("bot.cli.completion:run_completion"))
