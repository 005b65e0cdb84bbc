"""The command that starts a llama.cpp server: the program, and its options (llama.cpp b11549)."""

import importlib.util
import re
import shlex
import shutil
import subprocess  # nosec B404  # the program is the operator's own
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.engine.context_window import SMALL_CONTEXT_TOKENS, picture_tokens
from personas.engine.remote.llamacpp_slots import reserved_slots
from personas.errors import ServerError

PROGRAM = "llama-server"
WHEEL = "xllamacpp"
WHEEL_SERVER = "personas.engine.remote.xllamacpp_server"
LOOPBACK = "127.0.0.1"
HELP_TIMEOUT_S = 30.0
"""The wheel loads its libraries before it prints its options."""
OPTION = re.compile(r"--[a-z][a-z-]*")
INSTALL_ADVICE = (
    "Install llama.cpp so that llama-server is on the PATH, set LLAMA_SERVER to its path, or run "
    "`requirements/install.sh .venv/bin/python llamacpp` in the project's folder."
)


class NoLlamaServerError(ServerError):
    """There is no llama-server on this machine."""


@dataclass(frozen=True)
class LlamaProgram:
    """A program that serves like llama-server: its command, and its name for people."""

    command: tuple[str, ...]
    name: str


def find_program(setting: str) -> LlamaProgram:
    """Find the server that LLAMA_SERVER names, else llama-server on the PATH, else the wheel.

    Raises `NoLlamaServerError`.
    """
    if setting:
        path = shutil.which(str(Path(setting).expanduser()))
        if path is None:
            raise NoLlamaServerError(
                f"LLAMA_SERVER is {setting}, which is no program that can be run.", INSTALL_ADVICE
            )
        return LlamaProgram((path,), path)
    if path := shutil.which(PROGRAM):
        return LlamaProgram((path,), path)
    if importlib.util.find_spec(WHEEL):
        return LlamaProgram((sys.executable, "-m", WHEEL_SERVER), f"the package {WHEEL}")
    raise NoLlamaServerError(f"There is no {PROGRAM} on this machine.", INSTALL_ADVICE)


@dataclass(frozen=True)
class LlamaOptions:
    """The options of a server: the base model's file, LoRA files, replies at once, the tokens of a
    prompt with its reply, among how many candidates replies begin, and the vision projector with
    which it sees pictures.
    """

    model: Path
    adapters: tuple[Path, ...]
    slots: int
    context_tokens: int
    candidates: int = 1
    projector: Path | None = None

    @property
    def kv_tokens(self) -> int:
        """Number of tokens whose keys and values the server has memory for."""
        tokens = self.slots * self.context_tokens
        if self.candidates > 1:
            tokens += self.candidates * min(SMALL_CONTEXT_TOKENS, self.context_tokens)
        return tokens

    def arguments(self) -> list[str]:
        """Return the arguments that have to be as they are, whoever starts the server."""
        arguments = [
            "--model", str(self.model),
            "--parallel", str(self.slots + reserved_slots(self.candidates)),
            # The server divides its context among the slots.
            "--ctx-size", str(self.kv_tokens),
            # Its cache of prompts in memory takes no notice of adapters (ggml-org/llama.cpp issue
            # 26207): a reply could begin with keys and values of another persona.
            "--cache-ram", "0",
        ]  # fmt: skip
        if self.projector:
            most = picture_tokens(self.context_tokens)
            arguments += ["--mmproj", str(self.projector), "--image-max-tokens", str(most)]
        if self.candidates > 1:
            # Slots share the memory, so that copies of a prompt take none.
            arguments.append("--kv-unified")
        if self.adapters:
            arguments.append("--lora-init-without-apply")
        for path in self.adapters:
            arguments += ["--lora", _quoted(str(path))]
        return arguments

    def command_line(self) -> str:
        """Return the command for people to type."""
        return shlex.join([PROGRAM, *self.arguments()])


def start_arguments(options: LlamaOptions, port: int) -> list[str]:
    """Return the arguments of a server that the bot starts for itself, on loopback."""
    return [*options.arguments(), "--host", LOOPBACK, "--port", str(port), "--no-webui"]


def local_command(program: LlamaProgram, options: LlamaOptions, port: int) -> Sequence[str]:
    """Return the command that starts a server for the bot."""
    return [*program.command, *start_arguments(options, port)]


def missing_options(program: LlamaProgram, projector: Path | None = None) -> list[str]:
    """Ask a program for its help, and return the options that the bot uses and it does not have:
    all of them if it is no llama.cpp server. Those of a `projector` are used only with one.
    """
    try:
        done = subprocess.run(  # nosec B603
            [*program.command, "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HELP_TIMEOUT_S,
        )
        known = set(OPTION.findall(done.stdout))
    except (OSError, subprocess.TimeoutExpired):
        known = set()
    options = LlamaOptions(
        Path("base.gguf"),
        (Path("voice.gguf"),),
        slots=1,
        context_tokens=1,
        candidates=2,
        projector=projector,
    )
    used = OPTION.findall(" ".join(start_arguments(options, port=0)))
    return [option for option in used if option not in known]


def _quoted(path: str) -> str:
    """Quote a path for an option whose values are separated by commas."""
    if "," in path or '"' in path:
        escaped = path.replace('"', '""')
        return f'"{escaped}"'
    return path
