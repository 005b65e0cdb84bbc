"""Executes the marked blocks of a document: shell lines in a separate folder, chat lines in the
local guild.

A comment right before a fence marks it: `run` (quick), `run: slow`, `file: NAME` (its body is
written there), `prints` (each of its lines is part of the output of the fence before; … matches
anything). A fence in the language `discord` has lines like `Mina Vale in #tavern: /finetune start`,
`Mina Vale presses: Promote` and `wait for: WORDS`; indented lines fill in the form that the command
opens.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from sandbox import InteractionResponse, Sandbox, StoredFile, message_text
from sandbox.message_components import all_components
from tests.docs.reading import ROOT, Fence

LINKED = (
    "bot",
    "personas",
    "trainer",
    "data",
    "docs",
    "examples",
    "tests",
    "requirements",
    "Makefile",
    ".env.example",
)
CHAT_LINE = re.compile(r"(?P<name>[\w ]+) in #(?P<channel>[\w-]+): (?P<text>.+)")
PRESS_LINE = re.compile(r"(?P<name>[\w ]+) presses: (?P<text>.+)")
OPTION = re.compile(r" (\w+):")
SHELL_TIMEOUT_S = 500.0
ANSWER_TIMEOUT_S = 180.0
CONFIRMATION_TIMEOUT_S = 30.0
TRAINING_TIMEOUT_S = 1800.0
POLL_INTERVAL_S = 0.2


def workspace(folder: Path) -> Path:
    """Creates a folder that looks like the project's root; files written there do not reach the
    project.
    """
    place = folder / "understudy"
    place.mkdir()
    for name in LINKED:
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(sys.prefix)
    return place


@dataclass
class FenceRunner:
    """Executes fences in order. `folder` is the working directory, its parent the home
    directory.
    """

    folder: Path
    sandbox: Sandbox | None = None
    output: str = ""

    async def run(self, fence: Fence) -> None:
        """Executes one fence, or compares the output with it."""
        if fence.mark.startswith("file:"):
            file = self.folder / fence.mark.partition(":")[2].strip()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(fence.body, encoding="utf-8")
        elif fence.mark == "prints":
            self._compare(fence)
        elif fence.runs:
            self.output = ""
            await (self._chat if fence.language == "discord" else self._shell)(fence.body)

    def _compare(self, fence: Fence) -> None:
        plain = self.output.replace("*", "")
        for line in fence.body.splitlines():
            wanted = ".*?".join(re.escape(part.strip()) for part in line.split("…"))
            assert re.search(wanted, plain), (
                f"{fence.page}:{fence.line}: {line!r} is not in:\n{self.output[-3000:]}"
            )

    async def _shell(self, body: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "HOME": str(self.folder.parent)}
        environ.pop("UNDERSTUDY_HOME", None)  # the documents use ~/.understudy
        process = await asyncio.create_subprocess_exec(
            "bash", "-euc", body, cwd=self.folder, env=environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SHELL_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
        self.output = output.decode()
        assert process.returncode == 0, (
            f"exit code {process.returncode} of:\n{body}\n{self.output[-3000:]}"
        )

    # --------------------------------------------------------------------------------- in the guild

    async def _chat(self, body: str) -> None:
        for line, form in _steps(body.splitlines()):
            if chat := CHAT_LINE.fullmatch(line):
                await self._send(chat["name"], chat["channel"], chat["text"], form)
            elif press := PRESS_LINE.fullmatch(line):
                await self._press(press["name"], press["text"])
            else:
                await self._wait_for(line.removeprefix("wait for: "), 0)

    async def _send(self, name: str, channel: str, text: str, form: dict[str, str]) -> None:
        member = self._guild.member(name)
        mark = len(self._guild.events)
        if not text.startswith("/"):
            await member.say(channel, text)
            await self._wait_for("\n-# ", mark)
            return
        command, *options = OPTION.split(text.removeprefix("/"))
        values = dict(zip(options[::2], map(self._value, options[1::2]), strict=True))
        answer = await member.slash(channel, command, **values)
        if form:
            answer = await member.submit(answer, **form)
        self.output += await _final_answer(answer) + "\n"

    def _value(self, text: str) -> object:
        file = self.folder / text
        return (
            StoredFile.named(file.name, file.read_bytes())
            if file.suffix and file.is_file()
            else text
        )

    async def _press(self, name: str, label: str) -> None:
        """Presses the newest button with this label, and confirms if the bot asks for it."""
        mark = len(self._guild.events)
        confirmation = f"{label} anyway"
        shown = [message for _, message in self._guild.events if _has_button(message, label)]
        await self._guild.member(name).click(shown[-1], label)
        for _ in range(int(CONFIRMATION_TIMEOUT_S / POLL_INTERVAL_S)):
            confirmations = [
                message
                for _, message in self._guild.events[mark:]
                if _has_button(message, confirmation)
            ]
            if confirmations:
                await self._guild.member(name).click(confirmations[-1], confirmation)
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _wait_for(self, words: str, since: int) -> dict[str, Any]:
        """Waits for a message, new or edited, with these words, and returns it; bold type is
        ignored.
        """
        for _ in range(int(TRAINING_TIMEOUT_S / POLL_INTERVAL_S)):
            for kind, message in self._guild.events[since:]:
                if kind not in ("message", "edit"):
                    continue
                text = message_text(message)
                if words in text.replace("*", ""):
                    self.output += text + "\n"
                    return message
            await asyncio.sleep(POLL_INTERVAL_S)
        raise AssertionError(f"{words!r} did not appear; last: {self._guild.events[-3:]}")

    @property
    def _guild(self) -> Sandbox:
        assert self.sandbox is not None, "a page with chat lines needs the guild"
        return self.sandbox


def _steps(lines: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each line with the form fields in the indented lines below it."""
    for index, line in enumerate(lines):
        if not line.startswith(" "):
            below = takewhile(lambda it: it.startswith(" "), lines[index + 1 :])
            yield line, dict(it.strip().split(": ", 1) for it in below)


async def _final_answer(answer: InteractionResponse) -> str:
    """Waits for the bot's final answer to an interaction."""
    for _ in range(int(ANSWER_TIMEOUT_S / POLL_INTERVAL_S)):
        if answer.text:
            return answer.text
        await asyncio.sleep(POLL_INTERVAL_S)
    raise AssertionError("the bot did not answer")


def _has_button(message: dict[str, Any], label: str) -> bool:
    return any(one.get("label") == label for one in all_components(message.get("components", ())))
