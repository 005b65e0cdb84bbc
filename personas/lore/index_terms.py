"""Index and query terms: folding, stop words, and character pairs for scripts without spaces."""

import re
import unicodedata

LETTER_FOLDS = str.maketrans(
    {"đ": "d", "ð": "d", "ł": "l", "ø": "o", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)

UNSEGMENTED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af"
)
"""Thai, Lao, Burmese, Khmer, kana, Chinese characters and Hangul, as ranges of a regular expression."""

WORD_PATTERN = re.compile(
    rf"[{UNSEGMENTED_SCRIPTS}\U00020000-\U0003ffff]+|[^\W_{UNSEGMENTED_SCRIPTS}\U00020000-\U0003ffff]+"
)
UNSEGMENTED_PATTERN = re.compile(rf"[{UNSEGMENTED_SCRIPTS}\U00020000-\U0003ffff]+")
HIRAGANA_PATTERN = re.compile("[\u3040-\u309fー]+")

STOP_WORDS = frozenset(
    """a about after all also always am an and another any anyone are around as ask at back bad be because been before
    being best better big bit but by can could day days did do does doing done down each else enough even
    ever every everyone everything feel feels few find first for from gave get give go goes going gone good
    got great had happen happened happens has have he hello help her here hey hi him his how i if in into is
    it its just keep knew know known last late let life like little long look looking lot made make man many
    maybe me mean might more morning most much must my name need never new next night no not nothing now of
    off old on once one only or other our out over own part people place please put rather really right said
    same saw say see seem she should so some someone something still stop such sure take talk tell than
    thank thanks that the their them then there these they thing things think this those though time to
    today told tomorrow tonight too took try two until up us used very want wants was way we week well went
    were what when where whether which while who whole whose why will with without work would wrong year years yes
    yesterday yet you your""".split()
)

# Folded like `fold_text`, and without those that are meaningful English words.
VIETNAMESE_STOP_WORDS = frozenset(
    """ai anh bao bi boi cac cai chi cho co con cua cung da dang dau day de deu di do duoc em gi hay hoac khi khong
    kia la lai lam len ma mot nam nao nay neu nguoi nhe nhieu nhu nhung noi o ong qua ra rang rat roi sao se tai theo
    thi toi trong tu va vao ve vi voi vua xin chao""".split()
)

CHINESE_STOP_WORDS = frozenset(
    """什么 甚么 怎么 为什 哪里 哪儿 哪个 多少 几点 时候 我们 你们 他们
    她们 它们 这个 那个 这里 那里 这样 那样 这么 那么 是不 不是 没有 有没
    可以 一个 一下 一点 的时 因为 所以 但是 如果 已经 还是 就是 知道 觉得 现在
    今天 明天 昨天 谢谢 你好 早上 晚上 请问 告诉 诉我 的人 么样
    你的 我的 他的 她的 是什 有什 了吗 的吗 么的 個人 什麼 怎麼 為什 時候 這個 那個 沒有 麼樣 谁是 是谁""".split()
)

JAPANESE_STOP_WORDS = frozenset("何時 何処 何人 今日 明日 昨日 今何 誰か 何か 私は 私の あ行".split())


def fold_text(text: str) -> str:
    """Fold case, full-width forms and diacritics. Japanese voicing marks stay: が is not か."""
    composed = unicodedata.normalize("NFKC", text).casefold()
    folded = []
    for character in composed:
        if UNSEGMENTED_PATTERN.match(character):
            folded.append(character)
        else:
            folded += [c for c in unicodedata.normalize("NFD", character) if not unicodedata.combining(c)]
    return "".join(folded).translate(LETTER_FOLDS)


def extract_terms(text: str) -> list[str]:
    return [piece for word in WORD_PATTERN.findall(fold_text(text)) for piece in _character_pairs(word)]


def query_terms(message: str) -> list[str]:
    """Return the unique terms of a message without stop words."""
    return [word for word in dict.fromkeys(extract_terms(message)) if _is_query_term(word)]


def is_mostly_ascii(text: str) -> bool:
    """Return True if at most a tenth of the letters is non-ASCII: `personas.lore.minilm` was trained on English."""
    letters = [character for character in text if character.isalpha()]
    return bool(letters) and sum(character.isascii() for character in letters) >= 0.9 * len(letters)


def _character_pairs(word: str) -> list[str]:
    if not UNSEGMENTED_PATTERN.match(word) or len(word) == 1:
        return [word]
    return [word[position : position + 2] for position in range(len(word) - 1)]


def _is_query_term(word: str) -> bool:
    if UNSEGMENTED_PATTERN.match(word):  # hiragana writes grammar, so its pairs carry no meaning
        return (
            not (HIRAGANA_PATTERN.fullmatch(word) or word in CHINESE_STOP_WORDS or word in JAPANESE_STOP_WORDS)
            and len(word) > 1
        )
    return len(word) > 1 and word not in STOP_WORDS and word not in VIETNAMESE_STOP_WORDS
