"""Shows what became of an import on Discord."""

import io
import json

import discord

from bot.platform.localisation import gettext_lazy, localise
from bot.platform.messages import MAX_MESSAGE_CHARS
from personas.schemas.import_report import ImportReport

LIST_FILE = "import.json"
REST_NOTE = gettext_lazy("-# The whole list is in `{file}`.", file=LIST_FILE)


def with_import_list(lines: list[str], report: ImportReport) -> tuple[str, list[discord.File]]:
    """Return a message of these lines and the list of an import.

    A list that is too long, or counts parts without their names, comes as a file, too.
    """
    shown = [
        "\n".join(lines),
        *(f"- {discord.utils.escape_markdown(line)}" for line in report.lines()),
    ]
    text = "\n".join(shown)
    if len(text) <= MAX_MESSAGE_CHARS and not report.has_unnamed:
        return text, []
    text = shown.pop(0)
    note = localise(REST_NOTE)
    for line in shown:
        if len(text) + len(line) + len(note) + 2 > MAX_MESSAGE_CHARS:
            break
        text += f"\n{line}"
    content = json.dumps(report.as_json(), ensure_ascii=False, indent=2).encode()
    return f"{text}\n{note}", [discord.File(io.BytesIO(content), filename=LIST_FILE)]
