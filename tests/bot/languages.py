"""A text as the bot writes it in a language."""

from bot.platform.localisation import Language, localise, override


def localised(text: str, language: Language) -> str:
    """Return a text as it is written where that language is set."""
    with override(language):
        return localise(text)
