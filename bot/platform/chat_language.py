"""The words of chats in `data/languages/chat.toml`, and which of them stand in most messages."""

import tomllib
from functools import cache

from personas.schemas.chat import fold_name
from personas.shipped_folders import SHIPPED_DATA

WORDS_FILE = SHIPPED_DATA / "languages" / "chat.toml"


@cache
def chat_words() -> dict[str, list[str]]:
    """Read the lists of words, by what they are."""
    with WORDS_FILE.open("rb") as file:
        return tomllib.load(file)


def is_common_word(name: str) -> bool:
    """Report whether a name stands in most messages, whoever they are for, such as "you"."""
    folded = fold_name(name)
    return folded in chat_words()["common"] or folded in chat_words()["articles"]
