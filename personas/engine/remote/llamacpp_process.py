"""A llama.cpp server that the bot runs."""

from pathlib import Path
from typing import ClassVar

from personas.engine.remote.llamacpp_command import LlamaOptions, LlamaProgram, local_command
from personas.engine.remote.server_process import ServerCommand, ServerProcess, ServerStartError

KEY_VARIABLE = "LLAMA_API_KEY"
START_REMEDY = "LLAMA_SERVER names another llama-server."


class LlamaServerError(ServerStartError):
    """A llama.cpp server that does not start."""


class LlamaServerProcess(ServerProcess):
    """A server on loopback, which accepts `key`."""

    error_type: ClassVar[type[ServerStartError]] = LlamaServerError

    def __init__(
        self, program: LlamaProgram, options: LlamaOptions, log_file: Path, key: str
    ) -> None:
        self.options = options
        command = ServerCommand(
            program.name,
            options.model.name,
            arguments=lambda port: local_command(program, options, port),
            environ={KEY_VARIABLE: key},
            remedy=START_REMEDY,
        )
        super().__init__(command, log_file)
