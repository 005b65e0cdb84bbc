"""Messages laid out with Discord's Components V2, within its limits.

A message that once has such a layout keeps it: Discord takes no plain text for it any more. So no
reply that grows has one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import discord
from discord import ui

from bot.platform.localisation import localise

MAX_LAYOUT_CHARS = 4000
"""Characters of all texts of a layout together."""
MAX_LAYOUT_BYTES = 10_000
"""The same in UTF-8. Discord answers with a server error from about 10,150 bytes on
(discord/discord-api-docs, issue 8554), which scripts of three bytes a character reach before the
limit of characters.
"""
Item = ui.Item[Any]


def card_layout(*items: Item, colour: discord.Colour | None = None) -> ui.LayoutView:
    """A layout of one box of items, which never times out; the colour is its edge."""
    view = ui.LayoutView(timeout=None)
    box: ui.Container[ui.LayoutView] = ui.Container(*items, accent_colour=colour)
    view.add_item(box)
    return view


def text_card(
    texts: Sequence[str],
    *,
    rest: str,
    buttons: Sequence[Item] = (),
) -> ui.LayoutView:
    """A card of texts in the present language, as many as have room, with a line between two of
    them, and buttons below.
    """
    items: list[Item] = []
    written = [localise(text) for text in texts if text]
    for text in fit_texts(written, localise(rest)):
        if items:
            items.append(ui.Separator())
        items.append(ui.TextDisplay(text))
    return card_layout(*items, *button_row(buttons))


def button_row(buttons: Sequence[Item]) -> list[Item]:
    """Return a row of at most five buttons; none without buttons."""
    if not buttons:
        return []
    row: ui.ActionRow[ui.LayoutView] = ui.ActionRow(*buttons)
    return [row]


def has_room(texts: Iterable[str]) -> bool:
    """Report whether a layout has room for all of the texts."""
    whole = "".join(texts)
    return len(whole) <= MAX_LAYOUT_CHARS and len(whole.encode()) <= MAX_LAYOUT_BYTES


def fit_texts(texts: Sequence[str], rest: str) -> list[str]:
    """Return the texts that a layout has room for. The first one that has none ends with a whole
    line and the `rest`, which says where to read on; later ones are left out.
    """
    if has_room(texts):
        return list(texts)
    kept: list[str] = []
    for text in texts:
        if not has_room([*kept, text, "\n", rest]):
            break
        kept.append(text)
    lines: list[str] = []
    for line in texts[len(kept)].splitlines():
        if not has_room([*kept, "\n".join([*lines, line, rest])]):
            break
        lines.append(line)
    return [*kept, "\n".join([*lines, rest])]
