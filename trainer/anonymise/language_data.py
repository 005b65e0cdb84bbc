"""Character classes, word lists, titles and surnames of the languages the anonymiser knows."""

import re
import unicodedata
from functools import lru_cache

from trainer.anonymise.crf_ner.gazetteer import LISTS_FOLDER, read_list
from trainer.languages import detect_language

WORD_START = r"(?<![A-Za-z0-9])"
UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0102\u0110\u01a0\u01af\u1e00-\u1eff"
LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
"""Latin letters with all diacritics, for a character class."""
CJK = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Chinese characters, kana and hangul, for a character class."""
IS_CJK = re.compile(f"[{CJK}]")
SPACELESS = f"{CJK}\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"
"""Letters and marks of scripts without spaces between words, for a character class: with the above,
Thai, Lao, Tibetan, Burmese and Khmer.
"""
MARKS = "".join(
    sign for sign in map(chr, range(0x300, 0x10000)) if unicodedata.category(sign) in ("Mn", "Mc")
)
"""Combining marks and vowel signs, for a character class."""
HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
QUOTE_MARKS = re.compile(r"^(?:[ \t]{0,3}>)+(?=[ \t\w])", re.MULTILINE)


def read_words(group: str) -> frozenset[str]:
    """Read the words of a group in rules.txt."""
    found: set[str] = set()
    for name, words in read_list(LISTS_FOLDER / "rules.txt"):
        if name == group:
            found.update(words)
    return frozenset(found)


ENGLISH_WORDS = read_words("english")
VIETNAMESE_WORDS = read_words("vietnamese")
CJK_WORDS = read_words("cjk")
CJK_SURNAMES = read_words("cjk-surname")
ORDINALS = r"I[IV]|III|VI{1,3}|[JS]r\.?|[JS]nr\.?"
"""Ordinals after a name: Walter Prescott III."""
ARTICLES = "the a an some no this my your his our their these those any every each".split()
DETERMINERS = [*ARTICLES, *"i you he she it we they to".split()]
"""Words that precede common nouns, and rarely names."""
LATIN_TITLES = re.compile(
    r"(?:^|[^a-zà-ỹ])(?:anh|chị|em|cô|chú|bác|ông|bà|thầy|bạn|dì|cậu|mợ|cụ|bé|mr|mrs|ms|miss|mx|dr|prof|sir|madam|"
    r"uncle|aunt|auntie|cousin|hey|hi|hello|yo|chào|cảm ơn|cám ơn|thanks|ping|cc|dear)\.?\s$"
)
VOCATIVES = re.compile(r"\s(?:ơi|à|nè|nhé|ạ|oi|ui)(?![a-zà-ỹ])|['’]s(?![a-z])")
HONORIFICS = re.compile(
    "さん|くん|君|ちゃん|様|さま|氏|先輩|先生|殿|たん|っち|哥|姐|总|總|老师|老師|先生|女士|小姐|同学|同學|师傅|叔|阿姨|"
    "大哥|大姐|妹妹|弟弟|兄|桑|酱|醬|씨|님"
)
TITLES_BEFORE = re.compile(
    "(?:คุณ|พี่|น้อง|นาย|นาง|นางสาว|ครู|หมอ|ลุง|ป้า|น้า|ນາງ|ທ້າວ|លោក|អ្នក|បង|ဦး|ဒေါ်|ကို) ?$"
)
"""Titles before Thai, Lao, Khmer and Burmese names."""
PARTICLES = re.compile(
    "[はがをにのともへでやねよかっ、。！？!?,.\\s]|です|だ|から|まで|より|って|$"
)


@lru_cache(maxsize=1)
def language_of(text: str) -> str:
    """Return the language code of a text, about which several rules ask one after the other."""
    return detect_language(text)


def blank_quote_marks(text: str) -> str:
    """Replace the marks `>` before quoted lines by spaces: an address goes on behind them. The
    length stays.
    """
    return QUOTE_MARKS.sub(lambda marks: " " * len(marks[0]), text) if ">" in text else text


def text_before(text: str, position: int, length: int) -> str:
    """Return the text before a position in lower case."""
    return text[max(0, position - length) : position].lower()
