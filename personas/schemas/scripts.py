"""The scripts that write no space between words, and those that join endings to names, as ranges of
a regular expression: the one table for lore, names and the texts of people.
"""

SPACELESS_SCRIPTS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007"
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters."""
HANGUL = "\uac00-\ud7af"
"""Korean has spaces, but particles follow a word without one."""
UNSEGMENTED_SCRIPTS = SPACELESS_SCRIPTS + HANGUL
"""Scripts in whose texts a word may stand right beside other letters."""
WORD_SIGNS = r"\p{L}\p{M}\p{N}"
"""Signs of words, for the library `regex`. Combining marks are part of their word: राम is no word of
रामायण.
"""
