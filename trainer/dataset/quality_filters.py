"""Filters replies and conversations by content, repetition, boilerplate, length and language."""

import re
import unicodedata
from dataclasses import dataclass

from trainer.dataset.minhash import split_words
from trainer.languages import UNDECIDED, detect_language
from trainer.sources.conversation import Conversation

BOILERPLATE = re.compile(
    r"""
    \bas\ an?\ (ai|artificial\ intelligence)\b
    | \bi(\ a|['’])m\ (just\ |only\ )?(an?\ )?(ai\b|artificial\ intelligence|(large\ )?language\ model|chatgpt|gpt-?\d)
    | \bas\ a\ (large\ )?language\ model\b
    | \b(created|developed|trained)\ by\ (openai|anthropic|google\ ai)\b
    | \bmy\ knowledge\ cut-?off\b
    | \bi(['’]m|\ am)\ sorry,?\ but\ i\ (can(no|['’])t|am\ (not\ able|unable)\ to)
      \ (assist|comply|fulfill|help\ (you\ )?with)\b
    | 作为(一[个名款])?\ *(ai|人工智能|大?语言模型)
    | là\ một\ (mô\ hình\ ngôn\ ngữ|trợ\ lý\ ai|trí\ tuệ\ nhân\ tạo)
    | \bcomo\ (un\ )?modelo\ de\ (lenguaje|linguagem)\b
    | \ben\ tant\ qu['’](ia\b|intelligence\ artificielle|assistant\ ia\b)
    | \bals\ (ki|künstliche\ intelligenz)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
BOILERPLATE_HINTS = (
    " "
    "ai", "artificial", "language model", "gpt", "openai", "anthropic", "knowledge", "sorry", "为ai", "为 ai", "模型",
    "人工智能", "mô hình", "trợ lý", "trí tuệ", "modelo de", "en tant qu", "als k",
)  # fmt: skip
"""Substrings of all boilerplate, which are found twenty times as fast."""
MIN_REPETITION_WORDS = 24
MIN_DISTINCT_WORD_SHARE = 0.5
"""Minimum share of distinct three-word sequences in a long reply; below it, it is repetitive."""
REPEATED_CHARACTER = re.compile(r"(\S)\1{39}")


@dataclass(frozen=True)
class QualityFilters:
    """Filter settings. `languages` are codes such as `en`, empty for all; lengths are in words of a
    reply.
    """

    languages: tuple[str, ...] = ()
    min_reply_words: int = 0
    max_reply_words: int = 1_000_000

    def reply_fault(self, text: str) -> str:
        """Return the reason why a reply is filtered, or an empty string."""
        words = split_words(text)
        if not (words or _has_content(text)):
            return "reply without a word"
        if len(words) < self.min_reply_words:
            return "reply too short"
        if len(words) > self.max_reply_words:
            return "reply too long"
        folded = text.casefold()
        if any(sign in folded for sign in BOILERPLATE_HINTS) and BOILERPLATE.search(folded):
            return "boilerplate"
        if REPEATED_CHARACTER.search(text) or _is_repetitive(words):
            return "repetition"
        return ""

    def language_fault(self, conversation: Conversation) -> str:
        """Return the reason why a conversation's language is filtered; empty if it passes or is
        undecided.
        """
        if not self.languages:
            return ""
        # Of a code such as zh-Hans, the language alone.
        language = conversation.lang.replace("_", "-").split("-")[0].lower()
        if not language:
            language = detect_language("\n".join(message.text for message in conversation.messages))
        if language in (*self.languages, UNDECIDED):
            return ""
        return f"language: {language}"


def _has_content(text: str) -> bool:
    """Report letters, digits or emoji: an answer without words can still be one."""
    return any(unicodedata.category(character) in ("So", "Sk", "Sm", "No") for character in text)


def _is_repetitive(words: list[str]) -> bool:
    if len(words) < MIN_REPETITION_WORDS:
        return False
    sequences = set(zip(words, words[1:], words[2:], strict=False))
    return len(sequences) < MIN_DISTINCT_WORD_SHARE * (len(words) - 2)
