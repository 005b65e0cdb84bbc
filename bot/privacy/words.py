"""What members read about their privacy: which language, and the sentences of `texts` with their gaps filled in."""

from __future__ import annotations

import discord

from bot.privacy.texts import TEXTS, Language


def language_of(locale: discord.Locale) -> Language:
    """The language to answer in, by that of the member's Discord."""
    return "vi" if locale is discord.Locale.vietnamese else "en"


def said(language: Language, key: str, **values: object) -> str:
    """A sentence in a language, with its gaps filled in."""
    return TEXTS[key][language].format(**values)


DESCRIPTIONS = {
    "What is kept about you, whether it may train, and how to have it deleted.": (
        "Những gì được lưu về bạn, có được dùng để huấn luyện không, và cách xóa."
    ),
    "See what I keep about you, for how long, and who runs me.": (
        "Xem tôi lưu gì về bạn, trong bao lâu, và ai vận hành tôi."
    ),
    "Agree that personas learn from what you write; first I explain it.": (
        "Đồng ý để nhân vật học từ những gì bạn viết; tôi sẽ giải thích trước."
    ),
    "Take your agreement back; from then on nothing you wrote is trained on.": (
        "Rút lại sự đồng ý; từ đó không có gì bạn viết được dùng để huấn luyện."
    ),
    "Get all that I keep about you as a file.": "Nhận tất cả những gì tôi lưu về bạn dưới dạng tệp.",
    "Have me forget you: messages, votes, and what was trained on them.": (
        "Yêu cầu tôi quên bạn: tin nhắn, bình chọn và những gì được huấn luyện từ đó."
    ),
}
"""Descriptions of the commands, and their Vietnamese."""


class Translator(discord.app_commands.Translator):
    """Gives Discord the Vietnamese of the commands' descriptions."""

    async def translate(
        self,
        string: discord.app_commands.locale_str,
        locale: discord.Locale,
        context: discord.app_commands.TranslationContextTypes,
    ) -> str | None:
        return DESCRIPTIONS.get(string.message) if locale is discord.Locale.vietnamese else None
