"""The message of a job: its progress as a text, its result as a card with its score card's picture.

Progress stays a text, which is edited until the job has ended. A result is a message of its own, so
it has its layout from the beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import discord
from discord import ui

from bot.platform.discord_kit.layouts import Item, button_row, card_layout, fit_texts, has_room
from bot.platform.discord_kit.ui import button_view
from bot.platform.localisation import gettext_lazy, gettext_noop, localise, translate
from bot.store import TrainingJob
from bot.training.status_text import CardExcerpt, ResultText, result_text
from personas.home.adapters import score_card_file

SCORE_CARD_PICTURE = "report/scorecard.png"
REPLIES_TITLE = gettext_lazy("Replies side by side, to messages that it was not trained on:")
REST_TEXT = gettext_lazy("-# The rest is on the page of its score card.")
VERDICT_COLOURS = {
    "promote": discord.Colour.green(),
    "hold": discord.Colour.gold(),
    "reject": discord.Colour.red(),
}


@dataclass(frozen=True)
class JobMessage:
    """A job's message: a text with buttons below, or a layout, which has all of it."""

    text: str | None
    view: ui.View | ui.LayoutView | None
    files: tuple[discord.File, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the fields by which Discord's message is edited. A text leaves the files alone."""
        fields: dict[str, Any] = {"content": self.text, "view": self.view}
        if self.text is None:
            fields["attachments"] = self.files
        return fields


def text_message(text: str, buttons: Sequence[Item]) -> JobMessage:
    return JobMessage(text, button_view(*buttons) if buttons else None)


def result_message(
    job: TrainingJob,
    live: str | None,
    excerpt: CardExcerpt,
    *,
    learner: str = "",
    note: str = "",
    buttons: Sequence[Item] = (),
    with_picture: bool = False,
) -> JobMessage:
    """Lay out a result as its score card's page: verdict, replies side by side, reasons, figures,
    picture. `live` is the persona's live version, `learner` its name; `note` follows the
    verdict.
    """
    assert job.result is not None
    picture = _score_card_file(job) if with_picture else None
    result = result_text(job, live, excerpt, learner=learner)
    items: list[Item] = []
    for text in _fitted(result, localise(note)):
        items.append(ui.TextDisplay(text) if text else ui.Separator())
    if picture:
        gallery: ui.MediaGallery[ui.LayoutView] = ui.MediaGallery()
        gallery.add_item(media=picture)
        items.append(gallery)
    items += button_row(buttons)
    colour = VERDICT_COLOURS.get(job.result.scorecard.verdict)
    return JobMessage(None, card_layout(*items, colour=colour), (picture,) if picture else ())


def _fitted(result: ResultText, note: str) -> list[str]:
    """Return the texts of a result that have room; an empty one stands for a line between two
    sections. The table is left out first, then replies.
    """
    title = localise(REPLIES_TITLE)
    rest = localise(REST_TEXT)
    count = len(result.replies)
    attempts = [(count, result.table), *((most, "") for most in range(count, -1, -1))]
    texts: list[str] = []
    for most, table in attempts:
        replies = result.replies[:most]
        is_whole = most == count and table == result.table
        sections = [
            [f"### {result.title}", result.verdict, note],
            [title, *replies] if replies else [],
            [result.reasons],
            [result.figures, table, result.card, "" if is_whole else rest],
        ]
        texts = _with_lines(sections)
        if has_room(texts):
            break
    return fit_texts(texts, rest)


def _with_lines(sections: Sequence[Sequence[str]]) -> list[str]:
    """Return the texts of sections, with an empty one between two sections."""
    texts: list[str] = []
    for section in sections:
        if written := [text for text in section if text]:
            texts += ["", *written] if texts else written
    return texts


def _score_card_file(job: TrainingJob) -> discord.File | None:
    assert job.result is not None
    path = score_card_file(Path(job.result.adapter), SCORE_CARD_PICTURE)
    if not path.is_file():
        return None
    description = translate(gettext_noop("The score card of the new version"))
    return discord.File(path, description=description)
