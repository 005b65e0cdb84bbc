"""Does what a document says: its shell lines in a folder of their own, its talk in the guild, in the page's order.

A fence does something when a comment right before it says so: `run` (quick), `run: slow`, `file: NAME` (its body is
written there), `prints` (each of its lines stood in what the fence before brought; … is anything). A fence in the
language `discord` holds lines like `Mina Vale in #tavern: /finetune start`, `Mina Vale presses: Promote` and
`wait for: WORDS`; indented lines fill in the form that the command opened.
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

from bot.sandbox import InteractionResponse, Sandbox, StoredFile
from tests.docs.reading import ROOT, Fence

SHOWN = ("bot", "personas", "trainer", "data", "docs", "examples", "tests", "requirements", "Makefile", ".env.example")
SAID = re.compile(r"(?P<who>[\w ]+) in #(?P<where>[\w-]+): (?P<what>.+)")
PRESSED = re.compile(r"(?P<who>[\w ]+) presses: (?P<what>.+)")
OPTION = re.compile(r" (\w+):")
SHELL_S, ANSWER_S, ASKS_BACK_S, TRAINING_S, POLL_S = 500.0, 180.0, 30.0, 1800.0, 0.2


def workspace(folder: Path) -> Path:
    """A folder that looks like the root of the project, in which nothing that is written reaches the project."""
    place = folder / "understudy"
    place.mkdir()
    for name in SHOWN:
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(sys.prefix)
    return place


@dataclass
class Reader:
    """Somebody who does what a document says. `folder` is where they work, its parent their home directory."""

    folder: Path
    sandbox: Sandbox | None = None
    told: str = ""

    async def read(self, fence: Fence) -> None:
        """Do what one fence says, or compare what it prints."""
        if fence.mark.startswith("file:"):
            file = self.folder / fence.mark.partition(":")[2].strip()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(fence.body, encoding="utf-8")
        elif fence.mark == "prints":
            self._compare(fence)
        elif fence.runs:
            self.told = ""
            await (self._talk if fence.language == "discord" else self._shell)(fence.body)

    def _compare(self, fence: Fence) -> None:
        plain = self.told.replace("*", "")
        for line in fence.body.splitlines():
            wanted = ".*?".join(re.escape(part.strip()) for part in line.split("…"))
            assert re.search(wanted, plain), f"{fence.page}:{fence.line}: {line!r} is not in:\n{self.told[-3000:]}"

    async def _shell(self, body: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "HOME": str(self.folder.parent)}
        environ.pop("UNDERSTUDY_HOME", None)  # it is ~/.understudy in the documents
        process = await asyncio.create_subprocess_exec(
            "bash", "-euc", body, cwd=self.folder, env=environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SHELL_S)
        finally:
            if process.returncode is None:
                process.kill()
        self.told = output.decode()
        assert process.returncode == 0, f"exit code {process.returncode} of:\n{body}\n{self.told[-3000:]}"

    # ------------------------------------------------------------------------------------------- in the guild

    async def _talk(self, body: str) -> None:
        for line, form in _steps(body.splitlines()):
            if said := SAID.fullmatch(line):
                await self._say(said["who"], said["where"], said["what"], form)
            elif pressed := PRESSED.fullmatch(line):
                await self._press(pressed["who"], pressed["what"])
            else:
                await self._seen(line.removeprefix("wait for: "), 0)

    async def _say(self, who: str, where: str, what: str, form: dict[str, str]) -> None:
        member, mark = self._guild.member(who), len(self._guild.events)
        if not what.startswith("/"):
            await member.say(where, what)
            await self._seen("AI-written", mark)
            return
        command, *options = OPTION.split(what.removeprefix("/"))
        values = dict(zip(options[::2], map(self._value, options[1::2]), strict=True))
        answer = await member.slash(where, command, **values)
        if form:
            answer = await member.submit(answer, **form)
        self.told += await _answered(answer) + "\n"

    def _value(self, text: str) -> object:
        file = self.folder / text
        return StoredFile.named(file.name, file.read_bytes()) if file.suffix and file.is_file() else text

    async def _press(self, who: str, label: str) -> None:
        """The newest button of that name, and the one that insists where the bot asks back."""
        mark, insists = len(self._guild.events), f"{label} anyway"
        shown = [message for _, message in self._guild.events if _has_button(message, label)]
        await self._guild.member(who).click(shown[-1], label)
        for _ in range(int(ASKS_BACK_S / POLL_S)):
            asked = [message for _, message in self._guild.events[mark:] if _has_button(message, insists)]
            if asked:
                await self._guild.member(who).click(asked[-1], insists)
                return
            await asyncio.sleep(POLL_S)

    async def _seen(self, words: str, since: int) -> dict[str, Any]:
        """The first message, new or edited, with these words, whatever of them is bold."""
        for _ in range(int(TRAINING_S / POLL_S)):
            for kind, message in self._guild.events[since:]:
                if kind in ("message", "edit") and words in (message.get("content") or "").replace("*", ""):
                    self.told += message["content"] + "\n"
                    return message
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"{words!r} was not seen; last: {self._guild.events[-3:]}")

    @property
    def _guild(self) -> Sandbox:
        assert self.sandbox is not None, "a page in which people talk needs the guild"
        return self.sandbox


def _steps(lines: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line with what the indented ones below it put into a form."""
    for index, line in enumerate(lines):
        if not line.startswith(" "):
            below = takewhile(lambda it: it.startswith(" "), lines[index + 1 :])
            yield line, dict(it.strip().split(": ", 1) for it in below)


async def _answered(answer: InteractionResponse) -> str:
    """What the bot says in the end, when it has thought."""
    for _ in range(int(ANSWER_S / POLL_S)):
        message = answer.message
        if message and message["content"]:
            return str(message["content"])
        await asyncio.sleep(POLL_S)
    raise AssertionError("the bot did not answer")


def _has_button(message: dict[str, Any], label: str) -> bool:
    rows = message.get("components", ())
    return any(one.get("label") == label for row in rows for one in row.get("components", ()))
